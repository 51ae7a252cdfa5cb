"""Figures of a TFLite file: multiplications by hand, the integer share, custom operators by name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.tflite import flatbuffer
from compressor.tflite.graph import inspect
from compressor.tflite.quantizing import quantize

STEM, DEPTHWISE, POINTWISE, HEAD = 8 * 6 * 8 * 27, 8 * 6 * 8 * 9, 8 * 6 * 8 * 8, 16 * 5


def test_multiplications_are_those_of_the_layers(float_model: bytes) -> None:
    """Convolution, depthwise and linear layers count as computed by hand; a float file has no int8."""
    figures = inspect(float_model)
    assert figures.macs == STEM + DEPTHWISE + POINTWISE + HEAD
    assert figures.int8_macs_ratio == 0
    assert (figures.operators["CONV_2D"], figures.operators["DEPTHWISE_CONV_2D"]) == (2, 1)


@pytest.mark.parametrize(
    ("scheme", "share"), [("static_int8", 1), ("static_int8_16", 1), ("dynamic_int8", 1), ("weight_int8", 0)]
)
def test_the_share_is_what_runs_in_integers(
    scheme: str, share: float, float_model: bytes, ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Weights that are dequantized before they are used don't count."""
    assert inspect(quantize(float_model, ranges, scheme=scheme)).int8_macs_ratio == share


def test_a_float_layer_lowers_the_share(float_model: bytes, ranges: Mapping[str, tuple[float, float]]) -> None:
    """By its multiplications."""
    model = quantize(float_model, ranges, scheme="static_int8", float_layers=["stem"])
    assert inspect(model).int8_macs_ratio == pytest.approx(1 - STEM / inspect(model).macs)


def test_custom_operators_are_named(float_model: bytes) -> None:
    """An operator that devices lack is an error with its name and the next step."""
    tree = flatbuffer.read(float_model, MeasureError)
    tree.operatorCodes[0].builtinCode = tree.operatorCodes[0].deprecatedBuiltinCode = 32
    tree.operatorCodes[0].customCode = b"FlexErf"
    with pytest.raises(MeasureError, match=r"got FlexErf: .*or export to ONNX"):
        inspect(flatbuffer.write(tree))


@pytest.mark.parametrize("artifact", [b"", b"\0" * 100, b"\x1c\0\0\0TFL3" + bytes(40)])
def test_what_is_no_model_is_a_coded_error(artifact: bytes) -> None:
    """Other bytes, or none, end in a MeasureError."""
    with pytest.raises(MeasureError, match="TFLite"):
        inspect(artifact)


def test_damaged_files_never_end_in_another_error(float_model: bytes) -> None:
    """A truncated or altered file has figures or raises a MeasureError."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(float_model[: generator.integers(8, len(float_model))])
        if generator.random() < 0.7:
            damaged = bytearray(float_model)
            damaged[generator.integers(8, len(damaged))] = generator.integers(0, 256)
        with contextlib.suppress(MeasureError):
            found = inspect(bytes(damaged))
            assert (found.macs or 0) > 0 or found.unknown
