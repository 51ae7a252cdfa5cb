"""Random geometry and brightness for training batches: variations of mounting and daylight.

Mild on purpose: the gates, not the augmentation, are responsible for sites the model has never seen. Drawing is
separate from applying: processes that share a batch draw for all of it and apply to their own rows, as a single process
would.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

_SHIFT_RATIO = 0.06
_SCALE_RATIO = 0.06
_ROTATION_RAD = 0.07
_GAIN = 0.15
_OFFSET = 0.15
_NOISE = 0.05


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Drawn:
    """Standard normal draws for the rows of a batch.

    ``geometry``: (5, N). ``light``: gain and offset, each (N, 1, 1, 1). ``noise``: (N, C, H, W).
    """

    strength: float
    geometry: torch.Tensor
    light: tuple[torch.Tensor, torch.Tensor]
    noise: torch.Tensor

    def of(self, rows: torch.Tensor) -> Drawn:
        """Return the draws for ``rows``, int64 (n,), of the batch."""
        light = (self.light[0][rows], self.light[1][rows])
        return Drawn(strength=self.strength, geometry=self.geometry[:, rows], light=light, noise=self.noise[rows])

    def applied(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, float32 (N, C, H, W), with shift, scale, rotation, brightness and noise applied."""
        x = nn.functional.grid_sample(
            x,
            nn.functional.affine_grid(self._matrices(x.shape[2] / x.shape[3]), list(x.shape), align_corners=False),
            padding_mode="border",
            align_corners=False,
        )
        gain = 1 + self.strength * _GAIN * self.light[0]
        offset = self.strength * _OFFSET * self.light[1]
        return x * gain + offset + self.strength * _NOISE * self.noise

    def _matrices(self, aspect: float) -> torch.Tensor:
        """Return affine matrices, (N, 2, 3), in the -1..1 coordinates of ``affine_grid``."""
        draws = self.strength * self.geometry
        angle = draws[0] * _ROTATION_RAD
        scale_x, scale_y = 1 + draws[1] * _SCALE_RATIO, 1 + draws[2] * _SCALE_RATIO
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = [scale_x * cos, -scale_x * sin * aspect, 2 * _SHIFT_RATIO * draws[3]]
        rows += [scale_y * sin / aspect, scale_y * cos, 2 * _SHIFT_RATIO * draws[4]]
        return torch.stack(rows, dim=1).reshape(-1, 2, 3)


def draw(shape: tuple[int, ...], strength: float, generator: torch.Generator) -> Drawn | None:
    """Return the draws for a batch of ``shape``, (N, C, H, W); None, without drawing, if ``strength`` is 0."""
    if strength <= 0:
        return None
    geometry = torch.randn(5, shape[0], generator=generator)
    gain, offset = (torch.randn(shape[0], 1, 1, 1, generator=generator) for _ in range(2))
    return Drawn(
        strength=strength, geometry=geometry, light=(gain, offset), noise=torch.randn(shape, generator=generator)
    )


def augment(x: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return ``x``, float32 (N, C, H, W), randomly shifted, scaled, rotated, lit and noised per sample.

    ``strength`` 0 returns ``x`` itself; 1 gives shifts of 6 % (one sd) and rotations of 4 degrees.
    """
    drawn = draw(tuple(x.shape), strength, generator)
    return x if drawn is None else drawn.applied(x)
