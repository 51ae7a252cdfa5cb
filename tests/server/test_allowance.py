"""A device's allowance of a day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.ingest.allowance import Allowances
from tests.server.conftest import EPOCH_MS
from wire.messages import Event, Stream

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

BOOT = "ab" * 8
HALF_A_DAY_MS = 43_200_000


def test_a_bucket_holds_a_day_and_fills_evenly() -> None:
    """Each message costs its payload and a row; a clock set back gives nothing."""
    allowances = Allowances(bytes_per_day=4096)
    spent = [allowances.spend("cam-1", 1024, EPOCH_MS) for _ in range(3)]
    assert spent == [True, True, False]
    assert not allowances.spend("cam-1", 1024, EPOCH_MS - HALF_A_DAY_MS)
    assert allowances.spend("cam-1", 1024, EPOCH_MS + HALF_A_DAY_MS)
    assert [allowances.spend("cam-2", 3073, EPOCH_MS), allowances.spend("cam-2", 3072, EPOCH_MS)] == [False, True]


def test_without_a_limit_everything_is_taken() -> None:
    """0 turns it off."""
    assert all(Allowances(bytes_per_day=0).spend("cam-1", 10**9, EPOCH_MS) for _ in range(9))


def test_a_device_that_floods_is_reported_and_its_rest_waits(fleet: MemoryFleet) -> None:
    """Valid events, too, fill a disk and hide those of others; what was not stored is not acknowledged."""
    fleet.app.parts.ingest.allowances.bytes_per_day = 8 * 1200
    device, other = fleet.enrol(), fleet.enrol("cam-2")
    for seq in range(40):
        device.say("event", Event(boot=BOOT, seq=seq, kind="agent", code="again", at_ms=fleet.clock()))
    other.say("event", Event(boot=BOOT, seq=0, kind="agent", code="started", at_ms=fleet.clock()))
    fleet.turn()
    stored = fleet.codes().count("again")
    assert 0 < stored < 9
    assert device.watermark(Stream.EVENT) == stored - 1
    assert (fleet.codes().count("device_flood"), fleet.codes().count("started")) == (1, 1)
    fleet.clock.now_ms += 2 * HALF_A_DAY_MS
    device.say("event", Event(boot=BOOT, seq=stored, kind="agent", code="again", at_ms=fleet.clock()))
    fleet.turn()
    assert device.watermark(Stream.EVENT) == stored
