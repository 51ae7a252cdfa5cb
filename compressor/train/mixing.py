"""Mixup and CutMix: batches of mixed pairs, with labels mixed by the same share.

Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, equation 1; Yun et al., CutMix, 2019,
equations 1 and 2.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn


def mixed(
    x: torch.Tensor, y: torch.Tensor, classes: int, alphas: tuple[float, float], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``x`` mixed within the batch, and its labels as shares.

    Args:
        x: float32, (N, C, H, W).
        y: int64, (N,), class indices; or float32, (N, D), numbers.
        classes: Number of classes.
        alphas: Of mixup and of CutMix; 0 is off, both off returns ``x`` and ``y`` themselves.
        generator: All randomness.

    Returns:
        x, float32 (N, C, H, W), and the labels: float32, (N, classes), each row sums to 1; or the mixed numbers.
    """
    if max(alphas) <= 0:
        return x, y
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    cut = alphas[0] <= 0 or (alphas[1] > 0 and rng.random() < 0.5)  # noqa: PLR2004 - either, half of the batches
    share = float(rng.beta(alphas[cut], alphas[cut]))
    partners = torch.randperm(len(x), generator=generator)
    x, share = _pasted(x, partners, share, rng) if cut else (share * x + (1 - share) * x[partners], share)
    labels = y if y.is_floating_point() else nn.functional.one_hot(y, classes).float()
    return x, share * labels + (1 - share) * labels[partners]


def _pasted(
    x: torch.Tensor, partners: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Return ``x`` with a box of the partner's values, and the share of ``x`` that is left."""
    height, width = x.shape[2:]
    (top, bottom), (left, right) = (_span(size, math.sqrt(1 - share), rng) for size in (height, width))
    x = x.clone()
    x[:, :, top:bottom, left:right] = x[partners, :, top:bottom, left:right]
    return x, 1 - (bottom - top) * (right - left) / (height * width)


def _span(size: int, ratio: float, rng: np.random.Generator) -> tuple[int, int]:
    """Return where a box of ``ratio`` x ``size`` pixels around a random centre begins and ends, clipped."""
    half, centre = int(size * ratio) // 2, int(rng.integers(size))
    return max(0, centre - half), min(size, centre + half)
