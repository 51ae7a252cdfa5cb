"""Bad rows are named before the first step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressor import networks
from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.tasks.classification.training import balanced_weights
from compressor.train.supervised import fit


def _fit(inputs: np.ndarray, labels: np.ndarray) -> None:
    network = networks.build("resnet8", 3, 1, 8, 8, {"filters": 4})
    fit(network, inputs, labels, TrainRecipe(epochs=1, batch=8))


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((16, 1, 8, 8)).astype(np.float32), np.arange(16) % 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_names_the_first_row_that_is_not_finite(value: float) -> None:
    """Rows 5 and 9 are broken: the message names 5, and the next step."""
    inputs, labels = _data()
    inputs[[5, 9], 0, 3, 3] = value
    with pytest.raises(TrainError, match=f"got {value} in row 5: mend"):
        _fit(inputs, labels)


@pytest.mark.parametrize("label", [-1, -100, 3])
def test_names_the_label_that_no_class_has(label: int) -> None:
    """A label out of range is refused; -100 too, which torch's loss would silently ignore."""
    inputs, labels = _data()
    labels[7] = label
    with pytest.raises(TrainError, match=f"0 to 2, got {label} in row 7"):
        _fit(inputs, labels)


def test_one_class_is_nothing_to_learn() -> None:
    """Labels of one class only are refused."""
    inputs, labels = _data()
    with pytest.raises(TrainError, match="at least two classes"):
        _fit(inputs, labels * 0 + 2)


def test_balanced_weights_make_classes_count_alike() -> None:
    """Three of class 0 and one of class 1: weights times counts are equal, an absent class has none."""
    weights = balanced_weights(torch.tensor([0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0, 0.0])


def test_balanced_weights_help_the_rare_class() -> None:
    """Overlapping classes, one in ten rare: with balanced weights more of the rare ones are found."""
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 10 == 0).astype(np.int64)
    inputs = (rng.standard_normal((200, 1, 8, 8)) + 0.15 * labels[:, None, None, None]).astype(np.float32)
    found = []
    for name in ("none", "balanced"):
        network = networks.build("resnet8", 2, 1, 8, 8, {"filters": 4})
        network = fit(network, inputs, labels, TrainRecipe(epochs=4, batch=20, augment=0, class_weights=name))
        with torch.no_grad():
            found.append(int((network(torch.from_numpy(inputs[labels == 1]))[0].argmax(1) == 1).sum()))
    assert found[1] > found[0]
