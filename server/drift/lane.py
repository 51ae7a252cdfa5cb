"""All devices under one (reference, artifact): arrays, one row per device, updated a window at a time.

Two levels: against the training reference (shown; decides nothing), and against the device's own baseline. A kept
baseline is in force from the slot on in which it was completed; what the device sent up to then judges nothing.
Counts made with different references never meet: they are in different lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.drift.baseline import Commissioning, Kept, KeptOfDevice
from server.drift.evidence import fade, increments, update, values
from server.drift.reference import TILTS, Floats, Ints, Profile
from wire.histogram import BINS

_SHAPES = 8


@dataclass(frozen=True, slots=True)
class ContextBaselines:
    """The devices' baselines in one context: shares of the samples (D, S, 16), independent samples (D, S), 0 for none.

    The shares are not smoothed: a prior for each device would not become smaller with the number of devices.
    """

    usual: Floats
    n_effective: Floats

    def with_rows(self, count: int) -> ContextBaselines:
        """Return these with ``count`` further devices that have none yet."""
        streams = self.usual.shape[1]
        usual = np.concatenate([self.usual, np.full((count, streams, BINS), 1 / BINS)])
        return ContextBaselines(usual, np.concatenate([self.n_effective, np.zeros((count, streams))]))

    def with_row(self, row: int, usual: Floats, n_effective: Floats) -> ContextBaselines:
        """Return these with one device's baseline filled in (in place: the caller owns a fresh copy)."""
        self.usual[row], self.n_effective[row] = usual, n_effective
        return self

    def copy(self) -> ContextBaselines:
        """Return an independent copy."""
        return ContextBaselines(self.usual.copy(), self.n_effective.copy())


