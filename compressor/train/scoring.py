"""The score of a network on held rows, by which trainings compare epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from compressor import tasks
from compressor.evaluating import evaluating
from compressor.portions import rows_within
from compressor.tasks import Task
from compressor.train.lazy_tensor import LazyTensor

_MOST_ROWS = 256


@dataclass(frozen=True, slots=True, order=True)
class Score:
    """Score of weights on held rows; ordered by accuracy, equal ones by smaller loss.

    For a regression ``accuracy`` is the negated mean absolute error, in standard deviations of the targets.
    """

    accuracy: float
    negative_loss: float


def score(
    network: nn.Module,
    x: torch.Tensor | LazyTensor,
    y: torch.Tensor,
    task: Task,
    state: Mapping[str, torch.Tensor] | None = None,
) -> Score:
    """Return the score of ``network``, which returns (logits, ...), on rows with the labels ``y`` of ``task``.

    ``x``: float32, (N, C, H, W). ``state``: weights to use instead of the network's own, which stay.
    """
    right, loss = 0.0, 0.0
    with torch.no_grad(), evaluating(network):
        size = rows_within(x[:1].nbytes, most=_MOST_ROWS)
        for start, labels in zip(range(0, len(y), size), torch.split(y, size), strict=True):
            inputs = x[start : start + size]
            logits = torch.func.functional_call(network, dict(state or {}), (inputs,))[0]
            wanted = tasks.aims(task, inputs, labels, logits)
            loss += float(task.training.loss_sum(logits, wanted))
            right += task.training.goodness(logits, wanted)
    return Score(right / len(y), -loss / len(y))
