"""A device's own commissioning: its first windows under one reference become what it is compared with.

A baseline that is complete is final: it is kept in the store, and folding again after a restart, or since a late
window, takes it from there. Were it collected again, drift that stands by then would become what is usual.

Decides when a baseline is complete and how far its samples depend on each other. The baseline's sampling error
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
class Baselines:
    """Complete baselines of R devices: normalisers (R, S, 24), memory (R, S), proportions (R, S, 16).

    ``memory`` is the autocorrelation time in samples, ``n_effective`` (R, S) the number of independent samples.
    ``contexts``: for each, its own shares of the samples (R, S, 16), not smoothed, since pools add them up first, and
    the number of independent samples (R, S).
    """

    log_z: Floats
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
        profile(counts, n_effective, z=z, epsilon=epsilon).log_z, memory, proportions(counts.sum(axis=0)),
        n_effective.sum(axis=0),
        {context: (shares(counts[i]), n_effective[i]) for i, context in enumerate(contexts)},
    )  # fmt: skip


def autocorrelation_time(counts: Ints, squares: Floats, windows: Ints) -> Floats:
    """Return the integrated autocorrelation time per stream (R, S), in samples, at least 1.

    ``counts`` (R, S, 16) and ``squares`` (R, S, 3) are what ``windows`` (R,) windows collected. The variance of
    window means over what independent samples would give, the largest of Legendre 1 to 3; what varies from hour to
    hour counts as memory too, so that it does not count as drift.
    Source: batch means; S. Asmussen, P. Glynn, Stochastic Simulation (2007), chapter IV.5.
    """
    n = np.maximum(counts.sum(axis=-1), 1)[..., None]
    total = counts @ _UNIFORM.T
    within = counts @ (_UNIFORM**2).T / n - (total / n) ** 2
    between = (squares - total**2 / n) / np.maximum(windows - 1, 1)[:, None, None]
    ratio = np.where(within > 0, between / np.where(within > 0, within, 1), 1.0)
    return np.asarray(np.maximum(ratio.max(axis=-1), 1.0))
