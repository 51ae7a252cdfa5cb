"""A completed baseline is final: neither a restart nor a late window makes standing drift the usual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.drift.service import DriftService
from server.store.monitoring.checkpoints import BASELINES
from server.store.monitoring.windows import WINDOWS

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

KNOWN = ("a1" * 16, "b1" * 16)
HORIZON = 30
Restart = Callable[["FleetWorld"], DriftService]


@pytest.fixture
def drifted(world: FleetWorld) -> FleetWorld:
    """One device drifts, and has done so for longer than the horizon."""
    world.service.config = replace(world.service.config, horizon_ms=HORIZON * 10_000)
    world.live(15)
    world.shifts = {"d4": {"noise": 2.0}}
    world.live(HORIZON + 5)
    return world


def test_a_restart_does_not_take_standing_drift_for_usual(drifted: FleetWorld, restarted: Restart) -> None:
    """The device is judged against the baseline from before the horizon, and is still drifted."""
    config = drifted.service.config
    drifted.service = restarted(drifted)
    drifted.service.config = config
    drifted.live(3)
    (verdict,) = drifted.service.verdicts.open()
    assert (verdict.devices, verdict.kind) == (("d4",), "device_local")
    assert verdict.windows >= HORIZON
    assert drifted.service._moment.state.banks[KNOWN].stage.all()


def test_a_late_window_does_not_take_standing_drift_for_usual(drifted: FleetWorld) -> None:
    """Also one that is older than every checkpoint."""
    drifted.service._checkpoints.drop(0)
    drifted.service._before = None
    late = drifted.report("d1", drifted.slot - HORIZON + 2)
    drifted.arrive("d1", replace(late, window_start_ms=late.window_start_ms + 1, late=True), drifted.slot * 10_000)
    drifted.live(2)
    assert drifted.kinds() == {"device_local"}
    assert drifted.service._moment.state.flagged == {"d4"}


def test_a_late_window_from_before_does_not_change_a_baseline(world: FleetWorld) -> None:
    """A recomputation from any point has the same baseline and the same evidence."""
    world.live(20)
    before = world.service._moment.state.banks[KNOWN]
    late = replace(world.report("d2", world.slot - 15), boot="11" * 8)
    world.arrive("d2", replace(late, window_start_ms=late.window_start_ms + 1), world.slot * 10_000)
    world.absent = set(world.devices)
    world.live(1)
    after = world.service._moment.state.banks[KNOWN]
    assert after is not before
    assert np.array_equal(before.log_m, after.log_m)
    assert np.array_equal(before.usual, after.usual)


def test_contexts_are_kept_one_by_one(world: FleetWorld, restarted: Restart) -> None:
    """After a restart both contexts' baselines are there, from the slots in which they were complete."""
    for number in range(26):
        for device in world.devices:
            report = replace(world.report(device, world.slot), context=number % 2, window_start_ms=world.slot * 10_000)
            world.arrive(device, report, world.slot * 10_000)
        world.slot += 1
    now_ms = world.slot * 10_000 + 1_000
    world.service.turn(now_ms)
    again = restarted(world)
    again.turn(now_ms)
    once, twice = world.service._moment.state.banks[KNOWN], again._moment.state.banks[KNOWN]
    assert set(once.contexts) == set(twice.contexts) == {0, 1}
    assert np.array_equal(once.log_z, twice.log_z)
    assert np.array_equal(once.log_m, twice.log_m)


def test_a_baseline_stays_complete_when_more_windows_are_asked_for(world: FleetWorld, restarted: Restart) -> None:
    """The setting applies to later baselines."""
    world.live(15)
    config = replace(world.service.config, baseline_windows=40)
    world.service = restarted(world)
    world.service.config = config
    world.live(1)
    assert world.service._moment.state.banks[KNOWN].stage.all()


def test_a_baseline_of_an_older_version_still_judges(world: FleetWorld, restarted: Restart) -> None:
    """It has no movement: its memory is that of single windows, and drift is found as before."""
    world.live(15)
    with world.database.begin() as connection:
        connection.execute(BASELINES.update().values(movement=None))
    world.service._checkpoints.drop(0)
    world.service, world.shifts = restarted(world), {"d4": {"noise": 2.0}}
    world.live(4)
    bank = world.service._moment.state.banks[KNOWN]
    assert bank.stage.all()
    assert (bank.ordinary == 0).all()
    assert world.kinds() == {"device_local"}


def test_how_pools_moved_outlasts_the_windows(world: FleetWorld, restarted: Restart) -> None:
    """Without a checkpoint, and with the windows of the baselines gone, it is read from the database."""
    world.live(15)
    before = world.service._moment.state.movement[KNOWN]
    world.service._checkpoints.drop(0)
    with world.database.begin() as connection:
        connection.execute(WINDOWS.delete().where(WINDOWS.c.start_ms < (world.slot - 2) * 10_000))
    again = restarted(world)
    again.turn(world.slot * 10_000 + 1_000)
    after = again._moment.state.movement[KNOWN]
    assert before.keys() == after.keys()
    for name, moved in before.items():
        assert moved.pairs[0] > 0
        assert np.array_equal(moved.excess, after[name].excess)
