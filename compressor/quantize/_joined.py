"""Joins before an output: where a Concat brings values of unlike range together, one int8 scale would serve all.

A detector that gives boxes and scores in one tensor does so: with boxes in pixels the scores get a scale of several
units. Such a Concat stays float, with what only moves its values on the way to the output; the tensors that it joins
keep scales of their own, and the file's size stays. Decides which nodes these are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

JOINING = "Concat"
MOVING = frozenset({
    JOINING, "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Gather",
    "GatherElements", "GatherND", "TopK", "Expand", "Tile",
})  # fmt: skip
"""Operators whose outputs are values of their first input (of all inputs, for a Concat) in other places."""
LIMIT_DB = 12.0
"""So much of a tensor's signal-to-noise ratio, two bits, may a common scale cost it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """A node of a graph: ``name``, whether it ``joins`` or only ``moves`` values, its tensors."""

    name: str
    joins: bool
    moves: bool
    inputs: Sequence[str]
    outputs: Sequence[str]


def kept_float(
    nodes: Sequence[GraphNode], ends: Sequence[str], ranges: Mapping[str, tuple[float, float]]
) -> tuple[str, ...]:
    """Return the nodes to keep float before the outputs ``ends``, in the order of ``nodes``; none without such a join.

    ``ranges``: (low, high) by tensor; one without a range is not judged.
    """
    made = {name: node for node in nodes for name in node.outputs}
    kept: set[str] = set()
    for end in ends:
        path, leaves = _behind(end, made)
        if _cost_db([ranges[name] for name in leaves if name in ranges]) > LIMIT_DB:
            kept |= _after_joins(path, made)
    return tuple(node.name for node in nodes if node.name in kept)


def _behind(end: str, made: Mapping[str, GraphNode]) -> tuple[list[GraphNode], set[str]]:
    """Return the nodes that only move or join values before ``end``, and the tensors that they begin with."""
    path: dict[str, GraphNode] = {}
    leaves, waiting = set(), [end]
    while waiting:
        name = waiting.pop()
        node = made.get(name)
        if node is None or not node.moves:
            leaves.add(name)
        elif node.name not in path:
            path[node.name] = node
            waiting += list(node.inputs) if node.joins else list(node.inputs[:1])
    return list(path.values()), leaves


def _after_joins(path: Sequence[GraphNode], made: Mapping[str, GraphNode]) -> set[str]:
    """Return the names of the nodes of ``path`` that join, or move what was joined."""
    found = {node.name for node in path if node.joins}
    while more := {
        node.name
        for node in path
        if node.name not in found and any(made[name].name in found for name in node.inputs[:1] if name in made)
    }:
        found |= more
    return found


def _cost_db(ranges: Sequence[tuple[float, float]]) -> float:
    """Return what one scale for all ``ranges`` costs that with the least width; every range includes 0."""
    if not ranges:
        return 0.0
    widths = [max(high, 0.0) - min(low, 0.0) for low, high in ranges]
    widths = [width for width in widths if width > 0]
    whole = max(high for _, high in [*ranges, (0.0, 0.0)]) - min(low for low, _ in [*ranges, (0.0, 0.0)])
    return 20 * math.log10(whole / min(widths)) if widths else 0.0


def last_layers(nodes: Sequence[GraphNode], ends: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """Return those of the nodes ``layers``, by name, whose values reach ``ends`` without passing another."""
    return tuple(name for name in from_last_layers(nodes, ends, layers) if name in layers)


def from_last_layers(nodes: Sequence[GraphNode], ends: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """Return the names of ``last_layers`` and of all nodes between them and ``ends``."""
    made = {name: node for node in nodes for name in node.outputs}
    seen, waiting = set(), list(ends)
    while waiting:
        node = made.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.name not in layers:
            waiting += list(node.inputs)
    return tuple(node.name for node in nodes if node.name in seen)


def onnx_nodes(model: onnx.ModelProto) -> list[GraphNode]:
    """Return the nodes of ``model``, which have names."""
    return [
        GraphNode(
            name=node.name, joins=node.op_type == JOINING, moves=node.op_type in MOVING, inputs=list(node.input),
            outputs=list(node.output),
        )
        for node in model.graph.node
    ]  # fmt: skip


def of_onnx(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Return the names of the nodes of ``model`` to keep float."""
    return kept_float(onnx_nodes(model), [one.name for one in model.graph.output], ranges)
