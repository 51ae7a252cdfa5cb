"""Releases on fleets whose devices look at one site each: is a bad release heard, and is a good one quiet?

A model answers ten classes; how sure it is depends on the site, and a site has its own classes and its own confusions.
Devices stand at sites of the training data or at others where the model is weaker. The edges and the reference of each
release come from its own training data, on which it is surer than anywhere else. ``drift.py`` prints the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scripts.bench.scenarios import Scenario
from server.drift.config import DriftConfig
from server.drift.detection.carrying import StreamFacts
from server.drift.detection.detector_bank import DetectorSettings, Observation
from server.drift.detection.replays import allowed_ratio, error_bound, exceeds
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot, limit_of
from wire.histogram import BINS
from wire.reference import Context, Reference
from wire.shadow import ShadowCounts

Floats = NDArray[np.float64]

NAMES = ("luma_mean", "noise", "confidence", "entropy", "predicted")
KINDS = ("input", "input", "output", "output", "output")
_SITES, _TRAINED, _CLASSES = 8, 5, 10
_REFERENCE = 2000  # rows of training, and of reference
_SURER_IN_TRAINING = 1.0
_MEMORY = 0.96  # of own weather, from hour to hour
_KEPT = 64  # inputs for a replay
_GATED = 0.03  # error rate where releases were gated
_LABELS_AFTER = 24  # windows


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRelease:
    """How a release answers: ``surer`` by so much in its logits, with ``noise`` of its own; flips follow from that.

    ``trained``: surer by so much more at the sites of its training data; ``temperature`` divides its logits; ``bad``:
    it answers as at a site where a quarter is right.
    """

    name: str
    surer: float = 0.0
    noise: float = 0.0
    temperature: float = 1.0
    bad: bool = False
    trained: float = 0.0


BEFORE = SimulatedRelease(name="before")
GOOD = (
    SimulatedRelease(name="the same again"),
    SimulatedRelease(name="some flips", noise=0.3),
    SimulatedRelease(name="better by about two points", surer=0.4, noise=0.3),
    SimulatedRelease(name="recalibrated", noise=0.2, temperature=1.6),
)
BAD = SimulatedRelease(name="as at a site of accuracy .26", bad=True)
BETTER = SimulatedRelease(name="far better, and far surer where it was trained", surer=1.5, noise=0.3, trained=3.0)


@dataclass(slots=True, kw_only=True)
class OneSiteFleet:
    """``devices`` that look at one site each; ``weather`` moves inputs and certainty of each device for hours."""

    devices: int
    seed: int
    samples: int = 60
    weather: float = 0.0
    dice: np.random.Generator = field(init=False)
    sure: Floats = field(init=False)
    classes: Floats = field(init=False)
    light: Floats = field(init=False)
    own: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Draw the sites: the first five are those of the training data."""
        self.dice = np.random.default_rng(self.seed)
        self.sure = np.concatenate(
            [self.dice.uniform(3.0, 4.5, _TRAINED), self.dice.uniform(1.5, 2.5, _SITES - _TRAINED)]
        )
        self.classes = self.dice.dirichlet(np.full(_CLASSES, 1.0), _SITES)
        self.light = self.dice.normal(0, 1, (_SITES, 2))
        self.own = self.dice.standard_normal(self.devices)

    def site(self, device: int) -> int:
        """Return the site of a device."""
        return device % _SITES

    def draw(
        self, release: SimulatedRelease, site: int, n: int, extra: float = 0.0,
        confusion: np.random.Generator | None = None,
    ) -> Floats:  # fmt: skip
        """Return the stream values (n, 5) of ``n`` inputs at ``site``; ``extra``: how much surer than usual there.

        ``confusion`` draws what is answered wrong, where two releases answer the same inputs.
        """
        dice = self.dice
        logit = self.sure[site] + extra + dice.normal(0, 1.5, n)
        truth = dice.choice(_CLASSES, n, p=self.classes[site])
        right = dice.random(n) < 1 / (1 + np.exp(-1.5 * logit))
        if release.bad:
            logit, right = dice.normal(-0.5, 1.5, n), dice.random(n) < 0.26  # noqa: PLR2004 - its accuracy
        else:
            own = logit + release.surer + release.trained * (site < _TRAINED) + release.noise * dice.standard_normal(n)
            doubtful = np.abs(logit) < 1.0  # where another training run may answer otherwise
            flipped = doubtful & (dice.random(n) < release.noise)
            logit, right = own, np.where(flipped, dice.random(n) < 0.5 + 0.5 * (release.surer > 0), right)
        dice = confusion or dice
        confused = np.where(dice.random(n) < 0.7, (3 * truth + site) % _CLASSES, dice.integers(0, _CLASSES, n))  # noqa: PLR2004
        confidence = 0.1 + 0.9 / (1 + np.exp(-logit / release.temperature))
        inputs = self.light[site] + dice.normal(0, 0.5, (n, 2)) + 0.3 * extra
        return np.column_stack([inputs, confidence, 1 - confidence, np.where(right, truth, confused)])

    def facts(self, release: SimulatedRelease) -> StreamFacts:
        """Return the streams of ``release``, with edges and a reference from the sites of its training data.

        Inputs have the same edges in all releases, as of one set of training data.
        """
        dice, self.dice = self.dice, np.random.default_rng(self.seed + 1)
        n = _REFERENCE // _TRAINED
        good = replace(release, bad=False)  # a bad release is good where it was gated
        rows = np.concatenate([self.draw(good, site, n, _SURER_IN_TRAINING) for site in range(_TRAINED)])
        rows[:, :2] -= 0.3 * _SURER_IN_TRAINING
        edges = [np.quantile(rows[:, stream], np.arange(1, BINS) / BINS) for stream in range(len(NAMES) - 1)]
        known = StreamFacts(
            names=NAMES, kinds=KINDS, categorical=(len(NAMES) - 1,), classes=_CLASSES,
            edges=tuple(tuple(row.tolist()) for row in (*edges, np.arange(1, BINS) - 0.5)),
        )  # fmt: skip
        held = np.concatenate([self.draw(good, site, n) for site in range(_TRAINED)])
        self.dice = dice
        counts = binned_rows(held, known)
        return replace(known, contexts={"default": (counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True)})

    def pass_hour(self) -> None:
        """Let the weather move."""
        self.own = _MEMORY * self.own + np.sqrt(1 - _MEMORY**2) * self.dice.standard_normal(self.devices)

    def window(self, device: int, release: SimulatedRelease, known: StreamFacts, light: float = 0.0) -> Observation:
        """Return one window of ``device``; ``light``: by how much its inputs have moved."""
        rows = self.draw(release, self.site(device), self.samples, self.weather * float(self.own[device]))
        rows[:, 0] += light
        return Observation(f"d{device:05d}", binned_rows(rows, known))


