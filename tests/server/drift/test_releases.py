"""A new release on devices that look at one site: inputs go on, outputs are compared with those before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from scripts.bench.releases import (
    BAD,
    BEFORE,
    GOOD,
    OneSiteFleet,
    ReleaseRun,
    bad_release,
    by_replay,
    far_better,
)
from server.drift.detection.carrying import StreamFacts, places, restarted
from tests.server.drift.conftest import NEW

if TYPE_CHECKING:
    from server.drift.service import DriftService
    from tests.server.drift.conftest import FleetWorld

WINDOWS = 24
KEY = (BAD.name, BAD.name)


def _run(devices: int = 8, seed: int = 3, weather: float = 0.0) -> ReleaseRun:
    return ReleaseRun(fleet=OneSiteFleet(devices=devices, seed=seed, weather=weather), windows=WINDOWS).commission()


@pytest.mark.parametrize(("devices", "weather", "most"), [(1, 0.0, 3), (2, 0.0, 3), (24, 0.0, 3), (24, 0.3, 12)])
def test_a_bad_release_is_heard_soon_and_stays_so(devices: int, weather: float, most: int) -> None:
    """Also where one device is the fleet; the new release's own baseline, which would know the fault, waits.

    In weather that moves how sure the model is for hours, hours are worth less, and it takes longer.
    """
    found = bad_release(OneSiteFleet(devices=devices, seed=8, weather=weather), windows=72 if weather else WINDOWS)
    assert found["latest_windows"] <= most
    assert (found["false_devices"], found["lost_after_commissioning"]) == (0, 0)


def test_a_bad_release_of_all_devices_is_heard_although_they_share_it() -> None:
    """What at least eight devices do alike is taken off inputs only: ten look at sites that the model is sure of."""
    run = _run(devices=16)
    run.on = dict.fromkeys(range(16), BAD)
    sure = {f"d{device:05d}" for device in range(16) if run.fleet.site(device) in range(5)}
    assert sure <= [run.regressed(run.hour()) for _ in range(3)][-1]


@pytest.mark.parametrize("release", GOOD, ids=lambda release: release.name)
def test_a_good_release_is_quiet(release: object) -> None:
    """Flips of a few percent, two points better, other temperatures: at sites of the training data and at others."""
    for weather in (0.0, 0.3):
        run = _run(devices=16, weather=weather)
        run.on = dict.fromkeys(range(16), release)
        assert not any(run.hour().flagged for _ in range(2 * WINDOWS))
        assert not run.state.carried[(release.name,) * 2].origins  # judged by baselines of the release by now


@pytest.mark.parametrize("weather", [0.0, 0.3])
def test_a_replay_hears_a_bad_release_in_any_weather(weather: float) -> None:
    """All of them and none that is good, with the first window; a cure of a bad place looks like a bad release."""
    found = by_replay(OneSiteFleet(devices=8, seed=4, weather=weather))
    assert found == {"heard_bad_ratio": 1.0, "heard_good_ratio": 0.0, "heard_cure_ratio": 1.0}


def test_labels_end_what_a_far_better_release_was_taken_for() -> None:
    """It is far surer where it was trained, so it looks less sure elsewhere: heard at sites not trained on alone."""
    found = far_better(OneSiteFleet(devices=8, seed=4), windows=WINDOWS)
    assert (0 < found["heard_devices"] <= 3, found["still_after_labels"]) == (True, 0)


@pytest.mark.parametrize("devices", [1, 8])
def test_who_is_meant_to_answer_otherwise_is_not_judged_by_the_release_before(devices: int) -> None:
    """It collects a baseline of the release; another device with that release is judged, and inputs that move are."""
    run = _run(devices=devices)
    run.on = dict.fromkeys(range(min(devices, 2)), BAD)
    run.state.expected = {KEY: frozenset({"d00000"})}
    outcomes = [run.hour() for _ in range(WINDOWS + 2)]
    assert all("d00000" not in outcome.flagged for outcome in outcomes)
    assert run.regressed(outcomes[4]) == ({"d00001"} if devices > 1 else set())
    assert "d00000" in outcomes[-1].log_values
    assert "d00000" in [run.hour(light=3.0) for _ in range(6)][-1].flagged


def test_inputs_that_move_after_a_release_are_drift_at_once() -> None:
    """Their baseline goes on: no commissioning of the release learns the move, and it is no fault of the release."""
    run = _run()
    run.on = dict.fromkeys(range(8), GOOD[0])
    run.hour()
    outcomes = [run.hour(only=[0, 1, 2], light=2.0) for _ in range(6)]
    assert {"d00000", "d00001", "d00002"} <= outcomes[-1].flagged
    assert not run.regressed(outcomes[-1])


def test_the_baseline_of_inputs_outlasts_the_release() -> None:
    """Once the release has a baseline of its own, its inputs are those under the release before, not its outputs."""
    run = _run()
    before = run.state.banks[BEFORE.name, BEFORE.name]
    run.on = {0: GOOD[2]}
    for _ in range(WINDOWS):
        outcome = run.hour()
    (kept,) = outcome.completed[GOOD[2].name, GOOD[2].name].values()
    older = before.commissioning[before.rows["d00000"]].seen[0]
    same = (kept.collected.counts == older.counts).all(axis=1)
    assert same.tolist() == [kind == "input" for kind in ("input", "input", "output", "output", "output")]


def test_a_provisional_baseline_has_the_inputs_of_the_release_before() -> None:
    """It judges from its first stage on; each further estimate takes the inputs from there again, until the last."""
    run = ReleaseRun(fleet=OneSiteFleet(devices=10, seed=3), windows=24, provisional=8).commission()
    key, older = (GOOD[1].name,) * 2, run.state.banks[BEFORE.name, BEFORE.name]
    run.on = dict.fromkeys(range(10), GOOD[1])
    outcomes = [run.hour() for _ in range(24)]
    stages = [sorted({kept.collected.windows for kept in one.completed.get(key, {}).values()}) for one in outcomes]
    assert [(slot, found) for slot, found in enumerate(stages, start=1) if found] == [(8, [8]), (12, [12]), (24, [24])]
    for outcome in (outcomes[7], outcomes[11], outcomes[23]):
        kept = outcome.completed[key]["d00000", 0].collected
        share = older.commissioning[older.rows["d00000"]].estimated[0].counts / 24 * kept.windows
        assert np.abs(kept.counts - share)[:2].max() <= 0.5
    assert all(len(outcome.log_values) == 10 and not outcome.flagged for outcome in outcomes)
    assert not run.state.carried[key].origins


def test_a_gap_over_the_release_changes_nothing() -> None:
    """A device that is away for two days around its update is compared when it returns."""
    run = _run()
    for _ in range(48):
        run.hour(only=range(1, 8))
    run.on = {0: BAD}
    assert [run.regressed(run.hour()) for _ in range(3)][-1] == {"d00000"}


def test_a_device_that_joins_after_the_release_has_nothing_to_compare() -> None:
    """It is commissioned as any new device, and accuses nobody."""
    run = _run(devices=4)
    run.fleet.devices, run.fleet.own = 5, np.append(run.fleet.own, 0.0)
    run.on = {4: GOOD[2]}
    outcomes = [run.hour() for _ in range(WINDOWS + 4)]
    assert "d00004" not in outcomes[WINDOWS - 2].log_values
    assert "d00004" in outcomes[-1].log_values
    assert not any(outcome.flagged for outcome in outcomes)


def test_a_rollback_restores_the_baseline_and_ends_the_alarm() -> None:
    """Back on the release before, the device is judged by its baseline there from the first window on."""
    run = _run()
    run.on = {0: BAD}
    assert "d00000" in [run.hour().flagged for _ in range(6)][-1]
    run.on = {}
    outcomes = [run.hour() for _ in range(6)]
    assert "d00000" in outcomes[0].log_values
    assert not any(outcome.flagged for outcome in outcomes)
    assert not run.state.carried[KEY].origins


def test_a_second_bad_release_is_compared_with_the_last_good_one() -> None:
    """An update that does not cure a release in alarm stays in alarm; one that does is quiet."""
    run = _run()
    run.on = {0: BAD, 1: BAD}
    for _ in range(4):
        run.hour()
    run.on = {0: replace(BAD, name="bad again"), 1: GOOD[1]}
    outcome = [run.hour() for _ in range(4)][-1]
    assert run.regressed(outcome) == {"d00000"}
    assert outcome.flagged == {"d00000"}


def test_inputs_with_other_bins_begin_anew_and_are_named() -> None:
    """Another front end, size or training data gives other edges; outputs are compared whatever their edges are."""
    edges = ((0.0,) * 15, (1.0,) * 15, (2.0,) * 15)
    old = StreamFacts(names=("luma_mean", "noise", "confidence"), kinds=("input", "input", "output"), edges=edges)
    new = replace(old, edges=(edges[0], (1.5,) * 15, (2.5,) * 15))
    assert places(old, new).tolist() == [0, -1, 2]
    assert restarted(old, new) == ("noise",)
    assert restarted(old, old) == ()


def test_classes_are_compared_only_between_releases_of_the_same_classes() -> None:
    """A release with an eleventh class has another stream of that name; embeddings never have anything in common."""
    old = StreamFacts(
        names=("projection_0", "predicted"), kinds=("embedding", "output"), edges=((0.0,) * 15,) * 2,
        categorical=(1,), classes=10,
    )  # fmt: skip
    assert places(old, old).tolist() == [-1, 1]
    assert places(old, replace(old, classes=11)).tolist() == [-1, -1]


def test_a_regression_is_open_until_the_rollback_and_survives_a_restart(
    world: FleetWorld, restarted: Callable[[FleetWorld], DriftService]
) -> None:
    """Longer than the new release's baseline would take; the verdict names the release, and what did not move."""
    world.live(15)
    world.keys, world.shifts = {"d0": NEW}, {"d0": {"confidence": -2.0}}
    now_ms = world.live(20)
    again = restarted(world)
    again.turn(now_ms + 1_000)
    for service in (world.service, again):
        (verdict,) = service.verdicts.open()
        assert (verdict.kind, verdict.devices, verdict.detail) == ("release_regression", ("d0",), "model-2")
        assert verdict.cause == "less confident; the inputs are as under the release before"
    one, two = (service._moment.state.carried[NEW].bank.log_m for service in (world.service, again))
    assert np.array_equal(one, two)
    world.keys, world.shifts = {}, {}
    world.live(4)
    assert world.service.verdicts.open() == ()
