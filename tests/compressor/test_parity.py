"""Parity of any number of forms, and refused comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.measurement.parity import find, matrix
from compressor.tasks.regression.evidence import parity


def test_five_forms_give_ten_pairs() -> None:
    """Every pair once."""
    forms = {name: np.eye(3, dtype=np.float32) for name in ("torch", "onnx", "int8", "tflite", "tflite int8")}
    pairs = matrix(forms)
    assert len(pairs) == 10
    assert all((pair.max_abs, pair.cosine, pair.flip_ratio) == (0, 1, 0) for pair in pairs)


@pytest.mark.parametrize("other", [np.ones((1, 3), np.float32), np.ones((4, 2), np.float32)])
def test_unequal_shapes_are_refused(other: np.ndarray) -> None:
    """Nothing is broadcast."""
    with pytest.raises(MeasureError, match="same rows"):
        matrix({"a": np.ones((4, 3), np.float32), "b": other})


def test_one_dead_form_is_no_agreement() -> None:
    """All zeros against something: cosine 0; two zeros: 1."""
    dead, alive = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    pair, same = find(matrix({"a": alive, "b": dead}), "a", "b"), find(matrix({"a": dead, "b": dead}), "a", "b")
    assert pair is not None
    assert same is not None
    assert (pair.cosine, same.cosine) == (0.0, 1.0)


def test_values_have_a_correlation_and_no_flips() -> None:
    """Of a regression: rounding keeps the order, nothing is a class; a constant against something counts as 0."""
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    rounded = values + np.float32(100)
    (pair,) = parity({"float": values, "int8": rounded})
    assert (pair.max_abs, pair.cosine) == (100, pytest.approx(1))
    assert np.isnan(pair.flip_ratio)
    (dead,) = parity({"float": values, "int8": np.full_like(values, 7)})
    assert dead.cosine == 0
