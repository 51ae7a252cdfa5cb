"""Channels that must be removed together, found by the dependency graph of ``torch-pruning``.

A residual add couples the outputs of all layers it adds; a depthwise convolution couples its outputs to its inputs; a
grouped convolution or group norm loses whole groups. A group is named after its root layer. Decides which groups may be
narrowed and what must go together, by the graph alone (``soundness`` tries it); not by how much.
Source: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.errors import PruneError
from compressor.prune.tracing import Shape, fault_of, graph_of, group_of, in_groups, traceable

_ROOTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that are removed together: ``layers`` are all whose outputs narrow, ``root`` is the first of them.

    ``blocks``: the channels of the root, in parts of one size that only go as a whole; single channels, unless a
    grouped layer is in the group. ``members`` is torch-pruning's own group, for its importance estimators.
    """

    root: str
    layers: tuple[str, ...]
    channels: int
    blocks: tuple[tuple[int, ...], ...]
    members: Any

    @property
    def block(self) -> int:
        """The number of channels of a block."""
        return len(self.blocks[0])

    def step(self, round_to: int) -> int:
        """Return the number that widths must be multiples of, so that blocks stay whole and ``round_to`` is kept."""
        return math.lcm(self.block, round_to)

    def order(self, scores: NDArray[np.float64]) -> list[int]:
        """Return all channels, those of the block with the smallest mean of ``scores``, (channels,), first."""
        by_mean = sorted(range(len(self.blocks)), key=lambda number: float(scores[list(self.blocks[number])].mean()))
        return [channel for number in by_mean for channel in self.blocks[number]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGroups:
    """The ``groups`` that may be narrowed, and why others are left alone, by their layers."""

    groups: tuple[ChannelGroup, ...]
    left_alone: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    def reasons(self) -> str:
        """Return what is left alone and why as one line, layers with the same reason together; "" for nothing."""
        by_reason: dict[str, list[str]] = {}
        for layers, why in self.left_alone.items():
            by_reason.setdefault(why, []).extend(layers)
        return "; ".join(f"{_named(layers)}: {why}" for why, layers in by_reason.items())


def _named(layers: Sequence[str]) -> str:
    more = len(layers) - _NAMES_SHOWN
    return ", ".join(layers[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def find_groups(network: nn.Module, shape: Shape, protected: Collection[str] = ()) -> FoundGroups:
    """Return the groups of ``network`` that may be narrowed; ``shape`` is (C, H, W) of its input.

    Excludes the layer that outputs the logits and groups with a ``protected`` layer. Groups whose channels can't be
    followed are left alone, with the reason.

    Raises:
        PruneError: If no channels of the network can be followed.
    """
    kept = {*protected, output_layer(network, shape)}
    names = {module: name for name, module in network.named_modules()}
    found: list[ChannelGroup] = []
    left: dict[tuple[str, ...], str] = {}
    seen: set[nn.Module] = set()
    with traceable(network):
        graph = graph_of(network, shape)
        for root in [module for module in graph.module2node if isinstance(module, _ROOTS)]:
            if names[root] in kept or root in seen:
                continue
            try:
                members = group_of(graph, root, range(graph.get_out_channels(root)))
            except PruneError as error:
                left[names[root],] = str(error)
                continue
            narrowed = [one.target.module for one, _ in members if graph.is_out_channel_pruning_fn(one.handler)]
            seen.update(narrowed)
            layers = tuple(dict.fromkeys(names[module] for module in narrowed if isinstance(module, _ROOTS)))
            if kept.intersection(layers):
                continue
            channels = len(members[0].idxs)
            try:
                blocks = _blocks(members, names)
            except PruneError as error:
                left[layers] = str(error)
                continue
            found.append(ChannelGroup(root=layers[0], layers=layers, channels=channels, blocks=blocks, members=members))
    return FoundGroups(groups=tuple(found), left_alone=left)


def _blocks(members: Any, names: dict[nn.Module, str]) -> tuple[tuple[int, ...], ...]:  # noqa: ANN401 - no types
    """Return the root's channels that can only go together: those whose channels share a group of a grouped layer.

    Raises:
        PruneError: If the group can't be narrowed.
    """
    together = {channel: {channel} for channel in members[0].idxs}
    for item in members.items:
        node = item.dep.target
        if fault := fault_of(node, names):
            raise PruneError(fault)
        size = in_groups(node.module) if isinstance(node.module, nn.Module) else 0
        if not size:
            continue
        if None in item.root_idxs:
            raise PruneError("torch-pruning can't follow its channels")
        shared: dict[int, dict[int, int]] = {}
        for channel, root in zip(item.idxs, item.root_idxs, strict=True):
            shared.setdefault(channel // size, {})[channel] = root
        if any(len(part) < size for part in shared.values()):
            message = f"it feeds a part of a group of {names[node.module]}, whose groups have {size} channels"
            raise PruneError(message)
        for part in shared.values():
            joined = set().union(*(together[root] for root in part.values()))
            together.update(dict.fromkeys(joined, joined))
    blocks = tuple(sorted({tuple(sorted(one)) for one in together.values()}))
    if len({len(block) for block in blocks}) > 1:
        raise PruneError("its grouped layers have groups of different sizes")
    if len(blocks) == 1:
        raise PruneError("it has one channel" if len(together) == 1 else "all its channels can only go together")
    return blocks


def narrow(network: nn.Module, shape: Shape, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """Return ``network`` without the channels ``removed`` (by root layer), in place; module names stay.

    Raises:
        PruneError: If a group would lose its last channel.
    """
    with traceable(network):
        graph, modules = graph_of(network, shape), dict(network.named_modules())
        for root, channels in removed.items():
            if not channels:
                continue
            group = group_of(graph, modules[root], channels)
            if not graph.check_pruning_group(group):
                message = f"Expected {root!r} to keep a channel, got {len(channels)} to remove: lower max_layer_ratio"
                raise PruneError(message)
            group.prune()
    return network


def output_layer(network: nn.Module, shape: Shape) -> str:
    """Return the name of the layer that outputs the logits, whose outputs are the classes.

    Empty if another operation outputs them: ``soundness`` then finds by trial which groups would lose classes.
    """
    made: dict[str, torch.Tensor] = {}  # held until the end, so that no other tensor gets their memory
    hooks = [
        module.register_forward_hook(lambda _module, _in, out, name=name: made.update({name: out}))
        for name, module in network.named_modules()
        if isinstance(module, _ROOTS)
    ]
    try:
        with torch.no_grad(), traceable(network):
            logits = network(torch.zeros(1, *shape))[0]
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for name, out in made.items() if out.data_ptr() == logits.data_ptr()), "")
