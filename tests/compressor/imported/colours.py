"""Pictures of three colours and a network in an ONNX file that tells them apart without any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NAMES = ("red", "green", "blue")
SIDE = 8
RECIPE = """
[model]
name = "colours"
onnx = "mine.onnx"
{model}
[data]
{data}
width = 8
height = 8
mean = 0.0
std = 1.0
[train]
seed = 1
{more}
[targets.host]
runtime = "{runtime}"
[gates]
{gates}
"""


def pictures(count: int, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return noisy pictures of one colour each, uint8 (N, 8, 8, 3), and their classes, int64 (N,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(NAMES)
    base = np.full((count, 3), 90.0)
    base[np.arange(count), labels] = 150.0 + 40.0 * rng.random(count)
    noisy = base[:, None, None] + rng.normal(0, 20, (count, SIDE, SIDE, 3))
    return noisy.clip(0, 255).astype(np.uint8), labels


def network(
    *,
    last: Sequence[str] = (),
    outputs: int = 3,
    offset: float = 0.0,
    constant: bool = False,
    contrast: float = 20.0,
    turned: bool = False,
) -> bytes:
    """Return an ONNX file: a convolution, ReLU, the mean of each colour, and a layer that compares them.

    ``last``: further operators after the logits. ``offset``: what the network adds to its input first, so that it is
    right only for inputs with such a mean. ``constant``: it prefers the first class, whatever it is given.
    ``turned``: it takes blue first. ``contrast``: how far the classes differ, beside what all have in common.
    """
    rng = np.random.default_rng(3)
    kernel = np.zeros((6, 3, 3, 3), np.float32)
    for channel in range(6):
        kernel[channel, (2 - channel if turned else channel) % 3] = 1 / 9
    kernel += rng.normal(0, 0.004, kernel.shape).astype(np.float32)
    layer = np.tile(contrast * np.eye(outputs, 3, dtype=np.float32), 2) - 5
    weights = {
        "kernel": kernel, "bias": np.full(6, offset, np.float32), "layer": layer, "zeros": np.zeros(outputs, np.float32)
    }  # fmt: skip
    weights["zeros"][0] = 1e6 if constant else 0
    names = ["logits", *(f"{name.lower()}_out" for name in last)]
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel", "bias"], ["filtered"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["filtered"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "layer", "zeros"], ["logits"], transB=1),
        *(helper.make_node(name, names[at : at + 1], names[at + 1 : at + 2]) for at, name in enumerate(last)),
    ]
    graph = helper.make_graph(
        nodes, "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["N", outputs])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def arrays(path: Path, splits: Sequence[str], count: int = 360) -> None:
    """Write labelled pictures to ``path`` (.npz), whose array ``part`` has these ``splits`` in turn, ten at a time."""
    x, y = pictures(count)
    part = np.array([splits[row // 10 % len(splits)] for row in range(count)])
    np.savez(path, x=x, y=y, class_names=np.array(NAMES), part=part)


def recipe(folder: Path, **values: str) -> Path:
    """Write ``RECIPE`` with ``values`` to ``folder``, and return its path."""
    given = {
        "model": "", "data": 'dataset = "arrays"\npath = "data.npz"\nsplit = "part"', "runtime": "onnx", "more": "",
        "gates": "accuracy_drop = {max = 0.05}",
    } | values  # fmt: skip
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(**given))
    return path
