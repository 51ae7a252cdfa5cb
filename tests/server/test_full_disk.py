"""A disk that is really full: the server says so, keeps running, and is well again when there is room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from server.config import HealthConfig
from server.state_directory import StateDirectory, init_state
from server.trust.online_keys import init_online_keys

if TYPE_CHECKING:
    from conftest import MemoryFleet

DISK_BYTES = 4 * 1024 * 1024
CHECK_MS = 15_000


@pytest.fixture
def state(small_disk: Path) -> StateDirectory:
    """A state directory on a disk of 4 MiB."""
    made = init_state(small_disk / "state")
    init_online_keys(made.path)
    (made.tuf / "1.root.json").write_text('{"stands": "in"}')
    return made


def test_a_full_disk_is_told_and_over_when_there_is_room(fleet: MemoryFleet, small_disk: Path) -> None:
    """503 and words; nothing that a device sent is acknowledged before it is stored, and nothing is lost."""
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


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
