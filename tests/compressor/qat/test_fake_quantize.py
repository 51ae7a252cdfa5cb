"""The grids are those of the back-ends, and gradients reach weights and ranges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.qat.fake_quantize import ActivationQuantizer, Grid, on_grid, weight_scale


def _quantizer(values: torch.Tensor, **options: float) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(**options)  # type: ignore[arg-type]
    quantizer(values)
    quantizer.observing = False
    return quantizer


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("reduce_range", "levels"), [(False, 127), (True, 64)])
def test_weights_land_on_whole_multiples_of_the_scale(*, per_channel: bool, reduce_range: bool, levels: int) -> None:
    """Scale is absmax / 127 (64 when reduced); the largest weight is kept, and a second rounding changes nothing."""
    grid = Grid(per_channel, reduce_range)
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    scale, rounded = weight_scale(weight, grid), on_grid(weight, grid)
    absmax = weight.abs().amax(dim=(1, 2, 3), keepdim=True) if per_channel else weight.abs().max()
    assert torch.allclose(scale, (absmax / levels).expand_as(scale))
    assert torch.allclose(rounded / scale, (rounded / scale).round(), atol=1e-4)
    assert (rounded - weight).abs().max() <= scale.max() / 2 * 1.0001
    assert torch.allclose(on_grid(rounded, grid), rounded, atol=1e-7)


def test_a_dead_channel_stays_zero() -> None:
    """Weights that are all 0 have a scale and are not NaN; they may still grow."""
    assert torch.equal(on_grid(torch.zeros(2, 3), Grid()), torch.zeros(2, 3))
    assert torch.equal(on_grid(torch.ones(2, 3), Grid(), torch.zeros(2, 1)), torch.ones(2, 3))


def test_gradients_pass_straight_through_weights() -> None:
    """Every weight gets the gradient of its rounded self."""
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (on_grid(weight, Grid()) * torch.arange(5.0)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(5.0).expand(3, 5))


def test_weights_beyond_the_clip_are_clipped_and_the_largest_gives_the_scale_again() -> None:
    """The scale that a back end computes from the largest weight is the learned one, whichever were clipped."""
    weight, clip = torch.tensor([[0.3, -0.7, 90.0, -80.0]]), torch.tensor([[1.0]])
    grid = Grid(per_channel=False)
    rounded = on_grid(weight, grid, clip)
    assert torch.allclose(rounded, torch.tensor([[0.3, -0.7, 1.0, -1.0]]), atol=1 / 127)
    assert torch.equal(weight_scale(rounded, grid), weight_scale(weight, grid, clip))
    assert torch.equal(on_grid(weight, grid, torch.tensor([[1e9]])), on_grid(weight, grid))


def test_the_gradient_of_the_clip_is_that_of_the_weights_beyond_it() -> None:
    """Clipped weights move with their end; weights inside get their own gradient, clipped ones none."""
    weight = torch.tensor([[0.0, 5.0, 6.0, -7.0]], requires_grad=True)
    clip = torch.tensor([[1.0]], requires_grad=True)
    (on_grid(weight, Grid(per_channel=False), clip) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert float(clip.grad) == pytest.approx(2 + 3 - 4)
    assert weight.grad.tolist() == [[1, 0, 0, 0]]


def test_activations_use_256_steps_that_contain_zero() -> None:
    """Outputs are multiples of (high - low) / 255, 0 stays 0, and values outside are clipped."""
    x = torch.linspace(-1, 3, 500)
    quantizer = _quantizer(x)
    y = quantizer(torch.cat([x, torch.tensor([0.0, -9.0, 9.0])])).detach()
    steps = y / (4 / 255)
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    assert len(torch.unique(steps.round())) == 256
    assert y[-3] == 0
    assert y[-2:].tolist() == pytest.approx([-1, 3], abs=4 / 255)


def test_the_gradient_of_the_range_is_that_of_finite_differences() -> None:
    """Values outside move with their end of the range; inside only rounding depends on it."""
    x = torch.tensor([-4.0, -3.0, 5.0, 6.0, 7.0])
    quantizer = _quantizer(torch.tensor([-1.0, 2.0]))
    quantizer(x).sum().backward()
    assert float(quantizer.log_high.grad) == pytest.approx(3 * 2.0)
    assert float(quantizer.log_low.grad) == pytest.approx(2 * -1.0)


def test_gradients_inside_the_range_are_rounding_errors() -> None:
    """LSQ's derivative: the rounding error over the width, times the end."""
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    quantizer = _quantizer(torch.tensor([0.0, 2.0]), positive=True)
    y = quantizer(x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones(1000))
    assert float(quantizer.log_high.grad) == pytest.approx(float((y - x).detach().sum()), rel=1e-4)


def test_ends_are_pinned_after_relus() -> None:
    """After ReLU6 the low end is 0 and the high end never passes 6, whatever was learnt."""
    quantizer = _quantizer(torch.tensor([0.0, 5.9]), positive=True, ceiling=6.0)
    with torch.no_grad():
        quantizer.log_high.fill_(1)
    assert quantizer.learned() == (0.0, 6.0)


def test_a_tensor_that_is_always_zero_has_a_range() -> None:
    """A dead tensor neither divides by zero nor becomes NaN."""
    quantizer = _quantizer(torch.zeros(4))
    assert quantizer(torch.zeros(4)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("reduce_range", [False, True])
def test_onnxruntime_gives_the_same_integers(uneven: Callable[[str], nn.Module], *, reduce_range: bool) -> None:
    """The grid equals that of onnxruntime's quantizer, reduced or not."""
    from onnxruntime.quantization.quant_utils import quantize_data  # noqa: PLC0415 - slow

    weight = uneven("resnet8").get_parameter("stem.weight").detach()
    _, scale, integers = quantize_data(weight.numpy(), onnx.TensorProto.INT8, symmetric=True, reduce_range=reduce_range)
    restored = np.asarray(integers).reshape(weight.shape).astype(np.float32) * scale
    assert np.allclose(on_grid(weight, Grid(False, reduce_range)).numpy(), restored, atol=1e-6)
