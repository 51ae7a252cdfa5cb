"""Commands from another host: the same output as beside the server, and errors with a next step and a code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from server.access.audit_log import AuditLog
from server.app.state_directory import RunAddress
from server.cli import main
from server.clock import system_now_ms
from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from tests.server.conftest import publish_bytes
from wire.messages import DeviceState, Severity, State

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

PASSWORD = "a long enough password"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No login and no variable of whoever runs the tests."""
    for name in ("SERVER", "TOKEN_FILE", "CA_FILE"):
        monkeypatch.delenv(f"TINYFLEET_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    return tmp_path / "settings" / "tinyfleet"


def call(*words: object, given: str = "") -> Result:
    """Run a command with ``given`` on standard input."""
    return CliRunner().invoke(main, [str(word) for word in words], input=given)


def private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def admin(fleet: MemoryFleet, tmp_path: Path) -> Path:
    """A served fleet of two devices, a release, a rollout, a verdict and events; the file of an admin's token."""
    fleet.clock.now_ms = system_now_ms()
    cheap = "[access]\npassword_memory_kib = 64\npassword_passes = 1\n"
    fleet.state.config.write_text(fleet.state.config.read_text(encoding="utf-8") + cheap, encoding="utf-8")
    fleet.restart()
    for name in ("cam-1", "cam-2"):
        fleet.enrol(name).say("state", State(state=DeviceState.READY), retain=True)
    publish_bytes(fleet.app.parts.versions, "m")
    found = DriftVerdict(kind=VerdictKind.SITE, devices=("cam-1", "cam-2"), attributes=(("site", "berlin"),))
    finding = Finding(verdict=found, cause="darker", release="m-1", model="m")
    fleet.app.parts.drift.verdicts.note([finding], 50, 55, quiet_ms=20, judged=True)
    data = {"payload": "aGVsbG8=", "topic": "t", "bytes": 5}
    fleet.app.parts.events.add(7, "ingest", "garbage", Severity.WARNING, "no\tsuch", device="cam-1", data=data)
    fleet.turn()
    fleet.app.web.start()
    address = RunAddress(http_url=fleet.app.http_url, mqtt_host="127.0.0.1", mqtt_port=1, pid=1)
    fleet.state.write_address(address)
    call("users", "add", fleet.state.path, "ada", "--role", "approver", given=PASSWORD)
    secret = call("tokens", "issue", fleet.state.path, "boss", "--role", "admin").stdout
    return private(tmp_path / "admin.token", secret)


LISTS = (
    "devices list", "devices list --json", "devices list --search 2 --json", "devices list --ended --json",
    "releases list --json", "releases list", "verdicts list --json", "verdicts list --open", "events --json",
    "events --limit 2 --json", "events --after 1 --limit 2 --json", "refused --json", "commissions --json",
    "places list --json", "users list --json", "tokens list", "rollouts list --json", "rollouts list", "audit export",
    "audit verify", "audit head", "devices list --retired", "drift explore --json", "alerts list --json", "audit list",
)  # fmt: skip


def rows(done: Result) -> list[object]:
    """Return the rows of JSON, or the lines."""
    if done.stdout.startswith("["):
        return list(json.loads(done.stdout))
    return [json.loads(line) if line.startswith("{") else line for line in done.stdout.splitlines()]


def test_every_list_is_the_same_from_another_host(admin: Path, fleet: MemoryFleet) -> None:
    """Each field, on both ways to ask."""
    call("rollouts", "create", fleet.state.path, "m-1", "--device", "cam-1", "--canary", 1, "--approve")
    fleet.turn()
    call("devices", "commission", fleet.state.path, "cam-1", "--why", "lens")
    afar = ("--server", fleet.app.http_url, "--token-file", admin)
    for line in LISTS:
        group, *words = line.split()
        at = 1 if words and not words[0].startswith("-") else 0
        here = call(group, *words[:at], fleet.state.path, *words[at:])
        there = call(group, *words, *afar)
        assert (line, there.exit_code, *rows(there)) == (line, here.exit_code, *rows(here))
        assert here.exit_code == 0, here.output


def test_a_rollout_is_shown_the_same(admin: Path, fleet: MemoryFleet) -> None:
    """Lines, groups and devices."""
    made = call("rollouts", "create", fleet.state.path, "m-1", "--device", "cam-1", "--device", "cam-2", "--approve")
    name = made.stdout.split()[0]
    fleet.turn()
    afar = ("--server", fleet.app.http_url, "--token-file", admin)
    for way in ((), ("--json",)):
        here, there = (
            call("rollouts", "show", fleet.state.path, name, *way),
            call("rollouts", "show", name, *way, *afar),
        )
        assert (there.exit_code, *rows(there)) == (0, *rows(here))


def test_a_login_serves_all_commands(admin: Path, fleet: MemoryFleet, settings: Path) -> None:
    """The token is kept where only its owner can read it; a directory as the first argument still counts."""
    assert call("login", fleet.app.http_url, given=admin.read_text(encoding="utf-8")).exit_code == 0
    assert {path.stat().st_mode & 0o777 for path in settings.iterdir()} == {0o600}
    assert settings.stat().st_mode & 0o777 == 0o700
    who = json.loads(call("whoami", "--json").stdout)[0]
    assert (who["server"], who["account"], who["role"]) == (fleet.app.http_url, "boss", "admin")
    assert call("devices", "tag", "cam-1", "night", "hall").stdout == "hall\nnight\n"
    assert call("devices").stdout == call("devices", fleet.state.path).stdout
    assert json.loads(call("whoami", fleet.state.path, "--json").stdout)[0]["account"] == "operator"
    assert call("logout").exit_code == 0
    assert (call("devices", "list").exit_code, [*settings.glob("*.token")]) == (2, [])


def test_a_login_at_no_server_has_its_code() -> None:
    """As every other command has it."""
    assert call("login", "http://127.0.0.1:9", given="tft_x\n").exit_code == 3


def test_a_wrong_token_is_not_kept(admin: Path, fleet: MemoryFleet, settings: Path) -> None:
    """A login that failed leaves nothing, and the one before stays."""
    call("login", fleet.app.http_url, given=admin.read_text(encoding="utf-8"))
    done = call("login", fleet.app.http_url, given="tft_wrong\n")
    assert (done.exit_code, "error [unauthorized]" in done.stderr) == (5, True)
    assert call("whoami").exit_code == 0
    assert [*settings.glob("*.new")] == []


def test_the_environment_names_the_server(admin: Path, fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person of a personal token signs as herself; ``--by`` of another is refused."""
    file = private(admin.with_name("ada.token"), "")
    issued = call("tokens", "issue", fleet.state.path, "note", "--user", "ada", "--role", "approver").stdout
    file.write_text(issued, encoding="utf-8")
    monkeypatch.setenv("TINYFLEET_SERVER", fleet.app.http_url)
    monkeypatch.setenv("TINYFLEET_TOKEN_FILE", str(file))
    assert call("devices", "rename", "cam-1", "Gate").stdout == "cam-1\tGate\n"
    assert call("devices", "rename", "cam-1", "Gate", "--by", "bob").exit_code == 6
    (named,) = [one for one in AuditLog(fleet.app.parts.database).latest(9) if one.account == "ada"]
    assert (named.account, named.said) == ("ada", "")


@pytest.mark.parametrize(("words", "code", "said"), [
    (("devices", "list", "--server", "http://127.0.0.1:9"), 3, "the address is from --server"),
    (("devices", "list", "--server", "http://fleet.example.org"), 1, "Expected https"),
    (("devices", "list", "--server", "fleet.example.org"), 1, "Expected an address as https://HOST:PORT"),
    (("devices", "list", "--server", "https://ada:secret@h"), 1, "https://HOST:PORT, got 'h' with a name before it"),
    (("backup", "to", "--server", "http://127.0.0.1:9"), 2, "backup works on the server's own machine only"),
    (("run", "--server=http://127.0.0.1:9"), 2, "run works on the server's own machine only"),
    (("devices", "list"), 2, "Expected DIR, --server URL, TINYFLEET_SERVER or a fleet-server login"),
])  # fmt: skip
def test_what_can_not_work_says_what_would(tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    """With a code that scripts can tell apart."""
    token = private(tmp_path / "token", "tft_x")
    given = (*words, "--token-file", token) if words[0] == "devices" and len(words) > 2 else words
    done = call(*given)
    assert (done.exit_code, said in done.stderr, "secret" in done.stderr) == (code, True, False), done.stderr


def test_no_token_a_wrong_one_and_a_role_that_does_not_suffice(admin: Path, fleet: MemoryFleet) -> None:
    """5, 5 and 6; nothing is changed."""
    server = ("--server", fleet.app.http_url)
    assert call("devices", "list", *server).exit_code == 5
    wrong = private(admin.with_name("wrong"), "tft_wrong")
    done = call("devices", "list", *server, "--token-file", wrong)
    assert (done.exit_code, f"fleet-server login {fleet.app.http_url}" in done.stderr) == (5, True)
    secret = call("tokens", "issue", fleet.state.path, "eye", "--role", "viewer").stdout
    viewer = private(admin.with_name("viewer"), secret)
    assert call("devices", "tag", "cam-1", "x", *server, "--token-file", viewer).exit_code == 6
    assert fleet.app.parts.fleet.device("cam-1").tags == ()


def test_a_token_that_others_can_read_is_refused(admin: Path, fleet: MemoryFleet) -> None:
    """Before it is sent."""
    admin.chmod(0o640)
    done = call("devices", "list", "--server", fleet.app.http_url, "--token-file", admin)
    assert (done.exit_code, "chmod 600" in done.stderr) == (1, True)


def test_a_directory_and_an_address_together_are_refused(admin: Path, fleet: MemoryFleet) -> None:
    """Otherwise DIR would be taken for a device."""
    done = call("devices", "revoke", fleet.state.path, "--server", fleet.app.http_url, "--token-file", admin)
    assert (done.exit_code, "Expected DIR or --server, one of them" in done.stderr) == (2, True)


def test_a_server_without_the_request_is_older(
    admin: Path, fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 404 without a thing that is missing."""
    monkeypatch.setattr("server.cli.afar.part", lambda name: f"{name}/none")
    afar = ("--server", fleet.app.http_url, "--token-file", admin)
    done = call("devices", "tag", "cam-1", "x", *afar)
    assert (done.exit_code, "the server is older than this command" in done.stderr) == (7, True)


def test_a_token_file_beside_a_directory_acts_under_its_account(admin: Path, fleet: MemoryFleet) -> None:
    """Over the server that runs there."""
    assert call("devices", "tag", fleet.state.path, "cam-1", "x", "--token-file", admin).stdout == "x\n"
    assert AuditLog(fleet.app.parts.database).latest(1)[0].account == "boss"
