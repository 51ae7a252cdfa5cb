"""The first layer that differs is named, on arrays and on two ONNX files."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from compressor import networks
from compressor.errors import MeasureError
from compressor.export.onnx import export_onnx
from compressor.measurement.layers import first_diverging, onnx_layers, sqnr_db
from compressor.quantize import quantize
from compressor.steps.quantize import Settings

SHAPE = (3, 16, 16)


def test_names_the_first_layer_below_the_limit() -> None:
    """The second of three is noisy; the third too, but later."""
    ones = np.ones((2, 5), np.float32)
    found = first_diverging(
        [("a", ones), ("b", ones), ("c", ones)], {"a": ones * 1.001, "b": ones * 1.5, "c": ones * 9}
    )
    assert found is not None
    assert (found.layer, found.before, round(found.before_db)) == ("b", "a", 60)
    assert found.max_abs == pytest.approx(0.5)
    assert "'b' has 6.0 dB, wanted 20 dB, after 'a'" in str(found)


def test_ratio_of_equal_dead_and_broken_tensors() -> None:
    """Infinite, minus infinite, minus infinite."""
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    assert sqnr_db(ones, ones) == math.inf
    assert sqnr_db(zeros, ones) == sqnr_db(ones, ones * np.float32(np.nan)) == -math.inf


def test_nothing_in_common_or_another_shape_is_an_error() -> None:
    """A comparison of nothing never passes."""
    ones = np.ones(3, np.float32)
    for other in ({"b": ones}, {"a": np.ones(4, np.float32)}):
        with pytest.raises(MeasureError):
            first_diverging([("a", ones)], other)


def test_finds_the_layer_whose_weights_were_spoilt() -> None:
    """An honest int8 file has none; one with a convolution's scale spoilt names a layer in the middle."""
    model = export_onnx(networks.build("resnet8", 10, *SHAPE), *SHAPE)
    inputs = np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)
    int8 = quantize(model, lambda: iter([inputs]), Settings())
    assert first_diverging(*onnx_layers(model, int8, inputs)) is None
    spoilt = onnx.load_model_from_string(int8)
    third = [node for node in spoilt.graph.node if node.op_type == "Conv"][2]
    weights = next(node for node in spoilt.graph.node if third.input[1] in node.output)
    scale = next(item for item in spoilt.graph.initializer if item.name == weights.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 2, scale.name))
    found = first_diverging(*onnx_layers(model, spoilt.SerializeToString(), inputs))
    assert found is not None
    assert found.before
    assert found.layer.removesuffix(" (rounded)") == third.output[0]
