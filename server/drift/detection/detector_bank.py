"""The detectors of all devices under one (reference, artifact): arrays, one row per device, updated per window.

Two levels: against the training reference (shown; decides nothing), and against the device's own baseline. A kept
baseline applies from the slot in which it was completed. A provisional baseline judges only where the device is one of
at least eight, because what they share must be taken off, and detectors begin again when a baseline is estimated
again: their evidence was against another one.
Counts made with different references are never mixed: they are in different banks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.baseline import FINAL, Commissioning, Kept, KeptOfDevice, baselines
from server.drift.detection.evidence import class_increments, fade, increments, memory_at, sums, update, values
from server.drift.detection.movement import (
    CONTROL_DEVICES,
    KAPPA,
    LENGTHS,
    FleetMovement,
    Movement,
    Ordinary,
    Pairs,
    ScoreColumns,
    ageing,
    shared,
)
from server.drift.detection.places import LOOK_WINDOWS, place_values
from server.drift.detection.reference import (
    CLASS_THETAS,
    CLASS_TILTS,
    OWN_SHAPES,
    SHAPE_MEMORY,
    SHAPE_SIGNS,
    THETAS,
    TILTS,
    Floats,
    Ints,
    Profile,
    Singles,
    own_deviations,
    scores,
    shift_of,
)
from wire.histogram import BINS

_MOST_MOVED = 0.5  # of the devices' spread: if the fleet's middle moved further, at least half of the devices did
_UNLIKE = 0.3  # share of what the devices share that may be more or less for a single one
_FIRST_HALF = np.array([0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])  # devices follow a common shift more alike
ROWS = 1024  # devices at a time, which bounds the size of temporary arrays
_ROWS_COMPLETED = 128  # their normalisers need 3 kB a device, stream and strength


@dataclass(frozen=True, slots=True)
class ContextBaselines:
    """The devices' baselines in one context: shares of the samples (D, S, 16), independent samples (D, S), 0 for none.

    The shares are not smoothed: with a prior per device, the prior's weight in a pool would not shrink. ``hours``
    (D, 24): the shares of the samples at each hour of the day.
    """

    usual: Singles
    n_effective: Floats
    hours: Singles

    @classmethod
    def empty(cls, streams: int) -> ContextBaselines:
        """Return the baselines of no device."""
        return cls(
            np.zeros((0, streams, BINS), np.float32), np.zeros((0, streams)), np.zeros((0, LENGTHS[-1]), np.float32)
        )

    def with_rows(self, count: int) -> ContextBaselines:
        """Return a copy with rows for ``count`` more devices, without baselines."""
        streams = self.usual.shape[1]
        usual = np.concatenate([self.usual, np.full((count, streams, BINS), 1 / BINS, np.float32)])
        n_effective = np.concatenate([self.n_effective, np.zeros((count, streams))])
        hours = np.concatenate([self.hours, np.zeros((count, LENGTHS[-1]), np.float32)])
        return ContextBaselines(usual, n_effective, hours)

    def without(self, rows: Sequence[int]) -> ContextBaselines:
        """Return a copy in which the devices ``rows`` have no baselines."""
        twin = self.copy()
        twin.usual[rows], twin.n_effective[rows], twin.hours[rows] = 1 / BINS, 0.0, 0.0
        return twin

    def copy(self) -> ContextBaselines:
        """Return an independent copy."""
        return ContextBaselines(self.usual.copy(), self.n_effective.copy(), self.hours.copy())


@dataclass(frozen=True, slots=True)
class Observation:
    """One device's window: ``counts`` (S, 16), in one context."""

    device: str
    counts: Ints
    context: int = 0


