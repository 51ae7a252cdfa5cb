"""Pools of healthy fleets stay quiet at any size; a small change of all devices is detected at once."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from server.drift.config import DriftConfig
from server.drift.detection.detector_bank import DetectorSettings, Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.pools import FLEET, JudgedWindows, PoolWindows, is_weekend, names
from server.drift.detection.reference import Floats
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot
from wire.histogram import BINS

KEY = ("ef" * 16, "cd" * 16)
COMMISSIONED, WINDOWS = 72, 1000
UNIFORM = np.full(BINS, 1 / BINS)
DAY_MS = 86_400_000


def _grey(home: int, away_ratio: float) -> Floats:
    """Return a stream in bin ``home``, except for ``away_ratio`` of its samples: the colour of a grey image."""
    row = np.zeros(BINS)
    row[home], row[home + 1] = 1 - away_ratio, away_ratio
    return row


def _moved(sd: float) -> Floats:
    """Return the mass of 16 equal-mass bins of a normal stream that moved by ``sd`` standard deviations."""
    edges = [NormalDist().inv_cdf(i / BINS) for i in range(1, BINS)]
    return np.diff([0.0, *(NormalDist(sd).cdf(edge) for edge in edges), 1.0])


class _QuietFleet:
    """Devices, three to a site or on six sites, whose windows of 60 samples are drawn from ``streams`` (S, 16)."""

    def __init__(self, devices: int, streams: Floats, seed: int) -> None:
        self.state, self.dice, self.slot = FoldState(), np.random.default_rng(seed), 0
        self.sites = {f"d{i}": {"site": f"site-{i // max(3, devices // 6)}"} for i in range(devices)}
        self.state.open_bank(KEY, ScoreColumns(len(streams)), None)

    def window(self, streams: Floats) -> SlotOutcome:
        """Let one window pass."""
        counts = self.dice.multinomial(60, streams, size=(len(self.sites), len(streams)))
        seen = [Observation(device, row) for device, row in zip(self.sites, counts, strict=True)]
        self.slot += 1
        settings = DetectorSettings(
            baseline_windows=COMMISSIONED, z=4.0, epsilon=0.0, log_alpha=float(np.log(0.05 / 24)), window_ms=3_600_000
        )
        return fold_slot(self.state, self.slot, {KEY: seen}, self.sites, settings)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 6, 12, 30, 100])
def test_streams_that_stand_in_one_bin_raise_no_alarm(devices: int) -> None:
    """A constant stream, two of grey images and one that varies: at most one pool verdict in 1,000 quiet windows."""
    streams = np.stack([_grey(0, 0.0), _grey(7, 0.001), _grey(12, 0.03), UNIFORM])
    fleet, verdicts, before = _QuietFleet(devices, streams, seed=devices), 0, frozenset()
    for _ in range(COMMISSIONED + WINDOWS):
        outcome = fleet.window(streams)
        verdicts += len(outcome.pool_alarms - before)
        before = outcome.pool_alarms
        assert not outcome.flagged
    assert verdicts <= 1


@pytest.mark.parametrize("devices", [100, 300])
def test_a_small_change_of_the_whole_fleet_is_heard_by_its_pool(devices: int) -> None:
    """A tenth of a standard deviation, which no single device shows, in one stream of four."""
    quiet = np.stack([_grey(0, 0.0), _grey(7, 0.001), UNIFORM, UNIFORM])
    fleet = _QuietFleet(devices, quiet, seed=1)
    for _ in range(COMMISSIONED):
        assert not fleet.window(quiet).pool_alarms
    moved = np.stack([*quiet[:3], _moved(0.1)])
    alarms = [(KEY, FLEET) in fleet.window(moved).pool_alarms for _ in range(2 if devices > 200 else 6)]
    assert alarms[-1]


def test_a_constant_stream_that_moves_is_heard() -> None:
    """The prior treats unseen values as rare, not as impossible: a new colour in all images alarms."""
    quiet = np.stack([_grey(0, 0.0), UNIFORM])
    fleet = _QuietFleet(6, quiet, seed=1)
    for _ in range(COMMISSIONED):
        fleet.window(quiet)
    moved = np.stack([_grey(0, 1.0), UNIFORM])
    assert (KEY, FLEET) in fleet.window(moved).pool_alarms or fleet.window(moved).flagged


def test_the_largest_cohorts_have_pools_where_there_are_too_many() -> None:
    """Serial numbers as attributes must not crowd out the lens that half of the fleet has."""
    devices = [f"d{number}" for number in range(200)]
    attributes = {name: {"batch": f"{number // 2:03}"} for number, name in enumerate(devices)}
    for name in devices[:100]:
        attributes[name]["lens"] = "wide"
    pools = names(devices, attributes)
    assert len(pools) == 64
    assert len(pools["lens", "wide"]) == 100


@pytest.mark.parametrize("window_ms", [3_600_000, 900_000])
def test_a_weekend_is_two_days_whatever_the_length_of_the_windows(window_ms: int) -> None:
    """The third of January 1970 is a Saturday; baselines of less than two days know no weekend."""
    two_days, saturday = 2 * DAY_MS // window_ms, 2 * DAY_MS // window_ms
    settings = DriftConfig(window_ms=window_ms, baseline_windows=two_days).settings
    slots = (saturday - 1, saturday, saturday + two_days - 1, saturday + two_days)
    assert [is_weekend(slot, settings) for slot in slots] == [False, True, True, False]
    assert not is_weekend(saturday, replace(settings, baseline_windows=two_days - 1))


def test_a_first_weekend_is_noted_once_an_hour_although_cohorts_overlap() -> None:
    """A cohort that shares devices with a stronger one is judged twice in an hour: with those devices, and without."""
    fleet = _QuietFleet(5, UNIFORM[None], seed=4)
    for _ in range(COMMISSIONED):
        fleet.window(UNIFORM[None])
    bank = fleet.state.banks[KEY]
    judged = JudgedWindows.of(bank, [Observation(name, np.full((1, BINS), 4)) for name in fleet.sites])
    found = PoolWindows(
        bank=bank, judged=judged, fleet=judged.whole(bank), movement={}, weekend=True, between={}, log_cap=30.0,
        settings=DriftConfig(baseline_windows=COMMISSIONED).settings,
    )  # fmt: skip
    for without in ([], [4]):
        assert found.step(None, FLEET, np.arange(5 - len(without)), without=np.array(without, np.int64)) is None
    assert found.movement[FLEET].weekend_windows == 1
    assert found.movement[FLEET].weekend_n[0] == 5 * 4 * BINS
