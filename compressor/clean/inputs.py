"""Further inputs set to the values of ``[model] constants``: a device feeds one."""

from __future__ import annotations

import numpy as np
import onnx

from compressor.clean import onnx_graph
from compressor.clean.given import Given
from compressor.errors import ModelSignatureError
from wire.settings import nearest


def set_inputs(model: onnx.ModelProto, given: Given) -> str:
    """Make constants of the inputs that ``given.constants`` names.

    A number fills an input of any shape (open sizes count as 1); a list has one number a value, in order.

    Raises:
        ModelSignatureError: If there is no such input, or its shape does not fit the list.
    """
    if not given.constants:
        return ""
    inputs = {value.name: value for value in onnx_graph.data_inputs(model)}
    for name, number in given.constants.items():
        if name not in inputs:
            message = f"Expected in [model] constants an input of the file ({', '.join(inputs)}), got {name!r}"
            raise ModelSignatureError(message + nearest(name, inputs))
        kind = inputs[name].type.tensor_type
        shape = [dim.dim_value or 1 for dim in kind.shape.dim]
        values = np.asarray(number, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if values.ndim and values.size != int(np.prod(shape)):
            message = f"Expected in [model] constants {name} {int(np.prod(shape))} numbers for its shape {shape}"
            raise ModelSignatureError(f"{message}, got {values.size}: give as many, or one number for all")
        filled = values.reshape(shape) if values.ndim else np.full(shape, values)
        onnx_graph.set_constant(model, name, filled)
    kept = [value for name, value in inputs.items() if name not in given.constants]
    if not kept:
        message = f"Expected an input left for the data, got all of {', '.join(inputs)} in [model] constants"
        raise ModelSignatureError(f"{message}: leave out the one that is the image or signal")
    copied = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del model.graph.input[:]
    model.graph.input.extend(copied)
    said = ", ".join(f"{name} = {value}" for name, value in given.constants.items())
    return f"inputs set: {said[:200]}"
