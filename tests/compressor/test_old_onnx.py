"""ONNX files of old exporters: IR version 3, opset 9, weights listed among the graph's inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.clean.given import Given, random_rows
from compressor.clean.mending import clean
from compressor.quantize import quantize
from compressor.quantize._running import logits
from compressor.recipe.read import parse_recipe
from compressor.run import imported_model
from compressor.run.stages import bare, float_target
from compressor.steps.quantize import Settings
from tests.compressor.data.test_keys import anything


def old(*, last: bool = False, ir_version: int = 3) -> bytes:
    """Return a convolution, batch norm and product of 3 x 8 x 8; ``last``: the image comes after the weights."""
    draw = np.random.default_rng(0)
    arrays = {
        "w": draw.standard_normal((8, 3, 3, 3)) / 5, "g": np.ones(8), "b": np.zeros(8), "fw": draw.random((2, 8)),
        "fb": np.zeros(2),
    }  # fmt: skip
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "b", "g"], ["n"]),
        helper.make_node("GlobalAveragePool", ["n"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fw", "fb"], ["logits"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])]
    listed = [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, list(one.dims)) for one in weights]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])]
    graph = helper.make_graph(nodes, "g", listed + inputs if last else inputs + listed, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=ir_version)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize(("last", "ir_version"), [(False, 3), (True, 3), (True, 7)])
def test_a_file_of_an_old_exporter_is_taken_and_quantized(tmp_path: Path, *, last: bool, ir_version: int) -> None:
    """Its weights don't count as inputs; per-channel scales, which opset 9 lacks, are written all the same."""
    (tmp_path / "m.onnx").write_bytes(old(last=last, ir_version=ir_version))
    text = '[model]\nname = "m"\nonnx = "m.onnx"\nlabels = ["a", "b"]\n[data]\nwidth = 8\nheight = 8\n'
    recipe = replace(parse_recipe(text.encode()), folder=tmp_path)
    imported_model.check(recipe)
    plain, notes = clean(old(last=last, ir_version=ir_version), Given(rows=random_rows((3, 8, 8))))
    assert notes["inputs"] == "5 weights were listed among the inputs"
    assert notes["opset"] == "raised from 9 to 17"
    candidate = bare(recipe, anything(recipe.data), plain, float_target(recipe, "onnx"))
    inputs, outputs = imported_model.contract_of(plain, candidate.manifest)
    assert ([spec.name for spec in inputs], [spec.name for spec in outputs]) == (["x"], ["logits"])
    rows = np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)
    small = quantize(plain, lambda: iter([rows]), Settings())
    want, got = (logits(onnx.load_from_string(one), lambda: iter([rows])) for one in (plain, small))
    assert np.abs(want - got).max() < 0.05 * np.ptp(want)


def test_a_file_to_which_no_mend_applies_stays_as_it_is() -> None:
    """It is unchanged byte for byte, and so are files that are not ONNX."""
    given = Given(rows=random_rows((3, 8, 8)))
    plain, _ = clean(old(), given)
    assert clean(plain, given) == (plain, {})
    assert clean(b"no model", given) == (b"no model", {})
