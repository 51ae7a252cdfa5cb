"""Weight-only int8: s8 weights in the file, float computation; the runtime converts them once, at load.

Cast and Mul convert the weights, and onnxruntime folds both at load. DequantizeLinear would do the same in one node,
but is kept for fusing and runs at every inference: measured 2 x (ResNet8) and 3.7 x (DS-CNN) slower than float.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from compressor.quantize import Batches, Searched
from compressor.quantize._model import CONVOLUTIONS, PRODUCTS, chosen, compact, prepare
from compressor.steps.quantize import Settings

READS = frozenset({"per_channel", "float_layers"})
SEARCHED = Searched(equalized=True)
_LARGEST = 127  # symmetric: -128 is not used


def quantize(model: bytes, batches: Batches, settings: Settings) -> bytes:
    """Return ``model`` with the weights of its layers in int8 and everything else float32; needs no data.

    Raises:
        QuantizeError: If the model can't be read or prepared, or a layer in ``float_layers`` does not exist.
    """
    del batches
    prepared = prepare(model)
    kept = chosen(settings.float_layers, prepared)
    constants = {tensor.name: tensor for tensor in prepared.graph.initializer}
    widening = []
    for name, axis in _weights(prepared, kept, constants).items():
        values = onnx.numpy_helper.to_array(constants[name]).astype(np.float32)
        rounded, scale = _rounded(values, axis if settings.per_channel else None)
        stored, factor, cast = (f"{name}_{part}" for part in ("int8", "scale", "cast"))
        prepared.graph.initializer.remove(constants[name])
        prepared.graph.initializer.append(onnx.numpy_helper.from_array(rounded, stored))
        prepared.graph.initializer.append(onnx.numpy_helper.from_array(scale, factor))
        widening += [
            onnx.helper.make_node("Cast", [stored], [cast], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [cast, factor], [name]),
        ]
    nodes = [*widening, *prepared.graph.node]
    del prepared.graph.node[:]
    prepared.graph.node.extend(nodes)
    return compact(prepared)


def _weights(
    model: onnx.ModelProto, kept: tuple[str, ...], constants: Mapping[str, onnx.TensorProto]
) -> Mapping[str, int]:
    """Return the axis of the output channels for each float32 weight, by name."""
    found: dict[str, int] = {}
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type in CONVOLUTIONS | PRODUCTS else None
        if weight is None or weight.data_type != onnx.TensorProto.FLOAT or node.name in kept:
            continue
        if node.op_type in CONVOLUTIONS:  # (out, in / groups, kernel...), and (in, out / groups, kernel...) transposed
            axis = 0 if node.op_type == "Conv" else 1
        else:
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axis = 0 if transposed else len(weight.dims) - 1
        found.setdefault(weight.name, axis)
    return found


def _rounded(values: npt.NDArray[np.float32], axis: int | None) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return ``values`` as int8 and the scale of each channel, broadcastable; a channel of zeros has scale 1."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    return np.clip(np.round(values / scale), -_LARGEST, _LARGEST).astype(np.int8), scale
