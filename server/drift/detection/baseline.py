"""Collects a device's baseline: its first windows under one reference, with which later ones are compared.

A completed baseline is final: it is stored, and reprocessing after a restart or a late window loads it. If it were
collected again, drift present by then would become part of the baseline.

Decides when a baseline is complete and how strongly its samples depend on each other. The baseline's sampling error
enters through z sd / sqrt(n) with n divided by the autocorrelation time; with 12 windows of 60 samples and z = 4
a simulated fleet of 200 devices without drift raised no alarm in 200 windows, with z = 2 nine devices did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.drift.detection.reference import Floats, Ints, profile, proportions, shapes, shares
from wire.histogram import BINS

_UNIFORM = shapes(np.full(BINS, 1 / BINS))[[0, 2, 4]]


@dataclass(slots=True)
class Collected:
    """The data of one context so far: the number of windows, counts (S, 16), and sums of window scores (S, 3)."""

    windows: int
    counts: Ints
    squares: Floats


@dataclass(frozen=True, slots=True)
class Kept:
    """A baseline that was completed in slot ``slot``; final for its device and context."""

    slot: int
    collected: Collected


KeptOfDevice = Mapping[int, Kept]
"""A device's kept baselines under one reference, by context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Complete baselines of R devices: normalisers (R, S, 24), memory (R, S), proportions (R, S, 16).

    ``memory`` is the autocorrelation time in samples, ``n_effective`` (R, S) the number of independent samples.
    ``contexts``: for each, its shares of the samples (R, S, 16), not smoothed, because pools add them up first, and
    the number of independent samples (R, S).
    """

    log_z: Floats
    memory: Floats
    proportions: Floats
    n_effective: Floats
    contexts: Mapping[int, tuple[Floats, Floats]]


@dataclass(slots=True)
class Commissioning:
    """Collects the first ``wanted`` windows of each context; complete once one context has them all."""

    wanted: int
    seen: dict[int, Collected] = field(default_factory=dict)
    complete: frozenset[int] = frozenset()

    def wants(self, context: int) -> bool:
        """Return whether windows of ``context`` are still collected (and so are not judged)."""
        return context not in self.complete

    def restore(self, context: int, collected: Collected) -> None:
        """Use a kept baseline unchanged, even if ``wanted`` has another value now."""
        self.seen[context] = collected
        self.complete |= {context}

    def add(self, context: int, counts: Ints) -> bool:
        """Add one window's counts (S, 16); return whether that completed its context. A complete one ignores them."""
        if context in self.complete:
            return False
        score = counts @ _UNIFORM.T
        squares = score**2 / np.maximum(counts.sum(axis=1), 1)[:, None]
        older = self.seen.get(context)
        if older is None:
            self.seen[context] = Collected(1, counts.copy(), squares)
        else:
            self.seen[context] = Collected(older.windows + 1, older.counts + counts, older.squares + squares)
        if self.seen[context].windows < self.wanted:
            return False
        self.complete |= {context}
        return True

    @property
    def windows(self) -> int:
        """The number of windows of the context that has most."""
        return max((part.windows for part in self.seen.values()), default=0)

    def copy(self) -> Commissioning:
        """Return an independent copy (arrays are never changed in place)."""
        return Commissioning(self.wanted, dict(self.seen), self.complete)


def baselines(parts: Sequence[Commissioning], *, z: float, epsilon: float) -> Baselines:
    """Return the baselines of devices that are all complete in the same contexts."""
    contexts = sorted(parts[0].complete)
    seen = [[part.seen[context] for part in parts] for context in contexts]
    counts = np.stack([[one.counts for one in collected] for collected in seen])
    memory = np.max([
        autocorrelation_time(
            counts[i], np.stack([one.squares for one in collected]), np.array([one.windows for one in collected])
        )
        for i, collected in enumerate(seen)
    ], axis=0)  # fmt: skip
    n_effective = counts.sum(axis=-1) / memory
    return Baselines(
        log_z=profile(counts, n_effective, z=z, epsilon=epsilon).log_z,
        memory=memory,
        proportions=proportions(counts.sum(axis=0)),
        n_effective=n_effective.sum(axis=0),
        contexts={context: (shares(counts[i]), n_effective[i]) for i, context in enumerate(contexts)},
    )


def autocorrelation_time(counts: Ints, squares: Floats, windows: Ints) -> Floats:
    """Return the integrated autocorrelation time per stream (R, S), in samples, at least 1.

    ``counts`` (R, S, 16) and ``squares`` (R, S, 3) come from ``windows`` (R,) windows. It is the variance of window
    means over that of independent samples, the largest of Legendre 1 to 3; variation from hour to hour counts as
    autocorrelation too, so that it does not count as drift.
    Source: batch means; S. Asmussen, P. Glynn, Stochastic Simulation (2007), chapter IV.5.
    """
    n = np.maximum(counts.sum(axis=-1), 1)[..., None]
    total = counts @ _UNIFORM.T
    within = counts @ (_UNIFORM**2).T / n - (total / n) ** 2
    between = (squares - total**2 / n) / np.maximum(windows - 1, 1)[:, None, None]
    ratio = np.where(within > 0, between / np.where(within > 0, within, 1), 1.0)
    return np.asarray(np.maximum(ratio.max(axis=-1), 1.0))
