"""Detectors as other people export them, with weights set by hand: they find coloured squares on a grid exactly.

A picture has squares of 8 pixels, red, green or blue, in cells of 8 pixels. A convolution over a cell sees its mean
colour; scores are sigmoids of it, boxes are the cell. What differs is the form of the outputs.
"""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

NAMES = ("red", "green", "blue")
SIDE, CELL = 64, 8
_GRID = SIDE // CELL
COUNT = _GRID * _GRID


def pictures(path: Path, count: int = 150, *, width: int = SIDE, height: int = SIDE) -> Path:
    """Write a zip of ``count`` pictures in YOLO form, with one to four squares each, and return its path."""
    rng = np.random.default_rng(7)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("classes.txt", "\n".join(NAMES))
        for number in range(count):
            pixels = rng.integers(0, 60, (height, width, 3), np.uint8)
            cells = rng.permutation((width // CELL) * (height // CELL))[: rng.integers(1, 5)]
            lines = []
            for cell in cells.tolist():
                kind, (row, column) = int(rng.integers(3)), divmod(cell, width // CELL)
                pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL, kind] = rng.integers(
                    170, 255
                )
                middle = (column + 0.5) * CELL / width, (row + 0.5) * CELL / height
                lines.append(f"{kind} {middle[0]} {middle[1]} {CELL / width} {CELL / height}")
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            file.writestr(f"images/{number:03}.png", buffer.getvalue())
            file.writestr(f"labels/{number:03}.txt", "\n".join(lines))
    return path


class Graph:
    """Nodes and constants of a file in the making, with what all forms share."""

    def __init__(self, batch: str | int = "N") -> None:
        """Begin with scores (N, 3, 64) as ``scores``, and boxes as centre and size in pixels, (N, 4, 64), ``boxes``."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.batch = batch
        rng = np.random.default_rng(3)
        seen = np.zeros((3, 3, CELL, CELL), np.float32)
        for kind in range(3):
            seen[kind, kind] = 30 / CELL**2
        self.add("Conv", ["images", self.constant("seen", seen), self.constant("bias", np.full(3, -12, np.float32))],
                 "logits", strides=[CELL, CELL])  # fmt: skip
        sized = rng.normal(0, 1e-3, (4, 3, CELL, CELL)).astype(np.float32)
        sides = np.array([0, 0, CELL, CELL], np.float32)
        self.add("Conv", ["images", self.constant("sized", sized), self.constant("sizes", sides)],
                 "shifts", strides=[CELL, CELL])  # fmt: skip
        at = (np.stack(np.meshgrid(np.arange(_GRID), np.arange(_GRID))).reshape(2, -1) + 0.5) * CELL
        grid = np.concatenate([at, np.zeros_like(at)])[None].astype(np.float32)
        self.reshaped("logits", (0, 3, COUNT), "flat_logits")
        self.add("Sigmoid", ["flat_logits"], "scores")
        self.reshaped("shifts", (0, 4, COUNT), "flat_shifts")
        self.add("Add", ["flat_shifts", self.constant("grid", grid)], "boxes")

    def constant(self, name: str, value: np.ndarray) -> str:
        """Return the name of a new constant."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: list[str], *outputs: str, **attributes: object) -> str:
        """Add a node; return its first output."""
        self.nodes.append(helper.make_node(operator, inputs, list(outputs), name=f"n_{outputs[0]}", **attributes))
        return outputs[0]

    def reshaped(self, name: str, shape: tuple[int, ...], output: str) -> str:
        """Add a Reshape."""
        return self.add("Reshape", [name, self.constant(f"to_{output}", np.array(shape))], output)

    def corners(self) -> str:
        """Return the boxes as two corners, (N, 64, 4)."""
        self.add("Transpose", ["boxes"], "boxes_last", perm=[0, 2, 1])
        self.add("Split", ["boxes_last", self.constant("halves", np.array([2, 2]))], "middle", "size", axis=2)
        self.add("Mul", ["size", self.constant("half", np.float32(0.5))], "half_size")
        return self.add("Concat", [self.add("Sub", ["middle", "half_size"], "low"),
                                   self.add("Add", ["middle", "half_size"], "high")], "corners", axis=2)  # fmt: skip

    def file(self, outputs: dict[str, tuple[list[object], int]], names: dict[int, str] | None = None) -> bytes:
        """Return the file with ``outputs``, shape and type by name; ``names`` as ultralytics notes them."""
        shape = [self.batch, 3, SIDE, SIDE]
        graph = helper.make_graph(
            self.nodes, "detector", [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, kind, sizes) for name, (sizes, kind) in outputs.items()],
            self.constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if names is not None:
            helper.set_model_props(model, {"names": repr(names), "stride": "8", "task": "detect"})
        onnx.checker.check_model(model)
        made: bytes = model.SerializeToString()
        return made


def v8(batch: str | int = "N", names: dict[int, str] | None = None) -> bytes:
    """Return (N, 4 + 3, 64): boxes and scores in one Concat, as ultralytics exports v8 and later."""
    graph = Graph(batch)
    graph.add("Concat", ["boxes", "scores"], "output0", axis=1)
    return graph.file({"output0": ([batch, 7, COUNT], TensorProto.FLOAT)}, names)


def v5() -> bytes:
    """Return (N, 64, 5 + 3): objectness is the largest score."""
    graph = Graph()
    graph.add("ReduceMax", ["scores"], "objectness", axes=[1], keepdims=1)
    graph.add("Div", ["scores", "objectness"], "shares")
    graph.add("Concat", ["boxes", "objectness", "shares"], "tall", axis=1)
    graph.add("Transpose", ["tall"], "output0", perm=[0, 2, 1])
    return graph.file({"output0": (["N", COUNT, 8], TensorProto.FLOAT)})


def end_to_end() -> bytes:
    """Return (N, 20, 6): the surest of all boxes, as v10 and later suppress."""
    graph = Graph()
    graph.add("ReduceMax", ["scores"], "best", axes=[1], keepdims=0)
    graph.add("ArgMax", ["scores"], "kind", axis=1, keepdims=0)
    graph.add("Cast", ["kind"], "kinds", to=TensorProto.FLOAT)
    graph.add("TopK", ["best", graph.constant("count", np.array([20]))], "surest", "places", axis=1)
    graph.add("GatherElements", ["kinds", "places"], "taken_kinds", axis=1)
    axis = graph.constant("last", np.array([2]))
    for name in ("surest", "taken_kinds", "places"):
        graph.add("Unsqueeze", [name, axis], f"{name}_column")
    graph.add("Expand", ["places_column", graph.constant("four", np.array([1, 1, 4]))], "places_four")
    graph.add("GatherElements", [graph.corners(), "places_four"], "taken", axis=1)
    graph.add("Concat", ["taken", "surest_column", "taken_kinds_column"], "output0", axis=2)
    return graph.file({"output0": (["N", 20, 6], TensorProto.FLOAT)})


def ssd() -> bytes:
    """Return boxes (N, 64, 4) in ratios and scores (N, 64, 1 + 3), the background first."""
    graph = Graph()
    graph.add("Div", [graph.corners(), graph.constant("side", np.float32(SIDE))], "boxes_out")
    graph.add("ReduceMax", ["scores"], "any", axes=[1], keepdims=1)
    graph.add("Sub", [graph.constant("one", np.float32(1)), "any"], "background")
    graph.add("Concat", ["background", "scores"], "wide", axis=1)
    graph.add("Transpose", ["wide"], "scores_out", perm=[0, 2, 1])
    return graph.file({
        "scores_out": (["N", COUNT, 4], TensorProto.FLOAT), "boxes_out": (["N", COUNT, 4], TensorProto.FLOAT),
    })  # fmt: skip


def listed() -> bytes:
    """Return boxes (M, 4), scores (M,) and labels (M,) of one picture, suppressed inside, as torchvision exports."""
    graph = Graph(1)
    graph.add("NonMaxSuppression", [graph.corners(), "scores", graph.constant("most", np.array([20])),
                                    graph.constant("overlap", np.array([0.5], np.float32)),
                                    graph.constant("least", np.array([0.05], np.float32))], "kept")  # fmt: skip
    columns = graph.constant("columns", np.array([1, 1, 1]))
    graph.add("Split", ["kept", columns], "image", "kind", "place", axis=1)
    axis = graph.constant("last", np.array([1]))
    graph.add("Squeeze", ["place", axis], "at")
    graph.add("Squeeze", ["kind", axis], "label0")
    graph.add("Gather", [graph.reshaped("corners", (COUNT, 4), "corners_of_one"), "at"], "boxes_out", axis=0)
    graph.add("Concat", ["kind", "place"], "pairs", axis=1)
    graph.add("GatherND", [graph.reshaped("scores", (3, COUNT), "scores_of_one"), "pairs"], "scores_out")
    graph.add("Add", ["label0", graph.constant("first", np.array(1))], "labels_out")
    return graph.file({
        "boxes_out": (["M", 4], TensorProto.FLOAT), "scores_out": (["M"], TensorProto.FLOAT),
        "labels_out": (["M"], TensorProto.INT64),
    })  # fmt: skip


class _TfliteGraph:
    """Tensors and operators of a TFLite file in the making."""

    def __init__(self) -> None:
        self.schema = importlib.import_module("ai_edge_litert.schema_py_generated")
        self.model, self.graph = self.schema.ModelT(), self.schema.SubGraphT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [self.schema.BufferT()], []
        self.model.subgraphs, self.graph.tensors, self.graph.operators = [self.graph], [], []

    def tensor(self, name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        """Return the place of a new tensor, float32 or the type of ``data``."""
        made, types = self.schema.TensorT(), self.schema.TensorType
        made.name, made.shape, made.buffer = name.encode(), list(shape), 0
        made.type = types.INT32 if data is not None and data.dtype == np.int32 else types.FLOAT32
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def add(self, name: str, inputs: list[int], outputs: list[int]) -> Any:  # noqa: ANN401 - generated, untyped
        """Return a new operator, of the name ``name`` in the schema or else custom."""
        code, made, known = self.schema.OperatorCodeT(), self.schema.OperatorT(), self.schema.BuiltinOperator
        code.builtinCode = code.deprecatedBuiltinCode = getattr(known, name, known.CUSTOM)
        code.customCode, code.version = None if hasattr(known, name) else name.encode(), 1
        self.model.operatorCodes.append(code)
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.operatorCodes) - 1, inputs, outputs
        self.graph.operators.append(made)
        return made


def post_processed() -> bytes:
    """Return a TFLite file that ends in ``TFLite_Detection_PostProcess``, as those of TensorFlow's detection API do."""
    graph = _TfliteGraph()
    seen = np.zeros((3, CELL, CELL, 3), np.float32)
    for kind in range(3):
        seen[kind, ..., kind] = 30 / CELL**2
    image, grid = graph.tensor("images", (1, SIDE, SIDE, 3)), (1, _GRID, _GRID, 3)
    logits, scores = graph.tensor("logits", grid), graph.tensor("grid_scores", grid)
    weights = [graph.tensor("seen", seen.shape, seen), graph.tensor("bias", (3,), np.full(3, -12, np.float32))]
    layer, options = graph.add("CONV_2D", [image, *weights], [logits]), graph.schema.Conv2DOptionsT()
    options.padding, options.strideW, options.strideH = graph.schema.Padding.VALID, CELL, CELL
    options.dilationWFactor = options.dilationHFactor = 1
    layer.builtinOptionsType, layer.builtinOptions = graph.schema.BuiltinOptions.Conv2DOptions, options
    graph.add("LOGISTIC", [logits], [scores])
    flat, wide = graph.tensor("flat", (1, COUNT, 3)), graph.tensor("with_background", (1, COUNT, 4))
    graph.add("RESHAPE", [scores, graph.tensor("to_flat", (3,), np.array([1, COUNT, 3], np.int32))], [flat])
    frame = np.array([[0, 0], [0, 0], [1, 0]], np.int32)
    graph.add("PAD", [flat, graph.tensor("frame", (3, 2), frame)], [wide])
    rows, columns = np.divmod(np.arange(COUNT), _GRID)
    sides = np.full(COUNT, 1 / _GRID)
    anchors = np.stack([(rows + 0.5) / _GRID, (columns + 0.5) / _GRID, sides, sides], axis=1).astype(np.float32)
    offsets = graph.tensor("offsets", (1, COUNT, 4), np.zeros((1, COUNT, 4), np.float32))
    shapes = [(1, 10, 4), (1, 10), (1, 10), (1,)]
    outputs = [graph.tensor(f"TFLite_Detection_PostProcess:{place}", shape) for place, shape in enumerate(shapes)]
    end = graph.add(
        "TFLite_Detection_PostProcess", [offsets, wide, graph.tensor("anchors", (COUNT, 4), anchors)], outputs
    )
    settings = {
        "max_detections": 10, "max_classes_per_detection": 1, "detections_per_class": 10, "num_classes": 3,
        "nms_score_threshold": 0.05, "nms_iou_threshold": 0.6, "use_regular_nms": False,
        "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0,
    }  # fmt: skip
    end.customOptions = np.frombuffer(
        bytes(importlib.import_module("flatbuffers.flexbuffers").Dumps(settings)), np.uint8
    )
    graph.graph.inputs, graph.graph.outputs = [image], outputs
    builder = importlib.import_module("flatbuffers").Builder(1024)
    builder.Finish(graph.model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


FORMS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "v8": ("yolo", v8), "v5": ("yolo", v5), "end_to_end": ("yolo", end_to_end), "ssd": ("ssd", ssd),
    "listed": ("ssd", listed),
}  # fmt: skip
