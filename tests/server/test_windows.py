"""Folding reports into windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

EPOCH_MS = 1_800_000_000_000


def test_two_boots_in_one_window_are_added_up(fleet: MemoryFleet) -> None:
    """An agent that restarted in the middle of a window reports it twice, in parts."""
    device = fleet.enrol()
    device.report(0, start_ms=5000)
    device.report(0, boot="cd" * 8, start_ms=5000)
    fleet.turn()
    (window,) = fleet.app.parts.windows.since(0)
    assert (window.n, window.reports) == (10, 2)
    assert np.all(window.values == 2)
    assert window.counters.values == tuple(window.values)


def test_a_late_part_makes_the_window_new_to_readers(fleet: MemoryFleet) -> None:
    """A reader with a cursor sees the folded window again, and only that."""
    device = fleet.enrol()
    device.report(0, start_ms=5000)
    device.report(1, start_ms=6000)
    fleet.turn()
    cursor = fleet.app.parts.windows.cursor()
    device.report(2, start_ms=5000)
    fleet.turn()
    (again,) = fleet.app.parts.windows.since(cursor)
    assert (again.start_ms, again.n) == (EPOCH_MS + 5000, 10)
    assert len(fleet.app.parts.windows.between(EPOCH_MS, EPOCH_MS + 10_000)) == 2


def test_between_is_half_open_and_by_device(fleet: MemoryFleet) -> None:
    """A window belongs to the span in which it starts."""
    for name in ("cam-1", "cam-2"):
        device = fleet.enrol(name)
        device.report(0, start_ms=1000)
        device.report(1, start_ms=2000)
    fleet.turn()
    windows = fleet.app.parts.windows
    assert [window.device for window in windows.between(EPOCH_MS + 1000, EPOCH_MS + 2000)] == ["cam-1", "cam-2"]
    assert [window.start_ms for window in windows.between(0, 2**60, device="cam-2")] == [
        EPOCH_MS + 1000,
        EPOCH_MS + 2000,
    ]


def test_old_windows_are_merged(fleet: MemoryFleet) -> None:
    """The database of a server keeps its size over years; the arrival of a window counts, not its time."""
    device = fleet.enrol()
    device.report(0)
    device.report(1, start_ms=-80 * 86_400_000)
    fleet.turn()
    fleet.clock.now_ms += 34 * 86_400_000
    device.report(2, start_ms=33 * 86_400_000)
    fleet.turn()
    assert len(fleet.app.parts.windows.since(0)) == 3
    fleet.clock.now_ms += 2 * 86_400_000
    fleet.turn()
    assert [window.start_ms for window in fleet.app.parts.windows.since(0)] == [EPOCH_MS + 33 * 86_400_000]
    history = fleet.app.parts.spans.history("cam-1", 0, 1 << 60)
    assert [span.resolution.value for span in history] == ["day", "day", "hour"]
