"""Float16 weights in the file; float32 computation, input and output: half the size at the same speed.

Cast converts the weights back, and onnxruntime folds it once, at load.
"""

from __future__ import annotations

import numpy as np
import onnx

from compressor.errors import QuantizeError
from compressor.quantize import Batches, Searched
from compressor.quantize._model import compact, prepare
from compressor.steps.quantize import Settings

READS: frozenset[str] = frozenset()
SEARCHED = Searched(integer=False)
_LEAST_VALUES = 64  # below it, the Cast node takes more bytes than it saves


def quantize(model: bytes, batches: Batches, settings: Settings) -> bytes:
    """Return ``model`` with its float32 constants stored as float16; needs no data.

    Raises:
        QuantizeError: If the model can't be read or prepared, or a constant exceeds float16's range.
    """
    del batches, settings
    prepared = prepare(model)
    widening, largest = [], float(np.finfo(np.float16).max)
    for tensor in prepared.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < _LEAST_VALUES:
            continue
        values, name = onnx.numpy_helper.to_array(tensor), tensor.name
        if not np.abs(values).max() <= largest:
            message = f"Expected values within float16's {largest:g} in {name!r}, got {np.abs(values).max():g}: "
            raise QuantizeError(message + "scale the layer down, or keep the model float32")
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        widening.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*widening, *prepared.graph.node]
    del prepared.graph.node[:]
    prepared.graph.node.extend(nodes)
    return compact(prepared)
