"""Linear models of ``ai.onnx.ml``, as scikit-learn's exporter writes them, in ONNX's own operators.

Devices have no code for ``ai.onnx.ml``, and quantizers don't know it. What is linear has standard operators: scaling of
features, linear classifiers and regressions, a norm of scores. Trees and neighbours have none and stay, to be named.

Source: ONNX, operators of ai.onnx.ml: Scaler, LinearClassifier, LinearRegressor, Normalizer, ZipMap.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressor.clean import onnx_graph
from compressor.clean.given import Given

_DOMAIN = "ai.onnx.ml"
_AXES_ARE_INPUTS = 18
_NORMS = {"L1": "ReduceL1", "L2": "ReduceL2"}
_ENDS = {"NONE": "", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}


def plain_outputs(model: onnx.ModelProto, given: Given) -> str:
    """Give probabilities as a tensor instead of a list of maps, and leave out the label beside them."""
    del given
    if not _nodes(model):
        return ""
    maps, parts = [node for node in model.graph.node if (node.domain, node.op_type) == (_DOMAIN, "ZipMap")], []
    outputs = {value.name: value for value in model.graph.output}
    for node in maps:
        if node.output[0] not in outputs:
            continue
        onnx_graph.ensure_standard(model)
        value = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [None, _classes(node)])
        outputs[node.output[0]].CopyFrom(value)
        node.CopyFrom(helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.output[0]))
        parts.append(f"{node.output[0]!r} is a tensor instead of a list of maps")
    floats = [value for value in model.graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    labels = [
        value
        for value in model.graph.output
        if value.type.tensor_type.elem_type in {TensorProto.INT64, TensorProto.STRING}
    ]
    if floats and labels:
        kept = [value for value in model.graph.output if value not in labels]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        parts.append(f"{', '.join(repr(value.name) for value in labels)} left out, the largest score says it")
    onnx_graph.drop_unneeded(model)
    return "; ".join(parts)


def standard_operators(model: onnx.ModelProto, given: Given) -> str:
    """Write Scaler, LinearClassifier, LinearRegressor and Normalizer in operators of ONNX itself."""
    del given
    if not _nodes(model):
        return ""
    onnx_graph.ensure_standard(model)
    made: list[onnx.NodeProto] = []
    count: Counter[str] = Counter()
    for node in model.graph.node:
        written = _REWRITES[node.op_type](model, node) if node.domain == _DOMAIN and node.op_type in _REWRITES else []
        made += written or [node]
        count.update([node.op_type] if written else [])
    if not count:
        return ""
    onnx_graph.set_nodes(model, made)
    if not _nodes(model):
        kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    return (
        f"{', '.join(f'{number} {name}' for name, number in sorted(count.items()))} of {_DOMAIN} as standard operators"
    )


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == _DOMAIN]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _classes(node: onnx.NodeProto) -> int | None:
    own = _attributes(node)
    return len(own.get("classlabels_int64s") or own.get("classlabels_strings") or ()) or None


def _constant(model: onnx.ModelProto, node: onnx.NodeProto, part: str, value: onnx_graph.Array) -> str:
    name = onnx_graph.free_name(model, f"{node.output[-1]}_{part}")
    onnx_graph.set_constant(model, name, value)
    return name


def _scaler(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    own = _attributes(node)
    offset = _constant(model, node, "offset", np.array(own["offset"], np.float32))
    scale = _constant(model, node, "scale", np.array(own["scale"], np.float32))
    moved = onnx_graph.free_name(model, f"{node.output[0]}_moved")
    return [
        helper.make_node("Sub", [node.input[0], offset], [moved], name=moved),
        helper.make_node("Mul", [moved, scale], [node.output[0]], name=node.output[0]),
    ]


def _classifier(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the nodes of the scores; none if the label is read, or one row of weights stands for two classes."""
    own = _attributes(node)
    classes = len(own.get("classlabels_ints") or own.get("classlabels_strings") or ())
    read = {name for other in model.graph.node for name in other.input} | {one.name for one in model.graph.output}
    intercepts = own.get("intercepts") or [0.0] * classes
    end = own.get("post_transform", "NONE")
    if node.output[0] in read or len(intercepts) != classes or classes < 2 or end not in _ENDS:  # noqa: PLR2004
        return []
    return _product(model, node, np.array(own["coefficients"], np.float32).reshape(classes, -1), intercepts, _ENDS[end])


def _regressor(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    own = _attributes(node)
    targets = int(own.get("targets", 1))
    if own.get("post_transform", "NONE") != "NONE":
        return []
    weights = np.array(own["coefficients"], np.float32).reshape(targets, -1)
    return _product(model, node, weights, own.get("intercepts") or [0.0] * targets, "")


def _product(
    model: onnx.ModelProto, node: onnx.NodeProto, weights: onnx_graph.Array, intercepts: list[float], end: str
) -> list[onnx.NodeProto]:
    given = _constant(model, node, "weights", weights)
    bias = _constant(model, node, "bias", np.array(intercepts, np.float32))
    out = onnx_graph.free_name(model, f"{node.output[-1]}_raw") if end else node.output[-1]
    made = [helper.make_node("Gemm", [node.input[0], given, bias], [out], name=out, transB=1)]
    if end:
        axis = {"axis": 1} if end == "Softmax" else {}
        made.append(helper.make_node(end, [out], [node.output[-1]], node.output[-1], **axis))  # type: ignore[arg-type]
    return made


def _normalizer(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    norm = _NORMS.get(_attributes(node).get("norm", "MAX"))
    if norm is None:
        return []
    size = onnx_graph.free_name(model, f"{node.output[0]}_norm")
    if onnx_graph.opset(model) >= _AXES_ARE_INPUTS:
        axes = _constant(model, node, "axis", np.array([1], np.int64))
        first = helper.make_node(norm, [node.input[0], axes], [size], name=size, keepdims=1)
    else:
        first = helper.make_node(norm, [node.input[0]], [size], name=size, keepdims=1, axes=[1])
    above = onnx_graph.free_name(model, f"{node.output[0]}_above")
    least = _constant(model, node, "least", np.array([np.finfo(np.float32).tiny], np.float32))
    return [
        first,
        helper.make_node("Max", [size, least], [above], name=above),  # a row of zeros stays one
        helper.make_node("Div", [node.input[0], above], [node.output[0]], name=node.output[0]),
    ]


_REWRITES = {
    "LinearClassifier": _classifier, "LinearRegressor": _regressor, "Normalizer": _normalizer, "Scaler": _scaler,
}  # fmt: skip
