"""Fleets whose samples, hours and devices depend on each other: quiet without drift, and heard with it."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.bench.dependence import KEY, NULLS, STAGES, DependentFleet, DependentRun, drift_row, null_row, staged_row
from server.drift.detection.pools import FLEET

RESTLESS = "restless devices"  # three days don't show that a few devices move further than all others: 14 do


def _fleet(kind: str, *, devices: int = 24, seed: int = 1) -> DependentFleet:
    return DependentFleet(kind=kind, devices=devices, streams=2, seed=seed, samples=5 if kind == "few a window" else 60)


@pytest.mark.parametrize("kind", [kind for kind in NULLS if kind != RESTLESS])
def test_a_world_without_drift_raises_no_alarm(kind: str) -> None:
    """Neither devices nor pools, where chi-squared with Bonferroni alarms in most of these worlds.

    Three days of common weather don't show a fleet how it moves, and it has no other fleet to learn from.
    """
    found = null_row(_fleet(kind), windows=72, hours=48)
    assert found["device_alerts_a_day"] == 0
    assert found["pool_alarms"] <= (2 if kind == "common weather" else 0)  # one alarm, with three quiet windows in it


@pytest.mark.parametrize("kind", ["weekend", "weekend and few samples"])
def test_a_weekend_that_no_baseline_has_seen_accuses_no_device(kind: str) -> None:
    """Where most of the fleet moves on it, devices that do not follow alike would be the ones that differ."""
    found = null_row(_fleet(kind, devices=40, seed=4), windows=72, hours=48)
    assert (found["device_alerts_a_day"], found["pool_alarms"]) == (0, 0)


@pytest.mark.parametrize(("name", "least", "most"), [
    ("+0.5 sd on a tenth from a Saturday, in another stream", 1, 10),
    ("+0.5 sd on a tenth from a Saturday, where weekends differ", 48, 60),
])  # fmt: skip
def test_a_fault_that_begins_on_a_first_weekend_waits_for_monday_only_where_the_fleet_moves(
    name: str, least: int, most: int
) -> None:
    """Its streams that no weekend moves are judged as on any day."""
    found = drift_row(name, DependentFleet(kind="weekend", devices=40, streams=3, seed=4), windows=72)
    assert least <= found["median_windows"] <= most
    assert (found["found_ratio"], found["false_devices"]) == (1.0, 0)


def test_a_single_device_is_judged_on_its_first_weekend() -> None:
    """It shares nothing with a fleet, so nothing is left out."""
    run = DependentRun(fleet=_fleet("independent", devices=1, seed=3), windows=72).commission()
    assert not any(run.window().flagged for _ in range(48))
    assert [run.window(1.0).flagged for _ in range(8)][-1] == {"d00000"}  # on Saturday morning


def test_a_noted_weekend_is_forgotten_once_the_baselines_contain_it() -> None:
    """It was noted against the baseline of three days, and would be taken off a second time from that of seven."""
    run = DependentRun(fleet=_fleet("weekend", devices=9), windows=168, provisional=72)
    for _ in range(130):
        run.window()
    assert run.state.movement[KEY][FLEET].weekend_n[0] > 0
    for _ in range(39):
        run.window()
    assert run.state.pools[KEY, FLEET].stage == 3
    assert not run.state.movement[KEY][FLEET].weekend_n.any()


def test_pools_that_begin_again_on_an_unseen_weekend_raise_no_alarm() -> None:
    """The second estimate falls on a Sunday evening; streams not judged then have no samples, and aged no further."""
    run = DependentRun(
        fleet=DependentFleet(kind="weekend", devices=40, streams=3, seed=73), windows=336, provisional=72
    )
    assert not any(run.window().pool_alarms for _ in range(172))


def test_a_drift_that_begins_in_provisional_time_is_found() -> None:
    """From the fourth day on, by a provisional verdict."""
    found = drift_row("+0.5 sd on a tenth", _fleet("independent", devices=40, seed=2), 72, hours=12, stages=STAGES)
    assert found["median_windows"] <= 8
    assert (found["found_ratio"], found["false_devices"]) == (1.0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory 8 hours", "own weather", "common weather", "scenes of 100 hours", RESTLESS])
def test_fourteen_days_show_what_moves_slowly(kind: str) -> None:
    """The longer baseline also knows contents that stay for days, and a few devices that move more than all others."""
    found = null_row(_fleet(kind), windows=336, hours=72)
    assert (found["device_alerts_a_day"], found["pool_alarms"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "provisional", "judged"), [
    ("devices that join later", 4, 20), ("gaps", 24, 24), ("two releases", 0, 24), ("common weather", 0, 24),
    ("memory 8 hours", 0, 24),
])  # fmt: skip
def test_commissioning_in_stages_raises_no_alarm(kind: str, provisional: int, judged: int) -> None:
    """From three days on, and after fourteen: also with gaps, and where devices join at any time.

    After seventeen days, those that joined on the fifth are provisional, those of the sixteenth not yet judged, and who
    misses a quarter of the windows has not got 336.
    """
    fleet = _fleet(kind if kind in NULLS else "own weather")
    found = staged_row(kind, fleet, days=3)
    assert (found.pop("provisional"), found.pop("judged")) == (provisional, judged)
    assert not any(found.values()), found


@pytest.mark.parametrize(("name", "windows"), [
    ("+0.5 sd on a tenth", 8), ("class 0.1 to 0.2 on a tenth", 25), ("class 4 read as 5 on a tenth", 25),
])  # fmt: skip
def test_drift_of_single_devices_is_found(name: str, windows: int) -> None:
    """All of them, and no other device; classes that swap and cancel in any order of the classes are found too."""
    found = drift_row(name, _fleet("independent", devices=40, seed=2), windows=72)
    assert found["median_windows"] <= windows
    assert (found["found_ratio"], found["false_devices"]) == (1.0, 0)


def test_a_tenth_of_a_standard_deviation_of_the_whole_fleet_is_its_pools() -> None:
    """No device is flagged: what all share is taken off."""
    found = drift_row("the fleet +0.1 sd", _fleet("independent", devices=100, seed=2), windows=72)
    assert found["fleet_pool_after_windows"] <= 8
    assert found["found_ratio"] == 0


def test_a_change_of_most_devices_accuses_no_healthy_one() -> None:
    """While the fleet's pool alarms because most of it moved, those that did not move are not flagged."""
    found = drift_row("+0.5 sd on seven tenths", _fleet("independent", devices=40, seed=1), windows=72)
    assert found["fleet_pool_after_windows"] <= 2
    assert found["false_devices"] == 0


