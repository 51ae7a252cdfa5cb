"""Importance of channels: by the size of their weights, by their effect on the loss, or by their batch norms.

Scores of one group are divided by their mean, so that groups are comparable. The sensitivity of a layer is the accuracy
that it costs when only it is narrowed, without fine-tuning. Decides the order and which layers a limit protects, not
how many channels are removed.
Sources: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (magnitude); Molchanov et al., Importance
Estimation for Neural Network Pruning, CVPR 2019, equation 8 (taylor); Liu et al., Network Slimming, ICCV 2017
(bn_scale). Li et al., section 3.2 (sensitivity).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn

from compressor import tasks
from compressor.errors import PruneError
from compressor.evaluating import evaluating
from compressor.portions import row_bytes, rows_within
from compressor.prune.groups import ChannelGroup, narrow
from compressor.prune.judging import score as score_on
from compressor.prune.soundness import sound_groups
from compressor.steps._base import Bench, Rows

_BATCH, _MAX_ROWS = 64, 1024
RATIOS = (0.25, 0.5, 0.75)
_PROTECT_AT = 0.5
_ESTIMATORS = {
    "magnitude": tp.importance.GroupMagnitudeImportance,
    "taylor": tp.importance.GroupTaylorImportance,
    "bn_scale": tp.importance.BNScaleImportance,
}


def channel_scores(
    network: nn.Module, groups: Sequence[ChannelGroup], importance: str, rows: Rows
) -> dict[str, NDArray[np.float64]]:
    """Return the score of each channel, (channels,), by root layer; the smallest is removed first.

    Args:
        network: The network in which ``groups`` were found; its gradients are cleared.
        groups: The groups to score.
        importance: ``magnitude``, ``taylor`` (needs ``rows``) or ``bn_scale`` (groups without a batch norm are
            scored by magnitude).
        rows: Training rows, float32 (N, C, H, W) and int64 (N,), or numbers float32 (N, D); 1,024 of them, drawn by
            a fixed seed, give the gradients for ``taylor``: of the cross entropy, or of the squared error.

    Raises:
        PruneError: If the importance is unknown, ``taylor`` has no rows, or no group has a batch norm.
    """
    if importance not in _ESTIMATORS:
        message = f"Expected importance {' or '.join(_ESTIMATORS)}, got {importance!r}"
        raise PruneError(message)
    if importance == "taylor":
        _gradients(network, rows)
    estimate = _ESTIMATORS[importance]()
    found = {group.root: _estimated(estimate, group) for group in groups}
    network.zero_grad(set_to_none=True)
    if groups and all(score is None for score in found.values()):
        raise PruneError("Expected batch norms for importance 'bn_scale', got none: use 'magnitude'")
    magnitude = _ESTIMATORS["magnitude"]()
    scores = {}
    for group in groups:
        score = found[group.root]
        given = _estimated(magnitude, group) if score is None else score
        array = np.ones(group.channels) if given is None else np.asarray(given.detach(), dtype=np.float64)
        scores[group.root] = np.nan_to_num(array, nan=0.0)  # a group of zeros has no mean to divide by
    return scores


def _estimated(estimate: Callable[[Any], torch.Tensor | None], group: ChannelGroup) -> torch.Tensor | None:
    try:
        return estimate(group.members)
    except (IndexError, RuntimeError) as error:  # it takes weights by the group's indices
        message = f"Expected an importance for each channel of {', '.join(group.layers)}, got {error}"
        raise PruneError(f"{message}: use another importance, or drop the step prune") from error


def _gradients(network: nn.Module, rows: Rows) -> None:
    if not len(rows):
        raise PruneError("Expected training rows for importance 'taylor', got none: use 'magnitude'")
    network.zero_grad(set_to_none=True)
    training = rows.of_task.training
    drawn = np.random.default_rng(0).permutation(len(rows))[:_MAX_ROWS]
    with torch.enable_grad(), evaluating(network):
        size = rows_within(row_bytes(rows.inputs), most=_BATCH)
        for start in range(0, len(drawn), size):
            batch = drawn[start : start + size]
            inputs = torch.from_numpy(rows.inputs[batch])
            logits = network(inputs)[0]
            wanted = tasks.aims(rows.of_task, inputs, torch.from_numpy(rows.labels[batch]), logits)
            loss = training.loss_sum(logits, wanted) / len(drawn)
            loss.backward()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSensitivity:
    """The cost of removing ``ratio`` of the channels of ``layer`` (and of ``layers``, coupled to it) alone.

    ``removed`` is the number of channels; ``drop_points`` the accuracy lost on the search split, in points (0..100),
    negative if it rose. For a regression a point is an error larger by a hundredth of the targets' standard deviation.
    """

    layer: str
    layers: tuple[str, ...]
    ratio: float
    removed: int
    drop_points: float


def measure_sensitivity(
    network: nn.Module, bench: Bench, importance: str = "magnitude"
) -> tuple[ChannelSensitivity, ...]:
    """Return the sensitivity of each group of layers at a quarter, a half and three quarters of its channels.

    Args:
        network: Returns (logits, embedding) of float32 (N, C, H, W); not changed.
        bench: ``search`` to judge, ``train`` for the gradients of ``taylor``.
        importance: As in ``channel_scores``.

    Raises:
        PruneError: If no channels can be followed or there are no rows to judge with.
    """
    _, channels, height, width = bench.train.inputs.shape
    shape = (channels, height, width)
    network = copy.deepcopy(network)
    before = 100 * score_on(network, bench.search)
    groups = sound_groups(network, shape).groups
    scores = channel_scores(network, groups, importance, bench.train)
    found = []
    for group in groups:
        order = group.order(scores[group.root])
        for ratio in RATIOS:
            removed = min(round(len(group.blocks) * ratio), len(group.blocks) - 1) * group.block
            narrowed = narrow(copy.deepcopy(network), shape, {group.root: order[:removed]})
            drop_points = before - 100 * score_on(narrowed, bench.search)
            found.append(
                ChannelSensitivity(
                    layer=group.root,
                    layers=group.layers,
                    ratio=ratio,
                    removed=removed,
                    drop_points=round(drop_points, 4),
                )
            )
    return tuple(found)


def sensitive_layers(measured: Iterable[ChannelSensitivity], limit_points: float) -> frozenset[str]:
    """Return the root layers that lose more than ``limit_points`` (0..100) of accuracy with half of their channels."""
    return frozenset(one.layer for one in measured if one.ratio == _PROTECT_AT and one.drop_points > limit_points)
