"""Masks before a softmax cut to what it can tell apart: -3.4e38 sets the int8 range of the scores that it is added to.

exp(-60) is 9e-27: beside any score of a trained attention it adds nothing to a float32 sum. Measured with -3.4e38, -1e4
and -60: an error of the logits of 1 (it does not run on LiteRT), .035 and .012. The mend is compared with the file
before it, so that scores that lie further apart, or rows that are masked completely, undo it.
"""

from __future__ import annotations

import numpy as np
import onnx

from compressor.clean import _graph
from compressor.clean.given import Given

CUTS = (-60.0, -1e4)
_MASKING = -1e3
"""Values below it are no scores: they stand for minus infinity."""
_MOVING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Slice", "Gather", "Cast", "Identity"})
_JOINING = frozenset({"Add", "Where", "Sum", "Min", "Max"})
_VALUES = {"Where": (1, 2)}


def cut_masks(model: onnx.ModelProto, given: Given, cut: float = CUTS[0]) -> str:
    """Raise values below -1000 to ``cut`` in float constants of which every reader leads to a softmax."""
    del given
    readers, changed = _graph.readers(model), []
    outputs = {value.name for value in model.graph.output}
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = _graph.value_of(tensor).astype(np.float32)
        low = values < _MASKING
        if not values.size or not low.any() or tensor.name in outputs or not _softened(tensor.name, readers, outputs):
            continue
        _graph.set_constant(model, tensor.name, np.where(low, np.float32(cut), values))
        changed.append(f"{tensor.name!r} from {float(values.min()):.3g}")
    return f"{', '.join(changed)} to {cut:g}" if changed else ""


def cut_masks_less(model: onnx.ModelProto, given: Given) -> str:
    """Raise them to -1e4, where -60 changed answers."""
    return cut_masks(model, given, CUTS[1])


def _softened(name: str, readers: dict[str, list[onnx.NodeProto]], outputs: set[str]) -> bool:
    """Return whether every path from the tensor ``name`` leads to a softmax, through nodes that keep its values."""
    nodes = readers.get(name, [])
    if not nodes or name in outputs:
        return False
    for node in nodes:
        if node.op_type == "Softmax":
            continue
        if node.op_type not in _MOVING | _JOINING:
            return False
        places = _VALUES.get(node.op_type, range(len(node.input)) if node.op_type in _JOINING else (0,))
        if any(node.input[i] == name for i in range(len(node.input)) if i not in places):
            return False
        if not _softened(node.output[0], readers, outputs):
            return False
    return True
