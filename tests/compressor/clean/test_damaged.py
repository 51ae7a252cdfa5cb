"""Damaged files: step ``clean`` leaves them to the reader that names them, and never ends in an error of its own."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from compressor.clean.mending import clean
from compressor.errors import CompressorError
from compressor.formats import named
from tests.compressor.clean.files import classifier, given, network

LAST = 40


@pytest.mark.parametrize("seed", range(LAST))
def test_a_damaged_file_is_left_or_read(seed: int) -> None:
    """Three bytes of the graph are others: the contract reads the result, or names what is wrong."""
    data = bytearray(network(*classifier(bias=(1, 3)), opset=11, batch=1).SerializeToString())
    draw = np.random.default_rng(seed)
    for at in draw.integers(0, len(data), 3):
        data[at] = draw.integers(0, 256)
    model, notes = clean(bytes(data), given())
    assert isinstance(notes, dict)
    with contextlib.suppress(CompressorError):  # any other error would be ours
        assert named("onnx").tensors(model)


@pytest.mark.parametrize("keep", [0, 1, 50, 300, 500])
def test_a_file_that_was_cut_off_is_left_or_read(keep: int) -> None:
    """A download that broke off."""
    data = network(*classifier(), opset=11).SerializeToString()[:keep]
    model, _ = clean(data, given())
    with pytest.raises(CompressorError, match="Expected"):
        named("onnx").tensors(model)
