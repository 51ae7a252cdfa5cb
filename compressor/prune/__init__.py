"""Pruning: fewer channels (``structured``) or more zeros (``masks``). Here: how both judge and fine-tune.

Decides how accuracy is taken and how a pruned network is trained on. Does not decide what is pruned.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compressor.errors import PruneError
from compressor.steps.base import Bench, Rows
from compressor.train.supervised import fit

_BATCH = 256


def accuracy(network: nn.Module, rows: Rows) -> float:
    """Return the share (0..1) of ``rows`` that ``network`` gets right, in evaluation mode.

    Args:
        network: Returns (logits (N, classes), embedding) of float32 (N, C, H, W); left in evaluation mode.
        rows: Inputs float32 (N, C, H, W) and labels int64 (N,).

    Raises:
        PruneError: If there are no rows to judge with.
    """
    if not len(rows):
        raise PruneError("Expected rows in the search split to judge pruning with, got none: raise its share in [data]")
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(rows), _BATCH):
            logits = network(torch.from_numpy(rows.inputs[start : start + _BATCH]))[0]
            right += int((logits.argmax(1) == torch.from_numpy(rows.labels[start : start + _BATCH])).sum())
    return right / len(rows)


def fine_tune(network: nn.Module, bench: Bench, epochs: int) -> nn.Module:
    """Return ``network`` trained on for ``epochs`` on ``bench.train``, at ``fine_tune_learning_rate``; in place.

    No epochs, no change.

    Raises:
        TrainError: If there are too few rows, or the loss is not finite.
    """
    if not epochs:
        return network.eval()
    settings = replace(bench.settings, epochs=epochs, learning_rate=bench.settings.fine_tune_learning_rate)
    return fit(
        network,
        bench.train.inputs,
        bench.train.labels,
        settings,
        on_epoch=lambda epoch: bench.tell(f"fine-tuning, epoch {epoch.number} of {epoch.of}"),
    )
