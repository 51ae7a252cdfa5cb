"""Quantized TFLite: near the float model, with our ranges, float or integer edges, repeatable."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import QuantizeError
from compressor.export.tflite import export_tflite
from compressor.measurement import left_float
from compressor.steps.quantize import Settings
from compressor.tflite.contract import contract
from compressor.tflite.graph import inspect
from compressor.tflite.quantizing import SCHEMES, layers, quantize
from compressor.tflite.ranges import collect_ranges

from .conftest import SHAPE

Ranges = Mapping[str, tuple[float, float]]
Runs = Callable[[bytes, np.ndarray], list[np.ndarray]]
STATIC = SCHEMES[:2]


def _decibels(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((wanted**2).mean() / ((wanted - got) ** 2).mean()))


@pytest.mark.parametrize(
    ("scheme", "per_channel"),
    [
        *((scheme, True) for scheme in SCHEMES),
        ("static_int8", False),
        ("static_int8_16", False),
        ("weight_int8", False),
    ],
)
def test_every_scheme_stays_near_the_float_model(
    scheme: str,
    per_channel: bool,  # noqa: FBT001 - a parameter of the test
    float_model: bytes,
    ranges: Ranges,
    inputs: np.ndarray,
    run: Runs,
) -> None:
    """Logits and embedding keep a signal 25 dB above the error (20 dB per tensor), and float edges."""
    model = quantize(float_model, ranges, scheme=scheme, per_channel=per_channel)
    assert [spec.dtype for specs in contract(model) for spec in specs] == ["float32"] * 3
    for wanted, got in zip(run(float_model, inputs), run(model, inputs), strict=True):
        assert _decibels(wanted, got) >= (25 if per_channel else 20)


@pytest.mark.parametrize(("scheme", "dtype"), [("static_int8", "int8"), ("static_int8_16", "int16")])
def test_integer_edges_compute_the_same(
    scheme: str, dtype: str, float_model: bytes, ranges: Ranges, inputs: np.ndarray, run: Runs
) -> None:
    """With ``integer_io`` input and outputs are integers with the values of the float ones."""
    float_edges = quantize(float_model, ranges, scheme=scheme)
    integer_edges = quantize(float_model, ranges, scheme=scheme, integer_io=True)
    assert [spec.dtype for specs in contract(integer_edges) for spec in specs] == [dtype] * 3
    for wanted, got in zip(run(float_edges, inputs), run(integer_edges, inputs), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_our_ranges_become_the_scales(float_model: bytes, ranges: Ranges) -> None:
    """Twice the range of the input results in twice the scale, and the logits' scale is that of their range."""
    wide = quantize(float_model, {**ranges, "input": (-1.0, 3.0)}, scheme="static_int8", integer_io=True)
    inputs, outputs = contract(wide)
    assert (inputs[0].scale, inputs[0].zero_point) == (pytest.approx(4 / 255), -64)
    low, high = ranges["logits"]
    assert outputs[0].scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_input_gives_the_same_bytes(scheme: str, float_model: bytes, ranges: Ranges) -> None:
    """Quantizing twice changes nothing, and the ranges given are left alone."""
    before = dict(ranges)
    assert quantize(float_model, ranges, scheme=scheme) == quantize(float_model, ranges, scheme=scheme)
    assert ranges == before


def test_everything_that_multiplies_runs_in_int8(float_model: bytes, ranges: Ranges) -> None:
    """The int8 file converts at its edges only, but for the concatenation, whose parts need one scale."""
    model = quantize(float_model, ranges, scheme="static_int8")
    figures = inspect(model)
    assert figures.int8_macs_ratio >= 0.95
    assert (figures.operators["QUANTIZE"], figures.operators["DEQUANTIZE"]) == (2, 2)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layer", ["stem", "blocks.0", "head"])
def test_a_layer_named_stays_float(
    scheme: str, layer: str, float_model: bytes, ranges: Ranges, inputs: np.ndarray, run: Runs
) -> None:
    """The file runs, keeps its signal, and computes less in integers."""
    mixed = quantize(float_model, ranges, scheme=scheme, float_layers=[layer])
    if scheme in (*STATIC, "dynamic_int8"):
        assert 0 < inspect(mixed).int8_macs_ratio < 1
    assert _decibels(run(float_model, inputs)[0], run(mixed, inputs)[0]) >= 25


