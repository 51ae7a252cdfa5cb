"""Tilts and their normaliser: the null hypothesis of one stream, as numbers to bet against.

Decides which departures are tested (Legendre 1 to 3 of the mid-ranks, both ways, and either end bin) and how much each
may score by chance. Deliberately knows nothing of devices, time or alarms.

Sources: J. Neyman, Smooth test for goodness of fit, Skandinavisk Aktuarietidskrift 20 (1937) 149-199 (tilts);
``docs/explanation/drift.md`` (normaliser with sampling error, maximum over contexts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from wire.histogram import BINS
from wire.reference import Context, Reference

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
"""The precision of stored detectors (float32): log values have a relative error of about 1e-6, which is harmless."""
Ints = NDArray[np.int64]

THETAS = (0.1, 0.25, 0.6)
SHAPES = ("up", "down", "spread", "narrow", "tail_up", "tail_down", "low_end", "high_end")
"""The eight shapes: Legendre 1, 2, 3 with either sign, and the indicators of the first and last bin."""
TILTS = len(SHAPES) * len(THETAS)
SHAPE_MEMORY = (0, 0, 1, 1, 2, 2, 3, 4)
"""The row of a shape's memory: both signs of a polynomial move together."""
OWN_SHAPES = (0, 2, 4, 6, 7)
"""One sign of each shape."""
SHAPE_SIGNS = (1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0)
CLASS_THETAS = (0.25, 0.6, 1.2, -0.6, -1.2)
CLASS_TILTS = BINS * len(CLASS_THETAS)
"""Tilts of a stream whose value is a class: more or less of each class, whatever their order."""

PLACE_LEVELS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""How far a place may differ without evidence, in standard deviations of a sample: the least that covers it counts."""

_PRIOR = 0.5  # Jeffreys: an empty bin of the reference is rare, not impossible


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes and normalisers of every stream under one reference.

    ``shapes``: float64 (S, 8, 16), the value of each shape in each bin. ``log_z``: float64 (S, 24), the log of
    each tilt's normaliser, shape-major (three strengths of one shape stand side by side). ``places``: (9, S, 24), the
    same for each of ``PLACE_LEVELS``; None: no place is known by its name.
    """

    shapes: Floats
    log_z: Floats
    places: Floats | None = None


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


def scores(counts: Ints | Floats | Singles, p: Floats | Singles) -> Floats:
    """Return the sums (..., S, 8) of every shape over ``p`` (..., S, 16) in the samples ``counts`` (..., S, 16).

    The same as summing ``shapes(p)``, without keeping 128 numbers for every stream of every device.
    """
    legendre = np.einsum("...fb,...b->...f", _legendre(p.astype(np.float64)), counts)
    found = np.empty((*legendre.shape[:-1], len(SHAPES)))
    found[..., 0:6:2], found[..., 1:6:2] = legendre, -legendre
    found[..., 6], found[..., 7] = counts[..., 0], counts[..., BINS - 1]
    return found


def own_deviations(p: Floats | Singles) -> Floats:
    """Return the standard deviations (..., S, 5) of ``OWN_SHAPES`` over ``p`` (..., S, 16), in the shapes of ``p``."""
    legendre, ends = _legendre(p.astype(np.float64)), p[..., [0, BINS - 1]]
    mean, squares = (np.einsum("...fb,...b->...f", power, p) for power in (legendre, legendre**2))
    variances = np.concatenate([squares - mean**2, ends - ends.astype(np.float64) ** 2], axis=-1)
    return np.asarray(np.sqrt(np.maximum(variances, 0.0)))


def deviations(p: Floats, shape: Floats) -> Floats:
    """Return the standard deviations (..., 8) of ``shape`` (..., 8, 16) over ``p`` (..., 16)."""
    mean = (shape * p[..., None, :]).sum(axis=-1)
    return np.asarray(np.sqrt(np.maximum((shape**2 * p[..., None, :]).sum(axis=-1) - mean**2, 0.0)))


def log_normaliser(
    p: Floats, n_effective: Floats, shape: Floats, *, z: float, epsilon: float, moved: Floats | None = None
) -> Floats:
    """Return log Z (..., 24) of tilts over ``shape`` (..., 8, 16).

    ``p`` (..., 16) was seen ``n_effective`` times: (..., 8) by shape, or (..., 1).
    Z = (1 - epsilon)(E_p[e^g] + z sd_p(e^g) / sqrt(n)) + epsilon max e^g, with g = theta shape. The second term is
    the reference's own sampling error: without it a small reference raises false alarms.
    ``moved`` (..., 8): how far the mean of a shape may move without evidence. Z is then the largest over what ``p``
    becomes when its normal scores move so far that the first shape moves by that, or half as far, either way, and at
    least what a shift of the shape's mean alone gives: a mean that moves changes spread, tails and ends as well.
    Source: ``docs/explanation/drift.md``, "Normaliser with sampling error" and "What may move".
    """
    found = _all_strengths(p, n_effective, shape, z=z, epsilon=epsilon)
    if moved is None:
        return found.reshape(*shape.shape[:-2], TILTS)
    alone = found + moved[..., None] * np.array(THETAS)
    furthest = shift_of(moved[..., 0])
    for part in (-1.0, -0.5, 0.5, 1.0):
        there = _all_strengths(_shifted(p, part * furthest), n_effective, shape, z=z, epsilon=epsilon)
        found = np.maximum(found, there)
    return np.asarray(np.maximum(found, alone).reshape(*shape.shape[:-2], TILTS))


