"""What a device's baseline is worth under its next release: inputs go on, outputs are compared, with an allowance.

A release changes how a device answers, not what it sees. So a device that was quiet keeps its baseline over a release:
it is judged in the first window, while the release's own baseline is still collected.

- *Inputs* whose bins are the same in both releases go on, also in the baseline that is collected: what they moved is
  drift. Bins that differ (another front end, size or training data) can't be compared: those streams begin anew.
  A release of another model asks another question of other inputs: nothing goes on.
- *Outputs* are compared with those under the release before. A good release moves them as well, so they may move as
  far as they moved between the references of both releases in any context, and at least so far that ``_ANSWERS`` of a
  device's answers are others. How sure a model is has no scale that two models share: compared is only which share of
  the answers is less sure than three quarters of its own held-out reference, and than the least part of it that both
  can tell apart, and only towards less sure. Training data are no scale: the longer a model learns them, the surer it
  is of them alone.
- *Embeddings* of two models have nothing in common and begin anew.

Answers of other classes count only while the device is not surer than before: a better release at a place where the
earlier one was unsure looks like that. What devices share is not taken off outputs: a bad release is what they share.

Decides nothing about alarms. Source: ``docs/explanation/drift.md``, "A new release".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.baseline import Collected, Kept, KeptOfDevice, autocorrelation_time
from server.drift.detection.detector_bank import DetectorBank, Observation
from server.drift.detection.evidence import values
from server.drift.detection.movement import KAPPA, Ordinary, ScoreColumns
from server.drift.detection.reference import (
    OWN_SHAPES,
    SHAPES,
    THETAS,
    Floats,
    Ints,
    Singles,
    own_deviations,
    proportions,
    scores,
    shapes,
)
from wire.histogram import BINS
from wire.reference import Reference

BankKey = tuple[str, str]
"""(reference id, artifact), 32 hex digits each."""

Levels: TypeAlias = Mapping[str, tuple[float, float]]
AnyCounts = TypeVar("AnyCounts", Ints, Floats)

_ANSWERS = 0.1  # of a device's answers, which a good release may change: several times the usual share of flips
_UNSURE = (1 / 16, 1 / 4)  # shares of the reference of which a model is least sure, at least
_APART = 1 / 8  # of the reference between the two
_LEVELS = len(_UNSURE)
_DEGREES = 1.0  # nats below the limit at which inputs still count as quiet
_SURENESS: Mapping[str, tuple[str, ...]] = {
    "confidence": ("down", "low_end"), "margin": ("down", "low_end"), "entropy": ("up", "high_end"),
}  # fmt: skip
"""Streams of how sure a model is, with the shapes of less sure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """The part of a reference that two releases are compared by: names, kinds and edges (S, 15) of its streams.

    ``classes``: how many; ``categorical``: the places of the streams whose value is one; ``contexts``: the shares
    (S, 16) of the bins by the name of the context. ``model``: whose release it is of.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    categorical: tuple[int, ...] = ()
    classes: int = 0
    contexts: Mapping[str, Floats] = field(default_factory=dict)
    model: str = ""

    @classmethod
    def of(cls, reference: Reference, model: str = "") -> StreamFacts:
        """Return those of the ``reference`` of a release of ``model``."""
        streams = reference.streams
        return cls(
            names=tuple(stream.name for stream in streams),
            kinds=tuple(stream.kind for stream in streams),
            edges=reference.edges,
            categorical=tuple(place for place, stream in enumerate(streams) if stream.categorical),
            classes=reference.classes,
            model=model,
            contexts={
                context.name: proportions(np.array(context.counts, np.int64).reshape(len(streams), BINS))
                for context in reference.contexts
            },
        )

    def unsure(self, name: str) -> Floats:
        """Return the shares (16,) of the reference by bin of a stream of how sure a model is, the least sure first."""
        place = self.names.index(name)
        shares = next(iter(self.contexts.values()))[place] if self.contexts else np.full(BINS, 1 / BINS)
        return shares[:: _turned(name)]

    def coarse(self, counts: AnyCounts, levels: Levels) -> AnyCounts:
        """Return ``counts`` (..., S, 16) with streams of how sure a model is in three bins.

        The first two (of entropy: the last two) are the answers that are among the shares of the reference, ``levels``,
        of which it is least sure, by parts of a bin where a limit is inside one; all others are in the last bin (the
        first).
        """
        found = counts.copy()
        for name in self.names:
            if name not in levels:
                continue
            place, turned = self.names.index(name), _turned(name)
            p, own = self.unsure(name), counts[..., place, ::turned]
            before = np.cumsum(p) - p
            parts = [np.clip((level - before) / np.maximum(p, 1e-12), 0.0, 1.0) for level in levels[name]]
            unsure = np.stack([own @ part for part in parts], axis=-1)
            unsure = np.rint(unsure) if np.issubdtype(counts.dtype, np.integer) else unsure
            bins = np.zeros_like(own)
            bins[..., :_LEVELS] = np.diff(unsure, axis=-1, prepend=0)
            bins[..., BINS - 1] = own.sum(axis=-1) - unsure[..., -1]
            found[..., place, :] = bins[..., ::turned]
        return found

    @property
    def columns(self) -> ScoreColumns:
        """The columns of a bank of these streams."""
        return ScoreColumns(len(self.names), self.categorical)

    @property
    def outputs(self) -> NDArray[np.bool_]:
        """Which streams are outputs, (S,)."""
        return np.array([kind == "output" for kind in self.kinds], np.bool_)


def _turned(name: str) -> int:
    return -1 if name == "entropy" else 1


def levels_of(old: StreamFacts, new: StreamFacts) -> Levels:
    """Return which shares of the references are compared, by stream: the first is a whole bin of one of the two."""
    found = {}
    for name in _SURENESS:
        if name in old.names and name in new.names:
            first = max(_UNSURE[0], float(old.unsure(name)[0]), float(new.unsure(name)[0]))
            found[name] = (first, max(_UNSURE[1], first + _APART))
    return found


def places(old: StreamFacts, new: StreamFacts) -> Ints:
    """Return for each stream of ``new`` its place in ``old``, -1 where the two can't be compared, (S,)."""
    found = np.full(len(new.names), -1)
    known = {(name, kind): place for place, (name, kind) in enumerate(zip(old.names, old.kinds, strict=True))}
    for place, (name, kind) in enumerate(zip(new.names, new.kinds, strict=True)):
        before = known.get((name, kind), -1)
        if before < 0 or kind == "embedding":
            continue
        same_bins = old.edges[before] == new.edges[place]
        if place in new.categorical:
            same_bins = same_bins and old.classes == new.classes and before in old.categorical
        elif kind == "output":
            same_bins = True  # each is compared with the training data of its own model
        if same_bins:
            found[place] = before
    return found


