"""Joins of unlike ranges before an output stay float: scores keep their own scale, in both formats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compressor.export.onnx import export_onnx
from compressor.measurement.layers import sqnr_db
from compressor.quantize import quantize
from compressor.quantize._joined import GraphNode, kept_float
from compressor.steps.quantize import Settings

pytestmark = pytest.mark.slow
INT8 = Settings(scheme="static_int8")


class Joined(nn.Module):
    """A head that joins boxes, in units of ``unit``, with three scores, as an exported YOLO does."""

    def __init__(self, unit: float) -> None:
        """Create the layers."""
        super().__init__()
        self.unit = unit
        self.body, self.box, self.scores = nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, 7, 64) and an embedding."""
        seen = torch.relu(self.body(x))
        boxes = torch.sigmoid(self.box(seen)).flatten(2) * self.unit
        return torch.cat([boxes, torch.sigmoid(2 * self.scores(seen)).flatten(2)], 1), seen.mean((2, 3))


def model(unit: float) -> nn.Module:
    """Return the network, the same for each unit."""
    torch.manual_seed(0)
    return Joined(unit).eval()


def rows() -> np.ndarray:
    """Return 32 inputs, float32 (32, 3, 32, 32)."""
    return np.random.default_rng(0).random((32, 3, 32, 32)).astype(np.float32)


def onnx_noise(unit: float) -> tuple[bytes, float, float]:
    """Return the int8 ONNX file, and the signal-to-noise ratio of its boxes and scores."""
    plain = export_onnx(model(unit), 3, 32, 32)
    made = quantize(plain, lambda: [rows()], INT8)
    one, other = (onnxruntime.InferenceSession(data).run(None, {"input": rows()})[0] for data in (plain, made))
    return made, sqnr_db(one[:, :4], other[:, :4]), sqnr_db(one[:, 4:], other[:, 4:])


def test_scores_beside_boxes_in_pixels_keep_their_own_scale_in_onnx() -> None:
    """One scale for both would leave them 16 dB; the join is float, the layers are not."""
    made, boxes, scores = onnx_noise(300.0)
    assert min(boxes, scores) > 35
    read = onnx.load_from_string(made).graph
    quantized = {name for node in read.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    assert read.output[0].name not in quantized
    weights = [tensor for tensor in read.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}


def test_a_join_of_like_ranges_is_quantized_as_before() -> None:
    """Nothing is to be gained there."""
    made, boxes, scores = onnx_noise(2.0)
    assert min(boxes, scores) > 30
    read = onnx.load_from_string(made).graph
    join = next(node for node in reversed(read.node) if node.op_type == "Concat")
    makers = {node.output[0]: node.op_type for node in read.node}
    assert {makers[name] for name in join.input} == {"DequantizeLinear"}
    assert makers[read.output[0].name] == "DequantizeLinear"


def test_scores_beside_boxes_in_pixels_keep_their_own_scale_in_tflite() -> None:
    """The output is given in float32 as it is joined, not quantized once more."""
    pytest.importorskip("litert_torch")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - seconds to import
    from compressor.tflite.quantizing import quantize_by  # noqa: PLC0415 - likewise

    given = np.ascontiguousarray(rows()[:8].transpose(0, 2, 3, 1))
    plain = export_tflite(model(300.0), 3, 32, 32)
    made = quantize_by(plain, lambda: [given], INT8)
    one, other = (answered(data, given) for data in (plain, made))
    assert min(sqnr_db(one[:, :4], other[:, :4]), sqnr_db(one[:, 4:], other[:, 4:])) > 35


def answered(data: bytes, given: np.ndarray) -> np.ndarray:
    """Return the first output of a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - an extra

    runner = Interpreter(model_content=data).get_signature_runner()
    name = next(iter(runner.get_input_details()))
    outputs = [runner(**{name: row[None]}) for row in given]
    first = next(key for key, value in outputs[0].items() if value.ndim == 3)
    return np.concatenate([one[first] for one in outputs])


def node(name: str, kind: str, inputs: list[str], outputs: list[str]) -> GraphNode:
    """Return a node; ``join`` and ``move`` are what they say, anything else computes."""
    return GraphNode(name=name, joins=kind == "join", moves=kind in {"join", "move"}, inputs=inputs, outputs=outputs)


CHAIN = [
    node("boxes", "work", ["x"], ["b"]),
    node("scores", "work", ["x"], ["s"]),
    node("turn", "move", ["b"], ["t"]),
    node("join", "join", ["t", "s"], ["j"]),
    node("turn back", "move", ["j", "sizes"], ["out"]),
]
WIDE = {"b": (0.0, 640.0), "t": (0.0, 640.0), "s": (0.0, 1.0)}


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        (WIDE, ("join", "turn back")),
        (WIDE | {"b": (0.0, 3.9)}, ()),
        (WIDE | {"b": (-2.0, 2.1)}, ("join", "turn back")),
        (WIDE | {"b": (0.0, 0.0)}, ()),
        ({"s": (0.0, 1.0)}, ()),
        ({}, ()),
    ],
)
def test_what_is_joined_stays_float_if_a_common_scale_costs_two_bits(
    ranges: dict[str, tuple[float, float]], kept: tuple[str, ...]
) -> None:
    """What only moves one part before the join is quantized; a range that is 0 or unknown says nothing."""
    assert kept_float(CHAIN, ["out"], ranges) == kept


def test_a_join_that_is_computed_with_is_no_output() -> None:
    """Its values are mixed afterwards: inside a network one scale is the rule."""
    inside: Callable[[], list[GraphNode]] = lambda: [*CHAIN[:-1], node("more", "work", ["j"], ["out"])]  # noqa: E731
    assert kept_float(inside(), ["out"], WIDE) == ()


def test_a_join_of_joins_counts_all_that_it_brings_together() -> None:
    """Three scales of a pyramid, each joined of boxes and scores."""
    scales = [
        node("one", "join", ["b", "s"], ["j1"]),
        node("two", "join", ["b2", "s2"], ["j2"]),
        node("all", "join", ["j1", "j2"], ["out"]),
    ]
    ranges = WIDE | {"b2": (0.0, 1.0), "s2": (0.0, 1.0)}
    assert kept_float(scales, ["out"], ranges) == ("one", "two", "all")
