"""Export to TFLite: input NHWC, outputs ``logits`` and ``embedding``, the same bytes for the same weights.

litert-torch converts without TensorFlow. The file's batch size is 1, as the format requires; interpreters resize it.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from compressor.errors import ExportError
from compressor.evaluating import evaluating
from compressor.tflite import flatbuffer
from compressor.tflite.naming import OUTPUT_NAMES, rename
from compressor.tflite.packages import quiet, required

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_OPERATOR = re.compile(r"(?:aten|tfl|stablehlo|torchvision|quantized_decomposed)[.:]+\w+(?:\.\w+)?")
_LONGEST = 300


def export_tflite(network: nn.Module, channels: int, height: int, width: int) -> bytes:
    """Return ``network`` as a TFLite file with input float32 (1, height, width, channels).

    Args:
        network: float32 (N, C, H, W) -> (logits, embedding).
        channels: C of the input.
        height: H of the input, pixels.
        width: W of the input, pixels.

    Raises:
        ExportError: If an operator of the network can't be converted, or it does not have these two outputs.
        PluginError: If the extra ``tflite`` is not installed.
    """
    with quiet(), evaluating(network):
        converter = required("litert_torch")
        try:
            module = converter.to_channel_last_io(network, args=[0]).eval()
            content = converter.convert(module, (torch.zeros(1, height, width, channels),)).model_content()
        except Exception as error:  # the converter raises its own classes, and those of torch and MLIR
            raise ExportError(_explained(error)) from error
    model = flatbuffer.read(bytes(content), ExportError)
    outputs = len(model.subgraphs[0].outputs)
    if len(model.subgraphs) != 1 or outputs != len(OUTPUT_NAMES):
        message = f"Expected one graph with the outputs {OUTPUT_NAMES}, got {len(model.subgraphs)} with {outputs}"
        raise ExportError(f"{message}: return (logits, embedding) from forward()")
    rename(model, _layers(network))
    return flatbuffer.write(model)


def _explained(error: Exception) -> str:
    text = str(error)
    operators = sorted(set(_OPERATOR.findall(text)))
    named = f"operator {', '.join(operators)}" if operators else type(error).__name__
    advice = "replace it in the network, or export to ONNX"
    return f"Expected a network that converts to TFLite, got {named}: {advice}. {text[:_LONGEST]}"


def _layers(network: nn.Module) -> dict[str, str]:
    """Return the end of the converter's path of each layer with weights, mapped to its dotted name."""
    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, _WEIGHTED) and name:
            steps = name.split(".")
            modules = [network.get_submodule(".".join(steps[: depth + 1])) for depth in range(len(steps))]
            pairs = zip(modules, steps, strict=True)
            path = "".join(f"/{type(one).__module__}.{type(one).__qualname__}_{step}" for one, step in pairs)
            found[path] = name
    return found
