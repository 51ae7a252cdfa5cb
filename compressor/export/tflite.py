"""Export to TFLite: input NHWC, outputs ``logits`` and ``embedding``, the same bytes for the same weights.

litert-torch converts without TensorFlow. The file's batch size is 1, as the format requires; interpreters resize it.
The converter names a tensor after every module and pass that contributed to it, 300 letters and more, including class
names: a third of a small file. Here it gets the layer's dotted name in the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from compressor.errors import ExportError
from compressor.evaluating import evaluating
from compressor.tflite import flatbuffer
from compressor.tflite.flatbuffer import BIAS_PLACE, OUTPUT_NAMES, WEIGHT_PLACE, operator_name
from compressor.tflite.packages import quiet, required

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_OPERATOR = re.compile(r"(?:aten|tfl|stablehlo|torchvision|quantized_decomposed)[.:]+\w+(?:\.\w+)?")
_LONGEST = 300
_INPUT_NAME = "input"


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


def rename(model: Any, layers: Mapping[str, str]) -> None:  # noqa: ANN401 - generated, untyped
    """Give all tensors and signatures of ``model``, a ``ModelT``, short unique names.

    The input becomes ``input``, the outputs ``logits`` and ``embedding``; the output of a layer gets its dotted name,
    its constants that name with ``.weight`` and ``.bias``, and everything else the operator's name and a number.

    Args:
        model: One graph, one input, two outputs in that order; changed in place.
        layers: Maps the end of the converter's path of each layer to its dotted name in the network.
    """
    graph, names = model.subgraphs[0], _Names()
    for index, name in zip([*graph.inputs, *graph.outputs], (_INPUT_NAME, *OUTPUT_NAMES), strict=True):
        names.give(index, name)
    for operator in graph.operators:
        kind = operator_name(model, operator)
        layer = _layer(graph, [*operator.outputs, *operator.inputs], layers) if kind in WEIGHT_PLACE else ""
        layer = layer or kind.lower()
        for index in operator.outputs:
            names.give(index, layer)
        for places, part in ((WEIGHT_PLACE, "weight"), (BIAS_PLACE, "bias")):
            if kind in places and places[kind] < len(operator.inputs):
                names.give(operator.inputs[places[kind]], f"{layer}.{part}")
    for index, tensor in enumerate(graph.tensors):
        names.give(index, "constant")
        tensor.name = names.given[index]
    for signature in model.signatureDefs or []:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.name = names.given[entry.tensorIndex]


class _Names:
    """Names by tensor index; the first name given to a tensor stays, and a duplicate name gets a number."""

    def __init__(self) -> None:
        self.given: dict[int, str] = {}
        self._taken: Counter[str] = Counter()

    def give(self, index: int, name: str) -> None:
        if index < 0 or index in self.given:
            return
        self._taken[name] += 1
        self.given[index] = name if self._taken[name] == 1 else f"{name}_{self._taken[name]}"


def _layer(graph: Any, indices: Sequence[int], layers: Mapping[str, str]) -> str:  # noqa: ANN401 - generated, untyped
    """Return the layer that produced the first of these tensors with a known path, or an empty string."""
    for index in indices:
        for path in graph.tensors[index].name.decode(errors="replace").split(";") if index >= 0 else ():
            found = [name for end, name in layers.items() if path.endswith(end)]
            if found:
                return max(found, key=len)
    return ""
