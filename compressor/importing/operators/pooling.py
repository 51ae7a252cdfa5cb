"""Pooling over windows, over the whole image, and over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from compressor.importing.network import Value
from compressor.importing.operation import Operation, Table, Translator
from compressor.importing.operators.convolution import for_torch, pads_of

_MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEAN = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_SPATIAL = 2
_IMAGE_AXES = 4
_POSITIVE = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Softplus", "MaxPool"})


def max_pool(op: Operation) -> Value:
    """MaxPool: a layer. Pads that differ at the two ends go before it.

    They are zeros after a ReLU, else copies of the edge, which the first window holds anyway: the value of infinity
    that ONNX describes would set the range of int8.

    Raises:
        OperatorError: If its indices are read, or dilations meet uneven pads.
    """
    kernel, strides, dilations, pads = _window(op)
    axes, x = len(kernel), op.tensor()
    if len(op.node.outputs) > 1 and op.node.outputs[1] and op.node.outputs[1] in op.source.users():
        raise op.refused("indices as a second output")
    if pads[:axes] != pads[axes:] or any(2 * pad > size for pad, size in zip(pads[:axes], kernel, strict=True)):
        maker = op.source.maker().get(op.node.inputs[0])
        if maker is not None and maker.operator in _POSITIVE:
            x = op.run(functional.pad, x, for_torch(pads))
        elif all(step == 1 for step in dilations):
            x = op.run(functional.pad, x, for_torch(pads), "replicate")
        else:
            raise op.refused("dilations beside pads that differ at the two ends")
        pads = [0] * 2 * axes
    layer = _MAX[axes](
        tuple(kernel),
        stride=tuple(strides),
        padding=tuple(pads[:axes]),
        dilation=tuple(dilations),
        ceil_mode=bool(op.attribute("ceil_mode", 0)),
    )
    return op.layer(layer, x)


def average_pool(op: Operation) -> Value:
    """AveragePool: a layer; pads that differ at the two ends go before it where they count as zeros.

    Raises:
        OperatorError: If it has dilations, or uneven pads that do not count.
    """
    kernel, strides, dilations, pads = _window(op)
    axes, x, counted = len(kernel), op.tensor(), bool(op.attribute("count_include_pad", 0))
    if any(step != 1 for step in dilations):
        raise op.refused("dilations")
    if pads[:axes] != pads[axes:]:
        if not counted:
            raise op.refused("pads that differ at the two ends and don't count")
        x, pads = op.run(functional.pad, x, for_torch(pads)), [0] * 2 * axes
    layer = _MEAN[axes](
        tuple(kernel),
        stride=tuple(strides),
        padding=tuple(pads[:axes]),
        ceil_mode=bool(op.attribute("ceil_mode", 0)),
        count_include_pad=counted,
    )
    return op.layer(layer, x)


def _window(op: Operation) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return kernel, strides, dilations and pads of a pool.

    Raises:
        OperatorError: If it has more axes than torch pools.
    """
    kernel = [int(size) for size in op.attribute("kernel_shape")]
    axes = len(kernel)
    if axes not in _MAX:
        raise op.refused(f"{axes} spatial axes")
    strides = [int(size) for size in op.attribute("strides", [1] * axes)]
    dilations = [int(size) for size in op.attribute("dilations", [1] * axes)]
    return kernel, strides, dilations, pads_of(op, kernel, strides, dilations)


def global_average(op: Operation) -> Value:
    """GlobalAveragePool: torch's adaptive layer on images, whose narrowing pruning can follow."""
    if len(op.sizes()) == _IMAGE_AXES:
        return op.layer(nn.AdaptiveAvgPool2d(1), op.tensor())
    return op.run(torch.mean, op.tensor(), list(range(_SPATIAL, len(op.sizes()))), True)


def global_max(op: Operation) -> Value:
    """GlobalMaxPool."""
    return op.run(torch.amax, op.tensor(), list(range(_SPATIAL, len(op.sizes()))), True)


def _reduced(function: Callable[..., Any]) -> Translator:
    """Return the translator of a reduction, whose axes are an input or, in earlier opsets, an attribute."""

    def translate(op: Operation) -> Value:
        axes = op.integers(1, "axes")
        if not axes and op.attribute("noop_with_empty_axes", 0):
            return op.tensor()
        rank = len(op.sizes())
        given = sorted(axis % rank for axis in axes) if axes else list(range(rank))
        return op.run(function, op.tensor(), given, bool(op.attribute("keepdims", 1)))

    return translate


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:  # noqa: FBT001 - as torch's reductions
    for axis in reversed(axes):
        x = torch.prod(x, axis, keep)
    return x


def _squares(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:  # noqa: FBT001 - as torch's reductions
    return torch.sum(x * x, axes, keep)


def _length(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:  # noqa: FBT001 - as torch's reductions
    return torch.sqrt(_squares(x, axes, keep))


def _absolute(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:  # noqa: FBT001 - as torch's reductions
    return torch.sum(torch.abs(x), axes, keep)


def _exponents(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:  # noqa: FBT001 - as torch's reductions
    return torch.logsumexp(x, axes, keep)


def largest_index(op: Operation) -> Value:
    """ArgMax along one axis, the first of equals.

    Raises:
        OperatorError: If the last of equals is asked for.
    """
    if op.attribute("select_last_index", 0):
        raise op.refused("select_last_index")
    return op.run(torch.argmax, op.tensor(), op.axis(), bool(op.attribute("keepdims", 1)))


TABLE: Table = {
    "ArgMax": largest_index,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "MaxPool": max_pool,
    "ReduceL1": _reduced(_absolute),
    "ReduceL2": _reduced(_length),
    "ReduceLogSumExp": _reduced(_exponents),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(torch.sum),
    "ReduceSumSquare": _reduced(_squares),
}
