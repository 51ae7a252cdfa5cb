"""Small ONNX files as exporters write them, made by our own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compressor.clean.given import Given

CHANNELS, SIDE, CLASSES = 2, 8, 3
Weights = Mapping[str, npt.NDArray[np.generic]]


def network(
    nodes: Sequence[onnx.NodeProto],
    weights: Weights | None = None,
    *,
    batch: int | str = "N",
    opset: int = 17,
    sizes: Sequence[int | str] = (CHANNELS, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return a file whose ``nodes`` lead from ``x`` (batch, *sizes) to ``logits`` (batch, 3)."""
    inputs = [helper.make_tensor_value_info("x", kind, [batch, *sizes])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def drawn(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return normal noise, a fifth wide."""
    return (np.random.default_rng(seed).standard_normal(shape) / 5).astype(np.float32)


def convolution(taken: str = "x") -> tuple[list[onnx.NodeProto], dict[str, npt.NDArray[np.float32]]]:
    """Return nodes and weights from ``taken`` to ``f`` (batch, 4): a convolution, ReLU and the mean of each channel."""
    nodes = [
        helper.make_node("Conv", [taken, "w", "wb"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
    ]
    return nodes, {"w": drawn(4, CHANNELS, 3, 3), "wb": drawn(4, seed=1)}


def classifier(taken: str = "x", *, bias: Sequence[int] = (CLASSES,)) -> tuple[list[onnx.NodeProto], Weights]:
    """Return nodes and weights from ``taken`` to ``logits``: a convolution and a Gemm with a bias of shape ``bias``."""
    nodes, weights = convolution(taken)
    nodes.append(helper.make_node("Gemm", ["f", "fw", "fb"], ["logits"]))
    return nodes, {**weights, "fw": drawn(4, CLASSES, seed=2), "fb": drawn(*bias, seed=3)}


def given(*, rows: int = 3, **settings: Any) -> Given:  # noqa: ANN401 - of Given
    """Return rows of noise for the small files."""
    noise = np.random.default_rng(7).standard_normal((rows, CHANNELS, SIDE, SIDE)).astype(np.float32)
    return Given(rows=noise, **settings)


def logits(model: onnx.ModelProto | bytes, rows: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Return what onnxruntime computes from ``rows``."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.float32] = session.run(["logits"], {session.get_inputs()[0].name: rows})[0]
    return found


def operators(data: bytes) -> list[str]:
    """Return the operators of a file, in order."""
    return [node.op_type for node in onnx.load_from_string(data).graph.node]
