"""The e-detector, its multiplicity rule and the normaliser, by their properties."""

from __future__ import annotations

import math

import numpy as np

from server.drift import rows as summaries
from server.drift.detection.baseline import Commissioning, baselines
from server.drift.detection.evidence import e_bh, increments, log_alpha, sums, update, values
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.reference import TILTS, profile, shapes
from wire.histogram import BINS

UNIFORM = np.full(BINS, 1 / BINS)


def test_shapes_are_nearly_orthonormal_under_their_own_reference() -> None:
    """Legendre 1 to 3 have mean 0 and variance about 1 on equal-mass bins, and differ from each other."""
    legendre = shapes(UNIFORM)[[0, 2, 4]]
    assert np.allclose(legendre.mean(axis=1), 0, atol=0.02)
    assert np.allclose(legendre @ legendre.T / BINS, np.eye(3), atol=0.1)


def test_evidence_has_no_positive_drift_under_the_reference() -> None:
    """E[exp(l)] of one sample is at most 1 for every tilt, in every context: so M is a proper detector."""
    counts = np.array([[np.full(BINS, 125)], [np.arange(1, BINS + 1) * 15]])
    made = profile(counts, np.array([[2000.0], [2040.0]]))
    for context in counts:
        p = (context / context.sum())[0]
        one = np.stack([
            increments(sums(np.eye(BINS)[[i]], made.shapes), np.ones(1), made.log_z, np.ones(1))[0] for i in range(BINS)
        ])  # fmt: skip
        assert (p @ np.exp(one) <= 1.0).all()


def test_the_detector_without_evidence_counts_windows() -> None:
    """With l = 0 M grows by one a window: that is the Shiryaev-Roberts recursion."""
    log_m = np.full((1, TILTS), -np.inf)
    for _ in range(5):
        log_m = update(log_m, np.zeros((1, TILTS)))
    assert np.allclose(np.exp(log_m), 5)
    assert values(log_m[None])[0] == math.log(5) or np.isclose(values(log_m[None])[0], math.log(5))


def test_e_bh_flags_more_when_many_have_evidence() -> None:
    """One device needs D / alpha, ten devices of twenty a tenth of it."""
    alpha = math.log(0.01)
    one = np.full(20, -5.0)
    one[3] = math.log(20 / 0.01) - 0.1
    assert not e_bh(one, alpha).flagged.any()
    many = np.full(20, -5.0)
    many[:10] = math.log(2 / 0.01) + 0.1
    assert e_bh(many, alpha).flagged.sum() == 10
    assert e_bh(np.zeros(0), alpha).flagged.size == 0


def test_the_budget_is_per_day() -> None:
    """Hourly windows share 0.05 a day; shorter windows get less each."""
    assert math.isclose(math.exp(log_alpha(0.05, 3_600_000)), 0.05 / 24)
    assert log_alpha(0.05, 10_000) < log_alpha(0.05, 3_600_000)


def test_windows_that_vary_among_themselves_have_memory() -> None:
    """A stream whose mean wanders from window to window gets a long autocorrelation time, a steady one does not."""
    rng, part = np.random.default_rng(2), Commissioning(stages=(40,))
    for _ in range(40):
        level = rng.normal(0, 0.25)
        drawn = np.clip(rng.integers(0, BINS, 60), 0, BINS - 1)
        wandering = np.clip((rng.random(60) + level) * BINS, 0, BINS - 1).astype(int)
        part.add(0, np.stack([np.bincount(drawn, minlength=BINS), np.bincount(wandering, minlength=BINS)]))
    part.estimate(0)
    ((steady, wander),) = baselines([part], ScoreColumns(2), z=4, epsilon=0).memory.reshape(1, 2, -1).max(axis=-1)
    assert steady < 2.5
    assert wander > 10


def test_psi_without_drift_is_what_theory_says() -> None:
    """E[PSI] = (B - 1) / n: 0.25 at 60 samples, which is why it never decides."""
    rng = np.random.default_rng(3)
    counts = rng.multinomial(60, UNIFORM, size=2000)
    reference = np.full((2000, BINS), 100_000)
    assert 0.17 < summaries.psi(counts, reference).mean() < 0.30
    assert (summaries.jensen_shannon(reference, reference) == 0).all()
    assert (summaries.kolmogorov_smirnov(reference, reference) == 0).all()


def test_a_merged_window_is_weaker_evidence_than_its_parts() -> None:
    """Its increment is the sum of theirs, and one step starts one detector where two steps start two."""
    chance = np.random.default_rng(7)
    parts = chance.multinomial(60, UNIFORM, size=(2, 5))
    log_z, memory = np.full((5, TILTS), 0.01), np.ones((5, 1))
    steps = [increments(sums(one, shapes(UNIFORM)), one.sum(axis=-1), log_z, memory) for one in parts]
    whole = increments(sums(parts.sum(axis=0), shapes(UNIFORM)), parts.sum(axis=(0, 2)), log_z, memory)
    assert np.allclose(whole, steps[0] + steps[1])
    before = chance.normal(size=(5, TILTS))
    assert (update(before, whole) <= update(update(before, steps[0]), steps[1])).all()
