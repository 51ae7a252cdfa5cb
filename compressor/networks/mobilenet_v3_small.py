"""MobileNetV3-small of torchvision, with any width multiplier: hard-swish and squeeze-and-excitation blocks.

Int8 needs care here: hard-swish and the products of squeeze-and-excitation have no exact integer operator in every
runtime, so int8 may be slower than float32; measure before choosing it.
Source: Howard et al., Searching for MobileNetV3, 2019.
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.networks.mobilenet_v2 import import_torchvision_models

_MOMENTUM = 0.1
"""torchvision's 0.01 is for ImageNet: after 170 steps evaluation was at 10.5 % where training batches were at 99 %."""


class MobileNetV3Small(nn.Module):
    """torchvision's features, global mean, one linear layer."""

    def __init__(self, features: nn.Module, classes: int, embedding: int) -> None:
        """Make the layers, untrained."""
        super().__init__()
        self.features = features
        self.head = nn.Linear(embedding, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding) of ``x``, float32 (N, C, H, W)."""
        embedding = nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.head(embedding), embedding


def build(classes: int, channels: int, height: int, width: int, *, width_mult: float = 0.5) -> nn.Module:
    """Return a MobileNetV3-small; images below 64 pixels a side lose little when the stem keeps its stride."""
    del height, width
    whole = import_torchvision_models().mobilenet_v3_small(num_classes=classes, width_mult=width_mult)
    stem = whole.features[0][0]
    if channels != stem.in_channels:
        whole.features[0][0] = nn.Conv2d(channels, stem.out_channels, 3, stride=2, padding=1, bias=False)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
    return MobileNetV3Small(whole.features, classes, whole.classifier[0].in_features)
