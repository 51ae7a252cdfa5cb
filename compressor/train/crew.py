"""The processes that share one training: each takes its part of every batch, gradients are averaged.

A crew of one does nothing, and is what every training in this process has. ``distributed.py`` makes larger ones.
torch's own wrapper is left out on purpose: it demands that the loss reaches every parameter (an embedding's own
layers need not), and its buckets gain nothing where all gradients together are a few hundred kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from compressor.train.stopping import Score


@dataclass(frozen=True, slots=True)
class Crew:
    """This process is number ``rank`` (from 0) of ``size``; rank 0 leads: it tells, and writes files."""

    rank: int = 0
    size: int = 1

    def part(self, batches: torch.Tensor) -> torch.Tensor:
        """Return this process's rows of ``batches``, int64 (steps, batch); ``batch`` is a multiple of ``size``."""
        own = batches.shape[1] // self.size
        return batches[:, self.rank * own : (self.rank + 1) * own]

    def draws(self, generator: torch.Generator, seed: int, number: int) -> torch.Generator:
        """Return what augmentation draws from in epoch ``number``: in a crew of one, ``generator`` itself.

        In a larger one each process draws its own, from seed, epoch and rank alone, so that a resumed epoch draws
        what an uninterrupted one does.
        """
        if self.size == 1:
            return generator
        own = int(np.random.SeedSequence([seed, number, self.rank]).generate_state(1)[0])
        torch.manual_seed(own)
        return torch.Generator().manual_seed(own)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the crew."""
        if self.size > 1:
            self._average([parameter.grad for parameter in parameters if parameter.grad is not None])

    def average_buffers(self, network: nn.Module) -> None:
        """Replace the statistics of batch normalisation by their mean over the crew."""
        if self.size > 1:
            self._average([buffer for buffer in network.buffers() if buffer.is_floating_point()])

    def mean(self, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, ...]:
        """Return the means of ``values``, float64 (n, k), over rows and crew."""
        means = torch.from_numpy(np.mean(values, axis=0))
        if self.size > 1:
            self._average([means])
        return tuple(means.tolist())

    def agreed(self, score: Score) -> Score:
        """Return the leader's score: all must stop at the same epoch, or the others wait for ever."""
        if self.size == 1:
            return score
        values = torch.tensor([score.accuracy, score.negative_loss], dtype=torch.float64)
        dist.broadcast(values, 0)
        return Score(*values.tolist())

    def _average(self, tensors: list[torch.Tensor]) -> None:
        if not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))
