"""Which rows of a batch a process has, and the weight of its loss."""

from __future__ import annotations

import pytest
import torch

from compressor.tasks.classification.training import CrossEntropy
from compressor.train.loop import share_of
from compressor.train.processes.world import World


@pytest.mark.parametrize(("rows", "size"), [(16, 1), (16, 3), (17, 2), (7, 3)])
def test_every_row_is_of_one_process_and_parts_differ_by_one(rows: int, size: int) -> None:
    """No row is left out or counted twice."""
    parts = [list(range(rows))[World(rank, size).part(rows)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 5.0, 0.5])])
@pytest.mark.parametrize("mixed", [False, True])
def test_parts_add_up_to_the_loss_of_the_batch(weights: torch.Tensor | None, mixed: bool) -> None:  # noqa: FBT001 - a parameter
    """With weights of classes, smoothing, mixed labels and uneven parts."""
    torch.manual_seed(0)
    logits, labels, loss = torch.randn(11, 3), torch.arange(11) % 3, CrossEntropy(0.1, weights)
    targets = torch.nn.functional.one_hot(labels, 3).float().roll(1, 0) if mixed else labels
    whole = loss(logits, (logits, logits), targets)
    parts = [World(rank, 3).part(11) for rank in range(3)]
    shares = [share_of(loss, targets[part], labels) for part in parts]
    losses = [loss(logits, (logits[part], logits), targets[part]) for part in parts]
    assert sum(shares) == pytest.approx(1)
    assert float(sum(share * one for share, one in zip(shares, losses, strict=True))) == pytest.approx(float(whole))
