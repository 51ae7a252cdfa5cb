"""Accuracy that each layer costs when only it is narrowed, without fine-tuning.

Decides which layers a limit protects. Does not prune.
Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from compressor.prune.groups import find_groups, narrow
from compressor.prune.importance import channel_scores
from compressor.prune.judging import score
from compressor.steps._base import Bench

RATIOS = (0.25, 0.5, 0.75)
_PROTECT_AT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The cost of removing ``ratio`` of the channels of ``layer`` (and of ``layers``, coupled to it) alone.

    ``removed`` is the number of channels; ``drop_points`` the accuracy lost on the search split, in points (0..100),
    negative if it rose. For a regression a point is an error larger by a hundredth of the targets' standard deviation.
    """

    layer: str
    layers: tuple[str, ...]
    ratio: float
    removed: int
    drop_points: float


def measure_sensitivity(network: nn.Module, bench: Bench, importance: str = "magnitude") -> tuple[Sensitivity, ...]:
    """Return the sensitivity of each group of layers at a quarter, a half and three quarters of its channels.

    Args:
        network: Returns (logits, embedding) of float32 (N, C, H, W); not changed.
        bench: ``search`` to judge, ``train`` for the gradients of ``taylor``.
        importance: As in ``channel_scores``.

    Raises:
        PruneError: If there is nothing to prune or there are no rows to judge with.
    """
    _, channels, height, width = bench.train.inputs.shape
    shape = (channels, height, width)
    network = copy.deepcopy(network)
    before = 100 * score(network, bench.search)
    groups = find_groups(network, shape)
    scores = channel_scores(network, groups, importance, bench.train)
    found = []
    for group in groups:
        order = scores[group.root].argsort(kind="stable").tolist()
        for ratio in RATIOS:
            removed = min(round(group.channels * ratio), group.channels - 1)
            narrowed = narrow(copy.deepcopy(network), shape, {group.root: order[:removed]})
            drop_points = before - 100 * score(narrowed, bench.search)
            found.append(
                Sensitivity(
                    layer=group.root,
                    layers=group.layers,
                    ratio=ratio,
                    removed=removed,
                    drop_points=round(drop_points, 4),
                )
            )
    return tuple(found)


def sensitive_layers(measured: Iterable[Sensitivity], limit_points: float) -> frozenset[str]:
    """Return the root layers that lose more than ``limit_points`` (0..100) of accuracy with half of their channels."""
    return frozenset(one.layer for one in measured if one.ratio == _PROTECT_AT and one.drop_points > limit_points)