def binned_rows(rows: Floats, known: StreamFacts) -> NDArray[np.int64]:
    """Return the counts (S, 16) of stream values (n, S)."""
    return np.stack([
        np.bincount(np.searchsorted(np.array(edges), rows[:, stream], side="right"), minlength=BINS)
        for stream, edges in enumerate(known.edges)
    ])  # fmt: skip


@dataclass(slots=True, kw_only=True)
class ReleaseRun:
    """The server's own code over a ``OneSiteFleet``; ``on``: the release of each device, by its number."""

    fleet: OneSiteFleet
    windows: int = 72
    provisional: int = 0
    slot: int = 96
    on: dict[int, SimulatedRelease] = field(default_factory=dict)
    state: FoldState = field(default_factory=FoldState)
    facts: dict[str, StreamFacts] = field(default_factory=dict)

    @property
    def settings(self) -> DetectorSettings:
        """The settings of the statistics."""
        config = replace(DriftConfig(), baseline_windows=self.windows, provisional_windows=self.provisional)
        return config.settings

    def hour(self, only: Sequence[int] | None = None, light: float = 0.0) -> SlotOutcome:
        """Let one hour pass; ``only`` these devices send a window."""
        self.fleet.pass_hour()
        windows: dict[tuple[str, str], list[Observation]] = {}
        for device in range(self.fleet.devices) if only is None else only:
            release = self.on.get(device, BEFORE)
            key = (release.name, release.name)
            if release.name not in self.facts:
                self.facts[release.name] = self.fleet.facts(release)
            known = self.state.facts[key] = self.facts[release.name]
            self.state.open_bank(key, known.columns, None)
            windows.setdefault(key, []).append(self.fleet.window(device, release, known, light))
        outcome = fold_slot(self.state, self.slot, windows, {}, self.settings)
        self.slot += 1
        return outcome

    def commission(self) -> ReleaseRun:
        """Collect the baselines under the release before."""
        for _ in range(self.windows):
            self.hour()
        return self

    def regressed(self, outcome: SlotOutcome) -> set[str]:
        """Return the flagged devices whose outputs alone moved since the release."""
        limit = limit_of(self.state, self.settings)
        return {
            device
            for device in outcome.flagged
            for carried in [self.state.carried.get(self.state.current[device].key)]
            if carried is not None and carried.outputs_alone(device, limit)
        }


