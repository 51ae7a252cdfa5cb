"""MobileNetV2 of torchvision, with any width multiplier.

Source: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.
"""

from __future__ import annotations

import torch
from torch import nn


class MobileNet(nn.Module):
    """torchvision's features, global mean, one linear layer."""

    def __init__(self, features: nn.Module, classes: int, embedding: int) -> None:
        """Create the layers, untrained."""
        super().__init__()
        self.features = features
        self.head = nn.Linear(embedding, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding) of ``x``, float32 (N, C, H, W)."""
        embedding = nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.head(embedding), embedding


def fit_stem(features: nn.Module, channels: int) -> None:
    """Replace the first convolution of torchvision's ``features`` by one for ``channels`` if the number differs."""
    stem = features[0][0]  # type: ignore[index]
    if channels != stem.in_channels:
        features[0][0] = nn.Conv2d(channels, stem.out_channels, 3, stride=2, padding=1, bias=False)  # type: ignore[index]


def build(classes: int, channels: int, height: int, width: int, *, width_mult: float = 0.35) -> nn.Module:
    """Return a MobileNetV2; on images below 64 pixels a side keeping the stem's stride costs little accuracy."""
    del height, width
    from torchvision import models  # noqa: PLC0415 - 82 MB that other networks do not need

    whole = models.mobilenet_v2(num_classes=classes, width_mult=width_mult)
    fit_stem(whole.features, channels)
    return MobileNet(whole.features, classes, whole.last_channel)
