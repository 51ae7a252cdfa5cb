"""The map to deviations from normal embeddings: distances by hand, shrinkage, wide embeddings, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.statistics.embedding_distance import MOST_DIRECTIONS, SHRINKAGE, CentredMap, fitted


def distances(made: CentredMap, rows: np.ndarray) -> np.ndarray:
    """Return the mean squared deviation of each row from each centre, (N, C)."""
    said = (rows @ made.weights + made.offsets).reshape(len(rows), made.centres, -1)
    return np.asarray((said**2).mean(axis=2))


def correlated(rows: int, size: int, seed: int = 0) -> np.ndarray:
    """Return rows of a Gaussian with unlike variances and correlations, (rows, size)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, size)) @ rng.standard_normal((size, size)) + 5


def test_the_distance_is_mahalanobis_by_the_shrunk_covariance() -> None:
    """Against the quadratic form with the inverse covariance, of one centre."""
    rows = correlated(500, 4)
    made = fitted(rows, np.zeros(500))
    covariance = np.cov(rows.T)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 4 * np.eye(4)
    apart = correlated(20, 4, seed=1) - rows.mean(axis=0)
    wanted = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(shrunk), apart) / 4
    assert distances(made, apart + rows.mean(axis=0))[:, 0] == pytest.approx(wanted, rel=1e-4)
    assert (made.centres, made.weights.dtype, made.offsets.dtype) == (1, np.float32, np.float32)


def test_each_kind_has_its_centre_and_all_share_one_covariance() -> None:
    """At a centre the distance from it is 0; the gap between kinds is no spread."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(["a", "b"], 300)
    centres = np.repeat([[0.0, 0.0], [100.0, 0.0]], 300, axis=0)
    made = fitted(centres + rng.standard_normal((600, 2)), kinds)
    found = distances(made, np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 3.0]]))
    assert found.argmin(axis=1).tolist() == [0, 1, 0]
    assert found.min(axis=1) == pytest.approx([0, 0, 4.5], abs=0.6)
    assert found[0, 1] > 1000


def test_a_direction_without_spread_counts_by_the_shrinkage() -> None:
    """A dead unit that fires is far, and not infinitely so."""
    rows = np.random.default_rng(0).standard_normal((400, 2)) * (1.0, 0.0)
    found = distances(fitted(rows, np.zeros(400)), np.array([[0.0, 1.0]]))
    assert found[0, 0] == pytest.approx(1 / SHRINKAGE, rel=0.2)


def test_of_a_wide_embedding_the_directions_with_the_most_variance_are_kept() -> None:
    """The layer stays small, and the same whatever the signs that a solver chooses."""
    scales = np.linspace(1, 10, MOST_DIRECTIONS + 20)
    rows = np.random.default_rng(0).standard_normal((2000, len(scales))) * scales
    made = fitted(rows, np.zeros(2000))
    assert made.weights.shape == (len(scales), MOST_DIRECTIONS)
    used = np.linalg.norm(made.weights * scales[:, None], axis=1)
    assert used[:10].max() < 0.6 < used[-10:].min()
    assert fitted(rows, np.zeros(2000)).weights.tobytes() == made.weights.tobytes()


@pytest.mark.parametrize(
    ("rows", "kinds", "said"),
    [
        (np.ones((50, 3)), np.zeros(50), "Expected embeddings of normal rows that differ"),
        (np.eye(3), np.arange(3), "Expected normal rows for 3 centres and a covariance, got 3"),
        (np.full((50, 3), np.nan), np.zeros(50), "that differ, got a mean variance of nan"),
    ],
)
def test_rows_that_show_no_spread_are_refused(rows: np.ndarray, kinds: np.ndarray, said: str) -> None:
    """Equal rows, a row a centre, and numbers that are none."""
    with pytest.raises(MeasureError, match=said):
        fitted(rows, kinds)
