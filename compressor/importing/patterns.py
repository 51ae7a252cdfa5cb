"""Groups of nodes that exporters write for one operator, found and replaced by that operator.

A group that becomes one of torch's layers has fewer points to round at, and weights that pruning and fake quantization
know. Only the graph changes: what it computes stays the same, which ``parity`` checks. Nothing is replaced if a value
inside the group is read from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, TypeAlias

import numpy as np

from compressor.importing.reading import Constant, Node, OnnxSource

Pattern: TypeAlias = "str | float | tuple[Any, ...]"
"""A name for any value (the same name is the same value), a number, or an operator with its inputs' patterns."""
_CLOSE = 1e-4
_COMMUTE = frozenset({"Add", "Mul"})
_MATRIX = 2


@dataclass(slots=True, eq=False)
class _Match:
    """Values by their names in the pattern, and the nodes that make it up."""

    values: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """A file with who makes and who reads each value."""

    source: OnnxSource
    makers: Mapping[str, Node]
    users: Mapping[str, Sequence[Node]]

    def constant(self, name: str) -> Constant | None:
        return self.source.constants.get(name)

    def number(self, name: str) -> float | None:
        """Return the constant of one element with this name, None if it is none."""
        constant = self.constant(name)
        return None if constant is None or constant.value.size != 1 else float(constant.value.reshape(()))

    def matched(self, name: str, pattern: Pattern, so_far: _Match) -> _Match | None:
        """Return how the value ``name`` matches ``pattern``, None if it does not."""
        if isinstance(pattern, str):
            known = so_far.values.get(pattern, name)
            return _Match({**so_far.values, pattern: name}, so_far.nodes) if known == name else None
        if isinstance(pattern, float | int):
            number = self.number(name)
            return so_far if number is not None and abs(number - pattern) <= _CLOSE * max(1, abs(pattern)) else None
        node = self.makers.get(name)
        if node is None or node.operator != pattern[0] or len(node.inputs) < len(pattern) - 1:
            return None
        orders = permutations(pattern[1:]) if node.operator in _COMMUTE else [pattern[1:]]
        for parts in orders:
            match: _Match | None = _Match(so_far.values, [*so_far.nodes, node])
            for one, part in zip(node.inputs, parts, strict=False):
                match = self.matched(one, part, match) if match is not None else None
            if match is not None:
                return match
        return None

    def closed(self, match: _Match) -> bool:
        """Return whether no value inside is read outside: the first of the nodes makes the result."""
        inside = {node.name for node in match.nodes}
        inner = [name for node in match.nodes[1:] for name in node.outputs if name]
        return not any(
            name in self.source.outputs or any(user.name not in inside for user in self.users.get(name, ()))
            for name in inner
        )


Maker: TypeAlias = Callable[[_Graph, _Match], "Node | None"]


def _replacing(operator: str, *names: str) -> Maker:
    """Return what makes a node of ``operator`` with these values of the match as inputs."""

    def make(graph: _Graph, match: _Match) -> Node | None:
        del graph
        first = match.nodes[0]
        return replace(first, operator=operator, inputs=tuple(match.values[name] for name in names), attributes={})

    return make


def _linear(graph: _Graph, match: _Match) -> Node | None:
    """Return MatMul with the bias as a third input, if both are constant."""
    weight, bias = graph.constant(match.values["weight"]), graph.constant(match.values["bias"])
    if weight is None or bias is None or weight.value.ndim != _MATRIX or weight.axis >= 0 or bias.axis >= 0:
        return None
    width = weight.value.shape[1]
    if bias.value.size != width or bias.value.shape[-1] != width or not bias.is_float:
        return None
    if len(bias.value.shape) > len(graph.source.sizes[match.nodes[1].outputs[0]]):
        return None
    inputs = tuple(match.values[name] for name in ("x", "weight", "bias"))
    return replace(match.nodes[1], outputs=match.nodes[0].outputs, inputs=inputs, attributes={})


def _layer_norm(graph: _Graph, match: _Match) -> Node | None:
    """Return LayerNormalization over the last axis, if the means are over it and the weights have its size."""
    sizes = graph.source.sizes[match.values["x"]]
    last, eps = len(sizes) - 1, graph.number(match.values["eps"])
    scale, bias = graph.constant(match.values["scale"]), graph.constant(match.values["bias"])
    for node in match.nodes:
        if node.operator == "ReduceMean":
            axes = node.attributes.get("axes")
            if axes is None and len(node.inputs) > 1 and (given := graph.constant(node.inputs[1])) is not None:
                axes = given.value.tolist()
            if axes is None or [axis % (last + 1) for axis in axes] != [last]:
                return None
    if eps is None or scale is None or bias is None:
        return None
    if scale.value.shape != (sizes[-1].count,) or bias.value.shape != scale.value.shape:
        return None
    inputs = tuple(match.values[name] for name in ("x", "scale", "bias"))
    return replace(
        match.nodes[0], operator="LayerNormalization", inputs=inputs, attributes={"axis": last, "epsilon": eps}
    )


