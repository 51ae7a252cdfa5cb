"""A small detector by centre points: a residual body of three stages, two scales joined, one grid of outputs.

The cells of the grid have 8 pixels (4 with ``stem_stride`` 1), and ``filters`` scales all widths (16 is the original).
What the outputs mean stands in ``edge_agent/decoders/centres.py``; they come from one layer, whose values are of like
range on purpose.

Source: X. Zhou et al., Objects as Points, 2019 (heads and initial bias); He et al., Deep Residual Learning for Image
Recognition, 2015 (blocks); T.-Y. Lin et al., Feature Pyramid Networks, 2017 (scales joined by addition).
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.errors import PluginError

_RARE = -2.19
"""The first logit of every class, a probability of .1: else the many empty cells would drown the first steps."""
_BOX = 4
_LEAST_SIDE = 32


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class CentreNet(nn.Module):
    """Stem, three blocks, the last scale added to the one before, a head."""

    decoder = "centres"

    def __init__(self, classes: int, channels: int, filters: int, stem_stride: int) -> None:
        """Create the layers, untrained."""
        super().__init__()
        self.stem = _convolution(channels, filters, 3, stem_stride)
        self.near = nn.Sequential(_Residual(filters, 2 * filters, 2), _Residual(2 * filters, 4 * filters, 2))
        self.far = _Residual(4 * filters, 6 * filters, 2)
        self.lateral = _convolution(6 * filters, 4 * filters, 1)
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.neck = _convolution(4 * filters, 6 * filters, 3)
        self.head = nn.Conv2d(6 * filters, classes + _BOX, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.head.bias[:classes] = _RARE  # type: ignore[index]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (grid (N, classes + 4, h, w), embedding (N, 6 * filters)) of ``x``, float32 (N, C, H, W)."""
        near = self.near(torch.relu(self.stem(x)))
        far = self.far(near)
        joined = torch.relu(near + self.upsample(self.lateral(far)))
        embedding = nn.functional.adaptive_avg_pool2d(far, 1).flatten(1)
        return self.head(torch.relu(self.neck(joined))), embedding


def build(
    classes: int, channels: int, height: int, width: int, *, filters: int = 16, stem_stride: int = 2
) -> nn.Module:
    """Return a detector for inputs whose sides are multiples of 16 (8 with ``stem_stride`` 1); 279 k parameters.

    Raises:
        PluginError: If a side is no such multiple: the two scales would not fit each other.
    """
    step = 8 * stem_stride
    if height % step or width % step or min(height, width) < _LEAST_SIDE:
        message = (
            f"Expected [data] width and height as multiples of {step}, {_LEAST_SIDE} or more, got {width}x{height}"
        )
        raise PluginError(f"{message}: round them")
    return CentreNet(classes, channels, filters, stem_stride)
