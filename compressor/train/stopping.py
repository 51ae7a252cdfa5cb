"""Early stopping: which epoch's weights to keep, and when to stop. Evaluates on held rows only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from compressor.evaluating import evaluating
from compressor.portions import rows_within
from compressor.train.averaging import State, copied
from compressor.train.batches.samples import Samples

_MOST_ROWS = 256


@dataclass(frozen=True, slots=True, order=True)
class Score:
    """Score of weights on the held rows; ordered by accuracy, equal ones by smaller loss.

    For a regression ``accuracy`` is the negated mean absolute error, in standard deviations of the targets.
    """

    accuracy: float
    negative_loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The best weights so far, their score, and the number of epochs since then."""

    score: Score | None = None
    state: State | None = None
    stale: int = 0

    def after(self, score: Score, state: State) -> Best:
        """Return the best after ``state`` scored ``score``; a tie is no improvement. The best ``state`` is copied."""
        if self.score is None or score > self.score:
            return Best(score, copied(state))
        return Best(self.score, self.state, self.stale + 1)


def score(network: nn.Module, state: State, held: Samples) -> Score:
    """Return the score of ``network`` with the weights ``state`` on ``held``; the network keeps its own weights."""
    right, loss = 0.0, 0.0
    with torch.no_grad(), evaluating(network):
        size = rows_within(held.x[:1].nbytes, most=_MOST_ROWS)
        for x, y in zip(torch.split(held.x, size), torch.split(held.y, size), strict=True):
            logits = torch.func.functional_call(network, state, (x,))[0]
            loss += float(held.task.training.loss_sum(logits, y))
            right += held.task.training.goodness(logits, y)
    return Score(right / len(held), -loss / len(held))
