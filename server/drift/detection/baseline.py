"""Collects a device's baseline: its first windows under one reference, with which later ones are compared.

It is collected in stages: after some windows it is estimated for the first time and used *provisionally*, while windows
in which the device has no alarm are still added; after more it is estimated again, and then it is complete.
A completed baseline is final: it is stored, and reprocessing after a restart or a late window loads it. If it were
collected again, drift present by then would become part of the baseline. A provisional one is stored too, until the
next replaces it: a device may need longer for all its windows than they are kept.

Decides when a baseline is estimated and when it is complete. How strongly its samples depend on each other, and how
far they move, is measured by ``movement``; a baseline of an older version has only the memory of single windows. The
baseline's sampling error enters through z sd / sqrt(n) with n divided by the autocorrelation time; with 12 windows of
60 samples and z = 4 a simulated fleet of 200 devices without drift raised no alarm in 200 windows, with z = 2 nine
devices did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.drift.detection.movement import BASIS, KAPPA, LENGTHS, Ordinary, ScoreColumns
from server.drift.detection.reference import (
    SHAPE_MEMORY,
    Floats,
    Ints,
    class_log_normaliser,
    profile,
    proportions,
    shares,
)

_LEGENDRE = BASIS[:3]
FINAL = 3
"""The stage of a complete baseline, after up to two provisional estimates."""


@dataclass(slots=True, kw_only=True)
class Collected:
    """The data of one context so far: the number of windows, counts (S, 16), and sums of window scores (S, 3).

    ``ordinary``: how the windows moved, once the baseline is complete; None for one of an older version.
    """

    windows: int
    counts: Ints
    squares: Floats
    ordinary: Ordinary | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A baseline that was estimated in slot ``slot``; final for its device and context unless ``provisional``."""

    slot: int
    collected: Collected
    provisional: bool = False


