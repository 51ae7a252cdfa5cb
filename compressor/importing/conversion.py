"""From an ONNX file to a network: translate, count the weights, compare node by node with onnxruntime.

Decides what is refused: an operator without a translator, weights that training would not reach, a node whose values
differ. Decides no contract: which output is the logits is the caller's knowledge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from compressor.errors import CompressorError, ConversionError, OperatorError
from compressor.importing import patterns
from compressor.importing.network import Call, HeldTensor, ImportedNetwork, Slot, Value
from compressor.importing.operation import ADVICE, Construction, Operation
from compressor.importing.operators import TRANSLATORS
from compressor.importing.parity import compared
from compressor.importing.reading import CHOOSING, Node, OnnxSource, choice, read

_NAMED = 5
_SIZED = frozenset({"Resize", "Upsample"})
"""Operators whose further inputs are sizes and factors, which nothing trains."""
_QUANTIZED = ("QLinear", "QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize")
_FOREIGN = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Conversion:
    """A ``network`` in evaluation mode that computes what the file does.

    ``apart``: the largest difference of an output from onnxruntime's. ``operators``: how many nodes of each operator
    were translated. ``weights``: the number of its trained parameters.
    """

    network: ImportedNetwork
    apart: float
    operators: Mapping[str, int]
    weights: int


def module_of(data: bytes) -> ImportedNetwork:
    """Return the network that an ONNX file is, in evaluation mode; its weights are parameters.

    It takes float32 (N, C, H, W), or whatever the file's input is, and returns the file's outputs: a tensor, or a tuple
    of several.

    Raises:
        ConversionError: If the file can't be read or run, or a node's values differ from onnxruntime's.
        OperatorError: If it has an operator, or an attribute of one, that can't be expressed.
    """
    return converted(data).network


def converted(data: bytes) -> Conversion:
    """Return the network of ``module_of``, with figures.

    Raises:
        ConversionError: As ``module_of``.
    """
    source = patterns.replaced(read(data))
    made, nodes = translated(source)
    outputs = [made.places[name] for name in source.outputs]
    network = built(made, outputs)
    apart = compared(network, source, {name: made.places[name] for node in nodes for name in node.outputs if name})
    return counted(network, nodes, apart)


def counted(network: ImportedNetwork, nodes: Sequence[Node], apart: float) -> Conversion:
    """Return ``network``, made of ``nodes``, with its figures."""
    operators = dict(Counter(node.operator for node in nodes))
    weights = sum(parameter.numel() for parameter in network.parameters())
    return Conversion(network=network, apart=apart, operators=operators, weights=weights)


def translated(source: OnnxSource) -> tuple[Construction, tuple[Node, ...]]:
    """Return the construction after all nodes that the outputs depend on, and these nodes.

    Raises:
        OperatorError: If one can't be expressed.
        ConversionError: If an output does not depend on the input.
    """
    fixed = [name for name in source.outputs if name not in source.reached]
    if fixed:
        raise ConversionError(f"Expected outputs that depend on the input, got {', '.join(fixed)}: export again")
    nodes = _needed(source)
    _check_known(nodes)
    made = Construction(source=source, places={source.input: Slot(0)})
    for node in nodes:
        operation = Operation(node, made)
        try:
            result = TRANSLATORS[node.operator](operation)
        except CompressorError:
            raise
        except _FOREIGN as error:  # torch and numpy raise many classes at odd attributes
            raise operation.refused(f"attributes or sizes that its layer rejects ({str(error)[:200]})") from error
        places = result if isinstance(result, Sequence) else [result]
        for name, place in zip(node.outputs, places, strict=False):
            if not isinstance(place, Slot | HeldTensor):
                raise operation.refused("constants alone")
            made.places[name] = place
    return made, nodes


def _needed(source: OnnxSource) -> tuple[Node, ...]:
    """Return the nodes that the outputs depend on and that depend on pixels, in their order."""
    wanted, found = set(source.outputs), []
    for node in reversed(source.nodes):
        if wanted.intersection(node.outputs) and source.reached.intersection(node.outputs):
            found.append(node)
            wanted.update(name for name in node.inputs if name in source.reached)
    return tuple(reversed(found))


def _check_known(nodes: Sequence[Node]) -> None:
    """Check that every operator has a translator.

    Raises:
        OperatorError: If one has none: the first is named, and the kinds of the others.
    """
    unknown = [node for node in nodes if node.operator not in TRANSLATORS]
    if not unknown:
        return
    if chosen := next((node for node in unknown if node.operator in CHOOSING), None):
        raise choice(chosen)
    first = unknown[0]
    if first.operator.startswith(_QUANTIZED):
        message = f"Expected a float model, got {first.shown}: the file is quantized already"
        raise OperatorError(f"{message}: give the float file it was made from, or gate it as it is with compress = []")
    others = sorted({node.operator for node in unknown} - {first.operator})
    beside = f" (and {', '.join(others[:_NAMED])})" if others else ""
    message = f"Expected operators that a network can be made of, got {first.shown}{beside}"
    raise OperatorError(f"{message}: {ADVICE}")


def built(made: Construction, outputs: Sequence[Value]) -> ImportedNetwork:
    """Return the network of a construction with these outputs, in evaluation mode.

    Raises:
        ConversionError: If it trains fewer or more numbers than the file's weights have.
    """
    network = ImportedNetwork(_kept(made.calls, outputs), outputs, made.layers, made.held).eval()
    _check_weights(network, made)
    return network


def _kept(calls: Sequence[Call], outputs: Sequence[Value]) -> list[Call]:
    """Return the ``calls`` that ``outputs`` depend on; each drops the values that nothing reads later."""
    wanted = {output.index for output in outputs if isinstance(output, Slot)}
    kept: list[Call] = []
    for call in reversed(calls):
        if call.slot not in wanted:
            continue
        read_here = _slots(call.args)
        kept.append(replace(call, frees=tuple(sorted(read_here - wanted - {0}))))
        wanted |= read_here
    return kept[::-1]


def _slots(args: object) -> set[int]:
    if isinstance(args, Slot):
        return {args.index}
    return set[int]().union(*(_slots(item) for item in args)) if isinstance(args, list | tuple) else set()


def _check_weights(network: ImportedNetwork, made: Construction) -> None:
    """Check that the floats which were read are the network's, each once.

    Raises:
        ConversionError: If a weight of the file would not be trained, or is held twice.
    """
    source = made.source
    floats = sum(value.numel() for value in _floats(network))
    expected = sum(source.constants[name].value.size for name in made.read) + made.repeated
    if floats != expected:
        message = f"Expected a network of the file's {expected} weights, got {floats}: a weight is used in two forms"
        raise ConversionError(f"{message}: {ADVICE}")
    nodes = _needed(source)
    used = _roots(source, (name for node in nodes for name in node.inputs if name not in source.reached))
    settings = _roots(source, (name for node in nodes if node.operator in _SIZED for name in node.inputs[1:]))
    lost = [
        name
        for name in sorted(used - settings - _roots(source, made.read))
        if source.weights[name].size > 1 and np.issubdtype(source.weights[name].dtype, np.floating)
    ]
    if lost:
        message = f"Expected every weight to be trained, got {', '.join(lost[:_NAMED])} outside of any layer"
        raise ConversionError(f"{message}: {ADVICE}")


def _roots(source: OnnxSource, names: Iterable[str]) -> frozenset[str]:
    """Return the initializers that the constants among ``names`` were computed from."""
    return frozenset[str]().union(*(source.roots.get(name, ()) for name in names))


def _floats(network: ImportedNetwork) -> list[torch.Tensor]:
    """Return the parameters and float buffers, each once."""
    found = {id(value): value for value in (*network.parameters(), *network.buffers())}
    return [value for value in found.values() if value.is_floating_point()]
