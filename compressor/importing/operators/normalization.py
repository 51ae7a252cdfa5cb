"""Norms over the batch, a channel, a group of channels, or the last axes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from compressor.importing.network import Value
from compressor.importing.operation import Operation, Table

_EPS = 1e-5
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
_SPATIAL = 2


def batch_norm(op: Operation) -> Value:
    """BatchNormalization in evaluation mode: a layer with the file's statistics.

    Raises:
        OperatorError: If it is in training mode, or has too many axes.
    """
    rank = len(op.sizes())
    if op.attribute("training_mode", 0) or rank not in _BATCH_NORMS:
        raise op.refused("training_mode or too many axes: export after model.eval()")

    def make() -> nn.Module:
        weight = op.weight(1)
        layer = _BATCH_NORMS[rank](len(weight), eps=float(op.attribute("epsilon", _EPS)))
        layer.weight, layer.bias = weight, op.weight(2)
        layer.running_mean, layer.running_var = op.buffer(3), op.buffer(4)
        return layer

    return op.weighted("", make, op.tensor())


def instance_norm(op: Operation) -> Value:
    """InstanceNormalization: a layer with weights.

    Raises:
        OperatorError: If it has more axes than an image.
    """
    rank = len(op.sizes())
    if rank not in _INSTANCE_NORMS:
        raise op.refused(f"{rank} axes")

    def make() -> nn.Module:
        weight = op.weight(1)
        layer = _INSTANCE_NORMS[rank](len(weight), eps=float(op.attribute("epsilon", _EPS)), affine=True)
        layer.weight, layer.bias = weight, op.weight(2)
        return layer

    return op.weighted("", make, op.tensor())


def layer_norm(op: Operation) -> Value:
    """LayerNormalization over the last axes: a layer.

    Raises:
        OperatorError: If its weights have other axes, or its further outputs are read.
    """
    axis, counts = op.axis(-1), op.counts()
    shape = counts[axis:]
    if op.counts(1) != shape or any(op.made_sizes(index) for index in range(1, len(op.node.outputs))):
        raise op.refused(f"weights {op.counts(1)} for axes of {shape}, or more outputs")

    def make() -> nn.Module:
        layer = nn.LayerNorm(shape, eps=float(op.attribute("epsilon", _EPS)), bias=op.has(2))
        layer.weight = op.weight(1)
        layer.bias = op.weight(2) if op.has(2) else None  # type: ignore[assignment]
        return layer

    return op.weighted("", make, op.tensor())


def group_norm(op: Operation) -> Value:
    """GroupNormalization with weights a channel (opset 21, and what ``patterns`` finds): a layer.

    Raises:
        OperatorError: If it has weights a group.
    """
    groups, channels = int(op.attribute("num_groups")), op.counts()[1]
    if int(np.prod(op.counts(1))) != channels:
        raise op.refused("weights a group instead of a channel (opset 18 to 20)")

    def make() -> nn.Module:
        layer = nn.GroupNorm(groups, channels, eps=float(op.attribute("epsilon", _EPS)))
        layer.weight = op.weight(1, "row", lambda value: value.reshape(-1))
        layer.bias = op.weight(2, "row", lambda value: value.reshape(-1))
        return layer

    return op.weighted("", make, op.tensor())


def lp_norm(op: Operation) -> Value:
    """LpNormalization along one axis."""
    return op.run(_normalized, op.tensor(), float(op.attribute("p", 2)), op.axis(-1))


def _normalized(x: torch.Tensor, order: float, axis: int) -> torch.Tensor:
    return functional.normalize(x, p=order, dim=axis)


def local_response(op: Operation) -> Value:
    """LRN: torch's layer, which counts the same neighbours."""
    size = int(op.attribute("size"))
    alpha, beta, bias = (
        float(op.attribute(name, value)) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return op.layer(nn.LocalResponseNorm(size, alpha, beta, bias), op.tensor())


TABLE: Table = {
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_norm,
}
