"""How many channels to remove from each group so that the measured MACs meet a limit. Works on copies.

All channels are sorted by importance, least important first, and the first ``k`` are removed; each group keeps a
multiple of ``round_to`` and of its blocks, and at least what ``max_layer_ratio`` leaves of its original width. MACs
fall with ``k``, so bisection finds the smallest ``k`` that meets the limit; then groups get back, most important
channels first, what the limit still allows. MACs are counted in a forward pass on one input of zeros: convolutions,
linear and recurrent layers and attention, which do nearly all of the work of a small network; batch norms are folded at
export and activations multiply nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.errors import PruneError
from compressor.prune.groups import ChannelGroup, narrow
from compressor.prune.tracing import Shape, traceable

Counts = Mapping[str, int]
_COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.RNNBase, nn.MultiheadAttention)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Limits of a plan: ``macs`` at most, widths as multiples of ``round_to``.

    ``first_channels`` are the original widths by root layer: at most ``max_layer_ratio`` of them may be removed.
    """

    macs: int
    round_to: int
    max_layer_ratio: float
    first_channels: Mapping[str, int]

    def kept(self, group: ChannelGroup, wanted: int) -> int:
        """Return the smallest allowed width of ``group`` that is at least ``wanted`` channels."""
        first = self.first_channels.get(group.root, group.channels)
        least = max(wanted, 1, math.ceil(first * (1 - self.max_layer_ratio) - 1e-9))
        step = group.step(self.round_to)
        return min(group.channels, math.ceil(least / step) * step)


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """The removable channels of all groups: root layers in the order in which their channels are removed."""

    roots: tuple[str, ...]
    orders: Mapping[str, list[int]]
    scores: Mapping[str, NDArray[np.float64]]


def plan(
    network: nn.Module,
    shape: Shape,
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, NDArray[np.float64]],
    limits: PlanLimits,
) -> dict[str, list[int]]:
    """Return the channels to remove by root layer so that ``network`` has at most ``limits.macs``.

    Args:
        network: Returns (logits, embedding); not changed.
        shape: (C, H, W) of its input.
        groups: The groups that may be narrowed.
        scores: Importance of each channel, (channels,), by root layer.
        limits: Limits of the plan.

    Raises:
        PruneError: If the limit can't be met.
    """
    row = _row(groups, scores, limits)
    by_root = {group.root: group for group in groups}

    def removed(counts: Counts) -> dict[str, list[int]]:
        return {root: row.orders[root][:count] for root, count in counts.items()}

    def macs(counts: Counts) -> int:
        return count_macs(narrow(copy.deepcopy(network), shape, removed(counts)), *shape)

    k = _bisect(lambda k: macs(_counts(row.roots[:k], by_root, limits)), len(row.roots), limits.macs)
    counts = _counts(row.roots[:k], by_root, limits)
    return removed(_take_back(counts, by_root, row, limits, macs))


def _row(groups: Sequence[ChannelGroup], scores: Mapping[str, NDArray[np.float64]], limits: PlanLimits) -> _Row:
    orders = {group.root: group.order(scores[group.root]) for group in groups}
    entries = [
        (float(scores[group.root][channel]), number, group.root)
        for number, group in enumerate(groups)
        for channel in orders[group.root][: group.channels - limits.kept(group, 0)]
    ]
    return _Row(tuple(root for _, _, root in sorted(entries)), orders, scores)


def _counts(gone: Sequence[str], by_root: Mapping[str, ChannelGroup], limits: PlanLimits) -> dict[str, int]:
    raw = dict.fromkeys(by_root, 0)
    for root in gone:
        raw[root] += 1
    return {root: group.channels - limits.kept(group, group.channels - raw[root]) for root, group in by_root.items()}


def _bisect(macs_of: Callable[[int], int], most: int, limit: int) -> int:
    """Return the smallest ``k`` with ``macs_of(k) <= limit``; ``macs_of`` never increases."""
    least_macs = macs_of(most)
    if least_macs > limit:
        message = f"Expected at most {limit} MACs, got {least_macs} at the narrowest allowed: raise macs_ratio, "
        raise PruneError(f"{message}max_layer_ratio or protect_sensitive, or lower round_to")
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if macs_of(middle) <= limit else (middle + 1, high)
    return high


def _take_back(
    counts: Counts, by_root: Mapping[str, ChannelGroup], row: _Row, limits: PlanLimits, macs: Callable[[Counts], int]
) -> Counts:
    """Return ``counts`` reduced by what fits under the limit; a group stops when its next step does not fit."""
    best, waiting = dict(counts), {root for root, count in counts.items() if count}
    while waiting:
        root = max(sorted(waiting), key=lambda name: row.scores[name][row.orders[name][best[name] - 1]])
        group = by_root[root]
        kept = limits.kept(group, group.channels - best[root] + 1)
        tried = {**best, root: group.channels - kept}
        fits = macs(tried) <= limits.macs
        best = tried if fits else best
        if not fits or not best[root]:
            waiting.discard(root)
    return best


def layer_macs(network: nn.Module, channels: int, height: int, width: int) -> dict[str, int]:
    """Return the MACs of each layer by its name, for one input (1, channels, height, width).

    Layers: ``Conv2d``, ``ConvTranspose2d``, ``Linear``, recurrent layers and ``MultiheadAttention``. A layer that runs
    twice counts twice; one that does not run is missing. The network is not changed.
    """
    counted: dict[str, int] = {}
    layers = {name: module for name, module in network.named_modules() if isinstance(module, _COUNTED)}

    def count(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ANN401 - of any layer
        counted[name] = counted.get(name, 0) + _macs(module, (*args, *kwargs.values()), output)

    hooks = [module.register_forward_hook(partial(count, name), with_kwargs=True) for name, module in layers.items()]
    try:
        with torch.no_grad(), traceable(network):
            network(torch.zeros(1, channels, height, width))
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def _macs(module: Any, inputs: Any, output: Any) -> int:  # noqa: ANN401 - of any layer
    if isinstance(module, nn.MultiheadAttention):  # projections; then each query with each key, and each value
        query, keys = inputs[0], inputs[1].shape[1 if module.batch_first else 0]
        projections = sum(weight.numel() for name, weight in module.named_parameters() if "weight" in name)
        return int(query.numel() // module.embed_dim * projections + 2 * query.numel() * keys)
    if isinstance(module, nn.RNNBase):
        steps = inputs[0].numel() // module.input_size
        return int(steps * sum(weight.numel() for name, weight in module.named_parameters() if "weight" in name))
    moved = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
    return int(moved.numel() * module.weight[0].numel())


def count_macs(network: nn.Module, channels: int, height: int, width: int) -> int:
    """Return the MACs of ``network`` for one input of shape (1, channels, height, width)."""
    return sum(layer_macs(network, channels, height, width).values())


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained values: parameters, not the statistics of batch norms."""
    return sum(parameter.numel() for parameter in network.parameters())
