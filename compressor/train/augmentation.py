"""Random geometry and light for training batches: what mounting and daylight change.

Kept mild on purpose: the gates, not the augmentation, answer for sites the model has never seen.
"""

from __future__ import annotations

import torch
from torch import nn

_SHIFT_RATIO = 0.06
_SCALE_RATIO = 0.06
_ROTATION_RAD = 0.07
_GAIN = 0.15
_OFFSET = 0.15
_NOISE = 0.05


def augment(x: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return ``x``, float32 (N, C, H, W), shifted, scaled, turned, lit and noised at random per sample.

    ``strength`` 0 returns ``x`` itself, 1 is shifts of 6 % (one sd) and turns of 4 degrees.
    """
    if strength <= 0:
        return x
    x = nn.functional.grid_sample(
        x,
        nn.functional.affine_grid(_matrices(x, strength, generator), list(x.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    gain = 1 + strength * _GAIN * torch.randn(len(x), 1, 1, 1, generator=generator)
    offset = strength * _OFFSET * torch.randn(len(x), 1, 1, 1, generator=generator)
    return x * gain + offset + strength * _NOISE * torch.randn(x.shape, generator=generator)


def _matrices(x: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return affine matrices, (N, 2, 3), in the -1..1 coordinates of ``affine_grid``."""
    draws = strength * torch.randn(5, len(x), generator=generator)
    angle, aspect = draws[0] * _ROTATION_RAD, x.shape[2] / x.shape[3]
    scale_x, scale_y = 1 + draws[1] * _SCALE_RATIO, 1 + draws[2] * _SCALE_RATIO
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [scale_x * cos, -scale_x * sin * aspect, 2 * _SHIFT_RATIO * draws[3]]
    rows += [scale_y * sin / aspect, scale_y * cos, 2 * _SHIFT_RATIO * draws[4]]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3)
