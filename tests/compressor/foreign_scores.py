"""Other people's files for anomalies, made by hand: pictures of 16 x 16 through a code of principal components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 16


def picture(rng: np.random.Generator, *, odd: bool) -> np.ndarray:
    """Return a bright spot on a slope, uint8 (16, 16); an odd picture has a bar beside it."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x = rng.uniform(4, 12, 2)
    made = 60 + 4 * rows + 120 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8) + rng.normal(0, 2, (SIDE, SIDE))
    if odd:
        made[2:14, 3:5] = 230
    return np.clip(made, 0, 255).astype(np.uint8)


def components(channels: int = 1, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and principal components of usual pictures of 0 to 1, (D,) and (count, D), each channel a copy."""
    rng = np.random.default_rng(5)
    rows = np.stack([picture(rng, odd=False) for _ in range(200)]).reshape(200, -1) / 255
    rows = np.tile(rows, (1, channels))
    mean = rows.mean(axis=0)
    return mean.astype(np.float32), np.linalg.svd(rows - mean, full_matrices=False)[2][:count].astype(np.float32)


def _file(
    nodes: Sequence[onnx.NodeProto], tensors: dict[str, np.ndarray], shape: Sequence[int],
    outputs: dict[str, Sequence[int]],
) -> bytes:  # fmt: skip
    described = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sizes]) for name, sizes in outputs.items()
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])]
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(list(nodes), "g", given, described, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    made: bytes = model.SerializeToString()
    return made


def auto_encoder(*, last: bool = False, flat: bool = False, channels: int = 1) -> bytes:
    """Return a reconstruction of the input; ``last``: channels last, as other frameworks keep them."""
    mean, basis = components(channels)
    size = len(mean)
    shape = (SIDE, SIDE, channels) if last else (channels, SIDE, SIDE)
    if last:  # the components know channels first
        order = np.arange(size).reshape(channels, SIDE, SIDE).transpose(1, 2, 0).reshape(-1)
        mean, basis = mean[order], basis[:, order]
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "down", "shift"], ["code"], "encode"),
        helper.make_node("Gemm", ["code", "up", "mean"], ["flat_said" if not flat else "said"], "decode"),
    ]
    tensors = {"down": basis.T.copy(), "shift": -(basis @ mean), "up": basis, "mean": mean}
    if not flat:
        nodes.append(helper.make_node("Reshape", ["flat_said", "shape"], ["said"], "reshape"))
        tensors["shape"] = np.array([-1, *shape], np.int64)
    return _file(nodes, tensors, shape, {"said": (size,) if flat else shape})


def own_score() -> bytes:
    """Return the mean squared error of the reconstruction, minus 1: a score below 0 for usual pictures."""
    mean, basis = components()
    rest = (np.eye(len(mean)) - basis.T @ basis).astype(np.float32)
    tensors = {"rest": rest, "shift": -(rest @ mean), "one": np.full((1, 1), 1, np.float32),
               "each": np.full((len(mean), 1), 1 / len(mean), np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "rest", "shift"], ["apart"], "compare"),
        helper.make_node("Mul", ["apart", "apart"], ["squared"], "square"),
        helper.make_node("MatMul", ["squared", "each"], ["mean_squared"], "mean"),
        helper.make_node("Sub", ["mean_squared", "one"], ["said"], "less"),
    ]
    return _file(nodes, tensors, (1, SIDE, SIDE), {"said": (1,)})


def classifier(*, embedding: bool = False, convolutional: bool = False) -> bytes:
    """Return two logits behind features; ``embedding``: these are an output, too.

    ``convolutional``: the features are the mean of an image of 6 channels, else 12 numbers with a ReLU.
    """
    rng = np.random.default_rng(3)
    if convolutional:
        tensors = {"filters": rng.standard_normal((6, 1, 3, 3)).astype(np.float32),
                   "head": rng.standard_normal((2, 6, 1, 1)).astype(np.float32)}  # fmt: skip
        nodes = [
            helper.make_node("Conv", ["x", "filters"], ["seen"], "filter"),
            helper.make_node("Relu", ["seen"], ["lit"], "light"),
            helper.make_node("Conv", ["lit", "head"], ["scored"], "head"),
            helper.make_node("GlobalAveragePool", ["scored"], ["pooled"], "pool"),
            helper.make_node("Flatten", ["pooled"], ["logits"], "flatten"),
        ]
        return _file(nodes, tensors, (1, SIDE, SIDE), {"logits": (2,)})
    tensors = {"down": rng.standard_normal((SIDE * SIDE, 12)).astype(np.float32) / SIDE,
               "head": rng.standard_normal((12, 2)).astype(np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "down"], ["seen"], "project"),
        helper.make_node("Relu", ["seen"], ["embedding"], "light"),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"], "head"),
    ]
    outputs: dict[str, Sequence[int]] = {"logits": (2,)}
    return _file(nodes, tensors, (1, SIDE, SIDE), {**outputs, "embedding": (12,)} if embedding else outputs)
