"""The fake-quantized copy has a grid wherever the int8 back-ends have one."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressor.qat.fake_quantize import Grid, QuantizedHardswish
from compressor.qat.simulation import simulate


class _Excited(nn.Module):
    """A convolution, hard-swish, and channels scaled by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)
        self.swish, self.sigmoid = nn.Hardswish(inplace=True), nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.swish(self.layer(x))
        return self.sigmoid(self.gate(x.mean((2, 3), keepdim=True))) * x


def _inputs() -> np.ndarray:
    return 4 * np.random.default_rng(0).standard_normal((8, 1, 6, 6)).astype(np.float32)


def test_hardswish_hardsigmoid_and_the_product_of_the_gate_are_on_grids() -> None:
    """Every tensor of such a block to which onnxruntime's quantizer assigns a scale has a range here."""
    simulation = simulate(_Excited().eval(), _inputs(), Grid())
    assert list(simulation.quantizers) == ["x", "layer", "swish", "mean", "gate", "sigmoid", "mul"]


def test_the_gate_of_hardswish_is_rounded_only_after_observation() -> None:
    """Before observation hard-swish is the float one; then it moves by at most half a step of the gate."""
    simulation = simulate(_Excited().eval(), _inputs(), Grid())
    x = torch.from_numpy(_inputs())
    swish = next(module for module in simulation.copy.modules() if isinstance(module, QuantizedHardswish))
    assert torch.equal(swish(x), nn.functional.hardswish(x))
    simulation.observe(_inputs())
    moved = (swish(x) - nn.functional.hardswish(x)).abs()
    assert 0 < float((moved / x.abs()).max()) <= 0.5 / 255 + 1e-6


def test_activations_that_work_in_place_have_the_gradients_of_others() -> None:
    """An activation that overwrites its quantized input leaves what the backward pass needs."""

    def gradients(*, inplace: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        swish = nn.SiLU(inplace=inplace)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), swish, nn.Conv2d(4, 2, 3), nn.ELU(inplace=inplace), nn.Flatten())
        simulation = simulate(network.eval(), _inputs(), Grid())
        simulation.observe(_inputs())
        simulation.copy(torch.from_numpy(_inputs())).square().sum().backward()
        learned = [*simulation.weights(), *simulation.ends()]
        return [one.grad for one in learned if one.grad is not None]

    plain, overwritten = gradients(inplace=False), gradients(inplace=True)
    assert len(plain) == len(overwritten) > 0
    for one, other in zip(plain, overwritten, strict=True):  # ELU in place computes its slope from its output
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
