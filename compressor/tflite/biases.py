"""Weight scales large enough for int32 biases, for channels whose weights are nearly zero.

A bias is stored as int32 in steps of (input scale x weight scale). If a channel died in training, its weight scale is
so small that a bias of 1 overflows int32, and the file computes something else (measured: a relative error of .55). The
channel's largest weight is raised until the bias fits; that changes an output by at most 3e-5 of its bias.

Source: TensorFlow, lite/tools/optimize/quantization_utils.cc, AdjustWeightsForBiasScale; onnxruntime's quantizer does
the same for ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compressor.errors import QuantizeError
from compressor.tflite import flatbuffer
from compressor.tflite.flatbuffer import BIAS_PLACE, WEIGHT_PLACE
from compressor.tflite.packages import required

_MOST_STEPS = 2**30  # half of int32: operators that share a scale may narrow the input's
_WEIGHT_STEPS, _INPUT_STEPS = 127, 255
_LEAST_RANGE = 1e-9  # the smallest range that ai-edge-quantizer uses
_CHANNEL_AXIS = {"DEPTHWISE_CONV_2D": 3}
_DATA_PLACE = {"TRANSPOSE_CONV": 2}


def fitted(model: bytes, ranges: Mapping[str, tuple[float, float]], *, per_channel: bool) -> bytes:
    """Return the float TFLite ``model`` with weights large enough for its biases, unchanged if they all fit.

    Args:
        model: Float TFLite, one graph.
        ranges: (low, high) of the activations by tensor name; a layer whose input has none is not changed.
        per_channel: Whether each output channel of a layer has a weight scale of its own.

    Raises:
        QuantizeError: If ``model`` is not a TFLite file.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tree = flatbuffer.read(model, QuantizeError)
    graph, lifted = tree.subgraphs[0], 0
    for operator in graph.operators:
        name = flatbuffer.operator_name(tree, operator)
        place = BIAS_PLACE.get(name)
        if place is None or len(operator.inputs) <= place or operator.inputs[place] < 0:
            continue
        data = graph.tensors[operator.inputs[_DATA_PLACE.get(name, 0)]].name.decode()
        weights, bias = (graph.tensors[operator.inputs[at]] for at in (WEIGHT_PLACE[name], place))
        values, offsets = flatbuffer.constant(tree, weights), flatbuffer.constant(tree, bias)
        if data not in ranges or values is None or offsets is None:
            continue
        low, high = ranges[data]
        scale = max(max(high, 0.0) - min(low, 0.0), _LEAST_RANGE) / _INPUT_STEPS
        by_channel = np.moveaxis(values, _CHANNEL_AXIS.get(name, 0), 0).reshape(len(offsets), -1)
        least = np.abs(offsets.astype(np.float64)) * _WEIGHT_STEPS / (scale * _MOST_STEPS)
        changed = _lifted(by_channel, least, per_channel=per_channel)
        if changed is not by_channel:
            shape = np.moveaxis(values, _CHANNEL_AXIS.get(name, 0), 0).shape
            whole = np.moveaxis(changed.reshape(shape), 0, _CHANNEL_AXIS.get(name, 0))
            buffer = required("ai_edge_litert.schema_py_generated").BufferT()
            # A new buffer, because another layer may share the old one.
            buffer.data = np.frombuffer(np.ascontiguousarray(whole).tobytes(), np.uint8)
            tree.buffers.append(buffer)
            weights.buffer = len(tree.buffers) - 1
            lifted += 1
    return flatbuffer.write(tree) if lifted else model


def _lifted(weights: Any, least: Any, *, per_channel: bool) -> Any:  # noqa: ANN401 - arrays
    """Return ``weights``, (channels, n), with their largest magnitude (per channel, or over all) at least ``least``."""
    largest = np.abs(weights).max(axis=1)
    short = largest < least if per_channel else np.arange(len(least)) == int(np.argmax(least))
    if not per_channel and largest.max() >= least.max():
        short = np.zeros(len(least), dtype=bool)
    if not short.any():
        return weights
    changed = weights.copy()
    rows = np.flatnonzero(short)
    places = np.abs(weights[rows]).argmax(axis=1)
    signs = np.where(weights[rows, places] < 0, -1.0, 1.0)
    changed[rows, places] = (signs * least[rows]).astype(weights.dtype)
    return changed
