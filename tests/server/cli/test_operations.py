"""Whatever the API offers to people has a command, which works from any host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx
import pytest
from click.testing import CliRunner

from server.cli import main
from server.cli.place import AnyHost
from server.client import FleetClient
from tests.server.conftest import publish_bytes

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

COMMANDS: Mapping[str, str] = {
    "GET /api/health": "status",
    "GET /api/overall": "overall",
    "GET /api/overall/{signal}": "overall --signal lost",
    "POST /api/claims": "claim --site north --device cam-9",
    "GET /api/devices": "devices list",
    "GET /api/devices/{device}": "devices show cam-1",
    "GET /api/devices/{device}/ran": "devices ran cam-1 --at-ms 5",
    "POST /api/devices/{device}/commands": "devices command cam-1 selftest --wait 1",
    "GET /api/devices/{device}/commands/{command_id}": "devices command cam-1 selftest --wait 1",
    "POST /api/devices/{device}/mute": "devices mute cam-1 --for 4h",
    "POST /api/devices/{device}/unmute": "devices unmute cam-1",
    "GET /api/lineage": "lineage release m-1",
    "GET /api/lineage/devices": "lineage devices --release m-1",
    "GET /api/lineage/samples": "lineage samples abc",
    "GET /api/search": "search gate",
    "GET /api/software": "software list",
    "GET /api/software/devices": "software find numpy",
    "GET /api/devices/{device}/software": "software show cam-1",
    "GET /api/devices/{device}/software/runs": "software runs cam-1",
    "POST /api/devices/{device}/revoke": "devices revoke cam-x",
    "POST /api/devices/{device}/retire": "devices retire cam-x",
    "GET /api/drift/map": "drift explore",
    "POST /api/devices/{device}/remove": "devices remove cam-x",
    "POST /api/devices/{device}/tags": "devices tag cam-1 night",
    "POST /api/devices/{device}/title": "devices rename cam-1 Gate",
    "GET /api/devices/{device}/telemetry": "devices telemetry cam-1",
    "GET /api/devices/{device}/history": "devices history cam-1",
    "GET /api/devices/{device}/usage": "devices usage cam-1",
    "POST /api/devices/{device}/commission": "devices commission cam-1 --why lens",
    "POST /api/commissions": "devices commission --attribute site=north --why lamps --yes",
    "GET /api/commissions": "commissions",
    "GET /api/releases": "releases list",
    "GET /api/releases/{name}": "releases show m-1",
    "POST /api/releases/{name}/withdraw": "releases withdraw m-1",
    "GET /api/events": "events",
    "GET /api/rollouts": "rollouts list",
    "POST /api/rollouts": "rollouts create m-1",
    "GET /api/rollouts/{rollout}": "rollouts show 3f2a",
    "GET /api/rollouts/{rollout}/members": "rollouts members 3f2a",
    "POST /api/rollouts/{rollout}/approve": "rollouts approve ROLLOUT --yes",
    "POST /api/rollouts/{rollout}/pause": "rollouts pause ROLLOUT --yes",
    "GET /api/rollouts/{rollout}/foresight": "rollouts pause ROLLOUT --yes",
    "POST /api/rollouts/{rollout}/resume": "rollouts resume ROLLOUT --yes",
    "POST /api/rollouts/{rollout}/skip": "rollouts skip-group ROLLOUT --group canary --by ada --yes",
    "POST /api/rollouts/{rollout}/abort": "rollouts abort ROLLOUT --yes",
    "GET /api/samples": "samples list",
    "GET /api/samples/{sample}/image": "samples image 1 -",
    "PUT /api/samples/{sample}/label": "samples label 1 cat",
    "GET /api/samples/{sample}/changes": "samples changes 1",
    "PUT /api/samples/{sample}/mark": "samples mark 1 broken",
    "POST /api/samples/{sample}/take-back": "samples take-back 1",
    "GET /api/labels/export": "samples export digits -",
    "POST /api/labels/import": "labels import - --yes",
    "GET /api/labels/review": "samples review digits",
    "GET /api/audit": "audit list",
    "POST /api/audit/{device}": "audit ask cam-1",
    "GET /api/jobs": "jobs",
    "GET /api/retraining": "retraining list",
    "POST /api/retraining/{trigger}/approve": "retraining approve 1",
    "POST /api/retraining/{trigger}/withdraw": "retraining withdraw 1",
    "GET /api/evidence": "evidence",
    "GET /api/pools": "pools",
    "GET /api/verdicts": "verdicts list",
    "GET /api/verdicts/{verdict}/replay": "verdicts replay 1",
    "POST /api/verdicts/{verdict}/dismiss": "verdicts dismiss 1 --why lamps",
    "GET /api/places": "places list",
    "POST /api/places/{device}/accept": "places accept cam-1",
    "POST /api/places/{device}/withdraw": "places withdraw cam-1",
    "GET /api/alerts": "alerts list",
    "GET /api/alerts/routes": "alerts routes",
    "GET /api/alerts/{alert}": "alerts show 1",
    "GET /api/alerts/{alert}/picture": "alerts picture 1 -",
    "POST /api/alerts/{alert}/acknowledge": "alerts ack 1",
    "POST /api/alerts/{alert}/take": "alerts take 1",
    "POST /api/alerts/{alert}/snooze": "alerts snooze 1 --for 1h",
    "POST /api/alerts/{alert}/resolve": "alerts resolve 1 --note done",
    "POST /api/alerts/{alert}/note": "alerts note 1 --note seen",
    "GET /api/me": "whoami",
    "GET /api/users": "users list",
    "POST /api/users": "users add bob --role viewer",
    "POST /api/users/{name}/role": "users role bob --role viewer",
    "POST /api/users/{name}/password": "users password bob",
    "POST /api/users/{name}/disable": "users disable bob",
    "POST /api/users/{name}/enable": "users enable bob",
    "POST /api/users/{name}/log-out": "users log-out bob",
    "GET /api/tokens": "tokens list",
    "POST /api/tokens": "tokens issue eye --role viewer",
    "POST /api/tokens/{token}/revoke": "tokens revoke abc",
    "GET /api/acts": "audit export",
}
"""The command that sends each operation."""
WITHOUT: Mapping[str, str] = {
    "GET /api/ready": "for load balancers and systemd: status has all of it",
    "GET /api/enrol": "devices enrol themselves: edge-agent enrol",
    "POST /api/enrol": "devices enrol themselves: edge-agent enrol",
    "GET /metrics": "for Prometheus: fleet-server prometheus writes its settings",
    "GET /tuf/{name}": "for devices",
}
"""Operations without a command, each with the reason; those of builders and devices alone are not looked at."""
OTHERS = {"build", "device", "device with a certificate", "device, view or build"}


def _operations(api: Mapping[str, Any]) -> set[str]:
    return {
        f"{verb.upper()} {path}"
        for path, calls in api["paths"].items()
        for verb, call in calls.items()
        if call["x-needs"] not in OTHERS
    }


def test_every_operation_of_people_has_a_command_or_a_reason(fleet: MemoryFleet) -> None:
    """A new route fails here until it has one of the two, and a route that went takes its line with it."""
    found = _operations(fleet.app.web.api.openapi())
    assert found - set(COMMANDS) - set(WITHOUT) == set()
    assert (set(COMMANDS) | set(WITHOUT)) - found == set()
    assert set(COMMANDS) & set(WITHOUT) == set()


LOCAL = {
    "init", "run", "ingest", "migrate", "backup", "restore", "trust", "prometheus", "releases export", "alerts test",
}  # fmt: skip
"""Commands on files of the server; the help of ``fleet-server`` and ``docs/how-to/from-any-host.md`` name them."""


def _commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def test_every_command_with_a_directory_works_from_any_host_or_says_why_not() -> None:
    """A new command fails here until it has ``@PLACE``, ``@afar`` or a place among the local ones."""
    found = dict(_commands(main))
    with_directory = {name for name, one in found.items() if any(item.name == "directory" for item in one.params)}
    assert {name for name in with_directory if not isinstance(found[name], AnyHost)} == set()
    local = {
        name for name in with_directory if isinstance(one := found[name], AnyHost) and not (one.takes_place or one.afar)
    }
    assert local == LOCAL
    assert [name for name in LOCAL if name.split()[-1] not in (main.help or "")] == []


def test_each_command_sends_its_operation(fleet: MemoryFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a server on another host; what it answers is tested elsewhere."""
    sent: list[str] = []
    ask = FleetClient._ask

    def spy(self: FleetClient, verb: str, path: str, *rest: Any, **more: Any) -> httpx.Response:  # noqa: ANN401
        sent.append(f"{verb} {path}")
        if path.endswith("/foresight"):  # an act is sent only if it can be done
            return httpx.Response(200, json={"text": "", "assigns": []})
        return ask(self, verb, path, *rest, **more)

    monkeypatch.setattr(FleetClient, "_ask", spy)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    for name in ("cam-1", "cam-2"):
        fleet.enrol(name)
    publish_bytes(fleet.app.parts.versions, "m")
    fleet.turn()
    fleet.app.web.start()
    token = tmp_path / "admin.token"
    token.touch(mode=0o600)
    issued = CliRunner().invoke(main, ["tokens", "issue", str(fleet.state.path), "boss", "--role", "admin"])
    token.write_text(issued.stdout)
    monkeypatch.setenv("TINYFLEET_SERVER", fleet.app.http_url)
    monkeypatch.setenv("TINYFLEET_TOKEN_FILE", str(token))
    made = CliRunner().invoke(main, ["rollouts", "create", "m-1", "--device", "cam-1", "--move"])
    missing = {}
    for operation, line in COMMANDS.items():
        sent.clear()
        words = shlex.split(line.replace("ROLLOUT", made.stdout.split()[0]))
        done = CliRunner().invoke(main, words, input="a long enough password\n")
        form = re.compile(re.sub(r"\{[a-z_]+\}", "[^/]+", operation) + "$")
        if not any(map(form.match, sent)) or done.exit_code == 2:
            missing[operation] = (sent[:], done.output)
    assert missing == {}
