"""Interface of a task's loss: the loss itself, the teacher's part, and the divisor of its mean."""

from __future__ import annotations

import torch
from torch import nn


class TaskLoss(nn.Module):
    """Called with (x, (outputs, embedding), targets), returns the mean loss; its parameters are trained and dropped."""

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return ``weight`` times the mean loss of ``outputs`` against a teacher's, ``wanted``, both (N, D)."""
        raise NotImplementedError

    def mass(self, targets: torch.Tensor) -> float:
        """Return the divisor of the mean over ``targets``, in the form of the rows."""
        return float(len(targets))
