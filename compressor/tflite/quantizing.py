"""Quantization of TFLite files by a recipe's step ``quantize``, with our own ranges or with learned ones.

ai-edge-quantizer inserts the scales; its calibrator is not used: its moving averages cost 1.5 points, true ranges none.
Nor is its option for float edges: the file does not load if an output is also read inside the graph, as an embedding
is; here a QUANTIZE stands before the graph, and a DEQUANTIZE after each output. Decides which settings of the step are
for TFLite, and which operators are quantized and how.
Source: TensorFlow, lite/tools/versioning/op_version.cc (versions of QUANTIZE and DEQUANTIZE by type).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from compressor.errors import QuantizeError
from compressor.export import EMBEDDING
from compressor.quantize import Batches, Ranges
from compressor.quantize import _joined as joined
from compressor.quantize._calibrator import Summary, nudged, within_reach
from compressor.steps.quantize import Settings
from compressor.tflite import flatbuffer
from compressor.tflite.biases import fitted
from compressor.tflite.flatbuffer import OUTPUT_NAMES, WEIGHT_PLACE
from compressor.tflite.packages import quiet, required
from compressor.tflite.ranges import Floats, Recorder, activations, collect_ranges
from wire.settings import nearest

SCHEMES = ("static_int8", "static_int8_16", "dynamic_int8", "weight_int8", "float16")
_LIMITING = frozenset({"MINIMUM", "MAXIMUM", "PADV2"})
_JOINING = frozenset({"CONCATENATION", "PACK"})
_MOVING = frozenset({
    "TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE", "GATHER", "GATHER_ND", "TILE",
})  # fmt: skip
_ACTIVATION_BITS = {"static_int8": 8, "static_int8_16": 16}
_WEIGHT_BITS, _FLOAT_BITS = 8, 16
_LONGEST = 300

_LAYERS = frozenset({"per_channel", "float_layers"})
_CALIBRATED = _LAYERS | {
    "calibration", "percentile", "integer_io", "float_layers_auto", "bias_correction", "reduce_range",
}  # fmt: skip
READS: Mapping[str, frozenset[str]] = {
    "static_int8": _CALIBRATED, "static_int8_16": _CALIBRATED, "dynamic_int8": _LAYERS, "weight_int8": _LAYERS,
    "float16": frozenset({"float_layers"}), "none": frozenset(),
}  # fmt: skip
"""The settings that each scheme reads here, including those that it rejects (``float_layers_auto``).

