"""The int8 back-ends' grids as differentiable modules: learned ranges for activations, learned clips for weights.

Activations: uint8, asymmetric, one scale per tensor. The range is learned; gradients follow learned step size
quantization (LSQ) with the range's ends as parameters. Weights: int8, symmetric, clipped at a learned magnitude per
output channel or per tensor; the scale is that of the largest remaining weight, computed at every step, because
onnxruntime and ai-edge-quantizer compute it so for the exported weights. Learned as logarithms by Adam, all ranges have
the same rate relative to their width, so LSQ's gradient scale (section 2.2) would change nothing.
Source: Esser et al., Learned Step Size Quantization, 2020, equations 1 to 3; Bhalgat et al., LSQ+, 2020, for the
asymmetric range; Jain et al., Trained Quantization Thresholds, 2020, for learning in the logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

LEVELS = 255
_WEIGHT_LEVELS, _REDUCED_WEIGHT_LEVELS = 127, 64
"""int8 without -128; with ``reduce_range`` onnxruntime's -64..64."""
_SMALLEST_RANGE = 1e-6
_CLIPS = tuple(2.0 ** (-i / 2) for i in range(21))
"""Shares of the largest weight at which clips are tried: 1 to 1/1024."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The grid of weights: one scale per output channel or per tensor, 8 bits or, if reduced, 7."""

    per_channel: bool = True
    reduce_range: bool = False

    @property
    def levels(self) -> int:
        """The largest integer weight."""
        return _REDUCED_WEIGHT_LEVELS if self.reduce_range else _WEIGHT_LEVELS


def largest_weights(weight: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return the largest magnitude, broadcastable to ``weight``: (out, 1, ...) per channel, else all ones."""
    kept = 1 if grid.per_channel else 0
    return weight.detach().abs().amax(dim=tuple(range(kept, weight.ndim)), keepdim=True)


def weight_scale(weight: torch.Tensor, grid: Grid, clip: torch.Tensor | None = None) -> torch.Tensor:
    """Return the scale of ``weight``, shaped as in ``largest_weights``; differentiable in ``clip``.

    ``clip``: the magnitude to which weights are clipped, in the same shape. The largest weight is at the end of the
    grid with and without it, so that the back-ends, which use the largest weight, compute the same scale.
    """
    largest = largest_weights(weight, grid)
    end = largest if clip is None else torch.where(clip > 0, torch.minimum(largest, clip), largest)
    return torch.where(end > 0, end / grid.levels, torch.ones_like(largest))


def on_grid(weight: torch.Tensor, grid: Grid, clip: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``weight`` clipped and rounded to its grid, differentiable in ``weight`` and ``clip``."""
    scale = weight_scale(weight, grid, clip)
    rounded: torch.Tensor = _RoundedWeight.apply(weight, scale, grid.levels)  # type: ignore[no-untyped-call]
    return rounded


class _RoundedWeight(torch.autograd.Function):
    """``scale * clamp(round(weight / scale))`` with straight-through gradients. Source: LSQ, equations 1 to 3."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, scale: torch.Tensor, levels: int) -> torch.Tensor:  # noqa: ANN401
        steps = weight / scale
        whole = torch.clamp(torch.round(steps), -levels, levels)
        ctx.save_for_backward(steps, whole, scale)
        ctx.levels = levels
        return whole * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:  # noqa: ANN401
        steps, whole, scale = ctx.saved_tensors
        inside = gradients[0] * (steps.abs() <= ctx.levels + 0.5)
        slope = gradients[0] * whole - inside * steps
        return inside, slope.sum_to_size(scale.shape), None


class _RoundedActivation(torch.autograd.Function):
    """``scale * (clamp(round(x / scale) + zero point) - zero point)`` with gradients for x and both ends.

    With straight-through rounding the output is ``low`` below the range, ``high`` above it, and inside it x plus a
    rounding error proportional to the scale; the derivatives below are those of that function.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        scale = (float(high) - float(low)) / LEVELS
        zero_point = round(-float(low) / scale)
        ctx.save_for_backward(x)  # not the output, which an activation with inplace=True may overwrite
        ctx.grid = scale, zero_point
        ctx.ends = (-zero_point - 0.5) * scale, (LEVELS - zero_point + 0.5) * scale
        ctx.width = float(high) - float(low)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, LEVELS)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        scale, zero_point = ctx.grid
        rounded = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero_point), 0, LEVELS)
        gradient, (first, last) = gradients[0], ctx.ends
        inside = gradient * ((x >= first) & (x <= last))
        outside = gradient - inside
        above = (outside * (x > last)).sum()
        slope = (inside * (rounded - x)).sum() / ctx.width
        return inside, outside.sum() - above - slope, above + slope


