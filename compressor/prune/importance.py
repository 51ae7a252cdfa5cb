"""Importance of channels: by the size of their weights, by their effect on the loss, or by their batch norms.

Scores of one group are divided by their mean, so that groups are comparable. Decides the order, not how many are
removed.
Sources: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (magnitude); Molchanov et al., Importance
Estimation for Neural Network Pruning, CVPR 2019, equation 8 (taylor); Liu et al., Network Slimming, ICCV 2017
(bn_scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn

from compressor.errors import PruneError
from compressor.evaluating import evaluating
from compressor.portions import row_bytes, rows_within
from compressor.prune.groups import ChannelGroup
from compressor.steps._base import Rows

_BATCH, _MAX_ROWS = 64, 1024
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
    found = {group.root: estimate(group.members) for group in groups}
    network.zero_grad(set_to_none=True)
    if all(score is None for score in found.values()):
        raise PruneError("Expected batch norms for importance 'bn_scale', got none: use 'magnitude'")
    magnitude = _ESTIMATORS["magnitude"]()
    return {group.root: _finite(found[group.root], group, magnitude) for group in groups}


def _finite(score: torch.Tensor | None, group: ChannelGroup, magnitude: Any) -> NDArray[np.float64]:  # noqa: ANN401
    given = magnitude(group.members) if score is None else score
    array = np.asarray(given.detach(), dtype=np.float64)
    return np.nan_to_num(array, nan=0.0)  # a group of zeros has no mean to divide by


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
            logits = network(torch.from_numpy(rows.inputs[batch]))[0]
            labels = torch.from_numpy(rows.labels[batch])
            loss = training.loss_sum(logits, labels) / len(drawn)
            loss.backward()  # type: ignore[no-untyped-call]