``reduce_range = false`` is accepted, because weights have 8 bits here."""
_STATIC = frozenset({"static_int8", "static_int8_16"})


def quantize_by(model: bytes, batches: Batches, settings: Settings, *, ranges: Ranges | None = None) -> bytes:
    """Return the float TFLite ``model`` quantized with ``settings``; ``batches()`` yields float32 (N, H, W, C).

    ``ranges``: learned (low, high) by tensor name, instead of the calibrated ones.

    Raises:
        QuantizeError: If a setting does not apply to TFLite, or the model can't be quantized.
        PluginError: If the extra ``tflite`` is not installed.
    """
    if settings.scheme == "none":
        return model
    if settings.float_layers_auto or settings.bias_correction:
        name = "float_layers_auto" if settings.float_layers_auto else "bias_correction"
        message = f"Expected {name} with a target of runtime 'onnx', got a litert target"
        raise QuantizeError(f"{message}: name layers in float_layers, or put a step 'equalize' before the export")
    used: dict[str, tuple[float, float]] = {}
    if settings.scheme in _STATIC:
        summary = partial(Summary, settings.calibration, settings.percentile)
        measured = collect_ranges(model, batches, summary=summary)
        source = next(iter(measured))  # the input comes first
        if settings.scheme == "static_int8":
            measured[source] = nudged(*measured[source])
        used = {**measured, **(ranges or {})}
    return quantize(
        model, used or None, scheme=settings.scheme, per_channel=settings.per_channel,
        integer_io=settings.integer_io, float_layers=settings.float_layers,
    )  # fmt: skip


def tensors(model: bytes, rows: Floats) -> dict[str, Floats]:
    """Return the values of the input and of every float tensor of ``model`` for ``rows``, float32 (N, H, W, C).

    Raises:
        QuantizeError: If it is not a TFLite file of one graph and one input.
        MeasureError: If the model does not run on the rows.
    """
    names = activations(model)
    parts = list(Recorder(model, list(names), rows).run(rows))
    joined = (np.concatenate(values) for values in zip(*parts, strict=True))
    return dict(zip(names.values(), joined, strict=True))


def quantize(
    model: bytes,
    ranges: Ranges | None = None,
    *,
    scheme: str,
    per_channel: bool = True,
    integer_io: bool = False,
    float_layers: Sequence[str] = (),
) -> bytes:
    """Return the float TFLite ``model`` quantized by ``scheme``.

    Args:
        model: Float TFLite, one graph.
        ranges: (low, high) of the input and of every float activation by tensor name (``ranges.collect_ranges``); only
            for the static schemes, the others use no data.
        scheme: ``static_int8`` (int8 activations), ``static_int8_16`` (int16 activations), ``dynamic_int8``
            (activations are quantized at run time), ``weight_int8`` and ``float16`` (computes in float32).
        per_channel: One weight scale per output channel instead of one per layer; ``dynamic_int8`` requires it.
        integer_io: Static schemes only: input and outputs are integers, and the caller quantizes; otherwise they stay
            float32, and the file has one QUANTIZE at the beginning and a DEQUANTIZE per output.
        float_layers: Layers that stay float, by name or unique prefix, and other operators by the first tensor that
            they make.

    Raises:
        QuantizeError: If the scheme or a layer does not exist, ranges are missing or not finite, or the model can't be
            quantized.
        PluginError: If the extra ``tflite`` is not installed.
    """
    if scheme not in SCHEMES:
        raise QuantizeError(f"Expected a scheme of {', '.join(SCHEMES)}, got {scheme!r}" + nearest(scheme, SCHEMES))
    if integer_io and scheme not in _ACTIVATION_BITS:
        raise QuantizeError(f"Expected a static scheme for integer_io, got {scheme!r}: set integer_io = false")
    if scheme == "dynamic_int8" and not per_channel:
        message = "Expected per_channel = true with 'dynamic_int8', got false"
        raise QuantizeError(
            f"{message}: LiteRT's depthwise kernel reads a scale per channel, past the end of a single one"
        )
    types = required("ai_edge_litert.schema_py_generated").TensorType
    smaller = {types.INT4, types.INT8, types.UINT8, types.INT16, types.FLOAT16}
    tensors_of = [one for graph in flatbuffer.read(model, QuantizeError).subgraphs for one in graph.tensors]
    found = next((one.name.decode(errors="replace") for one in tensors_of if one.type in smaller), None)
    if found is not None:
        message = f"Expected a float TFLite model, got one whose {found!r} is quantized: take the file it was made from"
        raise QuantizeError(message)
    statistics = _statistics(model, ranges or {}) if scheme in _ACTIVATION_BITS else None
    if scheme == "static_int8":  # with int16 activations biases are int64
        model = fitted(model, ranges or {}, per_channel=per_channel)
    kept = _scopes(model, float_layers)
    if scheme == "static_int8" and not integer_io:  # an integer output has one scale in any case
        kept += _joins(model, ranges or {})
    with quiet():
        quantizer = required("ai_edge_quantizer.quantizer").Quantizer(bytes(model))
        try:
            _instruct(quantizer, scheme, per_channel=per_channel, kept=kept)
            result = quantizer.quantize(statistics, enable_progress_report=False)
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            message = f"Expected a float TFLite model that {scheme!r} quantizes, got: {str(error)[:_LONGEST]}"
            raise QuantizeError(message) from error
    tree = flatbuffer.read(bytes(result.quantized_model), QuantizeError)
    if not integer_io:
        _make_edges_float(tree)
    _drop_names(tree)
    return flatbuffer.write(tree)


def _instruct(quantizer: Any, scheme: str, *, per_channel: bool, kept: Sequence[str]) -> None:  # noqa: ANN401
    """Give ``quantizer`` its rules; a later rule overrides earlier ones."""
    types, algorithm = required("ai_edge_quantizer.qtyping"), required("ai_edge_quantizer.quantizer").AlgorithmName
    grain = types.QuantGranularity.CHANNELWISE if per_channel else types.QuantGranularity.TENSORWISE
    every, whole = types.TFLOperationName.ALL_SUPPORTED, ".*"
    if scheme in _ACTIVATION_BITS:
        quantizer.add_static_config(whole, every, _ACTIVATION_BITS[scheme], _WEIGHT_BITS, grain)
    elif scheme == "dynamic_int8":
        quantizer.add_dynamic_config(whole, every, _WEIGHT_BITS, grain)
    elif scheme == "weight_int8":
        quantizer.add_weight_only_config(whole, every, _WEIGHT_BITS, grain)
    else:
        tensor = types.QuantGranularity.TENSORWISE
        quantizer.add_weight_only_config(whole, every, _FLOAT_BITS, tensor, algorithm.FLOAT_CASTING)
    for scope in kept:
        quantizer.update_quantization_recipe(scope, every, None, algorithm.NO_QUANTIZE)


def _statistics(model: bytes, ranges: Ranges) -> dict[str, dict[str, Any]]:
    """Return ``ranges`` in the form of ai-edge-quantizer's calibration result."""
    missing = [name for name in activations(model).values() if name not in ranges]
    if missing:
        message = f"Expected ranges of all activations, got none of {missing[0]!r}: collect them from calibration data"
        raise QuantizeError(message)
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise QuantizeError(f"Expected a finite range of {name!r}, got {low} to {high}: check the calibration data")
        within_reach(name, low, high)
    tree = flatbuffer.read(model, QuantizeError)
    for operator in tree.subgraphs[0].operators:
        if flatbuffer.operator_name(tree, operator) in _LIMITING:
            continue  # the constants of clips and paddings are not quantized
        for tensor in (tree.subgraphs[0].tensors[index] for index in operator.inputs if index >= 0):
            values = flatbuffer.constant(tree, tensor)
            if values is not None and values.size:
                within_reach(tensor.name.decode(), float(values.min()), float(values.max()))
    # Without axes: ai-edge-quantizer gives a constant that is joined to an activation (a class token) the scale of the
    # result, and adds one axis for each of the constant's own.
    return {
        name: {"min": np.array(low, dtype=np.float32), "max": np.array(high, dtype=np.float32)}
        for name, (low, high) in ranges.items()
    }