KeptOfDevice = Mapping[int, Kept]
"""A device's kept baselines under one reference, by context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """The estimated baselines of R devices: normalisers (R, S, 24) and (R, C, 80), proportions (R, S, 16).

    ``memory`` (R, K) by column: how many samples are worth an independent one, at ``rate`` (R, S) samples a window;
    ``movement`` (R, K): how far a stream ordinarily moves, ``trend`` how far it moved all the while, in
    standard deviations of a sample;
    ``n_effective`` (R, S) the number of independent samples. ``contexts``: for each, its shares of the samples
    (R, S, 16), not smoothed, because pools add them up first, the number of independent samples (R, S), and the shares
    of the samples at each hour of the day (R, 24).
    """

    log_z: Floats
    class_log_z: Floats
    memory: Floats
    movement: Floats
    trend: Floats
    rate: Floats
    proportions: Floats
    n_effective: Floats
    contexts: Mapping[int, tuple[Floats, Floats, Floats]]


@dataclass(slots=True, kw_only=True)
class Commissioning:
    """Collects the first windows of each context.

    ``stages``: after how many windows a baseline is estimated; with the last of them it is complete. ``seen``: what
    was collected so far, by context; ``estimated``: the baselines in use.
    """

    stages: tuple[int, ...]
    seen: dict[int, Collected] = field(default_factory=dict)
    complete: frozenset[int] = frozenset()
    estimated: dict[int, Collected] = field(default_factory=dict)

    def wants(self, context: int) -> bool:
        """Return whether windows of ``context`` are still collected."""
        return context not in self.complete

    def restore(self, context: int, kept: Kept) -> None:
        """Use a kept baseline unchanged, even if ``stages`` are others now."""
        self.seen[context] = self.estimated[context] = kept.collected
        if not kept.provisional or kept.collected.windows >= self.stages[-1]:
            self.complete |= {context}

    def estimate(self, context: int) -> None:
        """Use what was collected as the baseline."""
        self.estimated[context] = self.seen[context]

    def add(self, context: int, counts: Ints) -> bool:
        """Add one window's counts (S, 16); return whether the context is due to be estimated.

        A complete one ignores them.
        """
        if context in self.complete:
            return False
        score = counts @ _LEGENDRE.T
        squares = score**2 / np.maximum(counts.sum(axis=1), 1)[:, None]
        older = self.seen.get(context)
        if older is None:
            self.seen[context] = Collected(windows=1, counts=counts.copy(), squares=squares)
        else:
            self.seen[context] = Collected(
                windows=older.windows + 1, counts=older.counts + counts, squares=older.squares + squares
            )
        if self.seen[context].windows >= self.stages[-1]:
            self.complete |= {context}
        return self.seen[context].windows in self.stages

    @property
    def windows(self) -> int:
        """The number of windows of the context that has most."""
        return max((part.windows for part in self.seen.values()), default=0)

    @property
    def stage(self) -> int:
        """How far the baseline is: 0 before the first estimate, then one more with each, ``FINAL`` once complete."""
        if self.complete:
            return FINAL
        windows = max((part.windows for part in self.estimated.values()), default=0)
        return max(sum(windows >= stage for stage in self.stages[:-1]), int(bool(self.estimated)))

    def copy(self) -> Commissioning:
        """Return an independent copy (arrays are never changed in place)."""
        return Commissioning(
            stages=self.stages, seen=dict(self.seen), complete=self.complete, estimated=dict(self.estimated)
        )


def baselines(parts: Sequence[Commissioning], columns: ScoreColumns, *, z: float, epsilon: float) -> Baselines:
    """Return the baselines of devices that are all estimated in the same contexts."""
    contexts = sorted(parts[0].estimated)
    seen = [[part.estimated[context] for part in parts] for context in contexts]
    counts = np.stack([[one.counts for one in collected] for collected in seen])
    memory = np.stack([[_memory(one, columns) for one in collected] for collected in seen])
    by_shape, by_class = columns.by_stream(memory)
    n = counts.sum(axis=-1)
    n_effective = n / by_shape.max(axis=-1)
    flat = counts[..., list(columns.classes), :]
    still, never = np.zeros((2, columns.count)), np.zeros(LENGTHS[-1])
    moved = np.array([
        [still if one.ordinary is None else (one.ordinary.movement[0], one.ordinary.trend[0]) for one in collected]
        for collected in seen
    ], np.float64)  # fmt: skip
    hours = np.array(
        [[never if o.ordinary is None else o.ordinary.hours[0] for o in part] for part in seen], np.float64
    )
    movement = moved[:, :, 0].max(axis=0)
    shape_moved, class_moved = columns.by_stream(KAPPA * movement)
    class_log_z = [
        class_log_normaliser(
            p, flat.sum(axis=-1, keepdims=True) / by_class, moved=class_moved, z=z, epsilon=epsilon
        ).max(axis=0)
        for p in (shares(flat), proportions(flat))
    ]
    return Baselines(
        log_z=profile(
            counts,
            n[..., None] / by_shape[..., list(SHAPE_MEMORY)],
            z=z,
            epsilon=epsilon,
            moved=shape_moved[..., list(SHAPE_MEMORY)],
        ).log_z,
        class_log_z=np.maximum(*class_log_z),
        memory=memory.max(axis=0),
        movement=movement,
        trend=moved[:, :, 1].mean(axis=0),
        rate=n.sum(axis=0) / np.sum([[one.windows for one in collected] for collected in seen], axis=0)[:, None],
        proportions=proportions(counts.sum(axis=0)),
        n_effective=n_effective.sum(axis=0),
        contexts={context: (shares(counts[i]), n_effective[i], hours[i]) for i, context in enumerate(contexts)},
    )


def _memory(one: Collected, columns: ScoreColumns) -> Floats:
    """Return the memory by column, (K,); a baseline of an older version only knows that of single windows."""
    if one.ordinary is not None:
        return np.asarray(one.ordinary.memory[0], np.float64)
    return np.asarray(
        autocorrelation_time(one.counts[None], one.squares[None], np.array([one.windows]))[0][columns.stream]
    )


def autocorrelation_time(counts: Ints, squares: Floats, windows: Ints) -> Floats:
    """Return the integrated autocorrelation time per stream (R, S), in samples, at least 1.

    ``counts`` (R, S, 16) and ``squares`` (R, S, 3) come from ``windows`` (R,) windows. It is the variance of window
    means over that of independent samples, the largest of Legendre 1 to 3; variation from hour to hour counts as
    autocorrelation too, so that it does not count as drift. Only for baselines that an older version completed.
    Source: batch means; S. Asmussen, P. Glynn, Stochastic Simulation (2007), chapter IV.5.
    """
    n = np.maximum(counts.sum(axis=-1), 1)[..., None]
    total = counts @ _LEGENDRE.T
    within = counts @ (_LEGENDRE**2).T / n - (total / n) ** 2
    between = (squares - total**2 / n) / np.maximum(windows - 1, 1)[:, None, None]
    ratio = np.where(within > 0, between / np.where(within > 0, within, 1), 1.0)
    return np.asarray(np.maximum(ratio.max(axis=-1), 1.0))
