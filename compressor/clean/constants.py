"""Constants that quantizers can't take: biases of two axes, and masks before a softmax.

onnxruntime's quantizer takes a bias for one number a channel. A mask of -3.4e38 sets the int8 range of the scores that
it is added to, so that masks are cut to what a softmax can tell apart: exp(-60) is 9e-27, which beside any score of a
trained attention adds nothing to a float32 sum. Measured with -3.4e38, -1e4 and -60: an error of the logits of 1 (it
does not run on LiteRT), .035 and .012. The mend is compared with the file before it, so that scores that lie further
apart, or rows that are masked completely, undo it.
"""

from __future__ import annotations

import numpy as np
import onnx

from compressor.clean import onnx_graph
from compressor.clean.given import Given

_BIAS = 2
_PRODUCTS = frozenset({"Gemm", "MatMul"})
CUTS = (-60.0, -1e4)
_MASKING = -1e3
"""Values below it are no scores: they stand for minus infinity."""
_MOVING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Slice", "Gather", "Cast", "Identity"})
_JOINING = frozenset({"Add", "Where", "Sum", "Min", "Max"})
_VALUES = {"Where": (1, 2)}


def flatten_biases(model: onnx.ModelProto, given: Given) -> str:
    """Reshape the constant C of Gemm, and the constant that is added to a MatMul, to one axis."""
    del given
    known = onnx_graph.constants(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    changed: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Gemm" and len(node.input) > _BIAS:
            places = [_BIAS]
        elif node.op_type == "Add":
            places = [i for i in (0, 1) if (made := makers.get(node.input[1 - i])) and made.op_type in _PRODUCTS]
        else:
            continue
        for place in places:
            tensor = known.get(node.input[place])
            if tensor is None or len(tensor.dims) < 2 or any(size != 1 for size in tensor.dims[:-1]):  # noqa: PLR2004
                continue
            if node.op_type == "Add" and len(tensor.dims) > 2:  # noqa: PLR2004 - it may add axes
                continue
            if tensor.name not in changed:
                changed[tensor.name] = onnx_graph.free_name(model, f"{tensor.name}_flat")
                onnx_graph.set_constant(model, changed[tensor.name], onnx_graph.value_of(tensor).reshape(-1))
            node.input[place] = changed[tensor.name]
    onnx_graph.drop_unneeded(model)
    return f"{', '.join(map(repr, changed))} reshaped to one axis" if changed else ""


def cut_masks(model: onnx.ModelProto, given: Given, cut: float = CUTS[0]) -> str:
    """Raise values below -1000 to ``cut`` in float constants of which every reader leads to a softmax."""
    del given
    readers, changed = onnx_graph.readers(model), []
    outputs = {value.name for value in model.graph.output}
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx_graph.value_of(tensor).astype(np.float32)
        low = values < _MASKING
        if not values.size or not low.any() or tensor.name in outputs or not _softened(tensor.name, readers, outputs):
            continue
        onnx_graph.set_constant(model, tensor.name, np.where(low, np.float32(cut), values))
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