def _group_norm(graph: _Graph, match: _Match) -> Node | None:
    """Return GroupNormalization with weights a channel, if the norm inside has none of its own."""
    source = graph.source
    norm = next(node for node in match.nodes if node.operator == "InstanceNormalization")
    one, zero, scale, bias = (graph.constant(match.values[name]) for name in ("ones", "zeros", "scale", "bias"))
    given, grouped = source.sizes[match.values["x"]], source.sizes[norm.inputs[0]]
    if one is None or zero is None or scale is None or bias is None or source.sizes[match.nodes[0].outputs[0]] != given:
        return None
    if np.any(one.value != 1) or np.any(zero.value != 0) or len(grouped) != 3 or len(given) < _MATRIX:  # noqa: PLR2004
        return None
    wide = (given[1].count, *[1] * (len(given) - 2))
    if any(part.value.shape not in {wide, (1, *wide)} for part in (scale, bias)):
        return None
    attributes = {"num_groups": grouped[1].count, "epsilon": float(norm.attributes.get("epsilon", 1e-5))}
    inputs = tuple(match.values[name] for name in ("x", "scale", "bias"))
    return replace(match.nodes[0], operator="GroupNormalization", inputs=inputs, attributes=attributes)


def _padded_conv(graph: _Graph, match: _Match) -> Node | None:
    """Return Conv with the zeros that a Pad before it added."""
    conv, pad = match.nodes
    rank, given = len(graph.source.sizes[match.values["x"]]), pad.attributes.get("pads")
    values = [graph.number(name) for name in pad.inputs[2:] if name]  # the padded value, and axes from opset 18 on
    if len(pad.inputs) > 1 and (pads := graph.constant(pad.inputs[1])) is not None:
        given = pads.value.tolist()
    if given is None or len(given) != 2 * rank or values not in ([], [0.0]) or pad.attributes.get("value", 0):
        return None
    modes = pad.attributes.get("mode", "constant"), conv.attributes.get("auto_pad", "NOTSET")
    if modes != ("constant", "NOTSET") or any((*given[:2], *given[rank : rank + 2])) or min(given) < 0:
        return None
    own = conv.attributes.get("pads", [0] * 2 * (rank - 2))
    added = [*given[2:rank], *given[rank + 2 :]]
    total = [int(a) + int(b) for a, b in zip(own, added, strict=True)]
    return replace(conv, inputs=(match.values["x"], *conv.inputs[1:]), attributes={**conv.attributes, "pads": total})


_GATE: Pattern = ("Clip", ("Add", "x", 3.0), 0.0, 6.0)
_ERF: Pattern = ("Add", ("Erf", ("Div", "x", math.sqrt(2))), 1.0)
_ERF_OF_PRODUCT: Pattern = ("Add", ("Erf", ("Mul", "x", math.sqrt(0.5))), 1.0)
_CENTRED: Pattern = ("Sub", "x", ("ReduceMean", "x"))
_SPREAD: Pattern = ("Sqrt", ("Add", ("ReduceMean", ("Pow", _CENTRED, 2.0)), "eps"))
_GROUPED: Pattern = ("Reshape", ("InstanceNormalization", ("Reshape", "x"), "ones", "zeros"))
_RULES: tuple[tuple[Pattern, Maker], ...] = (
    (("Div", ("Mul", "x", _GATE), 6.0), _replacing("HardSwish", "x")),
    (("Mul", ("Mul", "x", _GATE), 1 / 6), _replacing("HardSwish", "x")),
    (("Mul", "x", ("Div", _GATE, 6.0)), _replacing("HardSwish", "x")),
    (("Mul", "x", ("Mul", _GATE, 1 / 6)), _replacing("HardSwish", "x")),
    *(
        (whole, _replacing("Gelu", "x"))
        for erf in (_ERF, _ERF_OF_PRODUCT)
        for whole in (
            ("Mul", ("Mul", "x", erf), 0.5),
            ("Mul", ("Mul", "x", 0.5), erf),
            ("Mul", "x", ("Mul", erf, 0.5)),
        )
    ),
    (("Add", ("Mul", ("Div", _CENTRED, _SPREAD), "scale"), "bias"), _layer_norm),
    (("Add", ("Mul", _GROUPED, "scale"), "bias"), _group_norm),
    (("Add", ("MatMul", "x", "weight"), "bias"), _linear),
    (("Conv", ("Pad", "x")), _padded_conv),
)


def _hard_swish_by_sigmoid(graph: _Graph, match: _Match) -> Node | None:
    gate = match.nodes[1]
    alpha, beta = gate.attributes.get("alpha", 0.2), gate.attributes.get("beta", 0.5)
    return _replacing("HardSwish", "x")(graph, match) if abs(alpha - 1 / 6) < _CLOSE and beta == 0.5 else None  # noqa: PLR2004


_ALL = (*_RULES, (("Mul", "x", ("HardSigmoid", "x")), _hard_swish_by_sigmoid))


def replaced(source: OnnxSource) -> OnnxSource:
    """Return ``source`` with every known group of nodes as one node."""
    for pattern, make in _ALL:
        graph = _Graph(source, source.maker(), source.users())
        gone: set[str] = set()
        made: dict[str, Node] = {}
        for node in source.nodes:
            if node.operator != pattern[0] or node.outputs[0] in source.constants:  # type: ignore[index]
                continue
            match = graph.matched(node.outputs[0], pattern, _Match())
            if match is None or not graph.closed(match) or gone & {one.name for one in match.nodes}:
                continue
            if (new := make(graph, match)) is not None:
                gone |= {one.name for one in match.nodes[1:]}
                made[node.name] = new
        kept = [made.get(node.name, node) for node in source.nodes if node.name not in gone]
        source = source.with_nodes(kept)
    return source
