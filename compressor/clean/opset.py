"""The opset raised to 17, if it is below 13, which scales per channel need. It is never lowered.

Lowering gives files that onnxruntime refuses, and between 13 and the newest nothing here needs another one.
"""

from __future__ import annotations

import onnx
import onnx.version_converter

from compressor.clean import onnx_graph
from compressor.clean._answers import Unrunnable
from compressor.clean.given import Given

LEAST = 13
"""Source: ONNX, QuantizeLinear and DequantizeLinear, version 13: the attribute ``axis``."""
RAISED_TO = 17
"""The opset of our own exports; measured best of 13 to 21: each file that it was tried on quantizes after it."""


def raise_opset(model: onnx.ModelProto, given: Given) -> str:
    """Convert the file to opset 17 if it is below 13.

    Raises:
        Unrunnable: If an operator of it has no converter.
    """
    del given
    before = onnx_graph.opset(model)
    if not 0 < before < LEAST:
        return ""
    others = [entry for entry in model.opset_import if entry.domain not in onnx_graph.DOMAINS]
    kept = [onnx.OperatorSetIdProto.FromString(entry.SerializeToString()) for entry in others]
    try:
        converted = onnx.version_converter.convert_version(model, RAISED_TO)
    except Exception as error:  # the converter raises RuntimeError, and classes of its own
        raise Unrunnable(f"opset {before} can't be converted to {RAISED_TO}: {str(error)[:160]}") from error
    model.CopyFrom(converted)
    known = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(entry for entry in kept if entry.domain not in known)
    return f"raised from {before} to {RAISED_TO}"
