"""The times and versions that a device has seen: both sides of the bound, and damaged files."""

from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.device.record_file import copy_of
from edge_agent.device.sane_clock import EARLIEST_MS, TOLERANCE_MS
from edge_agent.updater.storage.time_floor import TimeFloor, TrustedTime

NOW_MS = EARLIEST_MS + 10**9


@pytest.fixture
def floor(tmp_path: Path) -> TimeFloor:
    """Nothing seen yet."""
    return TimeFloor(tmp_path / "time_floor.json", RealDisk())


@pytest.mark.parametrize(("seen_ms", "floor_ms"), [(0, EARLIEST_MS), (NOW_MS, NOW_MS)])
def test_a_clock_may_be_behind_by_the_tolerance(floor: TimeFloor, seen_ms: int, floor_ms: int) -> None:
    """To the millisecond, before anything was seen and after."""
    floor.raise_to(seen_ms)
    assert floor.read_ms() == floor_ms
    assert floor.allows(floor_ms - TOLERANCE_MS)
    assert not floor.allows(floor_ms - TOLERANCE_MS - 1)


def test_the_floor_only_rises_and_versions_are_those_seen_last(floor: TimeFloor) -> None:
    """Without versions the ones before stay."""
    floor.raise_to(NOW_MS, {"root": 1, "timestamp": 5})
    floor.raise_to(NOW_MS - 1)
    assert floor.read() == TrustedTime(NOW_MS, {"root": 1, "timestamp": 5})
    floor.raise_to(NOW_MS + 1, {"root": 2})
    assert floor.read() == TrustedTime(NOW_MS + 1, {"root": 2})


def test_what_is_known_is_not_written_again(floor: TimeFloor) -> None:
    """Flash wears; a damaged half is written again."""
    floor.raise_to(NOW_MS)
    before = floor.path.stat().st_ino
    floor.raise_to(NOW_MS)
    assert floor.path.stat().st_ino == before
    copy_of(floor.path).write_bytes(b"damaged")
    floor.raise_to(NOW_MS)
    assert copy_of(floor.path).read_bytes() == floor.path.read_bytes()


def test_of_two_halves_the_later_one_holds(floor: TimeFloor) -> None:
    """A power cut between the two writes."""
    floor.raise_to(NOW_MS)
    older = floor.path.read_bytes()
    floor.raise_to(NOW_MS + 5)
    floor.path.write_bytes(older)
    assert floor.read_ms() == NOW_MS + 5


def test_a_lost_floor_allows_no_clock(floor: TimeFloor) -> None:
    """Nor does a record of another kind."""
    for damage in (b"damaged", b'{"floor_ms": "late"}'):
        for path in (floor.path, copy_of(floor.path)):
            path.write_bytes(damage)
        assert (floor.read(), floor.read_ms(), floor.allows(NOW_MS)) == (None, EARLIEST_MS, False)


def test_a_role_that_was_never_seen_is_not_behind() -> None:
    """And one that is missing now is, under the same root and under none."""
    assert TrustedTime(versions={"root": 1}).behind({"root": 1, "timestamp": 1}) == ""
    assert TrustedTime(versions={"root": 1, "timestamp": 1}).behind({"root": 1}) == "timestamp"
    assert TrustedTime(versions={"timestamp": 5}).behind({"timestamp": 4}) == "timestamp"
    assert TrustedTime(versions={"timestamp": 5}).behind({"root": 1, "timestamp": 4}) == ""
