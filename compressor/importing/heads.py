"""The network of a classifier or regression: logits and embedding, as every network of this project returns.

Decides where an exported file ends for training: before a softmax, because losses take logits; and what its embedding
is: the output of that name, else what goes into the last layer with weights. Reads no recipe.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import torch

from compressor.errors import ConversionError
from compressor.importing import patterns
from compressor.importing.conversion import Conversion, built, counted, translated
from compressor.importing.network import Value
from compressor.importing.operation import Construction
from compressor.importing.parity import compared
from compressor.importing.reading import Node, OnnxSource, read

_MATRIX = 2
_WEIGHTED = frozenset({"Gemm", "MatMul", "Conv"})


def network_of(data: bytes, logits: str, embedding: str = "", *, sigmoid: bool = False) -> Conversion:
    """Return the network of an ONNX file whose forward returns (logits (N, classes), embedding (N, D)).

    The network is a copy for weights of its own: the last file is translated once, though the checks before a run and
    its stages all ask for it.

    Args:
        data: The file.
        logits: The name of its output with logits, or probabilities: a softmax at the end is cut off.
        embedding: The name of its output with the embedding; "": it has none, and the input of the last layer with
            weights is taken, averaged over the image if it is one.
        sigmoid: A sigmoid at the end is cut off as well.

    Raises:
        ConversionError: If the file can't become a network (``module_of``), or has no such output.
    """
    made = _translated_once(data, logits, embedding, sigmoid)
    return replace(made, network=copy.deepcopy(made.network))


@functools.lru_cache(maxsize=1)
def _translated_once(data: bytes, logits: str, embedding: str, sigmoid: bool) -> Conversion:  # noqa: FBT001 - a key of the cache
    source = patterns.replaced(read(data))
    missing = [name for name in (logits, embedding) if name and name not in source.outputs]
    if missing:
        message = f"Expected outputs {', '.join(source.outputs)}, got {', '.join(missing)}: check the export"
        raise ConversionError(message)
    wanted = tuple(name for name in (logits, embedding) if name)
    source = replace(source, outputs=wanted)
    end = _before_softmax(source, logits, sigmoid=sigmoid)
    made, nodes = translated(source)
    features = made.places[embedding] if embedding else _features(source, made, end)
    places = {name: made.places[name] for node in nodes for name in node.outputs if name}
    whole = built(made, [made.places[name] for name in wanted])
    apart = compared(whole, source, places)
    network = built(made, [made.places[end], features])
    return counted(network, nodes, apart)


def _before_softmax(source: OnnxSource, logits: str, *, sigmoid: bool) -> str:
    """Return the value that a softmax over the classes, or a ``sigmoid``, makes ``logits`` of; itself without one."""
    maker = source.maker().get(logits)
    while maker is not None and maker.operator in {"Identity", "Cast"}:
        maker = source.maker().get(maker.inputs[0])
    if maker is None:
        return logits
    rank = len(source.sizes[logits])
    if maker.operator == "Sigmoid" and sigmoid:
        return maker.inputs[0]
    if maker.operator == "Softmax" and rank == _MATRIX and int(maker.attributes.get("axis", -1)) in {1, -1}:
        return maker.inputs[0]
    return logits


def _features(source: OnnxSource, made: Construction, end: str) -> Value:
    """Return the input of the last layer with weights before ``end`` as (N, D), or the value ``end`` itself."""
    node = _last_weighted(source, end)
    if node is None or node.inputs[0] not in made.places:
        return made.places[end]
    sizes, place = source.sizes[node.inputs[0]], made.places[node.inputs[0]]
    if not sizes[0].grows or sizes[0].count != 1 or len(sizes) < _MATRIX:
        return made.places[end]
    if len(sizes) == _MATRIX:
        return place
    axes = list(range(_MATRIX, len(sizes))) if node.operator == "Conv" else list(range(1, len(sizes) - 1))
    return made.add([place, axes], function=torch.mean)


def _last_weighted(source: OnnxSource, end: str) -> Node | None:
    """Return the last layer with weights on the way back from ``end`` along first inputs; None if there is none."""
    makers = source.maker()
    node = makers.get(end)
    while node is not None:
        if node.operator in _WEIGHTED and source.constants.get(node.inputs[1]) is not None:
            return node
        computed = [name for name in node.inputs if name in source.reached]
        node = makers.get(computed[0]) if computed else None
    return None
