"""Convolutions, and the padding before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from compressor.importing.network import Value
from compressor.importing.operation import Operation, Table

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_SPATIAL = 2
"""The first axis after batch and channels."""


def pads_of(op: Operation, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Return the pads of a sliding window as ONNX orders them: all begins, then all ends."""
    axes = len(kernel)
    how = op.attribute("auto_pad", "NOTSET")
    if how in {"NOTSET", ""}:
        return [int(pad) for pad in op.attribute("pads", [0] * 2 * axes)]
    begins, ends = [0] * axes, [0] * axes
    if how == "VALID":
        return begins + ends
    for axis, size in enumerate(op.counts()[_SPATIAL:]):
        steps = -(-size // strides[axis])
        total = max((steps - 1) * strides[axis] + dilations[axis] * (kernel[axis] - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins[axis], ends[axis] = (small, large) if how == "SAME_UPPER" else (large, small)
    return begins + ends


def for_torch(pads: Sequence[int]) -> list[int]:
    """Return ONNX's pads in the order of ``functional.pad``: the last axis first, begin and end in turn."""
    axes = len(pads) // 2
    return [pad for axis in reversed(range(axes)) for pad in (pads[axis], pads[axes + axis])]


def conv(op: Operation) -> Value:
    """Conv: a layer; pads that differ at the two ends go before it.

    Raises:
        OperatorError: If its weights are computed, or torch has no layer for so many axes.
    """
    weight = op.weight(1)
    axes = weight.ndim - _SPATIAL
    if axes not in _CONVOLUTIONS:
        raise op.refused(f"{axes} spatial axes")
    kernel = list(weight.shape[_SPATIAL:])
    strides, dilations = op.attribute("strides", [1] * axes), op.attribute("dilations", [1] * axes)
    groups = int(op.attribute("group", 1))
    pads, x = pads_of(op, kernel, strides, dilations), op.tensor()
    if pads[:axes] != pads[axes:]:
        x, pads = op.run(functional.pad, x, for_torch(pads)), [0] * 2 * axes

    def make() -> nn.Module:
        return _filled(
            op, _CONVOLUTIONS[axes], (weight.shape[1] * groups, weight.shape[0]), stride=tuple(strides),
            padding=tuple(pads[:axes]), dilation=tuple(dilations), groups=groups,
        )  # fmt: skip

    return op.weighted("", make, x)


def _filled(op: Operation, kind: type[Any], channels: tuple[int, int], **settings: Any) -> nn.Module:  # noqa: ANN401 - of torch
    """Return a layer of ``kind`` with the node's weights and bias; ``channels``: (in, out)."""
    weight, bias = op.weight(1), op.weight(2) if op.has(2) else None
    layer: nn.Module = kind(*channels, tuple(weight.shape[_SPATIAL:]), **settings, bias=bias is not None, device="meta")
    layer.weight = weight
    layer.bias = bias  # type: ignore[assignment]
    return layer


def conv_transpose(op: Operation) -> Value:
    """ConvTranspose: a layer; pads that differ at the two ends cut its output.

    Raises:
        OperatorError: If its weights are computed, or its sizes are given in a way that torch has not.
    """
    weight = op.weight(1)
    axes = weight.ndim - _SPATIAL
    if axes not in _TRANSPOSED:
        raise op.refused(f"{axes} spatial axes")
    strides, dilations = op.attribute("strides", [1] * axes), op.attribute("dilations", [1] * axes)
    groups, extra = int(op.attribute("group", 1)), list(op.attribute("output_padding", [0] * axes))
    if op.attribute("auto_pad", "NOTSET") not in {"NOTSET", "VALID", ""} or op.attribute("output_shape"):
        raise op.refused("auto_pad or output_shape")
    pads = [int(pad) for pad in op.attribute("pads", [0] * 2 * axes)]
    even = pads[:axes] == pads[axes:]

    def make() -> nn.Module:
        return _filled(
            op, _TRANSPOSED[axes], (weight.shape[0], weight.shape[1] * groups), stride=tuple(strides),
            padding=tuple(pads[:axes]) if even else 0, output_padding=tuple(extra) if even else 0,
            dilation=tuple(dilations), groups=groups,
        )  # fmt: skip

    if not even and any(extra):
        raise op.refused("output_padding beside pads that differ at the two ends")
    made = op.weighted("", make, op.tensor())
    return made if even else op.run(functional.pad, made, [-pad for pad in for_torch(pads)])


def pad(op: Operation) -> Value:
    """Pad, with a constant, the edge, or a reflection.

    Raises:
        OperatorError: If the batch is padded, or the mode is one that torch has not on these axes.
    """
    pads = op.integers(1, "pads") or []
    rank = len(op.sizes())
    if (axes := op.integers(3)) is not None:
        whole = [0] * 2 * rank
        for place, axis in enumerate(axes):
            whole[axis % rank], whole[rank + axis % rank] = pads[place], pads[len(axes) + place]
        pads = whole
    mode = op.attribute("mode", "constant")
    if pads[0] or pads[rank]:
        raise op.refused("pads of the batch")
    if not any(pads):
        return op.tensor()
    if mode == "constant":
        value = op.number(2, "value", 0.0)
        given = for_torch(pads)
        while not any(given[-2:]):
            given = given[:-2]
        return op.run(functional.pad, op.tensor(), given, mode, value)
    known = {"edge": "replicate", "reflect": "reflect"}
    if mode not in known or any(pads[:_SPATIAL]) or any(pads[rank : rank + _SPATIAL]):
        raise op.refused(f"mode {mode!r} on these axes")
    given = for_torch([*pads[_SPATIAL:rank], *pads[rank + _SPATIAL :]])
    return op.run(functional.pad, op.tensor(), given, known[mode])


def depth_to_space(op: Operation) -> Value:
    """DepthToSpace: torch's pixel shuffle if ordered CRD; DCR is moved into that order first."""
    block = int(op.attribute("blocksize"))
    x, (_, channels, *_) = op.tensor(), op.counts()
    if op.attribute("mode", "DCR") == "DCR":
        x = op.run(torch.unflatten, x, 1, [block * block, channels // block**2])
        x = op.run(torch.transpose, x, 1, 2)
        x = op.run(torch.flatten, x, 1, 2)
    return op.run(functional.pixel_shuffle, x, block)


def space_to_depth(op: Operation) -> Value:
    """SpaceToDepth: torch's inverse pixel shuffle, moved into ONNX's order (block first)."""
    block = int(op.attribute("blocksize"))
    x = op.run(functional.pixel_unshuffle, op.tensor(), block)
    x = op.run(torch.unflatten, x, 1, [op.counts()[1], block * block])
    x = op.run(torch.transpose, x, 1, 2)
    return op.run(torch.flatten, x, 1, 2)


TABLE: Table = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Pad": pad,
    "SpaceToDepth": space_to_depth,
}