@dataclass(frozen=True, slots=True)
class Observation:
    """One device's window: ``counts`` (S, 16), in one context."""

    device: str
    counts: Ints
    context: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """When a window is taken, and what holds then: the cap of the detectors, the kept baselines by device."""

    slot: int
    log_cap: float
    kept: Mapping[str, KeptOfDevice]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the statistics are tuned by; see ``DriftConfig`` for the meaning of each."""

    baseline_windows: int
    z: float
    epsilon: float
    log_alpha: float


@dataclass(slots=True)
class Lane:
    """The state of every device under one reference. D devices, S streams."""

    streams: int
    training: Profile | None
    devices: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    commissioning: list[Commissioning] = field(default_factory=list)
    contexts: dict[int, ContextBaselines] = field(default_factory=dict)
    ready: NDArray[np.bool_] = field(init=False)
    shape: Floats = field(init=False)
    log_z: Floats = field(init=False)
    memory: Floats = field(init=False)
    usual: Floats = field(init=False)
    n_effective: Floats = field(init=False)
    log_m: Floats = field(init=False)
    recent: Floats = field(init=False)
    training_m: Floats = field(init=False)
    training_recent: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Make the arrays, without rows."""
        s = self.streams
        self.ready = np.zeros(0, np.bool_)
        self.shape, self.log_z = np.zeros((0, s, _SHAPES, BINS)), np.zeros((0, s, TILTS))
        self.memory, self.n_effective = np.ones((0, s)), np.zeros((0, s))
        self.usual = np.zeros((0, s, BINS))
        self.log_m, self.training_m = np.zeros((0, s, TILTS)), np.zeros((0, s, TILTS))
        self.recent, self.training_recent = np.zeros((0, s, TILTS)), np.zeros((0, s, TILTS))

    def step(self, window: Sequence[Observation], settings: Settings, moment: Moment) -> dict[tuple[str, int], Kept]:
        """Take one window of any number of devices; several contexts of one device are taken one by one.

        Returns the baselines that this window completed, by (device, context).
        """
        devices = list(dict.fromkeys(seen.device for seen in window))
        self._admit(devices, settings.baseline_windows)
        self._restore(devices, settings, moment)
        completed: dict[tuple[str, int], Kept] = {}
        for context in sorted({seen.context for seen in window}):
            part = [seen for seen in window if seen.context == context]
            rows = np.array([self.rows[seen.device] for seen in part])
            counts = np.stack([seen.counts for seen in part])
            self._against_training(rows, counts, moment.log_cap)
            for row in self._against_baseline(rows, counts, context, settings, moment):
                kept = Kept(moment.slot, self.commissioning[row].seen[context])
                completed[self.devices[row], context] = kept
        return completed

    def _admit(self, devices: Sequence[str], wanted: int) -> None:
        fresh = [device for device in devices if device not in self.rows]
        if not fresh:
            return
        for device in fresh:
            self.rows[device] = len(self.devices)
            self.devices.append(device)
            self.commissioning.append(Commissioning(wanted))
        for name, value in _EMPTY.items():
            older = getattr(self, name)
            more = np.full((len(fresh), *older.shape[1:]), value, older.dtype)
            setattr(self, name, np.concatenate([older, more]))
        self.contexts = {context: part.with_rows(len(fresh)) for context, part in self.contexts.items()}

    def _restore(self, devices: Sequence[str], settings: Settings, moment: Moment) -> None:
        """Take the kept baselines that were completed before this slot."""
        rows = []
        for device in devices:
            row = self.rows[device]
            for context, kept in sorted(moment.kept.get(device, {}).items()):
                if kept.slot < moment.slot and self.commissioning[row].wants(context):
                    self.commissioning[row].restore(context, kept.collected)
                    rows.append(row)
        if rows:
            self._complete(list(dict.fromkeys(rows)), settings)

    def _against_training(self, rows: NDArray[np.int64], counts: Ints, log_cap: float) -> None:
        if self.training is None:
            return
        step = increments(counts, self.training.shapes, self.training.log_z, self.memory[rows])
        self.training_m[rows] = update(self.training_m[rows], step, log_cap=log_cap)
        self.training_recent[rows] = fade(self.training_recent[rows], step)

    def _against_baseline(
        self, rows: NDArray[np.int64], counts: Ints, context: int, settings: Settings, moment: Moment
    ) -> list[int]:
        """Judge who has a baseline, collect from who has none; return the rows that were completed."""
        collecting = np.array([self.commissioning[row].wants(context) for row in rows], np.bool_)
        judged = rows[~collecting]
        if judged.size:
            step = increments(counts[~collecting], self.shape[judged], self.log_z[judged], self.memory[judged])
            self.log_m[judged] = update(self.log_m[judged], step, log_cap=moment.log_cap)
            self.recent[judged] = fade(self.recent[judged], step)
        complete = [
            int(row)
            for row, own in zip(rows[collecting], counts[collecting], strict=True)
            if self._collect(int(row), context, own, moment)
        ]
        if complete:
            self._complete(complete, settings)
        return complete

    def _collect(self, row: int, context: int, counts: Ints, moment: Moment) -> bool:
        """Return whether the baseline is complete now: the kept one in its slot, else with the last window wanted."""
        kept = moment.kept.get(self.devices[row], {}).get(context)
        if kept is None:
            return self.commissioning[row].add(context, counts)
        if kept.slot == moment.slot and self.commissioning[row].wants(context):
            self.commissioning[row].restore(context, kept.collected)
            return True
        return False

    def _complete(self, rows: Sequence[int], settings: Settings) -> None:
        """Fill in what the baselines say; the arrays are replaced, since checkpoints share them."""
        for name in _SHARED:
            setattr(self, name, getattr(self, name).copy())
        self.contexts = {context: part.copy() for context, part in self.contexts.items()}
        for row in rows:
            own = self.commissioning[row].baseline(z=settings.z, epsilon=settings.epsilon)
            self.ready[row] = True
            self.shape[row], self.log_z[row] = own.profile.shapes, own.profile.log_z
            self.memory[row], self.usual[row], self.n_effective[row] = own.memory, own.proportions, own.n_effective
            for context, (usual, n_effective) in own.contexts.items():
                self._context(context).with_row(row, usual, n_effective)

    def _context(self, context: int) -> ContextBaselines:
        if context not in self.contexts:
            empty = ContextBaselines(np.zeros((0, self.streams, BINS)), np.zeros((0, self.streams)))
            self.contexts[context] = empty.with_rows(len(self.devices))
        return self.contexts[context]

    def log_values(self) -> Floats:
        """Return the devices' values against their own baselines, (D,); -inf while commissioning."""
        return values(self.log_m) if self.devices else np.zeros(0)

    def training_values(self) -> Floats:
        """Return the devices' values against the training reference, (D,)."""
        return values(self.training_m) if self.devices else np.zeros(0)

    def copy(self) -> Lane:
        """Return an independent copy, for going back to when a late window arrives."""
        twin = Lane(self.streams, self.training, list(self.devices), dict(self.rows))
        twin.contexts = dict(self.contexts)
        twin.commissioning = [part.copy() for part in self.commissioning]
        for name in _EMPTY:
            value = getattr(self, name)
            setattr(twin, name, value if name in _SHARED else value.copy())
        return twin


_EMPTY = {
    "ready": False, "shape": 0.0, "log_z": 0.0, "memory": 1.0, "usual": 1 / BINS, "n_effective": 0.0,
    "log_m": -np.inf, "recent": 0.0, "training_m": -np.inf, "training_recent": 0.0,
}  # fmt: skip
_SHARED = ("ready", "shape", "log_z", "memory", "usual", "n_effective")
