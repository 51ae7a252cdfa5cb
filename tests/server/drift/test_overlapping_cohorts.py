"""A change of one cohort is not attributed to another that shares devices with it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import pytest

from server.drift.detection.detector_bank import DetectorSettings, Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.pools import FLEET
from server.drift.detection.reference import Floats
from server.drift.detection.slot_update import FoldState, fold_slot
from wire.histogram import BINS

KEY = ("ef" * 16, "cd" * 16)
SETTINGS = DetectorSettings(
    baseline_windows=12, z=4.0, epsilon=0.0, log_alpha=float(np.log(0.05 / 28_800)), window_ms=3_000
)
SOUTH, NORTH, LENS_A, LENS_B = ("site", "south"), ("site", "north"), ("camera", "lens-a"), ("camera", "lens-b")


def _fleet(size: int) -> Mapping[str, Mapping[str, str]]:
    """Return the attributes of ``size`` devices: half in the north, half in the south, two lenses in turns."""
    return {
        f"cam-{i}": {"site": "north" if i < size // 2 else "south", "camera": f"lens-{'ab'[i % 2]}"}
        for i in range(size)
    }


def _moved(sd: float) -> Floats:
    """Return the mass of 16 equal-mass bins of a normal stream that moved by ``sd`` standard deviations."""
    edges = [NormalDist().inv_cdf(i / BINS) for i in range(1, BINS)]
    return np.diff([0.0, *(NormalDist(sd).cdf(edge) for edge in edges), 1.0])


def _named(size: int, moved: Mapping[tuple[str, str], float], windows: int, seed: int) -> list[set[tuple[str, str]]]:
    """Return the pools that alarm in each window after the devices with these attributes moved by so many sd."""
    dice, state, places = np.random.default_rng(seed), FoldState(), _fleet(size)
    state.open_bank(KEY, ScoreColumns(4), None)
    shifts = {d: sum(sd for pair, sd in moved.items() if pair in places[d].items()) for d in places}
    said = []
    for slot in range(17 + windows):
        mass = {d: _moved(shifts[d] if slot >= 17 else 0.0) for d in places}
        window = [Observation(d, dice.multinomial(75, mass[d], size=4)) for d in places]
        outcome = fold_slot(state, slot, {KEY: window}, places, SETTINGS)
        said.append({name for _, name in outcome.pool_alarms})
    assert not any(said[:17])
    return said[17:]


@pytest.mark.parametrize("sd", [0.4, 0.6, 0.8, 1.0])
def test_the_lens_that_two_knocked_cameras_share_with_a_third_is_not_accused(sd: float) -> None:
    """A wall with three of six cameras moves; two of them have lens b, as has one elsewhere that did not change."""
    said = [named for seed in range(10) for named in _named(6, {SOUTH: sd}, 3, seed)]
    assert any(SOUTH in named for named in said)
    assert not any({LENS_A, LENS_B, NORTH} & named for named in said)


def test_a_lens_that_changes_is_named_though_most_of_it_is_at_one_site() -> None:
    """The cohort with the most evidence is named, whatever else it shares devices with."""
    said = [named for seed in range(10) for named in _named(6, {LENS_B: 0.6}, 3, seed)]
    assert any(LENS_B in named for named in said)
    assert not any({SOUTH, NORTH, LENS_A} & named for named in said)


def test_two_causes_that_share_devices_are_both_named_in_time() -> None:
    """The rest of the second cohort still shows the change, without the devices of the first."""
    said = _named(40, {SOUTH: 0.25, LENS_B: 0.2}, 12, seed=1)
    both = next(named for named in said if {SOUTH, LENS_B} <= named)
    assert LENS_A not in both


def test_a_change_of_the_whole_fleet_is_still_the_fleets() -> None:
    """Where every cohort moves alike, none differs from the rest of the fleet: no cohort is blamed in its place."""
    said = _named(40, {SOUTH: 0.3, NORTH: 0.3}, 3, seed=1)
    assert said[-1] == {FLEET}
