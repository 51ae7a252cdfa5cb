"""The server reports that it is healthy only while everything it needs is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.app.vitals import LATE_S
from server.config import HealthConfig
from wire.messages import State

if TYPE_CHECKING:
    from conftest import MemoryFleet


def ask(fleet: MemoryFleet) -> tuple[int, str]:
    """Return the status code and the text of the health check, as without a token."""
    answer = fleet.client(None).get("/api/health")
    document = answer.json()
    assert document["ok"] is (answer.status_code == 200)
    assert document["at_ms"] == fleet.clock()
    return answer.status_code, document["text"]


def test_a_server_that_has_all_it_needs_is_well(fleet: MemoryFleet) -> None:
    """Status 200, and each sign by name."""
    fleet.turn()
    assert ask(fleet) == (200, "")
    signs = fleet.client(None).get("/api/health").json()["signs"]
    assert [sign["name"] for sign in signs] == ["database", "disk", "broker", "ingest"]


def test_a_database_that_takes_no_write_is_unwell_until_it_does(fleet: MemoryFleet) -> None:
    """Status 503 with a text, one event when it begins to last, one when it ends."""
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE heartbeat RENAME TO away"))
    for _ in range(3):
        fleet.clock.now_ms += 15_000
        fleet.turn()
    status, text = ask(fleet)
    assert (status, text.startswith("database: Expected a database that answers")) == (503, True)
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO heartbeat"))
    fleet.clock.now_ms += 15_000
    fleet.turn()
    assert ask(fleet)[0] == 200
    assert fleet.codes() == ["unwell", "well"]


@pytest.mark.parametrize(("free_bytes", "status"), [(1, 200), (2**62, 503)])
def test_a_disk_without_room_is_unwell(fleet: MemoryFleet, free_bytes: int, status: int) -> None:
    """Both sides of the limit; before the disk is full there is time to act."""
    fleet.app.parts.vitals.config = HealthConfig(min_free_bytes=free_bytes)
    found, text = ask(fleet)
    assert (found, "bytes free for the state directory" in text) == (status, status == 503)


def test_a_lost_broker_is_unwell(fleet: MemoryFleet) -> None:
    """No device can be received."""
    fleet.broker.disconnect("server", lost=True)
    status, text = ask(fleet)
    assert (status, text.startswith("broker: Expected a connection")) == (503, True)


def test_messages_that_wait_too_long_are_unwell(fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait if the store refuses them; the limit is a minute; once stored, the server is healthy."""
    device, ingest = fleet.enrol(), fleet.app.parts.ingest
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE devices RENAME TO away"))
    device.say("state", State())
    ingest.turn(fleet.clock())
    refused_s = ingest._refused_s
    for waited_s, status in ((59.0, 200), (61.0, 503)):
        monkeypatch.setattr("server.ingest.ingest.time.monotonic", lambda waited_s=waited_s: refused_s + waited_s)
        assert ask(fleet)[0] == status
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO devices"))
    ingest.turn(fleet.clock())
    assert ask(fleet)[0] == 200


def test_a_loop_that_stopped_does_not_stay_well(fleet: MemoryFleet) -> None:
    """A good result counts for two minutes; a failure is reported at once, until the loop works again."""
    vitals, now_ms = fleet.app.parts.vitals, fleet.clock()
    vitals.expect(["loop DriftService"], now_ms)
    for late_s, status in ((LATE_S, 200), (LATE_S + 1, 503)):
        fleet.clock.now_ms = now_ms + int(late_s * 1000)
        assert ask(fleet)[0] == status
    vitals.beat("loop DriftService", fleet.clock())
    assert ask(fleet)[0] == 200
    vitals.fault("loop DriftService", "ValueError: x")
    assert ask(fleet) == (503, "loop DriftService: fails, and is tried again: ValueError: x")


def test_the_state_directory_that_went_away_is_unwell(fleet: MemoryFleet, tmp_path: Path) -> None:
    """An unmounted disk does not count as a free disk."""
    fleet.app.parts.vitals.folder = tmp_path / "gone"
    assert ask(fleet) == (503, "disk: Expected the state directory, got: No such file or directory")


def test_a_server_is_ready_once_each_loop_has_worked(fleet: MemoryFleet) -> None:
    """A load balancer sends nobody to a process that has only just begun; a full disk is unwell and still ready."""
    vitals = fleet.app.parts.vitals
    vitals.expect(("ingest loop", "turns"), fleet.clock())
    client = fleet.client(None)
    assert client.get("/api/health").status_code == 200
    answer = client.get("/api/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "ingest loop" in answer.json()["text"]
    vitals.beat("ingest loop", fleet.clock())
    assert client.get("/api/ready").status_code == 503
    vitals.beat("turns", fleet.clock())
    assert client.get("/api/ready").status_code == 200
    vitals.config = HealthConfig(min_free_bytes=2**62)
    assert (client.get("/api/health").status_code, client.get("/api/ready").status_code) == (503, 200)


def test_a_server_without_its_broker_is_not_ready(fleet: MemoryFleet) -> None:
    """No device would hear what a person asks for."""
    fleet.app.transport.stop()
    answer = fleet.client(None).get("/api/ready")
    assert (answer.status_code, [sign["name"] for sign in answer.json()["signs"] if not sign["ok"]]) == (
        503,
        ["broker"],
    )