def restarted(old: StreamFacts, new: StreamFacts) -> tuple[str, ...]:
    """Return the inputs of ``new`` whose baselines begin anew after ``old``, because their bins differ."""
    return tuple(
        name
        for name, kind, place in zip(new.names, new.kinds, places(old, new), strict=True)
        if kind == "input" and place < 0
    )


def joined(own: Collected, before: Collected, old: StreamFacts, new: StreamFacts) -> Collected:
    """Return the baseline ``own`` of a release, with the inputs of the baseline ``before`` of the release before.

    ``before`` may have other windows: it then counts as many as ``own``, with as much sampling error as it has.
    """
    place = places(old, new)
    stays = (place >= 0) & (np.array(new.kinds) == "input")
    longer = own.windows / max(before.windows, 1)
    counts, squares = own.counts.copy(), own.squares.copy()
    counts[stays] = np.rint(before.counts[place[stays]] * longer)
    squares[stays] = before.squares[place[stays]] * longer
    ordinary = own.ordinary
    if ordinary is not None and before.ordinary is not None:
        column, kept = _columns(place, old, new)
        kept &= stays[new.columns.stream]
        parts = {}
        for name in ("memory", "movement", "trend"):
            array: Singles = getattr(ordinary, name).copy()
            array[..., kept] = getattr(before.ordinary, name)[..., column[kept]]
            parts[name] = array
        parts["memory"][..., kept] *= max(longer, 1.0)
        ordinary = replace(ordinary, **parts)
    return Collected(windows=own.windows, counts=counts, squares=squares, ordinary=ordinary)