class ActivationQuantizer(nn.Module):
    """Fake-quantizes one tensor; first observes its range, then learns it.

    The ends are learned as factors of the observed range, as logarithms, so that one learning rate fits tensors of any
    magnitude and zero never leaves the range.
    """

    def __init__(self, *, positive: bool = False, ceiling: float = math.inf) -> None:
        """Start observing. ``positive`` fixes the low end at 0, ``ceiling`` limits the high end."""
        super().__init__()
        self._ceiling, self._positive = ceiling, positive
        self.log_low, self.log_high = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("observed", torch.zeros(2))
        self.observed: torch.Tensor
        self.observing = True

    def forget(self) -> None:
        """Reset the observed and learned range."""
        with torch.no_grad():
            for value in (self.observed, self.log_low, self.log_high):
                value.zero_()

    def ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (low, high), differentiable, low <= 0 < high."""
        low = self.observed[0] * torch.exp(self.log_low)
        high = torch.clamp(self.observed[1] * torch.exp(self.log_high), max=self._ceiling)
        return low, torch.maximum(high, low + _SMALLEST_RANGE)

    def learned(self) -> tuple[float, float]:
        """Return (low, high) as numbers."""
        low, high = self.ends()
        return float(low.detach()), float(high.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` unchanged while observing, else rounded to the grid."""
        if self.observing:
            seen = x.detach()
            low = torch.zeros(()) if self._positive else torch.minimum(seen.min(), self.observed[0])
            self.observed = torch.stack([low, torch.maximum(seen.max(), self.observed[1])])
            return x
        rounded: torch.Tensor = _RoundedActivation.apply(x, *self.ends())  # type: ignore[no-untyped-call]
        return rounded


class QuantizedHardswish(nn.Module):
    """Hard-swish as the ONNX quantizer splits it: ``x * hardsigmoid(x)`` with the gate on a uint8 grid over 0 to 1.

    Its input and output are quantized by their own ``ActivationQuantizer``.
    """

    def __init__(self) -> None:
        """Start without rounding, for observation."""
        super().__init__()
        self.rounding = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return hard-swish of ``x``, float32 of any shape."""
        if not self.rounding:
            return nn.functional.hardswish(x)
        gate = nn.functional.hardsigmoid(x)
        rounded = torch.fake_quantize_per_tensor_affine(gate, 1 / LEVELS, 0, 0, LEVELS)
        return x * rounded


class QuantizedLayer(nn.Module):
    """A layer that computes with weights on their grid; weight and bias are the network's own parameters."""

    def __init__(self, layer: nn.Module, bias: nn.Parameter | None, grid: Grid) -> None:
        """Wrap ``layer``, a convolution or linear layer whose bias is ``bias``."""
        super().__init__()
        self.layer, self.bias, self.grid = layer, bias, grid
        self.rounding = True
        self.register_buffer("observed", largest_weights(self.weight, grid))
        self.observed: torch.Tensor
        self.log_clip = nn.Parameter(torch.zeros_like(self.observed))
        self.errors: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The network's own weights."""
        weight: torch.Tensor = self.layer.weight  # type: ignore[assignment]
        return weight

    def clip(self) -> torch.Tensor:
        """Return the magnitude to which weights are clipped, differentiable, shaped as in ``largest_weights``."""
        return self.observed * torch.exp(self.log_clip)

    def rounded(self) -> torch.Tensor:
        """Return the weights on their grid."""
        return on_grid(self.weight, self.grid, self.clip())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output; without ``rounding`` that of the float layer."""
        if self.errors is not None:
            self._compare(x)
        return self._run(x, self.rounded() if self.rounding else self.weight)

    def watch(self) -> None:
        """Compare, on every input from now on, the output errors that different clips cause."""
        self.errors = torch.zeros(len(_CLIPS), len(self.weight))

    def choose(self) -> None:
        """Clip where the output error was smallest, and stop comparing."""
        if self.errors is None:
            return
        kept = self.errors if self.grid.per_channel else self.errors.sum(1, keepdim=True)
        share = torch.tensor(_CLIPS)[kept.argmin(0)]
        largest = largest_weights(self.weight, self.grid)
        self.observed, self.errors = largest * share.reshape(largest.shape), None
        self.log_clip.data.zero_()

    def _compare(self, x: torch.Tensor) -> None:
        wanted, largest = self._run(x, self.weight), largest_weights(self.weight, self.grid)
        for i, share in enumerate(_CLIPS):
            off = self._run(x, on_grid(self.weight, self.grid, largest * share)) - wanted
            channels = off.movedim(-1 if isinstance(self.layer, nn.Linear) else 1, 0)
            self.errors[i] += channels.flatten(1).square().sum(1)  # type: ignore[index]

    def _run(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(x, weight, self.bias)
        output: torch.Tensor = layer._conv_forward(x, weight, self.bias)  # noqa: SLF001 - it knows all padding modes
        return output
