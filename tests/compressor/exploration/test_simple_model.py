"""The simple model learns from other folds only; outliers are far in content, edges or light."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from compressor.exploration import outliers
from compressor.exploration.simple_model import out_of_sample

Thumbs = npt.NDArray[np.float32]


@pytest.fixture
def thumbs() -> Thumbs:
    """Return 120 noisy thumbnails: upright bars in even rows, lying ones in odd rows."""
    rng = np.random.default_rng(0)
    bars = np.where(np.arange(16) % 8 < 4, 60.0, 180.0)
    pictures = [np.tile(bars, (16, 1)) if row % 2 else np.tile(bars, (16, 1)).T for row in range(120)]
    return (np.stack(pictures) + rng.normal(0, 15, (120, 16, 16))).astype(np.float32)


def test_classes_are_told_apart_out_of_sample(thumbs: Thumbs) -> None:
    """One callback per fold reports the progress."""
    labels, folds, steps = np.arange(120) % 2, np.arange(120) // 2 % 4, []
    scores = out_of_sample(thumbs, labels, folds, lambda: steps.append(1))
    assert scores.shape == (120, 2)
    assert (scores.argmax(axis=1) == labels).all()
    assert len(steps) == 4


def test_labels_of_a_fold_have_no_part_in_its_own_scores(thumbs: Thumbs) -> None:
    """Otherwise a wrong label would defend itself."""
    labels, folds = np.arange(120) % 2, np.arange(120) // 2 % 4
    other = np.where(folds == 1, 1 - labels, labels)
    first, second = (out_of_sample(thumbs, some, folds, lambda: None) for some in (labels, other))
    assert np.allclose(first[folds == 1], second[folds == 1], rtol=1e-3, atol=1e-3)
    assert not np.allclose(first[folds == 2], second[folds == 2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", ["black", "white", "dark", "noise", "diagonal"])
def test_what_is_far_in_content_edges_or_light_is_an_outlier(thumbs: Thumbs, change: str) -> None:
    """One such row among 120 is an outlier; none of the others is."""
    odd = {
        "black": np.zeros((16, 16)), "white": np.full((16, 16), 255.0), "dark": thumbs[0] * 0.15,
        "noise": np.random.default_rng(1).uniform(0, 255, (16, 16)), "diagonal": np.eye(16) * 255,
    }[change]  # fmt: skip
    scores = outliers.outlier_scores(np.concatenate([thumbs, odd[None]]).astype(np.float32))
    assert scores[-1] >= outliers.MIN_SCORE
    assert (scores[:-1] < outliers.MIN_SCORE).all()
