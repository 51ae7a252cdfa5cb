"""Short tensor names for a converted file: the layer's dotted name in the network instead of the converter's paths.

The converter names a tensor after every module and pass that contributed to it, 300 letters and more, including class
names: a third of a small file. Decides names only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from compressor.tflite.flatbuffer import operator_name

INPUT_NAME = "input"
OUTPUT_NAMES = ("logits", "embedding")
WEIGHT_PLACE = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
BIAS_PLACE = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


def rename(model: Any, layers: Mapping[str, str]) -> None:  # noqa: ANN401 - generated, untyped
    """Give all tensors and signatures of ``model``, a ``ModelT``, short unique names.

    The input becomes ``input``, the outputs ``logits`` and ``embedding``; the output of a layer gets its dotted name,
    its constants that name with ``.weight`` and ``.bias``, and everything else the operator's name and a number.

    Args:
        model: One graph, one input, two outputs in that order; changed in place.
        layers: Maps the end of the converter's path of each layer to its dotted name in the network.
    """
    graph, names = model.subgraphs[0], _Names()
    for index, name in zip([*graph.inputs, *graph.outputs], (INPUT_NAME, *OUTPUT_NAMES), strict=True):
        names.give(index, name)
    for operator in graph.operators:
        _name_operator(graph, operator, operator_name(model, operator), layers, names)
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


def _name_operator(
    graph: Any,  # noqa: ANN401 - generated, untyped
    operator: Any,  # noqa: ANN401 - generated, untyped
    kind: str,
    layers: Mapping[str, str],
    names: _Names,
) -> None:
    layer = _layer(graph, [*operator.outputs, *operator.inputs], layers) if kind in WEIGHT_PLACE else ""
    layer = layer or kind.lower()
    for index in operator.outputs:
        names.give(index, layer)
    for places, part in ((WEIGHT_PLACE, "weight"), (BIAS_PLACE, "bias")):
        if kind in places and places[kind] < len(operator.inputs):
            names.give(operator.inputs[places[kind]], f"{layer}.{part}")


def _layer(graph: Any, indices: Sequence[int], layers: Mapping[str, str]) -> str:  # noqa: ANN401 - generated, untyped
    """Return the layer that produced the first of these tensors with a known path, or an empty string."""
    for index in indices:
        for path in graph.tensors[index].name.decode(errors="replace").split(";") if index >= 0 else ():
            found = [name for end, name in layers.items() if path.endswith(end)]
            if found:
                return max(found, key=len)
    return ""
