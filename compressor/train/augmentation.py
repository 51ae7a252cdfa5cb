"""Augmentation of training batches: random geometry and brightness, and mixed pairs of rows (mixup, CutMix).

Geometry and brightness vary as mounting and daylight do, mild on purpose: the gates, not the augmentation, are
responsible for sites the model has never seen. Drawing is separate from applying: processes that share a batch draw for
all of it and apply to their own rows, as a single process would.
Source of the mixes: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, equation 1; Yun et al., CutMix,
2019, equations 1 and 2. Labels are mixed in the same proportion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
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
        draws, aspect = self.strength * self.geometry, x.shape[2] / x.shape[3]
        angle = draws[0] * _ROTATION_RAD
        scale_x, scale_y = 1 + draws[1] * _SCALE_RATIO, 1 + draws[2] * _SCALE_RATIO
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = [scale_x * cos, -scale_x * sin * aspect, 2 * _SHIFT_RATIO * draws[3]]
        rows += [scale_y * sin / aspect, scale_y * cos, 2 * _SHIFT_RATIO * draws[4]]
        matrices = torch.stack(rows, dim=1).reshape(-1, 2, 3)  # in the -1..1 coordinates of affine_grid
        grid = nn.functional.affine_grid(matrices, list(x.shape), align_corners=False)
        return self.lit(nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False))

    def lit(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, float32 (N, C, H, W), with brightness and noise applied."""
        gain = 1 + self.strength * _GAIN * self.light[0]
        offset = self.strength * _OFFSET * self.light[1]
        return x * gain + offset + self.strength * _NOISE * self.noise


def draw(shape: tuple[int, ...], strength: float, generator: torch.Generator) -> Drawn | None:
    """Return the draws for a batch of ``shape``, (N, C, H, W); None, without drawing, if ``strength`` is 0."""
    if strength <= 0:
        return None
    geometry = torch.randn(5, shape[0], generator=generator)
    gain, offset = (torch.randn(shape[0], 1, 1, 1, generator=generator) for _ in range(2))
    return Drawn(
        strength=strength, geometry=geometry, light=(gain, offset), noise=torch.randn(shape, generator=generator)
    )


def moved_together(
    x: torch.Tensor, y: torch.Tensor, drawn: Drawn, training: object, flips: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs with ``drawn`` applied, and their targets: those that have a place in the input move with it.

    ``training``: of the task (``compressor.tasks.Training``). ``flips``: as in ``[train]``.
    """
    moving = getattr(training, "augmented", None)
    if moving is None:
        return drawn.applied(x), y
    moved: tuple[torch.Tensor, torch.Tensor] = moving(x, y, drawn, flips)
    return moved


def augment(x: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return ``x``, float32 (N, C, H, W), randomly shifted, scaled, rotated, lit and noised per sample.

    ``strength`` 0 returns ``x`` itself; 1 gives shifts of 6 % (one sd) and rotations of 4 degrees.
    """
    drawn = draw(tuple(x.shape), strength, generator)
    return x if drawn is None else drawn.applied(x)


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """How a batch is mixed: each row with its ``partners`` row, ``share`` of the row itself; in ``box`` for CutMix.

    ``box``: top, bottom, left, right in pixels.
    """

    partners: torch.Tensor
    share: float
    box: tuple[int, int, int, int] | None

    def inputs(self, x: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
        """Return ``x``, float32 (N, C, H, W), mixed with the inputs of its rows' ``partners``, shaped alike."""
        if self.box is None:
            return self.share * x + (1 - self.share) * partners
        top, bottom, left, right = self.box
        x = x.clone()
        x[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return x

    def labels(self, y: torch.Tensor, partners: torch.Tensor, classes: int) -> torch.Tensor:
        """Return ``y`` mixed with the labels of its rows' ``partners``.

        For classes float32 (N, classes), rows sum to 1; for numbers float32 (N, D).
        """
        if not y.is_floating_point():
            y, partners = (nn.functional.one_hot(labels, classes).float() for labels in (y, partners))
        return self.share * y + (1 - self.share) * partners


def draw_mix(shape: tuple[int, ...], alphas: tuple[float, float], generator: torch.Generator) -> Mix | None:
    """Return how a batch is mixed; None, without drawing, if mixup and CutMix are both off.

    Args:
        shape: Shape of the inputs, (N, C, H, W).
        alphas: Of mixup and of CutMix; 0 is off.
        generator: Source of all randomness.
    """
    if max(alphas) <= 0:
        return None
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    cut = alphas[0] <= 0 or (alphas[1] > 0 and rng.random() < 0.5)  # noqa: PLR2004 - either, half of the batches
    share = float(rng.beta(alphas[cut], alphas[cut]))
    partners = torch.randperm(shape[0], generator=generator)
    if not cut:
        return Mix(partners, share, None)
    box: list[int] = []
    for size in shape[2:]:  # a box of sqrt(1 - share) of each side around a random centre, clipped to the image
        half, centre = int(size * math.sqrt(1 - share)) // 2, int(rng.integers(size))
        box += [max(0, centre - half), min(size, centre + half)]
    top, bottom, left, right = box
    return Mix(partners, 1 - (bottom - top) * (right - left) / (shape[2] * shape[3]), (top, bottom, left, right))
