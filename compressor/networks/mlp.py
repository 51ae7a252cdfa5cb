"""A multi-layer perceptron for rows of features: each number of the input has weights of its own.

The layers are convolutions as large as their input, which compute the same as linear ones: the steps that prune,
quantize and simulate convolutions with batch normalisation then apply as to the other networks.
"""

from __future__ import annotations

import torch
from torch import nn


class Mlp(nn.Module):
    """Two hidden layers with batch normalisation and ReLU, then one linear layer."""

    def __init__(self, outputs: int, channels: int, size: tuple[int, int], widths: tuple[int, int]) -> None:
        """Create the layers, untrained; ``widths`` are those of the hidden layers, the last one of the embedding."""
        super().__init__()
        first, second = widths
        self.features = nn.Sequential(
            nn.Conv2d(channels, first, size, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
            nn.Conv2d(first, second, 1, bias=False), nn.BatchNorm2d(second), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(second, outputs)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding) of ``x``, float32 (N, C, H, W); the logits are a regression's values."""
        embedding = self.features(x).flatten(1)
        return self.head(embedding), embedding


def build(classes: int, channels: int, height: int, width: int, *, hidden: int = 64, embedding: int = 32) -> nn.Module:
    """Return the network for ``height`` x ``width`` numbers a channel; ``hidden`` and ``embedding``: units."""
    return Mlp(classes, channels, (height, width), (hidden, embedding))
