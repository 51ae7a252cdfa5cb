"""MobileNetV2 of torchvision, with any width multiplier.

Source: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import nn

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []


def import_torchvision_models() -> ModuleType:
    """Return ``torchvision.models``, beside a CPU torch too.

    torchvision on the package index is a CUDA build, whose import dies beside a CPU torch with
    "operator torchvision::nms does not exist". Declaring the operators first cures it and changes
    nothing where the real extension loads.
    """
    if not _libraries:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name, schema in _SCHEMAS.items():
            library.define(name + schema)  # type: ignore[no-untyped-call]
        _libraries.append(library)
    return importlib.import_module("torchvision.models")


class MobileNet(nn.Module):
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


def fit_stem(features: nn.Module, channels: int) -> None:
    """Give torchvision's ``features`` a first convolution for ``channels``, where theirs takes another number."""
    stem = features[0][0]  # type: ignore[index]
    if channels != stem.in_channels:
        features[0][0] = nn.Conv2d(channels, stem.out_channels, 3, stride=2, padding=1, bias=False)  # type: ignore[index]


def build(classes: int, channels: int, height: int, width: int, *, width_mult: float = 0.35) -> nn.Module:
    """Return a MobileNetV2; images below 64 pixels a side lose little when the stem keeps its stride."""
    del height, width
    whole = import_torchvision_models().mobilenet_v2(num_classes=classes, width_mult=width_mult)
    fit_stem(whole.features, channels)
    return MobileNet(whole.features, classes, whole.last_channel)
