"""``fleet-server apply``, against a served fleet: a plan, changes in their order, and what stops them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from server.cli import main
from server.client import DeviceInfo, FleetClient
from server.clock import system_now_ms
from server.declared import carry_out
from server.declared.plan import Change
from tests.server.conftest import publish_bytes
from wire.messages import DeviceState, State

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

FILE = """
format = 1
[users.ada]
role = "approver"
[devices.cam-1]
title = "Gate, north"
tags = ["night", "hall"]
muted = true
[devices.cam-2]
tags = ["night"]
[[rollouts]]
release = "m-1"
scope.tags = ["night"]
canary = 1
max_bytes_per_s = 20000
deadline_s = 700000
window = { start = "22:00", end = "05:00", days = ["sat"], time_zone = "Europe/Berlin" }
shadow = { seconds = 60, max_ratio = 0.5 }
"""


def call(*words: object, given: str = "") -> Result:
    """Run a command."""
    return CliRunner().invoke(main, [str(word) for word in words], input=given)


@pytest.fixture(autouse=True)
def afar(fleet: MemoryFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served fleet of two devices, a release and a user; an admin's token in the environment."""
    fleet.clock.now_ms = system_now_ms()
    cheap = "[access]\npassword_memory_kib = 64\npassword_passes = 1\n"
    fleet.state.config.write_text(fleet.state.config.read_text(encoding="utf-8") + cheap, encoding="utf-8")
    fleet.restart()
    for name in ("cam-1", "cam-2"):
        fleet.enrol(name).say("state", State(state=DeviceState.READY), retain=True)
    publish_bytes(fleet.app.parts.versions, "m")
    fleet.turn()
    fleet.app.web.start()
    call("users", "add", fleet.state.path, "ada", "--role", "viewer", given="a long enough password")
    token = tmp_path / "admin.token"
    token.touch(mode=0o600)
    token.write_text(call("tokens", "issue", fleet.state.path, "boss", "--role", "admin").stdout, encoding="utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("TINYFLEET_SERVER", fleet.app.http_url)
    monkeypatch.setenv("TINYFLEET_TOKEN_FILE", str(token))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The wanted state."""
    path = tmp_path / "fleet.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def planned(*words: object) -> list[tuple[str, str, str]]:
    """Return action, name and key of each planned change."""
    rows = json.loads(call("apply", *words, "--dry-run", "--json").stdout)
    return [(row["action"], row["name"], row["key"]) for row in rows]


def test_a_plan_changes_nothing_and_says_so_by_its_exit_code(file: Path, fleet: MemoryFleet) -> None:
    """2 while something would change, 0 after it."""
    assert planned(file) == [
        ("change", "ada", "role"), ("add", "cam-1", "title"), ("add", "cam-1", "tags"), ("change", "cam-1", "muted"),
        ("add", "cam-2", "tags"), ("create", "m-1", "scope"),
    ]  # fmt: skip
    assert call("apply", file, "--dry-run").exit_code == 2
    assert fleet.app.parts.fleet.device("cam-1").tags == ()
    assert call("apply", file, given="n\n").exit_code == 1
    assert call("apply", file, "--yes").exit_code == 0
    assert (call("apply", file, "--dry-run").exit_code, planned(file)) == (0, [])


def test_what_is_applied_is_there_once(file: Path, fleet: MemoryFleet) -> None:
    """Applying again changes nothing, beside a rollout that runs too."""
    assert call("apply", file, "--yes").exit_code == 0
    device = fleet.app.parts.fleet.device("cam-1")
    assert (device.title, device.tags, device.muted_ms > 0) == ("Gate, north", ("hall", "night"), True)
    (made,) = json.loads(call("rollouts", "list", "--json").stdout)
    assert (made["release"], made["scope"], made["phase"]) == ("m-1", "tagged night", "awaiting_approval")
    assert call("rollouts", "approve", made["id"], "--yes").exit_code == 0
    done = call("apply", file, "--yes")
    assert (done.exit_code, done.stderr) == (0, "nothing to change\n")
    assert len(json.loads(call("rollouts", "list", "--json").stdout)) == 1


def test_applying_goes_on_where_it_was_killed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each change: the next run plans the rest."""

    def killed(self: list[Change], change: Change) -> None:
        raise KeyboardInterrupt(str((self, change)))

    whole = carry_out.carry_out

    def dies(*given: Any, done: object, **more: Any) -> None:  # noqa: ANN401, ARG001 - passed on
        whole(*given, done=partial(killed, []), **more)

    with monkeypatch.context() as patched:
        patched.setattr("server.cli.apply.carry_out", dies)
        for left in range(5, 0, -1):
            assert call("apply", file, "--yes").exit_code == 1
            assert len(planned(file)) == left
    assert call("apply", file, "--yes").stderr == "done 1 of 1\n"


def test_another_operator_s_change_stops_it(file: Path, fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done stays and is named; the other's change stays too."""
    ask, asked = FleetClient.device, []

    def meanwhile(self: FleetClient, device: str) -> DeviceInfo:
        asked.append(device)
        if len(asked) == 3:  # the plan is made and agreed to
            fleet.client().post("/api/devices/cam-1/title", json={"title": "Door"})
        return ask(self, device)

    monkeypatch.setattr(FleetClient, "device", meanwhile)
    done = call("apply", file, "--yes")
    assert (done.exit_code, "error [plan_stale]" in done.stderr) == (1, True)
    assert "done 1 of 6: change user ada role\nnot done: add device cam-1 title; " in done.stderr
    assert fleet.app.parts.fleet.device("cam-1").title == "Door"


def test_what_the_file_does_not_name_stays_without_prune(tmp_path: Path, fleet: MemoryFleet) -> None:
    """Tags, names and mutes; users and rollouts in any case."""
    call("devices", "tag", "cam-1", "old")
    call("devices", "rename", "cam-2", "Mine")
    file = tmp_path / "fleet.toml"
    file.write_text('format = 1\n[devices.cam-1]\ntags = ["new"]\n', encoding="utf-8")
    assert planned(file) == [("add", "cam-1", "tags")]
    assert planned(file, "--prune") == [
        ("add", "cam-1", "tags"),
        ("remove", "cam-1", "tags"),
        ("remove", "cam-2", "title"),
    ]
    assert call("apply", file, "--yes", "--prune").exit_code == 0
    assert fleet.app.parts.fleet.device("cam-1").tags == ("new",)
    assert fleet.app.parts.fleet.device("cam-2").title == ""


def test_a_file_does_not_overrule_who_aborted_or_went_on(file: Path, fleet: MemoryFleet) -> None:
    """Neither an aborted rollout nor an older release comes back, unless it is said."""
    call("apply", file, "--yes")
    (made,) = json.loads(call("rollouts", "list", "--json").stdout)
    call("rollouts", "abort", made["id"], "--yes")
    assert "(aborting): wait for its end" in call("apply", file, "--yes").stderr
    for _ in range(2):  # its devices are set back, then it is over
        fleet.clock.now_ms += 60_000
        fleet.turn()
    done = call("apply", file, "--yes")
    assert (done.exit_code, "error [plan_refused]" in done.stderr, "--again creates" in done.stderr) == (1, True, True)
    assert call("apply", file, "--yes", "--again").exit_code == 0
    assert len(json.loads(call("rollouts", "list", "--json").stdout)) == 2


@pytest.mark.parametrize(("text", "said"), [
    ("format = 1\n[device.cam-1]\n", "did you mean 'devices'"),
    ("format = 1\n[devices.cam-1]\ntag = []\n", "devices cam-1 one of title, tags, muted, got 'tag'"),
    ("format = 1\n[devices.cam-1]\ntags = 'night'\n", "devices cam-1 tags to be a list of text"),
    ('format = 1\n[devices.cam-1]\ntitle = "a\\u001b[31m"\n', "printable characters in devices.cam-1.title"),
    ('format = 1\n[devices.cam-1]\ntags = ["a", "b\\u0007"]\n', "printable characters in devices.cam-1.tags"),
    ('format = 1\n[devices."a\\u0000"]\n', "printable characters in devices"),
    (f"format = 1\n[devices.cam-1]\ntitle = '{'x' * 101}'\n", "title of at most 100 characters"),
    ("format = 1\n[users.ada]\nrole = 'boss'\n", "users ada role to be viewer or"),
    ("format = 2\n", "format"), ("", "format"), ("format = 1\nx = \n", "line 2"),
    ("format = 1\n[devices.cam-9]\ntitle = 'x'\n", "Expected the device cam-9, got none in this fleet"),
    ("format = 1\n[users.eve]\nenabled = false\n", "fleet-server users add eve"),
    ("format = 1\n[[rollouts]]\nrelease = 'n-1'\n", "Expected the published release n-1"),
    ("format = 1\n[[rollouts]]\nrelease = 'm-1'\n[[rollouts]]\nrelease = 'm-1'\n", "once for a scope"),
])  # fmt: skip
def test_a_file_that_can_not_be_is_refused_whole(tmp_path: Path, text: str, said: str) -> None:
    """With the key, and before anything is changed."""
    file = tmp_path / "fleet.toml"
    file.write_text(text, encoding="utf-8")
    done = call("apply", file, "--yes")
    assert (done.exit_code, said in done.stderr) == (1, True), done.stderr


def test_an_exported_file_wants_what_there_is(file: Path, tmp_path: Path) -> None:
    """Applied again it changes nothing; without an admin's token it has no users."""
    call("apply", file, "--yes")
    call("devices", "rename", "cam-2", 'a "b" \\ \x7f é')
    out = tmp_path / "out.toml"
    out.write_text(call("apply", "--export").stdout, encoding="utf-8")
    assert "[users.ada]" in out.read_text(encoding="utf-8")
    assert (planned(out), planned(out, "--prune")) == ([], [])
