"""Activations: torch's layers where it has them, so that runtimes fuse them and fake quantization knows them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from compressor.importing.network import Value
from compressor.importing.operation import Operation, Table, Translator
from compressor.importing.operators.elementwise import gelu_by_tanh

_SIXTH, _RELU6 = 1 / 6, 6.0
_SAME = 1e-6
_NEW_SOFTMAX_OPSET = 13


def _plain(make: Callable[[], nn.Module]) -> Translator:
    """Return the translator of a layer without settings."""
    return lambda op: op.layer(make(), op.tensor())


def clip(op: Operation) -> Value:
    """Clip: ReLU or ReLU6 where it is one."""
    low, high = op.number(1, "min"), op.number(2, "max")
    if low is None and high is None:
        return op.tensor()
    if low == 0 and high in {None, _RELU6}:
        return op.layer(nn.ReLU() if high is None else nn.ReLU6(), op.tensor())
    return op.run(torch.clamp, op.tensor(), low, high)


def prelu(op: Operation) -> Value:
    """PRelu: a layer if the slope is one for all or one a channel; else a choice.

    Raises:
        OperatorError: If the slope is computed from the input.
    """
    slope, sizes = op.counts(1), op.counts()
    if op.constant(1) is None:
        raise op.refused("a computed slope")
    spatial = all(size == 1 for size in slope[1:]) if len(slope) == len(sizes) - 1 else False
    wide = max(slope, default=1) == 1 or (spatial and slope[0] == sizes[1])
    if not wide and not (len(slope) == len(sizes) and slope[1] == sizes[1] and max((slope[0], *slope[2:])) == 1):
        x, weight = op.tensor(), op.hold(op.node.inputs[1], op.weight(1))
        return op.run(_leaky, x, weight)

    def make() -> nn.Module:
        weight = op.weight(1, "row", lambda value: value.reshape(-1))
        layer = nn.PReLU(len(weight))
        layer.weight = weight
        return layer

    return op.weighted("", make, op.tensor())


def _leaky(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.clamp(x, min=0) + slope * torch.clamp(x, max=0)


def hard_sigmoid(op: Operation) -> Value:
    """HardSigmoid: torch's if it has that slope."""
    alpha, beta = float(op.attribute("alpha", 0.2)), float(op.attribute("beta", 0.5))
    if abs(alpha - _SIXTH) < _SAME and beta == 0.5:  # noqa: PLR2004 - torch's own
        return op.layer(nn.Hardsigmoid(), op.tensor())
    return op.run(torch.clamp, op.run(torch.add, op.run(torch.mul, op.tensor(), alpha), beta), 0, 1)


def gelu(op: Operation) -> Value:
    """Gelu, exact or by tanh."""
    if op.attribute("approximate", "none") == "tanh":
        return op.run(gelu_by_tanh, op.tensor())
    return op.layer(nn.GELU(), op.tensor())


def _softmax(function: Callable[..., object]) -> Translator:
    """Return the translator of a softmax; before opset 13 it ran over all axes from its own on.

    Raises:
        OperatorError: If several axes are normalized at once.
    """

    def translate(op: Operation) -> Value:
        new = op.source.opset >= _NEW_SOFTMAX_OPSET
        axis, rank = op.axis(-1 if new else 1), len(op.sizes())
        if not new and any(size != 1 for size in op.counts()[axis + 1 :]):
            raise op.refused(f"several axes at once (opset {op.source.opset})")
        return op.run(function, op.tensor(), axis - rank)

    return translate


TABLE: Table = {
    "Celu": lambda op: op.layer(nn.CELU(float(op.attribute("alpha", 1.0))), op.tensor()),
    "Clip": clip,
    "Elu": lambda op: op.layer(nn.ELU(float(op.attribute("alpha", 1.0))), op.tensor()),
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": _plain(nn.Hardswish),
    "LeakyRelu": lambda op: op.layer(nn.LeakyReLU(float(op.attribute("alpha", 0.01))), op.tensor()),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Mish": _plain(nn.Mish),
    "PRelu": prelu,
    "Relu": _plain(nn.ReLU),
    "Selu": _plain(nn.SELU),
    "Sigmoid": _plain(nn.Sigmoid),
    "Softmax": _softmax(torch.softmax),
    "Softplus": _plain(nn.Softplus),
    "Softsign": lambda op: op.run(functional.softsign, op.tensor()),
    "Tanh": _plain(nn.Tanh),
}
