"""Tilts and their normaliser: the null hypothesis of one stream, as numbers to bet against.

Decides which departures are tested (Legendre 1 to 3 of the mid-ranks, both ways, and either end bin) and how much each
may score by chance. Deliberately knows nothing of devices, time or alarms.

Sources: J. Neyman, Smooth test for goodness of fit, Skandinavisk Aktuarietidskrift 20 (1937) 149-199 (tilts);
``docs/explanation/drift.md`` (normaliser with sampling error, maximum over contexts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.histogram import BINS
from wire.reference import Reference

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
"""The precision of stored detectors (float32): log values have a relative error of about 1e-6, which is harmless."""
Ints = NDArray[np.int64]

THETAS = (0.1, 0.25, 0.6)
SHAPES = ("up", "down", "spread", "narrow", "tail_up", "tail_down", "low_end", "high_end")
"""The eight shapes: Legendre 1, 2, 3 with either sign, and the indicators of the first and last bin."""
TILTS = len(SHAPES) * len(THETAS)

_PRIOR = 0.5  # Jeffreys: an empty bin of the reference is rare, not impossible


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes and normalisers of every stream under one reference.

    ``shapes``: float64 (S, 8, 16), the value of each shape in each bin. ``log_z``: float64 (S, 24), the log of
    each tilt's normaliser, shape-major (three strengths of one shape stand side by side).
    """

    shapes: Floats
    log_z: Floats


def proportions(counts: Ints | Floats) -> Floats:
    """Return smoothed bin probabilities (..., 16) of counts (..., 16); Jeffreys prior, never zero."""
    smoothed = counts + _PRIOR
    return np.asarray(smoothed / smoothed.sum(axis=-1, keepdims=True))


def shares(counts: Ints | Floats) -> Floats:
    """Return the shares of the samples (..., 16) of counts (..., 16), not smoothed; uniform without samples."""
    n = counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(n > 0, counts / np.maximum(n, 1), 1 / BINS))


def shapes(p: Floats) -> Floats:
    """Return the eight shapes (..., 8, 16) over the mid-ranks of ``p`` (..., 16).

    Source: orthonormal Legendre polynomials on [0, 1]: sqrt(3)(2u - 1), sqrt(5)(6u^2 - 6u + 1),
    sqrt(7)(20u^3 - 30u^2 + 12u - 1); Neyman 1937.
    """
    legendre = _legendre(p)
    found = np.zeros((*legendre.shape[:-2], len(SHAPES), BINS))
    found[..., 0:6:2, :], found[..., 1:6:2, :] = legendre, -legendre
    found[..., 6, 0] = found[..., 7, BINS - 1] = 1.0
    return found


def _legendre(p: Floats) -> Floats:
    """Return Legendre 1, 2 and 3 (..., 3, 16) over the mid-ranks of ``p`` (..., 16)."""
    u = np.cumsum(p, axis=-1) - p / 2
    first = math.sqrt(3) * (2 * u - 1)
    second = math.sqrt(5) * (6 * u**2 - 6 * u + 1)
    third = math.sqrt(7) * (20 * u**3 - 30 * u**2 + 12 * u - 1)
    return np.stack([first, second, third], axis=-2)


def scores(counts: Ints | Floats, p: Floats | Singles) -> Floats:
    """Return the sums (..., S, 8) of every shape over ``p`` (..., S, 16) in the samples ``counts`` (..., S, 16).

    The same as summing ``shapes(p)``, without keeping 128 numbers for every stream of every device.
    """
    legendre = np.einsum("...fb,...b->...f", _legendre(p.astype(np.float64)), counts)
    found = np.empty((*legendre.shape[:-1], len(SHAPES)))
    found[..., 0:6:2], found[..., 1:6:2] = legendre, -legendre
    found[..., 6], found[..., 7] = counts[..., 0], counts[..., BINS - 1]
    return found


def log_normaliser(p: Floats, n_effective: Floats, shape: Floats, *, z: float, epsilon: float) -> Floats:
    """Return log Z (..., 24) of tilts over ``shape`` (..., 8, 16); ``p`` (..., 16) seen ``n_effective`` (...) times.

    Z = (1 - epsilon)(E_p[e^g] + z sd_p(e^g) / sqrt(n)) + epsilon max e^g, with g = theta shape. The second term is
    the reference's own sampling error: without it a small reference raises false alarms.
    Source: ``docs/explanation/drift.md``, "Normaliser with sampling error".
    """
    columns = [_one_strength(theta, p, n_effective, shape, z=z, epsilon=epsilon) for theta in THETAS]
    return np.stack(columns, axis=-1).reshape(*shape.shape[:-2], TILTS)


def _one_strength(theta: float, p: Floats, n: Floats, shape: Floats, *, z: float, epsilon: float) -> Floats:
    growth = np.exp(theta * shape)
    mean = (growth * p[..., None, :]).sum(axis=-1)
    variance = np.maximum((growth**2 * p[..., None, :]).sum(axis=-1) - mean**2, 0.0)
    error = z * np.sqrt(variance / np.maximum(n, 1.0)[..., None])
    return np.asarray(np.log((1 - epsilon) * (mean + error) + epsilon * growth.max(axis=-1)))


def profile(counts: Ints | Floats, n_effective: Floats, *, z: float = 4.0, epsilon: float = 0.0) -> Profile:
    """Return the profile of reference counts (C, S, 16), one row per context, ``n_effective`` (C, S) samples each.

    The shapes use the mid-ranks of all contexts together; the normaliser is the largest over the contexts, so that
    neither day nor night alone raises an alarm.
    """
    together = shapes(proportions(counts.sum(axis=0)))
    per_context = log_normaliser(
        proportions(counts), n_effective, np.broadcast_to(together, (len(counts), *together.shape)),
        z=z, epsilon=epsilon,
    )  # fmt: skip
    return Profile(together, per_context.max(axis=0))


def training_profile(reference: Reference, *, z: float = 4.0, epsilon: float = 0.0) -> Profile:
    """Return the profile of the bundle's own reference."""
    streams = len(reference.streams)
    counts = np.array([context.counts for context in reference.contexts], np.int64).reshape(-1, streams, BINS)
    sizes = [float(context.n_effective or context.n or 1) for context in reference.contexts]
    return profile(counts, np.repeat(np.array(sizes)[:, None], streams, axis=1), z=z, epsilon=epsilon)
