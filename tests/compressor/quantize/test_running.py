"""The logits of a file on calibration data, at whichever output they are."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.portions import TENSOR_BYTES
from compressor.quantize._running import logits, run

MEASURED = """
import sys
import numpy as np, onnx
from compressor.quantize._calibrator import collect_ranges
def peak():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1])
model = onnx.shape_inference.infer_shapes(onnx.load(sys.argv[1]))
size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
before = peak()
collect_ranges(model, lambda: (np.ones((8, size), np.float32) for _ in range(8)))
print(peak() - before)
"""


def two_outputs(names: list[str]) -> onnx.ModelProto:
    """Return a model that outputs its input and its negative, under these names."""
    nodes = [helper.make_node(kind, ["x"], [name]) for kind, name in zip(("Identity", "Neg"), names, strict=True)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", *names)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("names", "sign"), [(["logits", "embedding"], 1), (["embedding", "logits"], -1), (["scores", "features"], 1)]
)
def test_logits_are_the_output_of_that_name_else_the_first(names: list[str], sign: int) -> None:
    """Corrections and sensitivities compare answers, not embeddings."""
    batch = np.array([[1, 2], [3, 4]], np.float32)
    assert np.array_equal(logits(two_outputs(names), lambda: [batch]), sign * batch)


def copies(size: int, *, batch: int | str = "n") -> onnx.ModelProto:
    """Return a model of four tensors of ``size`` floats a row."""
    names = ["x", "a", "b", "c", "d"]
    nodes = [helper.make_node("Neg", [one], [other]) for one, other in pairwise(names)]
    shape = [batch, size]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "d")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("size", "rows"), [(1000, [10]), (TENSOR_BYTES // 16 // 3, [3, 3, 3, 1]), (TENSOR_BYTES // 16, [1] * 10)]
)
def test_portions_are_sized_by_what_all_tensors_take(size: int, rows: list[int]) -> None:
    """Every tensor of 64 rows of a picture was a graph output: 3 GB where one row has 25 MB."""
    batch = np.ones((10, size), np.float32)
    parts = [
        (len(some), [len(value) for value in values])
        for some, values in run(copies(size), list("abcd"), lambda: [batch])
    ]
    assert parts == [(count, [count] * 4) for count in rows]


def test_a_model_of_a_fixed_batch_gets_whole_batches_whatever_they_take() -> None:
    """It takes no other number of rows."""
    size = TENSOR_BYTES // 16
    batches = [np.ones((2, size), np.float32)] * 2
    assert [len(rows) for rows, _ in run(copies(size, batch=2), list("abcd"), lambda: batches)] == [2, 2]
    assert logits(copies(size, batch=2), lambda: batches).shape == (4, size)


def test_calibration_holds_one_portion_of_tensors_not_two(tmp_path: Path) -> None:
    """In a fresh process the peak above the imports stays below three times the limit: portion, copies, runtime."""
    onnx.save(copies(TENSOR_BYTES // 64), tmp_path / "model.onnx")
    done = subprocess.run([sys.executable, "-c", MEASURED, tmp_path / "model.onnx"], capture_output=True, check=True)
    assert int(done.stdout) * 1024 <= 3 * TENSOR_BYTES