def layers(model: bytes) -> tuple[str, ...]:
    """Return the names of the layers with weights, in the order in which they run, for ``float_layers``.

    Raises:
        QuantizeError: If ``model`` is not a TFLite file.
        PluginError: If the extra ``tflite`` is not installed.
    """
    return tuple(_layers(model))


def _layers(model: bytes) -> dict[str, str]:
    """Return the name of each layer with weights, mapped to the name of its output tensor."""
    tree = flatbuffer.read(model, QuantizeError)
    graph, found = tree.subgraphs[0], {}
    for operator in graph.operators:
        place = WEIGHT_PLACE.get(flatbuffer.operator_name(tree, operator))
        if place is not None:
            output = graph.tensors[operator.outputs[0]].name.decode()
            weight = graph.tensors[operator.inputs[place]].name.decode()
            name = weight.removesuffix(".weight") if output in OUTPUT_NAMES else output
            found[name] = output
    return found


def _scopes(model: bytes, float_layers: Sequence[str]) -> list[str]:
    """Return the ai-edge-quantizer patterns that match exactly the named layers."""
    if not float_layers:
        return []
    known, scopes, others = _layers(model), [], {node.outputs[0]: node.name for node in _nodes(model)[0]}
    for wanted in float_layers:
        if wanted in others and wanted not in known:
            scopes.append(f"^{re.escape(others[wanted])}$")
            continue
        found = [wanted] if wanted in known else [name for name in known if name.startswith(wanted)]
        if len(found) != 1:
            message = f"Expected a layer of the model, or the beginning of one's name, got {wanted!r}"
            raise QuantizeError(message + (nearest(wanted, tuple(known)) if not found else f": {', '.join(found)}"))
        scopes.append(f"^{re.escape(known[found[0]])};$")
    return scopes


