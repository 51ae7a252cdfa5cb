"""The rhythm of a fleet: learnt by the hour of the day, taken off its pool, and none where it cannot be known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scripts.bench.dependence import KEY, DependentFleet, DependentRun
from server.drift.checkpoints import packed_movement, packed_ordinary, read_movement, read_ordinary
from server.drift.config import DriftConfig
from server.drift.detection.clock import HOURS, HourlySums, Rhythm
from server.drift.detection.movement import BASIS, Movement, Pairs, ScoreColumns
from server.drift.detection.pools import FLEET, PoolMovement, learn, rhythm_of

COMMON = "day and night, common"
SINE = np.sin(np.pi * np.arange(HOURS) / 12)
Sends = Callable[[int, int], bool]


def _run(kind: str = COMMON, *, devices: int = 12, days: int = 4, sends: Sends | None = None) -> DependentRun:
    """Return a fleet after so many days; ``sends``: whether device i has a window in an hour."""
    fleet = DependentFleet(kind=kind, devices=devices, streams=2, seed=5)
    fleet.offset[:] = 0.0
    run = DependentRun(fleet=fleet, windows=24 * days)
    while not any(bank.stage.all() and len(bank.stage) == devices for bank in run.state.banks.values()):
        some = [i for i in range(devices) if sends is None or sends(i, run.hour % HOURS)]
        if some:
            run.window(only=some)
        else:
            run.hour += 1
    return run


def _rhythm(run: DependentRun) -> Rhythm | None:
    return rhythm_of(run.state.movement[KEY], run.state.banks[KEY].columns)


def _alarms(run: DependentRun, hours: int, *, shift: float = 0.0, sends: Sends | None = None) -> list[bool]:
    """Return whether the fleet's pool alarms in each of so many hours."""
    found = []
    for _ in range(hours):
        some = [i for i in range(run.fleet.devices) if sends is None or sends(i, run.hour % HOURS)]
        found.append((KEY, FLEET) in run.window(shift, only=some).pool_alarms)
    return found


def test_day_and_night_do_not_hide_a_small_change_of_the_whole_fleet() -> None:
    """All devices swing by half a standard deviation: quiet for two days, and 0.3 more is heard in three windows."""
    run = _run(days=5)
    assert not any(_alarms(run, 24))
    assert _alarms(run, 3, shift=0.3)[-1]


def test_a_rhythm_is_learnt_by_value() -> None:
    """The mean score of each hour is that of a stream that swings by 0.5; one class stream stays as it is."""
    found = _rhythm(_run(days=5))
    assert found is not None
    assert found.used.tolist() == [True, False]
    assert found.known.all()
    assert found.level[:, 0] @ BASIS[0] == pytest.approx(0.49 * SINE, abs=0.06)


def test_a_fleet_that_does_the_same_at_any_hour_has_no_rhythm() -> None:
    """Its pool is judged as before."""
    assert _rhythm(_run("independent")) is None


def test_two_shifts_are_judged_against_their_own_hours() -> None:
    """Some devices see days only, some nights only: each is usual to itself, although the fleet swings.

    Without any device that sends all day, what nights differ from days is not known, and nothing is taken off.
    """

    def sends(device: int, hour: int) -> bool:
        return device % 6 == 5 or (device % 2 == 0) == (6 <= hour < 18)

    run = _run(days=3, sends=sends)
    assert _rhythm(run) is not None
    assert not any(_alarms(run, 24, sends=sends))
    assert _rhythm(_run(devices=4, days=3, sends=lambda i, hour: (i % 2 == 0) == (6 <= hour < 18))) is None


def test_hours_that_the_fleet_has_never_seen_are_not_judged() -> None:
    """A fleet that worked from eight to six begins to work at night: another light, not a fault."""

    def sends(_: int, hour: int) -> bool:
        return 8 <= hour < 18

    run = _run(days=4, sends=sends)
    found = _rhythm(run)
    assert found is not None
    assert np.flatnonzero(found.known[:, 0]).tolist() == list(range(8, 18))
    assert not any(_alarms(run, 24))


@pytest.mark.parametrize("days", [2, 3])
def test_three_days_show_a_rhythm_and_two_do_not(days: int) -> None:
    """Each hour must have been seen on three days."""
    assert (_rhythm(_run(days=days)) is not None) == (days == 3)


def test_one_device_and_windows_of_other_lengths_have_no_rhythm() -> None:
    """One device is no fleet; a quarter of an hour, or seconds in a demo, are no hours."""
    assert _rhythm(_run(devices=1)) is None
    movement, counts = Movement(columns=ScoreColumns(1)), np.full((2, 1, 16), 4)
    movement.admit(["a", "b"])
    movement.add(7, ["a", "b"], counts)
    movement.close(8)
    movement.add(8, ["a", "b"], counts)
    ended = [(movement, pairs) for pairs in movement.close(9)]
    for window_ms, known in ((3_600_000, True), (900_000, False), (10_000, False)):
        settings = DriftConfig(window_ms=window_ms).settings
        found = learn({}, {FLEET: frozenset("ab")}, ended, 8, settings)
        assert (found[FLEET].clock is not None) == known


def test_steps_are_those_from_the_hour_before() -> None:
    """A window after a gap is no step, and counts of its own bins are: from bin 3 to bin 4."""
    columns = ScoreColumns(1)
    for slot, steps in ((6, 1.0), (7, 0.0)):
        movement = Movement(columns=columns)
        movement.admit(["a", "b"])
        movement.add(5, ["a", "b"], np.tile(60 * np.eye(16, dtype=int)[3], (2, 1, 1)))
        movement.close(slot)
        movement.add(slot, ["a", "b"], np.tile(60 * np.eye(16, dtype=int)[4], (2, 1, 1)))
        (pairs, *_) = movement.close(slot + 1)
        assert isinstance(pairs, Pairs)
        clock = HourlySums.empty(columns).after(pairs, np.zeros(5), np.ones(5), np.array([True, True]))
        assert clock.samples[slot % HOURS, 0] == 60 * steps
        assert clock.steps[slot % HOURS, 0, 3:5].tolist() == [-60 * steps, 60 * steps]
        assert clock.pairs[slot] == 1


def test_a_rhythm_is_read_as_it_was_written_and_an_older_version_has_none() -> None:
    """To the bit; a baseline of an older version has no hours."""
    run = _run(days=3)
    columns, moved = run.state.banks[KEY].columns, run.state.movement[KEY][FLEET]
    again = read_movement(packed_movement(moved), columns, moved.slot)
    assert packed_movement(again) == packed_movement(moved)
    older = read_movement(packed_movement(replace(moved, clock=None)), columns, moved.slot)
    assert isinstance(older, PoolMovement)
    assert older.clock is None
    own = run.state.banks[KEY].commissioning[0].estimated[0].ordinary
    assert own is not None
    before = read_ordinary(packed_ordinary(own)[: -HOURS * 4], columns)
    assert before is not None
    assert not before.hours.any()
    assert packed_ordinary(replace(before, hours=own.hours)) == packed_ordinary(own)