def _columns(place: Ints, old: StreamFacts, new: StreamFacts) -> tuple[Ints, NDArray[np.bool_]]:
    """Return for each column of ``new`` that of ``old``, and whether there is one, both (K,)."""
    by_shape = np.arange(old.columns.count)[: len(old.names) * len(OWN_SHAPES)].reshape(len(old.names), -1)
    by_class = np.arange(by_shape.size, old.columns.count).reshape(-1, BINS)
    classes = [by_class[old.categorical.index(place[one])] if place[one] >= 0 else np.full(BINS, -1)
               for one in new.categorical]  # fmt: skip
    shape = np.where(place[:, None] >= 0, by_shape[np.maximum(place, 0)], -1)
    found = np.concatenate([shape.ravel(), *classes]).astype(int)
    return found, found >= 0


def _allowed(counts: Ints, place: Ints, old: StreamFacts, new: StreamFacts) -> Floats:
    """Return how far each column of the outputs may move by a good release, (K,), in standard deviations of a sample.

    ``counts`` (S, 16): the baseline. As far as its mean can move if ``_ANSWERS`` of the answers become any others, and
    as far as it moved between the references, in each context that both have. 0 for inputs.
    """
    p, columns, levels = proportions(counts), new.columns, levels_of(old, new)
    spread = shapes(p)[:, list(OWN_SHAPES)]
    most = np.ptp(spread, axis=-1) * _ANSWERS
    of_class = np.full((len(new.categorical), BINS), _ANSWERS)
    for name in old.contexts.keys() & new.contexts.keys():
        before = old.coarse(old.contexts[name], levels)[np.maximum(place, 0)]
        apart = new.coarse(new.contexts[name], levels) - before
        most = np.maximum(most, np.abs(scores(apart, p)[..., list(OWN_SHAPES)]))
        of_class = np.maximum(of_class, np.abs(apart[list(new.categorical)]))
    q = p[list(new.categorical)]
    deviation = columns.joined(own_deviations(p), np.sqrt(q * (1 - q)))
    outputs = new.outputs[columns.stream]
    return np.where(outputs, columns.joined(most, of_class) / KAPPA / np.maximum(deviation, 1e-9), 0.0)


def compared(before: Collected, old: StreamFacts, new: StreamFacts) -> Collected:
    """Return the baseline ``before`` of a device's release in the streams of its next one, to judge that by."""
    place, columns = places(old, new), new.columns
    kept = place >= 0
    counts = np.zeros((len(new.names), BINS), np.int64)
    counts[kept] = old.coarse(before.counts, levels_of(old, new))[place[kept]]
    squares = np.zeros((len(new.names), before.squares.shape[1]))
    squares[kept] = before.squares[place[kept]]
    column, has = _columns(place, old, new)
    if before.ordinary is None:
        single = autocorrelation_time(before.counts[None], before.squares[None], np.array([before.windows]))[0]
        memory, movement = single[old.columns.stream], np.zeros(old.columns.count)
        trend = movement
    else:
        memory, movement = before.ordinary.memory[0], before.ordinary.movement[0]
        trend = before.ordinary.trend[0]
    layout = Ordinary.layout(columns)
    none = {name: np.zeros(layout[name], np.float32) for name in ("ratios", "pairs", "moved", "lags", "hours")}
    moved = np.where(has, movement[np.maximum(column, 0)], 0.0)
    ordinary = Ordinary(
        memory=np.where(has, memory[np.maximum(column, 0)], 1.0)[None].astype(np.float32),
        movement=np.maximum(moved, _allowed(counts, place, old, new))[None].astype(np.float32),
        trend=np.where(has, trend[np.maximum(column, 0)], 0.0)[None].astype(np.float32),
        **none,
    )
    return Collected(windows=before.windows, counts=counts, squares=squares, ordinary=ordinary)


