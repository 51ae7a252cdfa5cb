"""ResNet8, the image classification network of MLPerf Tiny.

``filters`` scales all three stages (16 is the original). ``stem_stride`` 2 quarters the work for inputs that are larger
than their content needs.
Source: Banbury et al., MLPerf Tiny Benchmark, 2021 (``resnet_v1_eembc``); He et al., Deep Residual
Learning for Image Recognition, 2015.
"""

from __future__ import annotations

import torch
from torch import nn


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    """Stem, three residual blocks, global mean, one linear layer."""

    def __init__(self, classes: int, channels: int, filters: int, stem_stride: int) -> None:
        """Create the layers, untrained."""
        super().__init__()
        self.stem = nn.Conv2d(channels, filters, 3, stride=stem_stride, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(filters)
        self.blocks = nn.Sequential(
            _Block(filters, filters, 1), _Block(filters, 2 * filters, 2), _Block(2 * filters, 4 * filters, 2)
        )
        self.head = nn.Linear(4 * filters, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding) of ``x``, float32 (N, C, H, W)."""
        x = torch.relu(self.stem_norm(self.stem(x)))
        embedding = nn.functional.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1)
        return self.head(embedding), embedding


def build(
    classes: int, channels: int, height: int, width: int, *, filters: int = 16, stem_stride: int = 1
) -> nn.Module:
    """Return a ResNet8 for any height and width; embedding of 4 x ``filters``."""
    del height, width
    return ResNet8(classes, channels, filters, stem_stride)
