"""Mixup and CutMix: batches of mixed pairs, with labels mixed in the same proportion.

Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, equation 1; Yun et al., CutMix, 2019,
equations 1 and 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


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


def draw(shape: tuple[int, ...], alphas: tuple[float, float], generator: torch.Generator) -> Mix | None:
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
    (top, bottom), (left, right) = (_span(size, math.sqrt(1 - share), rng) for size in shape[2:])
    return Mix(partners, 1 - (bottom - top) * (right - left) / (shape[2] * shape[3]), (top, bottom, left, right))


def _span(size: int, ratio: float, rng: np.random.Generator) -> tuple[int, int]:
    """Return the clipped begin and end of a box of ``ratio`` x ``size`` pixels around a random centre."""
    half, centre = int(size * ratio) // 2, int(rng.integers(size))
    return max(0, centre - half), min(size, centre + half)
