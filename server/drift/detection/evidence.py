"""A Shiryaev-Roberts e-detector over tilts, and e-BH over the fleet; arrays in, arrays out.

Decides how evidence grows with each window and which values are too large to be chance. Valid however often one
looks: without drift the expected value of a detector after t windows is at most t.

Sources: J. Shin, A. Ramdas, A. Rinaldo, E-detectors: a nonparametric framework for sequential change detection,
New England J. Statistics in Data Science 2 (2024), section 2; S. Dandapanthula, A. Ramdas, arXiv:2501.04130 (e-BH on
e-detectors; on their current values, never on running maxima: arXiv:2501.19360); Hoelder's inequality for the
division by the autocorrelation time (exact for m-dependence, empirical for autoregression).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.reference import CLASS_THETAS, CLASS_TILTS, SHAPES, THETAS, TILTS, Floats, Ints, Singles
from wire.histogram import BINS

_FADING = 0.8  # share of the evidence that attribution still counts one window later


@dataclass(frozen=True, slots=True)
class Decision:
    """Which devices are flagged, (D,), and the log threshold of this window."""

    flagged: NDArray[np.bool_]
    log_threshold: float


def sums(counts: Ints | Floats, shape: Floats) -> Floats:
    """Return the sums (..., S, 8) of ``shape`` (..., S, 8, 16) over the samples ``counts`` (..., S, 16)."""
    return np.asarray(np.einsum("...fb,...b->...f", shape, counts))


def increments(score: Floats, n: Ints | Floats, log_z: Floats | Singles, memory: Floats | Singles) -> Floats:
    """Return the log-increments (..., S, 24) of one window.

    ``score`` (..., S, 8): the sums of every shape over the window's samples, ``n`` (..., S) their number;
    ``log_z`` (..., S, 24) of the reference; ``memory``: how many samples are worth one independent sample, (..., S, 8)
    by shape or (..., S, 1). l = (N g - n log Z) / m.
    """
    tilted = score[..., None] * np.array(THETAS)
    allowed = n[..., None, None] * log_z.reshape(*log_z.shape[:-1], len(SHAPES), len(THETAS))
    return np.asarray(((tilted - allowed) / memory[..., None]).reshape(*score.shape[:-1], TILTS))


def class_increments(
    counts: Ints | Floats, n: Ints | Floats, log_z: Floats | Singles, memory: Floats | Singles
) -> Floats:
    """Return the log-increments (..., C, 80) of one window's class streams.

    ``counts`` (..., C, 16) by class of ``n`` (..., C) samples, ``log_z`` (..., C, 80), ``memory`` (..., C, 16).
    """
    tilted = counts[..., None] * np.array(CLASS_THETAS)
    allowed = n[..., None, None] * log_z.reshape(*log_z.shape[:-1], BINS, len(CLASS_THETAS))
    return np.asarray(((tilted - allowed) / memory[..., None]).reshape(*counts.shape[:-1], CLASS_TILTS))


def memory_at(memory: Floats | Singles, rate_ratio: Floats) -> Floats:
    """Return ``memory`` at ``rate_ratio`` times as many samples an hour as when it was measured; both broadcast.

    Memory is a time: m = (1 + rho) / (1 - rho) for samples whose correlation is rho, and rho^(1/q) at q times the rate.
    """
    rho = (memory - 1) / (memory + 1)
    correlation = rho ** (1 / np.maximum(rate_ratio, 1e-9))
    return np.asarray((1 + correlation) / np.maximum(1 - correlation, 1e-9))


def update(log_m: Floats | Singles, increment: Floats, *, log_cap: float = math.inf) -> Floats:
    """Return the detectors after a window: log M = l + log(M + 1), at most ``log_cap``.

    The cap only lowers M, so validity is kept; it lets a recovered device become quiet in hours, where months of
    evidence would take months to fade.
    """
    grown = np.maximum(log_m, 0.0) + np.log1p(np.exp(-np.abs(log_m)))  # logaddexp(log_m, 0), twice as fast
    return np.asarray(np.minimum(increment + grown, log_cap))


def fade(recent: Floats | Singles, increment: Floats) -> Floats:
    """Return the exponentially fading sum of log-evidence, used for attribution only, never to decide."""
    return np.maximum(_FADING * recent + increment, 0.0)


def values(log_m: Floats | Singles, class_m: Floats | Singles | None = None) -> Floats:
    """Return log of the mean of M over all tilts of all streams: valid under any dependence.

    ``log_m`` (..., S, 24) and those of the class streams, ``class_m`` (..., C, 80), to (...).
    """
    flat = log_m.reshape(*log_m.shape[:-2], -1)
    if class_m is not None:
        flat = np.concatenate([flat, class_m.reshape(*class_m.shape[:-2], -1)], axis=-1)
    top = flat.max(axis=-1)
    with np.errstate(invalid="ignore"):
        mean = np.exp(flat - top[..., None]).mean(axis=-1)
        return np.asarray(np.where(np.isneginf(top), -np.inf, top + np.log(mean)))


def log_alpha(budget_per_day: float, window_ms: int) -> float:
    """Return log of the false-alert budget of one window: ``budget_per_day`` / windows a day."""
    return math.log(budget_per_day * window_ms / 86_400_000)


def log_cap(members: int, tilts: int, log_alpha_window: float) -> float:
    """Return the cap for ``update``: high enough that one of ``tilts`` can flag a single device of ``members``."""
    return math.log(max(members, 1)) - log_alpha_window + math.log(tilts) + 1.0


def e_bh(log_values: Floats, log_alpha_window: float) -> Decision:
    """Return which of ``log_values`` (D,) e-BH flags: the largest r with M_(r) >= D / (alpha r).

    Source: R. Wang, A. Ramdas, JRSS B 84 (2022) 822-852, applied per window as in arXiv:2501.04130.
    """
    total = len(log_values)
    if not total:
        return Decision(np.zeros(0, np.bool_), -log_alpha_window)
    ordered = np.sort(log_values)[::-1]
    thresholds = math.log(total) - log_alpha_window - np.log(np.arange(1, total + 1))
    passing = np.flatnonzero(ordered >= thresholds)
    log_threshold = float(thresholds[passing[-1]] if passing.size else thresholds[0])
    flagged = log_values >= log_threshold if passing.size else np.zeros(total, np.bool_)
    return Decision(flagged, log_threshold)