def test_a_layer_is_named_by_a_unique_beginning(float_model: bytes, ranges: Ranges) -> None:
    """``depth`` is enough for ``depthwise``."""
    assert layers(float_model) == ("stem", "depthwise", "blocks.0", "head")
    full, short = (quantize(float_model, ranges, scheme="static_int8", float_layers=[n]) for n in ("depthwise", "dep"))
    assert full == short


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "static_int4"}, r"Expected a scheme of static_int8, .*, got 'static_int4'"),
        ({"ranges": None}, "got none of 'input': collect them"),
        ({"ranges": {"input": (0.0, 1.0)}}, "Expected ranges of all activations, got none of"),
        ({"float_layers": ["steam"]}, "Expected a layer of the model.*got 'steam'"),
        ({"float_layers": [""]}, "got '': stem, depthwise"),
        ({"scheme": "float16", "integer_io": True}, "Expected a static scheme for integer_io, got 'float16'"),
        (
            {"scheme": "dynamic_int8", "per_channel": False},
            "Expected per_channel = true with 'dynamic_int8', got false",
        ),
        ({"model": b"no model"}, "Expected a TFLite file, got 8 bytes"),
    ],
)
def test_what_can_not_be_quantized_is_named(
    changes: dict[str, object], message: str, float_model: bytes, ranges: Ranges
) -> None:
    """Each unsupported option raises a QuantizeError with the expectation."""
    wishes = {"model": float_model, "ranges": ranges, "scheme": "static_int8", **changes}
    with pytest.raises(QuantizeError, match=message):
        quantize(**wishes)  # type: ignore[arg-type]  # the wrong ones are the point


def test_a_range_that_is_no_number_is_refused(float_model: bytes, ranges: Ranges) -> None:
    """NaN would become a scale that is NaN too."""
    with pytest.raises(QuantizeError, match=r"Expected a finite range of 'stem', got 0\.0 to nan"):
        quantize(float_model, {**ranges, "stem": (0.0, float("nan"))}, scheme="static_int8")


def test_a_quantized_model_is_not_quantized_again(float_model: bytes, ranges: Ranges) -> None:
    """A file with integer weights is refused instead of being taken for a float one."""
    once = quantize(float_model, ranges, scheme="static_int8")
    with pytest.raises(QuantizeError, match="Expected a float TFLite model"):
        quantize(once, ranges, scheme="static_int8")


@pytest.mark.parametrize("scheme", ["static_int8", "weight_int8", "float16"])
def test_a_tflite_file_whose_weights_stayed_float_is_refused(float_model: bytes, ranges: Ranges, scheme: str) -> None:
    """A scheme without effect returns the float file and is refused; a quantized one passes."""
    with pytest.raises(QuantizeError, match=f"{scheme}.* 100 % of its weights left float32 .*allow_unquantized = true"):
        left_float.check(float_model, "litert", Settings(scheme=scheme))
    assert "100 %" in left_float.check(float_model, "litert", Settings(scheme=scheme, allow_unquantized=True))
    made = quantize(float_model, ranges if scheme == "static_int8" else None, scheme=scheme)
    assert left_float.check(made, "litert", Settings(scheme=scheme)) == ""


class _Joined(nn.Module):
    """Joins constants of five, four, three and two axes to what is computed, as a class token is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4 * 21 + 6, 5)
        shapes = (1, 4, 1, 3), (1, 4, 3), (1, 4, 3, 1, 1), (1, 6)
        self.four, self.three, self.five, self.two = (nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, what they are computed from)."""
        x = torch.cat([torch.relu(self.conv(x)), self.four], 2).flatten(2)
        x = torch.cat([x, self.three], 2)
        x = torch.cat([x[:, :, :, None, None], self.five], 2).flatten(1)
        x = torch.cat([x, self.two], 1)
        return self.head(x), x


@pytest.mark.slow
def test_constants_of_any_axes_are_joined(inputs: np.ndarray, run: Runs) -> None:
    """The quantizer refused those of another number of axes than the ranges that it was given."""
    model, pieces = export_tflite(_Joined().eval(), *SHAPE), np.split(inputs, len(inputs))
    made = quantize(model, collect_ranges(model, lambda: pieces), scheme="static_int8", integer_io=True)
    for piece in pieces[:8]:
        for wanted, got in zip(run(model, piece), run(made, piece), strict=True):
            assert _decibels(wanted, got) >= 25
