"""A small network for sensor windows that keeps the position within the window: for forecasts and regression.

A mean over the window, as in the other networks, loses what came last. Here two convolutions are strided along time,
and one as large as the remaining map has its own weights for every position; then comes one linear layer.
"""

from __future__ import annotations

import torch
from torch import nn

_KERNEL, _STRIDE = (5, 3), (2, 1)
_PADDING = (2, 1)


class WindowCnn(nn.Module):
    """Two convolutions strided along time, one over the remaining map, one linear layer."""

    def __init__(self, outputs: int, channels: int, size: tuple[int, int], widths: tuple[int, int]) -> None:
        """Create the layers, untrained; ``widths`` are those of the convolutions and of the embedding."""
        super().__init__()
        filters, hidden = widths
        layers: list[nn.Module] = []
        height, width = size
        for given in (channels, filters):
            layers += [nn.Conv2d(given, filters, _KERNEL, stride=_STRIDE, padding=_PADDING, bias=False)]
            layers += [nn.BatchNorm2d(filters), nn.ReLU()]
            height = (height - 1) // _STRIDE[0] + 1
        layers += [nn.Conv2d(filters, hidden, (height, width), bias=False), nn.BatchNorm2d(hidden), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding) of ``x``, float32 (N, C, steps, width); the logits are a regression's values."""
        embedding = self.features(x).flatten(1)
        return self.head(embedding), embedding


def build(classes: int, channels: int, height: int, width: int, *, filters: int = 16, hidden: int = 32) -> nn.Module:
    """Return the network for windows of ``height`` steps; embedding of ``hidden``."""
    return WindowCnn(classes, channels, (height, width), (filters, hidden))
