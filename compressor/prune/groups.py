"""Channels that must be removed together, found by the dependency graph of ``torch-pruning``.

A residual add couples the outputs of all layers it adds; a depthwise convolution couples its outputs to its inputs. A
group is named after its root layer. Decides which groups may be narrowed; not by how much.
Source: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch_pruning as tp
from torch import nn

from compressor.errors import PruneError
from compressor.evaluating import evaluating

Shape: TypeAlias = tuple[int, int, int]
_ROOTS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that are removed together: ``layers`` are all whose outputs narrow, ``root`` is the first of them.

    ``members`` is torch-pruning's own group, for its importance estimators.
    """

    root: str
    layers: tuple[str, ...]
    channels: int
    members: Any


def find_groups(network: nn.Module, shape: Shape, protected: Collection[str] = ()) -> tuple[ChannelGroup, ...]:
    """Return the groups of ``network`` that may be narrowed; ``shape`` is (C, H, W) of its input.

    Excludes the layer that outputs the logits, groups with a ``protected`` layer, and groups that include a grouped
    convolution that is not depthwise.

    Raises:
        PruneError: If the layer that outputs the logits is not found, or nothing is left to prune.
    """
    kept = {*protected, output_layer(network, shape)}
    names = {module: name for name, module in network.named_modules()}
    graph = _graph(network, shape)
    ignored = [module for module, name in names.items() if name in kept]
    found = []
    for group in graph.get_all_groups(ignored_layers=ignored, root_module_types=_ROOTS):
        modules = [dependency.target.module for dependency, _ in group]
        convolutions = [one for one in modules if isinstance(one, nn.Conv2d) and one.groups > 1]
        if any(not one.groups == one.in_channels == one.out_channels for one in convolutions):
            continue
        layers = [
            names[dependency.target.module]
            for dependency, _ in group
            if isinstance(dependency.target.module, _ROOTS) and graph.is_out_channel_pruning_fn(dependency.handler)
        ]
        width, layers = len(group[0].idxs), list(dict.fromkeys(layers))
        found.append(ChannelGroup(root=layers[0], layers=tuple(layers), channels=width, members=group))
    if not found:
        message = f"Expected layers to prune, got none beside {', '.join(sorted(kept))}: drop the step prune"
        raise PruneError(message)
    return tuple(found)


def narrow(network: nn.Module, shape: Shape, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """Return ``network`` without the channels ``removed`` (by root layer), in place; module names stay.

    Raises:
        PruneError: If a group would lose its last channel.
    """
    graph, modules = _graph(network, shape), dict(network.named_modules())
    for root, channels in removed.items():
        if not channels:
            continue
        pruner = graph.get_pruner_of_module(modules[root])
        group = graph.get_pruning_group(modules[root], pruner.prune_out_channels, sorted(channels))
        if not graph.check_pruning_group(group):
            message = f"Expected {root!r} to keep a channel, got {len(channels)} to remove: lower max_layer_ratio"
            raise PruneError(message)
        group.prune()
    return network


def output_layer(network: nn.Module, shape: Shape) -> str:
    """Return the name of the ``Conv2d`` or ``Linear`` that outputs the logits; its outputs are the classes.

    Raises:
        PruneError: If another operation outputs them.
    """
    made: dict[int, str] = {}
    hooks = [
        module.register_forward_hook(lambda _module, _in, out, name=name: made.update({out.data_ptr(): name}))
        for name, module in network.named_modules()
        if isinstance(module, _ROOTS)
    ]
    try:
        with torch.no_grad(), evaluating(network):
            logits = network(torch.zeros(1, *shape))[0]
    finally:
        for hook in hooks:
            hook.remove()
    if logits.data_ptr() not in made:
        message = f"Expected logits straight from a Conv2d or Linear, got {type(network).__name__}'s: move what follows"
        raise PruneError(f"{message} it out of the network")
    return made[logits.data_ptr()]


def _graph(network: nn.Module, shape: Shape) -> Any:  # noqa: ANN401 - torch-pruning has no types
    with torch.enable_grad(), evaluating(network):  # the graph is traced through autograd
        return tp.DependencyGraph().build_dependency(network, example_inputs=torch.zeros(1, *shape))
