"""The detectors of all devices under one (reference, artifact): arrays, one row per device, updated per window.

Two levels: against the training reference (shown; decides nothing), and against the device's own baseline. A kept
baseline applies from the slot in which it was completed; earlier windows of the device are not judged.
Counts made with different references are never mixed: they are in different banks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.baseline import Commissioning, Kept, KeptOfDevice, baselines
from server.drift.detection.evidence import fade, increments, sums, update, values
from server.drift.detection.reference import TILTS, Floats, Ints, Profile, Singles, scores
from wire.histogram import BINS

ROWS = 1024  # devices at a time, which bounds the size of temporary arrays
_ROWS_COMPLETED = 128  # their normalisers need 3 kB a device, stream and strength


@dataclass(frozen=True, slots=True)
class ContextBaselines:
    """The devices' baselines in one context: shares of the samples (D, S, 16), independent samples (D, S), 0 for none.

    The shares are not smoothed: with a prior per device, the prior's weight in a pool would not shrink.
    """

    usual: Singles
    n_effective: Floats

    def with_rows(self, count: int) -> ContextBaselines:
        """Return a copy with rows for ``count`` more devices, without baselines."""
        streams = self.usual.shape[1]
        usual = np.concatenate([self.usual, np.full((count, streams, BINS), 1 / BINS, np.float32)])
        return ContextBaselines(usual, np.concatenate([self.n_effective, np.zeros((count, streams))]))

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
class SlotContext:
    """The slot of a window, with the cap of the detectors and the kept baselines by device."""

    slot: int
    log_cap: float
    kept: Mapping[str, KeptOfDevice]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """The parameters of the statistics; ``DriftConfig`` explains each."""

    baseline_windows: int
    z: float
    epsilon: float
    log_alpha: float


@dataclass(slots=True, kw_only=True)
class DetectorBank:
    """The state of every device under one reference. D devices, S streams.

    ``ready``, ``log_z``, ``memory``, ``usual`` (proportions) and ``n_effective`` describe the devices' own baselines;
    the detectors ``log_m`` and the fading evidence ``recent`` (D, S, 24) are against these, ``training_m`` and
    ``training_recent`` against the training reference.
    """

    streams: int
    training: Profile | None
    devices: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    commissioning: list[Commissioning] = field(default_factory=list)
    contexts: dict[int, ContextBaselines] = field(default_factory=dict)
    ready: NDArray[np.bool_] = field(init=False)
    log_z: Singles = field(init=False)
    memory: Floats = field(init=False)
    usual: Singles = field(init=False)
    n_effective: Floats = field(init=False)
    log_m: Singles = field(init=False)
    recent: Singles = field(init=False)
    training_m: Singles = field(init=False)
    training_recent: Singles = field(init=False)

    def __post_init__(self) -> None:
        """Create the arrays, without rows."""
        s = self.streams
        self.ready = np.zeros(0, np.bool_)
        self.log_z = np.zeros((0, s, TILTS), np.float32)
        self.memory, self.n_effective = np.ones((0, s)), np.zeros((0, s))
        self.usual = np.zeros((0, s, BINS), np.float32)
        for name in DETECTORS:
            setattr(self, name, np.zeros((0, s, TILTS), np.float32))

    def step(
        self, window: Sequence[Observation], settings: DetectorSettings, moment: SlotContext
    ) -> dict[tuple[str, int], Kept]:
        """Process one slot's windows of any number of devices; several contexts of one device one after the other.

        Returns the baselines that these windows completed, by (device, context).
        """
        devices = list(dict.fromkeys(seen.device for seen in window))
        self._admit(devices, settings.baseline_windows)
        self._restore(devices, settings, moment)
        completed: dict[tuple[str, int], Kept] = {}
        for context in sorted({seen.context for seen in window}):
            part = [seen for seen in window if seen.context == context]
            newest = list({seen.device: seen for seen in part}.values())  # of two in one slot, the last is judged
            for first in range(0, len(newest), ROWS):
                some = newest[first : first + ROWS]
                rows = np.array([self.rows[seen.device] for seen in some])
                counts = np.stack([seen.counts for seen in some])
                self._against_training(rows, counts, moment.log_cap)
                self._against_baseline(rows, counts, context, moment.log_cap)
            for seen in part:
                row = self.rows[seen.device]
                if self._collect(row, context, seen.counts, moment):
                    completed[seen.device, context] = Kept(moment.slot, self.commissioning[row].seen[context])
        self._complete([self.rows[device] for device, _ in completed], settings)
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

    def refill(
        self, devices: Sequence[str], commissioning: Sequence[Commissioning], detectors: Mapping[str, Singles],
        settings: DetectorSettings,
    ) -> None:  # fmt: skip
        """Add the devices of a checkpoint to this bank, which must be empty.

        ``commissioning``: the incomplete baseline of each; ``detectors``: (D, S, 24) by the names of ``DETECTORS``.
        """
        self._admit(devices, settings.baseline_windows)
        self.commissioning = list(commissioning)
        self._complete([row for row, part in enumerate(self.commissioning) if part.complete], settings)
        for name in DETECTORS:
            setattr(self, name, detectors[name])

    def _restore(self, devices: Sequence[str], settings: DetectorSettings, moment: SlotContext) -> None:
        """Load the kept baselines that were completed before this slot."""
        rows = []
        for device in devices:
            row = self.rows[device]
            for context, kept in sorted(moment.kept.get(device, {}).items()):
                if kept.slot < moment.slot and self.commissioning[row].wants(context):
                    self.commissioning[row].restore(context, kept.collected)
                    rows.append(row)
        self._complete(list(dict.fromkeys(rows)), settings)

    def _against_training(self, rows: NDArray[np.int64], counts: Ints, log_cap: float) -> None:
        if self.training is None:
            return
        score = sums(counts, self.training.shapes)
        step = increments(score, counts.sum(axis=-1), self.training.log_z, self.memory[rows])
        self.training_m[rows] = update(self.training_m[rows], step, log_cap=log_cap)
        self.training_recent[rows] = fade(self.training_recent[rows], step)

    def _against_baseline(self, rows: NDArray[np.int64], counts: Ints, context: int, log_cap: float) -> None:
        """Update the detectors of devices that have a baseline."""
        has = np.array([not self.commissioning[row].wants(context) for row in rows], np.bool_)
        judged, own = rows[has], counts[has]
        if judged.size:
            score, n = scores(own, self.usual[judged]), own.sum(axis=-1)
            step = increments(score, n, self.log_z[judged], self.memory[judged])
            self.log_m[judged] = update(self.log_m[judged], step, log_cap=log_cap)
            self.recent[judged] = fade(self.recent[judged], step)

    def _collect(self, row: int, context: int, counts: Ints, moment: SlotContext) -> bool:
        """Return whether the baseline is complete now: a kept one in its slot, otherwise after enough windows."""
        if not self.commissioning[row].wants(context):
            return False
        kept = moment.kept.get(self.devices[row], {}).get(context)
        if kept is None:
            return self.commissioning[row].add(context, counts)
        if kept.slot == moment.slot:
            self.commissioning[row].restore(context, kept.collected)
            return True
        return False

    def _complete(self, rows: Sequence[int], settings: DetectorSettings) -> None:
        """Fill in the completed baselines; the arrays are replaced, because copies of the bank share them."""
        if not rows:
            return
        for name in _SHARED:
            setattr(self, name, getattr(self, name).copy())
        self.contexts = {context: part.copy() for context, part in self.contexts.items()}
        alike: dict[frozenset[int], list[int]] = {}
        for row in rows:
            alike.setdefault(self.commissioning[row].complete, []).append(row)
        for members in alike.values():
            for first in range(0, len(members), _ROWS_COMPLETED):
                some = members[first : first + _ROWS_COMPLETED]
                own = baselines([self.commissioning[row] for row in some], z=settings.z, epsilon=settings.epsilon)
                self.ready[some], self.log_z[some], self.memory[some] = True, own.log_z, own.memory
                self.usual[some], self.n_effective[some] = own.proportions, own.n_effective
                for context, (usual, n_effective) in own.contexts.items():
                    part = self._context(context)
                    part.usual[some], part.n_effective[some] = usual, n_effective

    def _context(self, context: int) -> ContextBaselines:
        if context not in self.contexts:
            empty = ContextBaselines(np.zeros((0, self.streams, BINS), np.float32), np.zeros((0, self.streams)))
            self.contexts[context] = empty.with_rows(len(self.devices))
        return self.contexts[context]

    def log_values(self) -> Floats:
        """Return the devices' values against their own baselines, (D,); -inf while commissioning."""
        return _values(self.log_m)

    def training_values(self) -> Floats:
        """Return the devices' values against the training reference, (D,)."""
        return _values(self.training_m)

    def copy(self, spare: DetectorBank | None = None) -> DetectorBank:
        """Return an independent copy, to rewind to when a late window arrives.

        It reuses the detector arrays of ``spare``, a bank that is no longer needed, if their shapes fit.
        """
        twin = DetectorBank(
            streams=self.streams, training=self.training, devices=list(self.devices), rows=dict(self.rows)
        )
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


def _values(log_m: Singles) -> Floats:
    """Return the values (D,) of detectors (D, S, 24), in chunks of ``ROWS`` devices."""
    parts = [values(log_m[first : first + ROWS]) for first in range(0, len(log_m), ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0)


_EMPTY = {
    "ready": False, "log_z": 0.0, "memory": 1.0, "usual": 1 / BINS, "n_effective": 0.0,
    "log_m": -np.inf, "recent": 0.0, "training_m": -np.inf, "training_recent": 0.0,
}  # fmt: skip
DETECTORS = ("log_m", "recent", "training_m", "training_recent")
"""The state of a bank besides its baselines: one array (D, S, 24) each."""
_SHARED = ("ready", "log_z", "memory", "usual", "n_effective")
