"""MobileNetV3-small of torchvision, with any width multiplier: hard-swish and squeeze-and-excitation blocks.

Int8 needs care here: hard-swish and the products of squeeze-and-excitation have no exact integer operator in every
runtime, so int8 may be slower than float32; measure before choosing it.
Source: Howard et al., Searching for MobileNetV3, 2019.
"""

from __future__ import annotations

from torch import nn

from compressor.networks.mobilenet_v2 import MobileNet, fit_stem

_MOMENTUM = 0.1
"""torchvision's 0.01 suits ImageNet: after 170 steps evaluation reached 10.5 % where training batches had 99 %."""


def build(classes: int, channels: int, height: int, width: int, *, width_mult: float = 0.5) -> nn.Module:
    """Return a MobileNetV3-small; on images below 64 pixels a side keeping the stem's stride costs little accuracy."""
    del height, width
    from torchvision import models  # noqa: PLC0415 - 82 MB that other networks do not need

    whole = models.mobilenet_v3_small(num_classes=classes, width_mult=width_mult)
    fit_stem(whole.features, channels)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
    return MobileNet(whole.features, classes, whole.classifier[0].in_features)
