"""What the loss of a task must offer beside itself: the teacher's share of it, and what its mean is divided by."""

from __future__ import annotations

import torch
from torch import nn


class TaskLoss(nn.Module):
    """Called with (x, (outputs, embedding), targets), returns the mean loss; its parameters are trained and dropped."""

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return ``weight`` times the mean loss of ``outputs`` against a teacher's, ``wanted``, both (N, D)."""
        raise NotImplementedError

    def mass(self, targets: torch.Tensor) -> float:
        """Return what the mean over ``targets``, as the rows have them, is divided by."""
        return float(len(targets))
