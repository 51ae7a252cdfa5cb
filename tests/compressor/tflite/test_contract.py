"""The contract of a TFLite file is derived from its tensors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from compressor.errors import MeasureError
from compressor.tflite.contract import contract
from compressor.tflite.quantizing import quantize
from wire.manifest import TensorSpec


def test_a_float_file_states_names_shapes_and_layout(float_model: bytes) -> None:
    """Input NHWC with free batch, then logits and embedding, all float32 without scale."""
    assert contract(float_model) == (
        (TensorSpec(name="input", shape=(-1, 16, 12, 3), dtype="float32", layout="NHWC"),),
        (TensorSpec(name="logits", shape=(-1, 5)), TensorSpec(name="embedding", shape=(-1, 16))),
    )


def test_an_int8_file_states_scales(float_model: bytes, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Names and order stay, every tensor has a scale and a zero point that fits int8."""
    inputs, outputs = contract(quantize(float_model, ranges, scheme="static_int8", integer_io=True))
    assert [spec.name for spec in (*inputs, *outputs)] == ["input", "logits", "embedding"]
    assert all(spec.scale > 0 and -128 <= spec.zero_point <= 127 for spec in (*inputs, *outputs))


def test_what_is_no_model_is_a_coded_error() -> None:
    """Other bytes end in a MeasureError."""
    with pytest.raises(MeasureError, match="Expected a TFLite file"):
        contract(b"not a model")
