"""A disk that is really full: the server reports it, keeps running, and recovers when there is room."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from compressor.release.keys import init_keys
from server.app.state_directory import StateDirectory, init_state
from server.cli import main
from server.config import HealthConfig
from server.trust.online_keys import init_online_keys
from server.trust.roots import install_root
from wire.canonical import sha256_hex

if TYPE_CHECKING:
    from conftest import MemoryFleet

DISK_BYTES = 4 * 1024 * 1024
CHECK_MS = 15_000


@pytest.fixture
def state(small_disk: Path) -> StateDirectory:
    """A state directory on a disk of 4 MiB."""
    made = init_state(small_disk / "state")
    init_online_keys(made.path)
    install_root(made.path, init_keys(small_disk.parent / "offline", made.path / "online.pub.json"))
    return made


def test_a_full_disk_is_told_and_over_when_there_is_room(fleet: MemoryFleet, small_disk: Path) -> None:
    """503 with a text; messages of devices are acknowledged only once they are stored, and nothing is lost."""
    fleet.app.parts.vitals.config = HealthConfig(min_free_bytes=1)
    device = fleet.enrol()
    fleet.turn()
    filler = small_disk / "filler"
    fill(filler)
    device.report(0)
    fleet.clock.now_ms += CHECK_MS
    fleet.app.parts.ingest.turn(fleet.clock())
    fleet.app.parts.vitals.turn(fleet.clock())
    document = fleet.client(None).get("/api/health").json()
    assert {sign["name"] for sign in document["signs"] if not sign["ok"]} == {"database", "disk"}
    assert ("disk is full" in document["text"], device.watermark()) == (True, None)
    filler.unlink()
    fleet.clock.now_ms += CHECK_MS
    fleet.turn()
    assert (fleet.client(None).get("/api/health").status_code, device.watermark()) == (200, 0)


def test_a_read_only_disk_is_named_with_the_next_step(state: StateDirectory, small_disk: Path) -> None:
    """By every command that writes; nothing has a stack."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (["run"], ["migrate"], ["claim", "--site", "a", "--device", "b"]):
        result = CliRunner().invoke(main, [command[0], str(state.path), *command[1:]])
        assert result.exit_code == 1
        assert "mount its file system writable" in result.stderr, result.output


def test_who_asks_for_something_to_be_stored_is_told_that_there_is_no_room(
    fleet: MemoryFleet, small_disk: Path
) -> None:
    """507 with a text, on every endpoint; nothing half-written stays, and with room the same request is accepted."""
    filler, data = small_disk / "filler", bytes(300_000)
    path, claim = f"/api/blobs/{sha256_hex(data)}", {"site": "a", "device": "b"}
    fleet.enrol()
    fill(filler)
    answers = [
        fleet.client("builder").put(path, content=data), fleet.client().post("/api/claims", json=claim),
        fleet.client().post("/api/devices/cam-1/revoke", json={"why": "stolen"}),
    ]  # fmt: skip
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(507, "disk_full")] * 3
    assert all("free" in answer.json()["text"] for answer in answers)
    assert list(fleet.state.blobs.iterdir()) == []
    filler.unlink()
    assert fleet.client("builder").put(path, content=data).status_code == 201
    assert fleet.client().post("/api/claims", json=claim).status_code == 201
    assert fleet.app.parts.fleet.device("cam-1").ended == ""


def test_a_command_says_it_in_one_line(fleet: MemoryFleet, small_disk: Path) -> None:
    """No stack; the exit code states that nothing was done."""
    fleet.enrol()
    fill(small_disk / "filler")
    path = str(fleet.state.path)
    for command in (["claim", path, "--site", "a", "--device", "b"], ["devices", "revoke", path, "cam-1"]):
        done = CliRunner().invoke(main, command)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith("error [disk_full]: Expected room for the database")


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