_SCORES = np.linspace(-8.0, 8.0, 4001)
_BELOW = np.array([NormalDist().cdf(score) for score in _SCORES])
_FURTHEST = 0.9995  # of a normal stream, below the moved median: no stream moves further and is followed


def _normal_score(share: Floats) -> Floats:
    return np.interp(share, _BELOW, _SCORES)


def shift_of(mean: Floats) -> Floats:
    """Return by how many standard deviations a normal stream moves if the mean of its first shape becomes ``mean``."""
    return math.sqrt(2) * _normal_score(np.minimum((1 + mean / math.sqrt(3)) / 2, _FURTHEST))


def _shifted(p: Floats, by: Floats) -> Floats:
    """Return ``p`` (..., 16) with its normal scores moved by ``by`` (...)."""
    below = np.interp(_normal_score(np.cumsum(p, axis=-1)[..., :-1]) - by[..., None], _SCORES, _BELOW)
    ends = np.zeros((*p.shape[:-1], 1))
    return np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1)


def _all_strengths(p: Floats, n: Floats, shape: Floats, *, z: float, epsilon: float) -> Floats:
    """Return log Z (..., 8, 3) for ``p`` as it is."""
    return np.stack([_one_strength(theta, p, n, shape, z=z, epsilon=epsilon) for theta in THETAS], axis=-1)


def _one_strength(theta: float, p: Floats, n: Floats, shape: Floats, *, z: float, epsilon: float) -> Floats:
    growth = np.exp(theta * shape)
    mean = (growth * p[..., None, :]).sum(axis=-1)
    variance = np.maximum((growth**2 * p[..., None, :]).sum(axis=-1) - mean**2, 0.0)
    error = z * np.sqrt(variance / np.maximum(n, 1.0))
    return np.asarray(np.log((1 - epsilon) * (mean + error) + epsilon * growth.max(axis=-1)))


def class_log_normaliser(
    p: Floats, n_effective: Floats, *, z: float, epsilon: float, moved: Floats | float = 0.0
) -> Floats:
    """Return log Z (..., 80) of the tilts of each class, class by class; ``p`` and ``n_effective`` (..., 16).

    ``moved``: how far a class may move without evidence, in standard deviations of one sample.
    """
    growth = np.exp(np.array(CLASS_THETAS)) - 1  # of one sample of the class: 1 + growth
    sd = np.sqrt(p * (1 - p))
    error = (sd * (z / np.sqrt(np.maximum(n_effective, 1.0)) + moved))[..., None] * np.abs(growth)
    found = (1 - epsilon) * (1 + p[..., None] * growth + error) + epsilon * np.maximum(1 + growth, 1)
    return np.asarray(np.log(found).reshape(*p.shape[:-1], CLASS_TILTS))


def profile(
    counts: Ints | Floats, n_effective: Floats, *, z: float = 4.0, epsilon: float = 0.0, moved: Floats | None = None
) -> Profile:
    """Return the profile of reference counts (C, S, 16), one row per context.

    Each has ``n_effective`` independent samples: (C, S), or (C, S, 8) by shape. ``moved`` (S, 8): how far each shape
    may move without evidence, in standard deviations of a sample.

    The shapes use the mid-ranks of all contexts together; the normaliser is the largest over the contexts, so that
    neither day nor night alone raises an alarm.
    """
    together = shapes(proportions(counts.sum(axis=0)))
    by_shape = n_effective if n_effective.ndim == counts.ndim else n_effective[..., None]
    p, shape = proportions(counts), np.broadcast_to(together, (len(counts), *together.shape))
    if moved is not None:
        moved = moved * deviations(p, shape)
    per_context = log_normaliser(p, by_shape, shape, z=z, epsilon=epsilon, moved=moved)
    return Profile(together, per_context.max(axis=0))


def training_profile(reference: Reference, *, z: float = 4.0, epsilon: float = 0.0) -> Profile:
    """Return the profile of the bundle's own reference. Its contexts are places unless one of them is for all rows."""
    streams = len(reference.streams)
    counts = np.array([context.counts for context in reference.contexts], np.int64).reshape(-1, streams, BINS)
    sizes = [float(context.n_effective or context.n or 1) for context in reference.contexts]
    n_effective = np.repeat(np.array(sizes)[:, None], streams, axis=1)
    made = profile(counts, n_effective, z=z, epsilon=epsilon)
    if Context().name in {context.name for context in reference.contexts}:
        return made
    moved = (np.full((streams, len(SHAPES)), level) for level in PLACE_LEVELS)
    places = [profile(counts, n_effective, z=z, epsilon=epsilon, moved=one).log_z for one in moved]
    return replace(made, places=np.stack(places))
