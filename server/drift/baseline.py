"""A device's own commissioning: its first windows under one reference become what it is compared with.

A baseline that is complete is final: it is kept in the store, and folding again after a restart, or since a late
window, takes it from there. Were it collected again, drift that stands by then would become what is usual.

Decides when a baseline is complete and how far its samples depend on each other. The baseline's sampling error
enters through z sd / sqrt(n) with n divided by the autocorrelation time; with 12 windows of 60 samples and z = 4
a simulated fleet of 200 devices without drift raised no alarm in 200 windows, with z = 2 nine devices did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from server.drift.reference import Floats, Ints, Profile, profile, proportions, shapes, shares
from wire.histogram import BINS

_UNIFORM = shapes(np.full(BINS, 1 / BINS))[[0, 2, 4]]


@dataclass(slots=True)
class Collected:
    """What one context has seen: the number of windows, counts (S, 16), and sums of window scores (S, 3)."""

    windows: int
    counts: Ints
    squares: Floats


@dataclass(frozen=True, slots=True)
class Kept:
    """A baseline that was completed in slot ``slot``, and stays what the device is compared with in that context."""

    slot: int
    collected: Collected


KeptOfDevice = Mapping[int, Kept]
"""A device's kept baselines under one reference, by context."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A complete baseline: the profile, the autocorrelation time (S,), and all contexts' proportions (S, 16).

    ``contexts``: for each, its own shares of the samples (S, 16), not smoothed, since pools add them up first, and
    the number of independent samples (S,).
    """

    profile: Profile
    memory: Floats
    proportions: Floats
    n_effective: Floats
    contexts: Mapping[int, tuple[Floats, Floats]]


@dataclass(slots=True)
class Commissioning:
    """Collects the first ``wanted`` windows of each context; complete with the first context that has them."""

    wanted: int
    seen: dict[int, Collected] = field(default_factory=dict)
    complete: frozenset[int] = frozenset()

    def wants(self, context: int) -> bool:
        """Return whether windows of ``context`` are still collected (and so judge nothing)."""
        return context not in self.complete

    def restore(self, context: int, collected: Collected) -> None:
        """Take a kept baseline as it is, whatever ``wanted`` says by now."""
        self.seen[context] = collected
        self.complete |= {context}

    def add(self, context: int, counts: Ints) -> bool:
        """Take one window's counts (S, 16); return whether that completed its context. Complete ones take no more."""
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
        """The number of windows of the context that is furthest."""
        return max((part.windows for part in self.seen.values()), default=0)

    def baseline(self, *, z: float, epsilon: float) -> Baseline:
        """Return the baseline of the contexts that are complete."""
        complete = {context: part for context, part in sorted(self.seen.items()) if context in self.complete}
        counts = np.stack([part.counts for part in complete.values()])
        memory = np.max([autocorrelation_time(part) for part in complete.values()], axis=0)
        n_effective = counts.sum(axis=2) / memory
        together = counts.sum(axis=0)
        return Baseline(
            profile(counts, n_effective, z=z, epsilon=epsilon), memory, proportions(together),
            n_effective.sum(axis=0),
            {context: (shares(counts[i]), n_effective[i]) for i, context in enumerate(complete)},
        )  # fmt: skip

    def copy(self) -> Commissioning:
        """Return an independent copy (arrays are never changed in place)."""
        return Commissioning(self.wanted, dict(self.seen), self.complete)


def autocorrelation_time(part: Collected) -> Floats:
    """Return the integrated autocorrelation time per stream (S,), in samples, at least 1.

    The variance of window means over what independent samples would give, the largest of Legendre 1 to 3; what
    varies from hour to hour counts as memory too, so that it does not count as drift.
    Source: batch means; S. Asmussen, P. Glynn, Stochastic Simulation (2007), chapter IV.5.
    """
    n = np.maximum(part.counts.sum(axis=1), 1)[:, None]
    total = part.counts @ _UNIFORM.T
    within = part.counts @ (_UNIFORM**2).T / n - (total / n) ** 2
    between = (part.squares - total**2 / n) / max(part.windows - 1, 1)
    ratio = np.where(within > 0, between / np.where(within > 0, within, 1), 1.0)
    return np.asarray(np.maximum(ratio.max(axis=1), 1.0))
