"""An auto-encoder: what it makes of an input lies near the inputs that it learned, and far from others.

Two convolutions of stride 2 and a linear layer make the code, two linear layers the picture, every pixel of its own: so
a small file without upsampling, whose operators both formats have in int8. The code is the embedding. A code of fewer
numbers reconstructs less of what it has not seen.

Source: G. Hinton, R. Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006.
"""

from __future__ import annotations

import torch
from torch import nn

_KERNEL, _STRIDE = 3, 2


class AutoEncoder(nn.Module):
    """Encoder by two convolutions, a code, a decoder by two linear layers."""

    decoder = "residual"

    def __init__(self, channels: int, size: tuple[int, int], widths: tuple[int, int, int]) -> None:
        """Create the layers, untrained; ``widths``: filters, hidden numbers of the decoder, numbers of the code."""
        super().__init__()
        filters, hidden, code = widths
        layers: list[nn.Module] = []
        height, width = size
        for given, wanted in ((channels, filters), (filters, 2 * filters)):
            layers += [nn.Conv2d(given, wanted, _KERNEL, stride=_STRIDE, padding=_KERNEL // 2, bias=False)]
            layers += [nn.BatchNorm2d(wanted), nn.ReLU()]
            height, width = ((side - 1) // _STRIDE + 1 for side in (height, width))
        self.encoder = nn.Sequential(*layers)
        self.code = nn.Linear(2 * filters * height * width, code)
        self.hidden = nn.Linear(code, hidden)
        self.head = nn.Linear(hidden, channels * size[0] * size[1])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (picture (N, C * H * W), code) of ``x``, float32 (N, C, H, W)."""
        code = self.code(self.encoder(x).flatten(1))
        return self.head(torch.relu(self.hidden(code))), code


def build(  # noqa: PLR0913 - a recipe gives the options by name
    classes: int, channels: int, height: int, width: int, *, filters: int = 8, hidden: int = 64, code: int = 16
) -> nn.Module:
    """Return the network; it has no use for ``classes``."""
    del classes
    return AutoEncoder(channels, (height, width), (filters, hidden, code))
