"""Options of static int8 (scales, ranges, float layers, bias correction), and the properties of its parts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from compressor import networks, steps
from compressor.errors import QuantizeError, RecipeError
from compressor.export.onnx import export_onnx
from compressor.quantize._bias import corrected
from compressor.quantize._calibrator import collect_ranges
from compressor.quantize._model import chosen, compact, layers, prepare
from compressor.quantize._qdq import measured, place, sqnr_db
from compressor.quantize._running import logits
from compressor.quantize.static_int8 import quantize
from compressor.steps.quantize import Settings

SHAPE = (1, 12, 12)


@functools.cache
def _network() -> bytes:
    return export_onnx(networks.build("resnet8", 5, *SHAPE, {"filters": 8}), *SHAPE)


def _batches() -> Iterator[np.ndarray]:
    yield from np.split(np.random.default_rng(0).standard_normal((64, *SHAPE)).astype(np.float32), 2)


def _names() -> list[str]:
    return [layer.name for layer in layers(prepare(_network()))]


def _constants(model: bytes) -> list[np.ndarray]:
    return [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(model).graph.initializer]


def test_per_tensor_weights_have_one_scale() -> None:
    """Without ``per_channel`` no weight has more than one scale."""
    sizes = [array.size for array in _constants(quantize(_network(), _batches, Settings(per_channel=False)))
             if array.dtype == np.float32]  # fmt: skip
    assert max(sizes) == 1


def test_given_ranges_replace_the_calibrated_ones() -> None:
    """A range that was learnt sets the scale of its tensor."""
    model = quantize(_network(), _batches, Settings(), ranges={"input": (0.0, 255.0)})
    assert any(array.dtype == np.float32 and array.size == 1 and array == 1 for array in _constants(model))


def test_ranges_of_unknown_tensors_are_refused() -> None:
    """A learnt range that would be lost in silence is an error."""
    with pytest.raises(QuantizeError, match="nowhere"):
        quantize(_network(), _batches, Settings(), ranges={"nowhere": (0.0, 1.0)})


def test_named_layers_stay_float() -> None:
    """The weights of a float layer stay float32, those of the others become int8."""
    model = onnx.load_from_string(quantize(_network(), _batches, Settings(float_layers=("/stem",))))
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants]
    assert kept == ["/stem/Conv"]


def test_automatic_float_layers_are_the_most_sensitive() -> None:
    """``float_layers_auto`` keeps those layers float that the measurement ranks first."""
    worst = measured(_network(), _batches, Settings())[0].layer
    asked = (Settings(float_layers_auto=1), Settings(float_layers=(worst,)))
    first, second = (quantize(_network(), _batches, settings) for settings in asked)
    assert first == second


def layered(*names: str) -> onnx.ModelProto:
    """Return a model with a product of each name."""
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], [f"y{name}"], name=name) for name in names]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))


@pytest.mark.parametrize(("wanted", "said"), [("/blocks", "begins"), ("/stemm", "did you mean '/stem")])
def test_a_name_that_means_no_one_layer_is_refused(wanted: str, said: str) -> None:
    """An ambiguous beginning and a misspelt name are errors that help."""
    with pytest.raises(QuantizeError, match=said):
        chosen([wanted], layered("/stem", "/blocks/0", "/blocks/1"))


def test_sensitivity_is_worst_first_for_every_layer() -> None:
    """Each layer is measured once, with its multiplications, in ascending order."""
    found = measured(_network(), _batches, Settings())
    assert sorted(item.layer for item in found) == sorted(_names())
    assert [item.sqnr_db for item in found] == sorted(item.sqnr_db for item in found)
    assert {item.layer: item.macs for item in found}["/stem/Conv"] == 8 * 9 * 12 * 12


def test_sqnr_is_in_decibels() -> None:
    """An error of a tenth is 20 dB."""
    ones = np.ones(100, np.float32)
    assert sqnr_db(ones, ones * np.float32(1.1)) == pytest.approx(20, abs=0.01)


def test_bias_correction_brings_the_logits_nearer() -> None:
    """Per-tensor weights shift means; corrected biases take the shift back, and never make the logits worse."""
    prepared, settings = prepare(_network()), Settings(per_channel=False)
    ranges = collect_ranges(prepared, _batches)
    want = logits(prepared, _batches)
    changed = corrected(prepared, lambda model: place(model, ranges, settings), _batches)
    before, after = (sqnr_db(want, logits(place(model, ranges, settings), _batches)) for model in (prepared, changed))
    assert after > before + 0.5


def test_compact_files_are_smaller_and_compute_the_same() -> None:
    """Merging equal constants and shortening names changes no output bit, and no name of a layer, input or output."""
    prepared = prepare(_network())
    placed = place(prepared, collect_ranges(prepared, _batches), Settings())
    whole = placed.SerializeToString()
    small = compact(placed)
    assert len(small) < 0.85 * len(whole)
    assert {node.name for node in onnx.load_from_string(small).graph.node} >= set(_names())
    inputs = next(_batches())
    first, second = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"input": inputs})
        for model in (whole, small)
    )
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_settings_out_of_range_are_found() -> None:
    """Every check of the default settings holds; a wrong value fails one."""
    steps.check(Settings())
    for wrong in ({"calibration": "entropy"}, {"percentile": 12.0}, {"float_layers_auto": -1}):
        with pytest.raises(RecipeError, match=f"quantize {next(iter(wrong))}"):
            steps.check(replace(Settings(), **wrong))
