"""Pools the evidence of many devices: one pool for the fleet, and one for each value of each attribute.

A pool detects drift that no single device shows. Each device counts at most the median number of samples; flagged
devices are left out from the window in which they are flagged: leaving out a device with much evidence can only lower
a pool. The pool's normaliser is that of its members' baselines, mixed as in the current window: by concavity of the
logarithm the product of the devices' own expectations is at most the power of their weighted mean.

The prior counts once, after mixing. With a prior per member, its share of the mixture (8 of each member's n + 8) would
not shrink with the number of members, while the allowance for the baselines' sampling error does: in a stream that is
always in one bin, every sample would then add a little evidence forever. For the same reason the prior may only raise
a normaliser, never lower it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.detector_bank import ROWS, DetectorBank, DetectorSettings, Observation
from server.drift.detection.evidence import fade, increments, sums, update, values
from server.drift.detection.reference import TILTS, Floats, log_normaliser, proportions, shapes
from wire.histogram import BINS

PoolName = tuple[str, str]
FLEET: PoolName = ("", "")
MIN_MEMBERS = 2
_MAX_POOLS = 64


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool's detectors, (S, 24) each, and its members in the latest window."""

    log_m: Floats
    recent: Floats
    members: int = 0

    @property
    def log_value(self) -> float:
        """Log of the mean of M over streams and tilts."""
        return float(values(self.log_m))


def names(devices: Iterable[str], attributes: Mapping[str, Mapping[str, str]]) -> dict[PoolName, frozenset[str]]:
    """Return the pools and their members: all devices, and each attribute value that some but not all share."""
    everyone = frozenset(devices)
    found: dict[PoolName, set[str]] = {}
    for device in everyone:
        for pair in attributes.get(device, {}).items():
            found.setdefault(pair, set()).add(device)
    shared = {
        pair: frozenset(members)
        for pair, members in sorted(found.items())
        if MIN_MEMBERS <= len(members) < len(everyone)
    }
    largest = sorted(shared, key=lambda pair: -len(shared[pair]))[: _MAX_POOLS - 1]
    pools = {FLEET: everyone} if len(everyone) >= MIN_MEMBERS else {}
    return pools | {pair: shared[pair] for pair in largest}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWindows:
    """The windows of W devices in one bank that have a baseline: rows (W,), contexts (W,), counts (W, S, 16)."""

    devices: tuple[str, ...]
    rows: NDArray[np.int64]
    contexts: NDArray[np.int64]
    counts: Floats

    @classmethod
    def of(cls, bank: DetectorBank, window: Iterable[Observation]) -> JudgedWindows:
        """Return the observations of ``window`` whose devices have a baseline in that context."""
        seen = [one for one in window if _is_judged(bank, one)]
        return cls(
            devices=tuple(one.device for one in seen),
            rows=np.array([bank.rows[one.device] for one in seen], np.int64),
            contexts=np.array([one.context for one in seen], np.int64),
            counts=np.stack([one.counts for one in seen]).astype(np.float64)
            if seen
            else np.zeros((0, bank.streams, BINS)),
        )

    def places(self) -> dict[str, list[int]]:
        """Return the indices of each device's windows."""
        found: dict[str, list[int]] = {}
        for place, device in enumerate(self.devices):
            found.setdefault(device, []).append(place)
        return found


def step(
    pool: Pool | None, bank: DetectorBank, window: JudgedWindows, places: NDArray[np.int64], settings: DetectorSettings,
    *, log_cap: float,
) -> Pool | None:  # fmt: skip
    """Return the pool after the windows at ``places`` (flagged devices left out); unchanged if too few came.

    Each context is compared with the members' baselines in that context.
    """
    contexts = window.contexts[places]
    for context in np.unique(contexts):
        part = places[contexts == context]
        if len(part) >= MIN_MEMBERS:
            gain = _gain(bank, window.rows[part], window.counts[part], int(context), settings)
            older = pool or Pool(np.full((bank.streams, TILTS), -np.inf), np.zeros((bank.streams, TILTS)))
            pool = Pool(update(older.log_m, gain, log_cap=log_cap), fade(older.recent, gain), len(part))
    return pool


def _gain(
    bank: DetectorBank, rows: NDArray[np.int64], counts: Floats, context: int, settings: DetectorSettings
) -> Floats:
    own = bank.contexts[context]
    n = counts.sum(axis=2)  # (D, S): invalid values are in no bin
    capped = np.minimum(n, np.median(n, axis=0))
    weight = capped / np.maximum(capped.sum(axis=0), 1e-9)
    total, p, limit = np.zeros(counts.shape[1:]), np.zeros(counts.shape[1:]), np.zeros(counts.shape[1])
    for first in range(0, len(rows), ROWS):  # bounds the size of temporary arrays
        some = slice(first, first + ROWS)
        total += (counts[some] * (capped[some] / np.maximum(n[some], 1))[..., None]).sum(axis=0)
        p += np.einsum("ds,dsb->sb", weight[some], own.usual[rows[some]])
        limit = np.maximum(limit, (weight[some] / np.maximum(own.n_effective[rows[some]], 1)).max(axis=0))
    n_effective = 1 / np.maximum(limit, 1e-12)
    smoothed = proportions(p * n_effective[:, None])
    shape = shapes(smoothed)
    log_z = np.maximum(*(log_normaliser(q, n_effective, shape, z=settings.z, epsilon=settings.epsilon)
                         for q in (p, smoothed)))  # fmt: skip
    memory = np.maximum((weight * bank.memory[rows]).sum(axis=0), 1.0)
    return increments(sums(total, shape), total.sum(axis=-1), log_z, memory)


def _is_judged(bank: DetectorBank, seen: Observation) -> bool:
    row = bank.rows[seen.device]
    return bool(bank.ready[row]) and not bank.commissioning[row].wants(seen.context)