def bad_release(fleet: OneSiteFleet, windows: int = 72, share: float = 0.1) -> dict[str, float]:
    """A ``share`` of the devices (at least one) get the bad release: windows until it is heard, and what else alarms.

    Devices at sites where the model before was sure, and those where it was not (0 if there are none).
    """
    run = ReleaseRun(fleet=fleet, windows=windows).commission()
    some = {f"d{device:05d}": device for device in range(max(int(fleet.devices * share), 1))}
    run.on = dict.fromkeys(some.values(), BAD)
    first: dict[str, int] = {}
    false, still = set[str](), set[str]()
    for hour in range(1, windows + 25):
        outcome = run.hour()
        still = run.regressed(outcome)
        for device in still:
            first.setdefault(device, hour)
        false |= outcome.flagged - some.keys()
    sure = [first.get(device, 10**6) for device, number in some.items() if fleet.site(number) < _TRAINED]
    unsure = [first.get(device, 10**6) for device, number in some.items() if fleet.site(number) >= _TRAINED]
    return {
        "latest_windows": max(sure), "median_windows_where_unsure": float(np.median(unsure)) if unsure else 0.0,
        "heard_ratio_where_unsure": float(np.mean([delay < 10**6 for delay in unsure])) if unsure else 0.0,
        "false_devices": len(false), "lost_after_commissioning": len(first.keys() - still),
    }  # fmt: skip