def test_a_fault_larger_than_the_weather_is_found_in_it() -> None:
    """A device that moves by 2 sd where weather moves all by 0.3."""
    found = drift_row("own weather and +2 sd on a tenth", _fleet("own weather", devices=40, seed=2), windows=72)
    assert found["median_windows"] <= 10
    assert (found["found_ratio"], found["false_devices"]) == (1.0, 0)


@pytest.mark.parametrize("devices", [1, 2, 3, 7, 9])
def test_a_small_fleet_is_quiet_and_hears_its_device(devices: int) -> None:
    """One device makes no pool, and fewer than eight share nothing; the first moves by a standard deviation."""
    run = DependentRun(fleet=_fleet("independent", devices=devices, seed=3), windows=72).commission()
    assert not any(run.window().flagged for _ in range(24))
    shift = np.zeros((devices, 2))
    shift[0, 0] = 1.0
    flagged = [run.window(shift).flagged for _ in range(8)][-1]
    assert flagged == {"d00000"}


def test_devices_that_join_later_and_miss_windows_raise_no_alarm() -> None:
    """Half of the fleet begins two days later, and every device misses one window in five."""
    run, flagged = DependentRun(fleet=_fleet("own weather", seed=4), windows=72), set[str]()
    for hour in range(192):
        some = [i for i in range(24) if (i % 2 == 0 or hour >= 48) and (hour + i) % 5]
        outcome = run.window(only=some)
        flagged |= outcome.flagged | {str(name) for _, name in outcome.pool_alarms}
    assert len(outcome.log_values) == 24
    assert not flagged


@pytest.mark.parametrize("name", ["+0.5 sd on a tenth", "sd x 1.5 on a tenth", "class 0.1 to 0.2 on a tenth"])
def test_no_drift_is_found_sooner_than_its_information_allows(name: str) -> None:
    """The least possible delay, which the bench prints beside each drift, and the usual rules on the same windows."""
    found = drift_row(name, _fleet("independent", devices=40, seed=2), windows=72)
    assert 0 < found["least_windows"] <= found["median_windows"] + 1
    assert found["psi_false_devices"] == 36


def test_a_change_of_shape_is_not_hidden_by_what_chance_moves() -> None:
    """A spread that grows by a fifth, after three days: what a level may move by chance must not cover it."""
    found = drift_row("variance x 1.5 on a tenth", _fleet("independent", devices=40, seed=2), windows=72)
    assert found["median_windows"] <= 30
    assert (found["found_ratio"], found["false_devices"]) == (1.0, 0)
