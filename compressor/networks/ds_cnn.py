"""DS-CNN, the keyword spotting network of MLPerf Tiny: depthwise separable convolutions.

Source: Zhang et al., Hello Edge: Keyword Spotting on Microcontrollers, 2017; Banbury et al., MLPerf
Tiny Benchmark, 2021. ``filters`` is the width of all layers (64 is the original).
"""

from __future__ import annotations

import torch
from torch import nn


def _norm_relu(filters: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(filters), nn.ReLU())


class DsCnn(nn.Module):
    """A strided stem, four depthwise separable blocks, global mean, one linear layer."""

    def __init__(self, classes: int, channels: int, filters: int) -> None:
        """Create the layers, untrained."""
        super().__init__()
        stem = [nn.Conv2d(channels, filters, (5, 4), stride=2, padding=(2, 1), bias=False), _norm_relu(filters)]
        blocks: list[nn.Module] = []
        for _ in range(4):
            blocks += [nn.Conv2d(filters, filters, 3, padding=1, groups=filters, bias=False), _norm_relu(filters)]
            blocks += [nn.Conv2d(filters, filters, 1, bias=False), _norm_relu(filters)]
        self.features = nn.Sequential(*stem, *blocks)
        self.head = nn.Linear(filters, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding) of ``x``, float32 (N, C, H, W)."""
        embedding = nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.head(embedding), embedding


def build(classes: int, channels: int, height: int, width: int, *, filters: int = 64) -> nn.Module:
    """Return a DS-CNN for any height and width; embedding of ``filters``."""
    del height, width
    return DsCnn(classes, channels, filters)