def good_releases(fleet: OneSiteFleet, windows: int = 72, hours: int = 168) -> dict[str, float]:
    """All devices get one of the good releases each: alerts that begin, in days of the fleet."""
    run = ReleaseRun(fleet=fleet, windows=windows).commission()
    run.on = {device: GOOD[device // _SITES % len(GOOD)] for device in range(fleet.devices)}
    alerts, before = 0, frozenset[str]()
    for _ in range(hours):
        outcome = run.hour()
        alerts += len(outcome.flagged - before)
        before = outcome.flagged
    return {"alerts": alerts, "alerts_a_day": alerts / (hours / 24), "fleet_days": hours / 24}


def replayed(fleet: OneSiteFleet, device: int, before: SimulatedRelease, after: SimulatedRelease) -> ShadowCounts:
    """Return how ``after`` answers the inputs that ``device`` kept while ``before`` served, in all weathers of it."""
    seed, answers = int(fleet.dice.integers(2**31)), []
    extra = fleet.weather * np.random.default_rng(seed + 1).standard_normal(_KEPT)
    for release in (before, after):
        fleet.dice, own = np.random.default_rng(seed), fleet.dice
        confusion = np.random.default_rng(seed + 2)
        answers.append([fleet.draw(release, fleet.site(device), 1, one, confusion)[0, -1] for one in extra])
        fleet.dice = own
    differ = int(np.not_equal(*answers).sum())
    return ShadowCounts(n=_KEPT, disagreed=differ)


def by_replay(fleet: OneSiteFleet) -> dict[str, float]:
    """Every device replays each release once: which share is heard with the first window, by the server's own rule.

    ``heard_cure_ratio``: of devices at which the release before answers as at a site of accuracy .26, and the next one
    as at others; the rule can't tell them from a regression. The error rates of the gates are those of training sites.
    """
    run = ReleaseRun(fleet=fleet)
    run.hour()
    limit = limit_of(run.state, run.settings)
    known = Reference(classes=_CLASSES, risk=_GATED, contexts=(Context(n=_REFERENCE, n_effective=_REFERENCE),))
    allowed = allowed_ratio(error_bound(known), error_bound(known))
    pairs = {"bad": [(BEFORE, BAD)], "good": [(BEFORE, one) for one in (*GOOD, BETTER)], "cure": [(BAD, BEFORE)]}
    return {
        f"heard_{name}_ratio": float(np.mean([
            exceeds(replayed(fleet, device, *pair), allowed, -limit)
            for pair in of_kind for device in range(fleet.devices)
        ]))
        for name, of_kind in pairs.items()
    }  # fmt: skip


def far_better(fleet: OneSiteFleet, windows: int = 72, hours: int = 48) -> dict[str, float]:
    """All devices get a far better release: how many are heard, and how many still after their labels showed no harm.

    Labels come a day after; they show the truth, that no device is worse.
    """
    run = ReleaseRun(fleet=fleet, windows=windows).commission()
    run.on = dict.fromkeys(range(fleet.devices), BETTER)
    heard, still = set[str](), set[str]()
    for hour in range(hours):
        if hour == _LABELS_AFTER:
            run.state.expected = {(BETTER.name, BETTER.name): frozenset(heard)}
        outcome = run.hour()
        heard |= run.regressed(outcome) if hour < _LABELS_AFTER else set()
        still = run.regressed(outcome) & heard
    return {"heard_devices": len(heard), "of": fleet.devices, "still_after_labels": len(still)}


def _is_heard(found: Mapping[str, float]) -> bool:
    lost = found["false_devices"] or found["lost_after_commissioning"]
    return found["latest_windows"] <= 3 and not lost  # noqa: PLR2004 - the target


def rows(*, quick: bool, seed: int) -> Iterable[Scenario]:
    """Yield the rows of releases on one-site devices."""
    devices, hours = (24, 24) if quick else (96, 168)
    for weather in (0.0, 0.3):
        where = "on one-site devices" + (", own weather" if weather else "")
        bad = OneSiteFleet(devices=devices, seed=seed + 20, weather=weather)
        good = OneSiteFleet(devices=devices, seed=seed + 21, weather=weather)
        yield Scenario(
            name=f"release regression {where}", asked="<= 3 windows, no other device", holds=_is_heard,
            measure=lambda bad=bad: bad_release(bad, share=0.25),
        )  # fmt: skip
        yield Scenario(
            name=f"good releases {where}", asked="0 alerts", holds=lambda found: not found["alerts"],
            measure=lambda good=good: good_releases(good, hours=hours),
        )  # fmt: skip
        replay = OneSiteFleet(devices=devices, seed=seed + 22, weather=weather)
        yield Scenario(
            name=f"replay after a release {where}", asked="every bad one with its first window, no good one",
            holds=lambda found: found["heard_bad_ratio"] == 1 and not found["heard_good_ratio"],
            measure=lambda replay=replay: by_replay(replay),
        )  # fmt: skip
    better = OneSiteFleet(devices=devices, seed=seed + 23)
    yield Scenario(
        name="far better release on one-site devices", asked="none heard once labels are there",
        holds=lambda found: not found["still_after_labels"], measure=lambda: far_better(better),
    )  # fmt: skip
