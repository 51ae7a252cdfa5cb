"""Export to ONNX: dynamic batch, outputs ``logits`` and ``embedding``, the same bytes for the same weights.

Uses torch's TorchScript exporter: measured 0.3 s against 22 s for the dynamo exporter, with the same parity and a
smaller file.
"""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import nn

from compressor.errors import ExportError
from compressor.evaluating import evaluating
from compressor.export import OPSET
from compressor.export.stripping import strip

INPUT_NAME = "input"
OUTPUT_NAMES = ("logits", "embedding")


def export_onnx(network: nn.Module, channels: int, height: int, width: int) -> bytes:
    """Return ``network`` as an ONNX model with input float32 (batch, channels, height, width).

    Raises:
        ExportError: If an operator of the network can't be exported, or the result fails ONNX's checker.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings(), evaluating(network):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network,
                (torch.zeros(1, channels, height, width),),
                buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes a file too
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=list(OUTPUT_NAMES),
                dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *OUTPUT_NAMES)},
            )
            model = onnx.load_from_string(buffer.getvalue())
            onnx.checker.check_model(model)
        except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
            message = f"Expected a network that exports to ONNX opset {OPSET}, got: {str(error)[:300]}"
            raise ExportError(message) from error
    return strip(model).SerializeToString(deterministic=True)  # type: ignore[no-any-return]