@dataclass(slots=True, kw_only=True)
class Carried:
    """The devices of one bank that are judged by their baselines under the release before, until they have their own.

    ``facts``: of the bank's reference; ``bank``: their detectors; ``origins``: the bank that each one's baseline of
    inputs is from, until its own is complete; ``kept``: the baselines of those that are judged here, in the streams of
    the new release, and ``levels`` at which the two releases are compared.
    """

    facts: StreamFacts
    bank: DetectorBank = field(init=False)
    origins: dict[str, BankKey] = field(default_factory=dict)
    kept: dict[str, KeptOfDevice] = field(default_factory=dict)
    levels: dict[str, Levels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the bank, without devices."""
        unused = np.zeros((len(self.facts.names), len(SHAPES), len(THETAS)), np.bool_)
        for place, name in enumerate(self.facts.names):
            if self.facts.outputs[place] and (name in _SURENESS or place in self.facts.categorical):
                unused[place, [shape not in _SURENESS.get(name, ()) for shape in SHAPES]] = True
        self.bank = DetectorBank(
            columns=self.facts.columns, training=None, unused=unused.reshape(len(self.facts.names), -1),
            uncontrolled=self.facts.outputs,
        )  # fmt: skip

    def begin(self, device: str, origin: tuple[BankKey, DetectorBank, StreamFacts], slot: int) -> None:
        """Judge ``device`` by its complete baselines in ``origin``, from ``slot`` on."""
        _, before, facts = origin
        self.carry(device, origin, slot)
        column, has = _columns(places(facts, self.facts), facts, self.facts)
        aged = np.where(has, before.aged[before.rows[device]][np.maximum(column, 0)], 0.0)
        self.bank.begin(device, aged.astype(np.float32))

    def carry(self, device: str, origin: tuple[BankKey, DetectorBank, StreamFacts], slot: int) -> None:
        """Note the baselines of ``device``, as they are when a checkpoint is read; they apply from ``slot`` on."""
        key, before, facts = origin
        seen = before.commissioning[before.rows[device]]
        self.origins[device], self.levels[device] = key, levels_of(facts, self.facts)
        self.kept[device] = {
            context: Kept(slot - 1, compared(collected, facts, self.facts))
            for context, collected in sorted(seen.estimated.items())
        }

    def judge_no_more(self, devices: Iterable[str]) -> None:
        """Judge ``devices`` here no more: they have a provisional baseline, whose inputs are still those before."""
        for device in devices:
            self.kept.pop(device, None)
            self.levels.pop(device, None)

    def end(self, devices: Iterable[str]) -> None:
        """Forget ``devices``: their baselines are complete, or they have another release."""
        gone = list(devices)
        self.judge_no_more(gone)
        for device in gone:
            self.origins.pop(device, None)

    def windows(self, window: Sequence[Observation]) -> list[Observation]:
        """Return the part of ``window`` that is judged here: of these devices, and of streams that can be compared."""
        return [
            Observation(seen.device, self._comparable(seen), seen.context)
            for seen in window
            if seen.context in self.kept.get(seen.device, {})
        ]

    def _comparable(self, seen: Observation) -> Ints:
        usual = self.kept[seen.device][seen.context].collected.counts
        counts = self.facts.coarse(seen.counts, self.levels[seen.device])
        counts[usual.sum(axis=-1) == 0] = 0
        if self._is_surer(counts, usual):
            counts[list(self.facts.categorical)] = 0
        return counts

    def _is_surer(self, counts: Ints, usual: Ints) -> bool:
        """Return whether clearly fewer answers of a window are unsure than in the baseline."""
        if "confidence" not in self.facts.names:
            return False
        place = self.facts.names.index("confidence")
        now, before = (float(one[place, :_LEVELS].sum() / max(one[place].sum(), 1)) for one in (counts, usual))
        return now < before - _ANSWERS

    def outputs_alone(self, device: str, limit: float) -> bool:
        """Return whether the evidence of the outputs of ``device`` reaches ``limit`` and that of its inputs does not.

        Inputs within a factor of e of it count as moved.
        """
        row, outputs, classes = self.bank.rows.get(device), self.facts.outputs, list(self.facts.categorical)
        if row is None or device not in self.kept or not outputs.any():
            return False
        inputs = float(values(self.bank.log_m[row, ~outputs])) if not outputs.all() else -np.inf
        found = float(values(self.bank.log_m[row, outputs], self.bank.class_m[row] if classes else None))
        return found >= limit > inputs + _DEGREES

    def copy(self, spare: Carried | None = None) -> Carried:
        """Return an independent copy; it reuses the arrays of ``spare``, which must not be used afterwards."""
        twin = Carried(facts=self.facts, origins=dict(self.origins), kept=dict(self.kept), levels=dict(self.levels))
        twin.bank = self.bank.copy(None if spare is None else spare.bank)
        return twin
