"""Accuracy or error of a pruned network, and its fine-tuning, for channels and masks.

Decides how accuracy (for a regression the error) is computed and how a pruned network is fine-tuned. Does not decide
what is pruned.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compressor import tasks
from compressor.errors import PruneError
from compressor.evaluating import evaluating
from compressor.portions import portions
from compressor.steps._base import Bench, Rows
from compressor.train.supervised import Options, fit_with

_MOST_ROWS = 256


def score(network: nn.Module, rows: Rows) -> float:
    """Return the score of ``network`` on ``rows``, in evaluation mode: accuracy 0..1, or its negated error.

    Args:
        network: Returns (logits (N, outputs), embedding) of float32 (N, C, H, W); left in evaluation mode.
        rows: Inputs float32 (N, C, H, W) and labels of their task; errors are in standard deviations.

    Raises:
        PruneError: If there are no rows to judge with.
    """
    if not len(rows):
        raise PruneError("Expected rows in the search split to judge pruning with, got none: raise its share in [data]")
    found, start = 0.0, 0
    with torch.no_grad(), evaluating(network):
        for x in map(torch.from_numpy, portions(rows.inputs, most=_MOST_ROWS)):
            said, labels = network(x)[0], torch.from_numpy(rows.labels[start : start + len(x)])
            found += rows.of_task.training.goodness(said, tasks.aims(rows.of_task, x, labels, said))
            start += len(x)
    return found / len(rows)


def judged(network: nn.Module, rows: Rows, name: str) -> dict[str, float]:
    """Return the score on ``rows`` as a note; ``{}`` in ``name`` is replaced by what is measured.

    Raises:
        PruneError: If there are no rows to judge with.
    """
    return {name.format(rows.of_task.measure): abs(score(network, rows))}


def fine_tune(network: nn.Module, bench: Bench, epochs: int) -> nn.Module:
    """Return ``network`` fine-tuned for ``epochs`` on ``bench.train``, at ``fine_tune_learning_rate``; in place.

    With 0 epochs nothing changes.

    Raises:
        TrainError: If there are too few rows, or the loss is not finite.
    """
    if not epochs:
        return network.eval()
    settings = replace(bench.settings, epochs=epochs, learning_rate=bench.settings.fine_tune_learning_rate)
    options = Options(
        on_epoch=lambda epoch: bench.tell(f"fine-tuning, epoch {epoch.number} of {epoch.of}"),
        held=bench.search if settings.early_stopping else None,
    )
    return fit_with(network, bench.train, settings, options)