def _drop_names(model: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Drop the names of tensors that nothing asks for: those of layers, float weights, inputs and outputs stay.

    They are some 2 % of a small transformer. Float weights have two axes at least. Changed in place.
    """
    plain = required("ai_edge_litert.schema_py_generated").TensorType.FLOAT32
    for graph in model.subgraphs:
        made = {index for operator in graph.operators for index in operator.outputs}
        named = {*graph.inputs, *graph.outputs}
        named |= {
            i
            for i, one in enumerate(graph.tensors)
            if one.type == plain and i not in made and one.shape is not None and len(one.shape) > 1
        }
        for operator in graph.operators:
            place = WEIGHT_PLACE.get(flatbuffer.operator_name(model, operator))
            if place is not None:
                named.update([*operator.outputs, operator.inputs[place]])
        for index in set(range(len(graph.tensors))) - named:
            graph.tensors[index].name = None


def last_layers(model: bytes) -> tuple[str, ...]:
    """Return the layers with weights that no other follows before an output other than the embedding.

    Raises:
        QuantizeError: If ``model`` is not a TFLite file.
    """
    named = {f"{output};": name for name, output in _layers(model).items()}
    nodes, ends = _nodes(model)
    found = joined.last_layers(nodes, [end for end in ends if end != EMBEDDING], list(named))
    return tuple(named[name] for name in found)


def end_layers(model: bytes) -> tuple[str, ...]:
    """Return the last layers with weights and all operators behind them, before an output other than the embedding.

    A layer has its own name, another operator that of the first tensor that it makes.

    Raises:
        QuantizeError: If ``model`` is not a TFLite file.
    """
    named = {f"{output};": name for name, output in _layers(model).items()}
    nodes, ends = _nodes(model)
    found = joined.from_last_layers(nodes, [end for end in ends if end != EMBEDDING], list(named))
    return tuple(named.get(node.name, node.outputs[0]) for node in nodes if node.name in found)


def _joins(model: bytes, ranges: Ranges) -> list[str]:
    """Return the patterns of joins of unlike ranges before an output, with what moves their values on the way to it."""
    nodes, ends = _nodes(model)
    return [f"^{re.escape(name)}$" for name in joined.kept_float(nodes, ends, ranges)]


def _nodes(model: bytes) -> tuple[list[joined.GraphNode], list[str]]:
    """Return the operators of the graph, named as the quantizer's patterns see them, and its outputs."""
    tree = flatbuffer.read(model, QuantizeError)
    graph, nodes = tree.subgraphs[0], []
    names = [tensor.name.decode() for tensor in graph.tensors]
    for operator in graph.operators:
        kind = flatbuffer.operator_name(tree, operator)
        outputs = [names[index] for index in operator.outputs]
        nodes.append(joined.GraphNode(
            name="".join(f"{name};" for name in outputs), joins=kind in _JOINING, moves=kind in _JOINING | _MOVING,
            inputs=[names[index] for index in operator.inputs if index >= 0], outputs=outputs,
        ))  # fmt: skip
    return nodes, [names[index] for index in graph.outputs]


def _make_edges_float(model: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Replace the integer inputs and outputs of the first graph of ``model``, a ``ModelT``, by float32 ones.

    The new tensors take over the names; the inner ones get the suffix ``.integers``. An output that is computed in
    float32, and only then quantized, is given as it is computed. Changed in place.
    """
    schema = required("ai_edge_litert.schema_py_generated")
    graph = model.subgraphs[0]
    integers = {schema.TensorType.INT8, schema.TensorType.INT16}
    for index in [one for one in graph.inputs if graph.tensors[one].type in integers]:
        edge = _edge(model, graph, index, graph.inputs)
        graph.operators.insert(0, _operator(model, "QUANTIZE", graph.tensors[index].type, edge, index))
    for index in [one for one in graph.outputs if graph.tensors[one].type in integers]:
        if _stays_float(model, graph, index):
            continue
        edge = _edge(model, graph, index, graph.outputs)
        graph.operators.append(_operator(model, "DEQUANTIZE", graph.tensors[index].type, index, edge))


def _stays_float(model: Any, graph: Any, index: int) -> bool:  # noqa: ANN401 - generated, untyped
    """Return whether output ``index`` is nothing but float32 values quantized; these then are the output instead."""
    makers = [one for one in graph.operators if index in one.outputs]
    read = any(index in one.inputs for one in graph.operators)
    if read or len(makers) != 1 or flatbuffer.operator_name(model, makers[0]) != "QUANTIZE":
        return False
    source = makers[0].inputs[0]
    if graph.tensors[source].type != required("ai_edge_litert.schema_py_generated").TensorType.FLOAT32:
        return False
    graph.operators.remove(makers[0])
    _replaced(model, graph.outputs, index, source)
    return True


def _edge(model: Any, graph: Any, index: int, ends: list[int]) -> int:  # noqa: ANN401 - generated, untyped
    """Add the float tensor that replaces ``index`` as input or output, and return its index."""
    schema = required("ai_edge_litert.schema_py_generated")
    inside, edge = graph.tensors[index], copy.copy(graph.tensors[index])
    edge.type, edge.quantization, edge.buffer = schema.TensorType.FLOAT32, None, 0
    inside.name = edge.name + b".integers"
    graph.tensors.append(edge)
    new = len(graph.tensors) - 1
    _replaced(model, ends, index, new)
    return new


def _replaced(model: Any, ends: list[int], index: int, new: int) -> None:  # noqa: ANN401 - generated, untyped
    """Let ``new`` be the input or output that ``index`` was, in the first graph and in the signatures."""
    ends[ends.index(index)] = new
    is_input = ends is model.subgraphs[0].inputs
    for signature in model.signatureDefs or []:
        for entry in signature.inputs if is_input else signature.outputs:
            if entry.tensorIndex == index:
                entry.tensorIndex = new


def _operator(model: Any, kind: str, integer: int, source: int, target: int) -> Any:  # noqa: ANN401 - generated
    schema = required("ai_edge_litert.schema_py_generated")
    wide = integer == schema.TensorType.INT16
    version = (2 if wide else 1) if kind == "QUANTIZE" else (3 if wide else 2)
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, getattr(schema.BuiltinOperator, kind), version)
    operator.inputs, operator.outputs = [source], [target]
    return operator


def _code(model: Any, builtin: int, version: int) -> int:  # noqa: ANN401 - generated, untyped
    """Return the index of the operator's code with at least this version, added if the model has none."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            code.version = max(code.version, version)
            return index
    code = required("ai_edge_litert.schema_py_generated").OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