@dataclass(frozen=True, slots=True)
class SharedMovement:
    """What a slot's windows of one context were judged by beside their own counts and baselines.

    ``common`` (K,): what the devices shared; ``held`` (S,): streams in which nobody was judged; ``log_cap``: of the
    detectors.
    """

    common: Floats
    held: NDArray[np.bool_]
    log_cap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotContext:
    """The slot of a window, with the cap of the detectors and the kept baselines by device.

    ``alarming`` (S,): the streams in which the fleet's pool alarms, or cannot be judged yet; ``flagged``: the devices
    with an alarm before this slot, whose windows do not enter a baseline.
    """

    slot: int
    log_cap: float
    kept: Mapping[str, KeptOfDevice]
    alarming: NDArray[np.bool_]
    flagged: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """The parameters of the statistics; ``DriftConfig`` explains each."""

    baseline_windows: int
    z: float
    epsilon: float
    log_alpha: float
    window_ms: int
    provisional_windows: int = 0

    @property
    def stages(self) -> tuple[int, ...]:
        """After how many windows a baseline is estimated: provisionally, again half-way, and for good."""
        first, last = self.provisional_windows, self.baseline_windows
        return tuple(sorted({first, max(first, last // 2), last})) if 0 < first < last else (last,)


@dataclass(slots=True, kw_only=True)
class DetectorBank:
    """The state of every device under one reference. D devices, S streams, C of them classes, K columns.

    ``stage``: 0 without a baseline, ``FINAL`` with a complete one, in between with a provisional one.
    ``log_z``, ``class_log_z``, ``memory`` at ``rate``, ``usual`` (proportions) and ``n_effective`` describe
    the devices' own baselines; the detectors ``log_m`` and the fading evidence ``recent`` (D, S, 24), and those of
    classes (D, C, 80), are against these, ``training_m`` and ``training_recent`` against the training reference;
    ``place`` (D,): the log evidence that a device looks at no place of training, -inf before it is known.
    ``movement``: the batches of devices that collect a baseline, by context; ``ended``: the pairs of batches that ended
    in the latest slot; ``fleet``: of all complete baselines. ``unused`` (S, 24): tilts that get no evidence;
    ``uncontrolled`` (S,): streams from which what devices share is not taken off; None for none. ``shared``: by what
    the latest slot's windows were judged beside their own, by context; in the ``held`` streams nobody was, because most
    of the fleet moved.
    """

    columns: ScoreColumns
    training: Profile | None
    unused: NDArray[np.bool_] | None = None
    uncontrolled: NDArray[np.bool_] | None = None
    devices: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    commissioning: list[Commissioning] = field(default_factory=list)
    contexts: dict[int, ContextBaselines] = field(default_factory=dict)
    movement: dict[int, Movement] = field(default_factory=dict)
    ended: list[tuple[Movement, Pairs]] = field(default_factory=list)
    shared: dict[int, SharedMovement] = field(default_factory=dict)
    fleet: FleetMovement = field(init=False)
    stage: NDArray[np.int8] = field(init=False)
    log_z: Singles = field(init=False)
    class_log_z: Singles = field(init=False)
    memory: Singles = field(init=False)
    ordinary: Singles = field(init=False)
    trend: Singles = field(init=False)
    rate: Singles = field(init=False)
    usual: Singles = field(init=False)
    n_effective: Floats = field(init=False)
    log_m: Singles = field(init=False)
    recent: Singles = field(init=False)
    class_m: Singles = field(init=False)
    class_recent: Singles = field(init=False)
    training_m: Singles = field(init=False)
    training_recent: Singles = field(init=False)
    place: Singles = field(init=False)
    aged: Singles = field(init=False)

    def __post_init__(self) -> None:
        """Create the arrays, without rows."""
        self.fleet = FleetMovement.empty(self.columns)
        for name, (width, kind, _) in arrays_of(self.columns).items():
            setattr(self, name, np.zeros((0, *width), kind))

    @property
    def streams(self) -> int:
        """S."""
        return self.columns.streams

    @property
    def tilts(self) -> int:
        """The number of tilts of a device."""
        return self.streams * TILTS + len(self.columns.classes) * CLASS_TILTS

    def step(
        self, window: Sequence[Observation], settings: DetectorSettings, moment: SlotContext
    ) -> dict[tuple[str, int], Kept]:
        """Process one slot's windows of any number of devices; several contexts of one device one after the other.

        Returns the baselines that these windows completed, by (device, context).
        """
        devices = list(dict.fromkeys(seen.device for seen in window))
        self._admit(devices, settings.stages)
        self._restore(devices, settings, moment)
        self.ended, self.shared = [], {}
        for context, movement in list(self.movement.items()):
            movement.drop([one for one in movement.devices if not self._collects(one, context)])
            self.ended += [(movement, pairs) for pairs in movement.close(moment.slot)]
            if not movement.devices:
                del self.movement[context]
        completed: dict[tuple[str, int], Kept] = {}
        again: list[int] = []  # the rows of baselines that are estimated again
        for context in sorted({seen.context for seen in window}):
            part = [seen for seen in window if seen.context == context]
            newest = list({seen.device: seen for seen in part}.values())  # of two in one slot, the last is judged
            for first in range(0, len(newest), ROWS):
                some = newest[first : first + ROWS]
                rows = np.array([self.rows[seen.device] for seen in some])
                counts = np.stack([seen.counts for seen in some])
                self._against_training(rows, counts, moment.log_cap)
            self.shared[context] = self._against_baseline(self.judged(newest), moment)
            quiet = [seen for seen in newest if seen.device not in moment.flagged]
            self._follow([seen for seen in quiet if self._collects(seen.device, context)], context, moment.slot)
            before = {seen.device for seen in part if context in self.commissioning[self.rows[seen.device]].estimated}
            fresh = self._collect(part, context, moment)
            completed |= {(device, context): kept for device, kept in fresh.items()}
            again += [self.rows[device] for device in fresh.keys() & before]
        self.complete([self.rows[device] for device, _ in completed], settings)
        for name in _AGAINST_BASELINE:
            getattr(self, name)[again] = arrays_of(self.columns)[name][2]
        collecting = [device for device in devices if self.stage[self.rows[device]] < FINAL]
        looks = {one for one in collecting if self.commissioning[self.rows[one]].windows % LOOK_WINDOWS == 0}
        self._compare_places({device for device, _ in completed} | looks)
        return completed

    def _collect(self, part: Sequence[Observation], context: int, moment: SlotContext) -> dict[str, Kept]:
        """Add windows of one context to the baselines; return those that are estimated with them, by device."""
        found: dict[str, Kept] = {}
        fresh = []
        for seen in part:
            row = self.rows[seen.device]
            if not self.commissioning[row].wants(context):
                continue
            kept = moment.kept.get(seen.device, {}).get(context)
            if kept is not None and kept.slot == moment.slot:
                found[seen.device] = kept
                self._take(row, context, kept)
            elif seen.device in moment.flagged or (kept is not None and self._awaits(row, context, kept, moment)):
                continue
            elif self.commissioning[row].add(context, seen.counts):
                fresh.append(seen.device)
        self._measure(fresh, context)
        for device in fresh:
            own = self.commissioning[self.rows[device]]
            found[device] = Kept(moment.slot, own.estimated[context], own.wants(context))
        return found

    def judged(self, window: Sequence[Observation]) -> list[Observation]:
        """Return the observations of one context that are judged: of devices with a complete baseline.

        Those with a provisional one are too if there are at least eight, whose common movement is known.
        """
        known = [seen for seen in window if seen.context in self.commissioning[self.rows[seen.device]].estimated]
        if len(known) >= CONTROL_DEVICES:
            return known
        return [seen for seen in known if not self._collects(seen.device, seen.context)]

    def _awaits(self, row: int, context: int, kept: Kept, moment: SlotContext) -> bool:
        """Return whether ``kept`` is of a later slot, and one more window would be as many as it has."""
        own = self.commissioning[row]
        seen = own.seen[context].windows if context in own.seen else 0
        return kept.slot > moment.slot and seen + 1 >= min(kept.collected.windows, own.stages[-1])

    def _collects(self, device: str, context: int) -> bool:
        return self.commissioning[self.rows[device]].wants(context)

    def _follow(self, window: Sequence[Observation], context: int, slot: int) -> None:
        """Add the windows of collecting devices to their batches; end the batches that end with this slot."""
        if window:
            movement = self.movement.setdefault(context, Movement(columns=self.columns))
            devices = [seen.device for seen in window]
            movement.admit(devices)
            movement.add(slot, devices, np.stack([seen.counts for seen in window]))
            self.ended += [(movement, pairs) for pairs in movement.close(slot + 1)]

    def _measure(self, devices: Sequence[str], context: int) -> None:
        """Note how the windows of ``devices``, whose baselines are complete now, moved; shrunk to the fleet."""
        if not devices:
            return
        parts = [self.commissioning[self.rows[device]] for device in devices]
        for part in parts:
            self._forget(part, context)
        collected = [part.seen[context] for part in parts]
        counts, windows = np.stack([one.counts for one in collected]), np.array([one.windows for one in collected])
        ordinary = self.movement[context].ordinary(devices, counts, windows, self.fleet)
        for row, one in enumerate(collected):
            one.ordinary = ordinary.of(row)
            parts[row].estimate(context)

    def _forget(self, part: Commissioning, context: int) -> None:
        """Take away from the fleet's movement that of an earlier estimate."""
        older = part.estimated.get(context)
        if older is not None and older.ordinary is not None:
            self.fleet.add(older.ordinary, times=-1.0)

    def _compare_places(self, devices: Collection[str]) -> None:
        """Compare all windows of each of ``devices`` with the places that training knows.

        Of several contexts of a device the one with the most windows counts. How its windows moved is known from an
        estimated baseline, and measured so far if one is collected; while it is not known, an earlier value stays.
        """
        if self.training is None or self.training.places is None:
            return
        alike: dict[tuple[int, bool], list[str]] = {}
        for device in devices:
            own = self.commissioning[self.rows[device]]
            if own.windows < LOOK_WINDOWS:
                continue
            context = max(own.seen, key=lambda one: own.seen[one].windows)
            collects = own.seen[context].ordinary is None
            followed = context in self.movement and device in self.movement[context].rows
            if followed or not collects:
                alike.setdefault((context, collects), []).append(device)
        for (context, collects), named in alike.items():
            for first in range(0, len(named), ROWS):
                some = named[first : first + ROWS]
                rows = [self.rows[device] for device in some]
                collected = [self.commissioning[row].seen[context] for row in rows]
                counts, windows = np.stack([one.counts for one in collected]), np.array([o.windows for o in collected])
                if collects:
                    ordinary = self.movement[context].ordinary(some, counts, windows, replace(self.fleet))
                else:
                    ordinary = Ordinary.joined([one.ordinary for one in collected if one.ordinary is not None])
                found = place_values(self.training, counts, ordinary, self.columns)
                self.place[rows] = np.where(np.isneginf(found), self.place[rows], found)

    def _take(self, row: int, context: int, kept: Kept) -> None:
        """Use a kept baseline."""
        self._forget(self.commissioning[row], context)
        self.commissioning[row].restore(context, kept)
        if kept.collected.ordinary is not None:
            self.fleet.add(kept.collected.ordinary)

    def _admit(self, devices: Sequence[str], stages: tuple[int, ...]) -> None:
        fresh = [device for device in devices if device not in self.rows]
        if not fresh:
            return
        for device in fresh:
            self.rows[device] = len(self.devices)
            self.devices.append(device)
            self.commissioning.append(Commissioning(stages=stages))
        for name, (width, kind, value) in arrays_of(self.columns).items():
            more: Singles = np.full((len(fresh), *width), value, kind)
            setattr(self, name, np.concatenate([getattr(self, name), more]))
        self.contexts = {context: part.with_rows(len(fresh)) for context, part in self.contexts.items()}

    def begin(self, device: str, aged: Singles) -> None:
        """Judge ``device`` anew, without a baseline yet; ``aged`` (K,): what the one to come has followed by now."""
        self._admit([device], (1,))
        row = self.rows[device]
        self.commissioning[row], self.stage = Commissioning(stages=(1,)), self.stage.copy()
        self.stage[row] = 0
        for name, (_, _, value) in arrays_of(self.columns).items():
            if name in DETECTORS:
                getattr(self, name)[row] = aged if name == "aged" else value

    def forget(self, devices: Collection[str]) -> None:
        """Forget everything about ``devices``: their next windows are the first of a new baseline.

        Also what the fleet learned from how they moved.
        """
        rows = [self.rows[device] for device in devices if device in self.rows]
        if not rows:
            return
        for row in rows:
            own = self.commissioning[row]
            for context in own.estimated:
                self._forget(own, context)
            self.commissioning[row] = Commissioning(stages=own.stages)
        for context, movement in list(self.movement.items()):
            movement.drop(list(devices))
            if not movement.devices:
                del self.movement[context]
        for name, (_, _, value) in arrays_of(self.columns).items():
            if name in _SHARED:
                setattr(self, name, getattr(self, name).copy())
            getattr(self, name)[rows] = value
        self.contexts = {context: part.without(rows) for context, part in self.contexts.items()}

    def refill(
        self, devices: Sequence[str], commissioning: Sequence[Commissioning], detectors: Mapping[str, Singles],
        settings: DetectorSettings,
    ) -> None:  # fmt: skip
        """Add the devices of a checkpoint to this bank, which must be empty.

        ``commissioning``: the baseline of each so far; ``detectors``: by the names of ``DETECTORS``.
        """
        self._admit(devices, settings.stages)
        self.commissioning = list(commissioning)
        self.complete([row for row, part in enumerate(self.commissioning) if part.estimated], settings)
        for name in DETECTORS:
            setattr(self, name, detectors[name])

    def _restore(self, devices: Sequence[str], settings: DetectorSettings, moment: SlotContext) -> None:
        """Load the kept baselines that were estimated before this slot."""
        rows = []
        for device in devices:
            row = self.rows[device]
            own = self.commissioning[row]
            for context, kept in sorted(moment.kept.get(device, {}).items()):
                has = own.estimated[context].windows if context in own.estimated else 0
                if (
                    kept.slot < moment.slot
                    and own.wants(context)
                    and (not kept.provisional or has < kept.collected.windows)
                ):
                    self._take(row, context, kept)
                    rows.append(row)
        self.complete(list(dict.fromkeys(rows)), settings)
        self._compare_places({self.devices[row] for row in rows})

    def _against_training(self, rows: NDArray[np.int64], counts: Ints, log_cap: float) -> None:
        if self.training is None:
            return
        score, memory = sums(counts, self.training.shapes), self._memory(rows, counts.sum(axis=-1))[0]
        step = increments(score, counts.sum(axis=-1), self.training.log_z, memory)
        self.training_m[rows] = update(self.training_m[rows], step, log_cap=log_cap)
        self.training_recent[rows] = fade(self.training_recent[rows], step)

    def _memory(self, rows: NDArray[np.int64], n: Ints) -> tuple[Floats, Floats]:
        """Return the memory by shape (R, S, 8) and by class (R, C, 16) at the rates of windows of ``n`` (R, S)."""
        ratio = (n / np.maximum(self.rate[rows], 1e-9))[:, self.columns.stream]
        by_shape, by_class = self.columns.by_stream(memory_at(self.memory[rows].astype(np.float64), ratio))
        return by_shape[..., list(SHAPE_MEMORY)], by_class

    def _against_baseline(self, window: Sequence[Observation], moment: SlotContext) -> SharedMovement:
        """Update the detectors of devices that have a baseline, less what they share and what they have aged.

        Returns what they share, and the streams in which nobody is judged.
        """
        if not window:
            return SharedMovement(np.zeros(self.columns.count), np.zeros(self.streams, np.bool_), moment.log_cap)
        rows = np.array([self.rows[seen.device] for seen in window])
        residuals = np.zeros((len(window), self.columns.count), np.float32)
        for first in range(0, len(window), ROWS):
            some = slice(first, first + ROWS)
            residuals[some] = self._residuals(rows[some], np.stack([seen.counts for seen in window[some]]))
        samples = np.median([seen.counts.sum(axis=-1) for seen in window], axis=0)[self.columns.stream]
        common, spread = shared(residuals, samples)
        if self.uncontrolled is not None:
            common = np.where(self.uncontrolled[self.columns.stream], 0.0, common)
        # Most of the fleet moved, so the devices that did not would be flagged: nobody is judged there until it ends.
        moved, of_class = self.columns.by_stream(np.maximum(np.abs(common) - _MOST_MOVED * spread, 0.0))
        held: NDArray[np.bool_] = moment.alarming & moved.any(axis=-1)
        held[list(self.columns.classes)] |= of_class.any(axis=-1) & moment.alarming[list(self.columns.classes)]
        by = SharedMovement(common, held, moment.log_cap)
        for first in range(0, len(window), ROWS):
            some = slice(first, first + ROWS)
            self._settle(rows[some], np.stack([seen.counts for seen in window[some]]), residuals[some], by)
        return by

    def _settle(self, rows: NDArray[np.int64], counts: Ints, residuals: Singles, by: SharedMovement) -> None:
        """Update the detectors of ``rows`` with ``counts`` (R, S, 16), which are changed, and their ``residuals``."""
        counts[:, by.held] = 0
        self._judge(rows, counts, by.common, by.log_cap)
        self._age(rows, counts, residuals - by.common)

    def retrace(self, device: str, counts: Ints, by: SharedMovement) -> None:
        """Judge one more window (S, 16) of ``device``, as ``step`` did, by what that slot's devices shared."""
        rows = np.array([self.rows[device]])
        residuals = np.zeros((1, self.columns.count), np.float32)
        residuals[:] = self._residuals(rows, counts[None])
        self._settle(rows, counts[None].copy(), residuals, by)

    def _residuals(self, rows: NDArray[np.int64], counts: Ints) -> Floats:
        """Return by how much the means of windows differ from the baselines, (R, K), in each device's own shapes."""
        usual, n = self.usual[rows], np.maximum(counts.sum(axis=-1), 1)
        apart = counts / n[..., None] - usual
        own = scores(apart, usual)[..., list(OWN_SHAPES)]
        return self.columns.joined(own, apart[:, list(self.columns.classes)])

    def _judge(self, rows: NDArray[np.int64], counts: Ints, common: Floats, log_cap: float) -> None:
        """Update the detectors; ``common`` (K,): what the devices share in this slot.

        Devices do not respond to it alike, so a part of it counts as possible in either direction.
        """
        n, (memory, class_memory) = counts.sum(axis=-1), self._memory(rows, counts.sum(axis=-1))
        taken, class_taken = self.columns.by_stream(common + self.aged[rows])
        spread, class_spread = self.columns.by_stream(_UNLIKE * np.abs(common))
        taken, spread = taken[..., list(SHAPE_MEMORY)] * SHAPE_SIGNS, spread[..., list(SHAPE_MEMORY)] * _FIRST_HALF
        score = scores(counts, self.usual[rows]) - n[..., None] * taken
        wider = (spread[..., None] * np.array(THETAS)).reshape(self.streams, TILTS)
        step = increments(score, n, self.log_z[rows] + wider, memory)
        if self.unused is not None:
            step[:, self.unused] = -np.inf
        self.log_m[rows] = update(self.log_m[rows], step, log_cap=log_cap)
        self.recent[rows] = fade(self.recent[rows], step)
        if self.columns.classes:
            classes = list(self.columns.classes)
            own = counts[:, classes] - n[:, classes, None] * class_taken
            wider = (class_spread[..., None] * np.abs(CLASS_THETAS)).reshape(len(classes), CLASS_TILTS)
            step = class_increments(own, n[:, classes], self.class_log_z[rows] + wider, class_memory)
            self.class_m[rows] = update(self.class_m[rows], step, log_cap=log_cap)
            self.class_recent[rows] = fade(self.class_recent[rows], step)

    def _age(self, rows: NDArray[np.int64], counts: Ints, residuals: Floats) -> None:
        """Let the baselines follow slow changes: towards the latest window, at most .03 standard deviations a day."""
        usual = self.usual[rows]
        of_class = usual[:, list(self.columns.classes)]
        deviation = self.columns.joined(own_deviations(usual), np.sqrt(of_class * (1 - of_class)))
        seen = (counts.sum(axis=-1) > 0)[:, self.columns.stream]
        self.aged[rows] += np.where(seen, ageing(residuals - self.aged[rows], deviation), 0.0)

    def complete(self, rows: Sequence[int], settings: DetectorSettings) -> None:
        """Fill in the completed baselines; the arrays are replaced, because copies of the bank share them."""
        if not rows:
            return
        for name in _SHARED:
            setattr(self, name, getattr(self, name).copy())
        self.contexts = {context: part.copy() for context, part in self.contexts.items()}
        alike: dict[frozenset[int], list[int]] = {}
        for row in rows:
            alike.setdefault(frozenset(self.commissioning[row].estimated), []).append(row)
            self.stage[row] = self.commissioning[row].stage
        for members in alike.values():
            for first in range(0, len(members), _ROWS_COMPLETED):
                some = members[first : first + _ROWS_COMPLETED]
                parts = [self.commissioning[row] for row in some]
                own = baselines(parts, self.columns, z=settings.z, epsilon=settings.epsilon)
                self.log_z[some], self.class_log_z[some] = own.log_z, own.class_log_z
                self.memory[some], self.ordinary[some], self.rate[some] = own.memory, own.movement, own.rate
                self.trend[some] = own.trend
                self.usual[some], self.n_effective[some] = own.proportions, own.n_effective
                for context, (usual, n_effective, hours) in own.contexts.items():
                    part = self._context(context)
                    part.usual[some], part.n_effective[some], part.hours[some] = usual, n_effective, hours

    def _context(self, context: int) -> ContextBaselines:
        if context not in self.contexts:
            self.contexts[context] = ContextBaselines.empty(self.streams).with_rows(len(self.devices))
        return self.contexts[context]

    def log_values(self) -> Floats:
        """Return the devices' values against their own baselines, (D,); -inf while commissioning."""
        return _values(self.log_m, self.class_m)

    def evidence(self, rows: Sequence[int]) -> Floats:
        """Return the fading evidence (R, S, 24) by which the causes of devices are named."""
        return self.with_classes(self.recent[rows], self.class_recent[rows])

    def with_classes(self, recent: Floats | Singles, class_recent: Floats | Singles) -> Floats:
        """Return ``recent`` (..., S, 24) with the largest of each class stream's ``class_recent`` (..., C, 80)."""
        found = recent.astype(np.float64)
        classes = list(self.columns.classes)
        found[..., classes, 0] = np.maximum(found[..., classes, 0], class_recent.max(axis=-1, initial=0.0))
        return found

    def least_shifts(self, rows: Sequence[int], z: float) -> Floats:
        """Return from what shift on, in standard deviations, each stream would be noticed (R, S); NaN before that.

        What may move, what the weakest tilt needs, and the sampling error of the baseline.
        """
        ordinary = self.columns.by_stream(self.ordinary[rows])[0][..., 0]
        error = z / np.sqrt(np.maximum(self.n_effective[rows], 1.0))
        least = shift_of(KAPPA * ordinary + min(THETAS) / 2 + error)
        return np.where(self.stage[rows, None] > 0, least, np.nan)

    def training_values(self) -> Floats:
        """Return the devices' values against the training reference, (D,)."""
        return _values(self.training_m)

    def copy(self, spare: DetectorBank | None = None) -> DetectorBank:
        """Return an independent copy, to rewind to when a late window arrives.

        It reuses the detector arrays of ``spare``, a bank that is no longer needed, if their shapes fit.
        """
        twin = DetectorBank(
            columns=self.columns, training=self.training, devices=list(self.devices), rows=dict(self.rows),
            unused=self.unused, uncontrolled=self.uncontrolled,
        )  # fmt: skip
        twin.movement = {context: movement.copy() for context, movement in self.movement.items()}
        twin.fleet = replace(self.fleet)  # its arrays are never changed in place
        twin.contexts = dict(self.contexts)
        twin.commissioning = [part.copy() for part in self.commissioning]
        for name in _SHARED:
            setattr(twin, name, getattr(self, name))
        for name in DETECTORS:
            value, old = getattr(self, name), getattr(spare, name, None)
            if old is not None and old.shape == value.shape:
                np.copyto(old, value)
                setattr(twin, name, old)
            else:
                setattr(twin, name, value.copy())
        return twin


def _values(log_m: Singles, class_m: Singles | None = None) -> Floats:
    """Return the values (D,) of detectors (D, S, 24) and (D, C, 80), in chunks of ``ROWS`` devices."""
    parts = [
        values(log_m[first : first + ROWS], None if class_m is None else class_m[first : first + ROWS])
        for first in range(0, len(log_m), ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def arrays_of(columns: ScoreColumns) -> dict[str, tuple[tuple[int, ...], type, float]]:
    """Return for each array of a bank the axes after the devices', the type, and the value without a baseline."""
    s, single = columns.streams, np.float32
    tilts, class_tilts = (s, TILTS), (len(columns.classes), CLASS_TILTS)
    return {
        "stage": ((), np.int8, 0), "log_z": (tilts, single, 0.0), "class_log_z": (class_tilts, single, 0.0),
        "memory": ((columns.count,), single, 1.0),
        "ordinary": ((columns.count,), single, 0.0), "trend": ((columns.count,), single, 0.0),
        "aged": ((columns.count,), single, 0.0),
        "rate": ((s,), single, 0.0),
        "usual": ((s, BINS), single, 1 / BINS), "n_effective": ((s,), np.float64, 0.0),
        "log_m": (tilts, single, -np.inf), "recent": (tilts, single, 0.0),
        "class_m": (class_tilts, single, -np.inf), "class_recent": (class_tilts, single, 0.0),
        "training_m": (tilts, single, -np.inf), "training_recent": (tilts, single, 0.0),
        "place": ((), single, -np.inf),
    }  # fmt: skip


DETECTORS = ("log_m", "recent", "class_m", "class_recent", "training_m", "training_recent", "place", "aged")
"""The state of a bank besides its baselines."""
_AGAINST_BASELINE = ("log_m", "recent", "class_m", "class_recent", "aged")
_SHARED = ("stage", "log_z", "class_log_z", "memory", "ordinary", "trend", "rate", "usual", "n_effective")
