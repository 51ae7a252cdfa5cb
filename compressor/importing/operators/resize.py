"""Resize of images: the modes that torch computes alike; nearest in every mode, by its indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from compressor.importing.network import Value
from compressor.importing.operation import Operation, Table
from compressor.importing.reading import Array

_SPATIAL = 2
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_HALF_PIXEL = frozenset({"half_pixel", "pytorch_half_pixel"})
_ROUNDED: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(op: Operation) -> Value:
    """Resize, and Upsample: by the sizes that onnxruntime found.

    Raises:
        OperatorError: If torch computes this mode otherwise.
    """
    mode = op.attribute("mode", "nearest")
    old_form = op.node.operator == "Upsample" or op.source.opset < 11  # noqa: PLR2004 - Resize has coordinates since 11
    place = "asymmetric" if old_form else op.attribute("coordinate_transformation_mode", "half_pixel")
    given, made = op.counts(), tuple(size.count for size in op.made_sizes())
    if given[:_SPATIAL] != made[:_SPATIAL] or op.attribute("antialias", 0) or op.attribute("exclude_outside", 0):
        raise op.refused("other axes than the image's, antialias or exclude_outside")
    sizes = list(made[_SPATIAL:])
    if given == made:
        return op.tensor()
    if mode == "nearest":
        rounding = "floor" if old_form else op.attribute("nearest_mode", "round_prefer_floor")
        return _nearest(op, sizes, place, rounding)
    aligned = place == "align_corners"
    if not aligned and place not in _HALF_PIXEL:
        raise op.refused(f"mode {mode!r} with coordinates {place!r}")
    if mode == "linear" and len(sizes) in _LINEAR:
        return op.run(_interpolated, op.tensor(), sizes, _LINEAR[len(sizes)], aligned)
    if mode == "cubic" and len(sizes) == 2 and op.attribute("cubic_coeff_a", -0.75) == -0.75:  # noqa: PLR2004 - torch's
        return op.run(_interpolated, op.tensor(), sizes, "bicubic", aligned)
    raise op.refused(f"mode {mode!r}")


def _interpolated(x: torch.Tensor, sizes: list[int], mode: str, aligned: bool) -> torch.Tensor:  # noqa: FBT001 - torch's
    return functional.interpolate(x, size=sizes, mode=mode, align_corners=aligned)


def _nearest(op: Operation, sizes: Sequence[int], place: str, rounding: str) -> Value:
    given = op.counts()[_SPATIAL:]
    indices = [_indices(op, old, new, place, rounding) for old, new in zip(given, sizes, strict=True)]
    plain = [np.arange(new) * old // new for old, new in zip(given, sizes, strict=True)]
    if all(np.array_equal(a, b) for a, b in zip(indices, plain, strict=True)):
        return op.run(_repeated, op.tensor(), list(sizes))
    x = op.tensor()
    for axis, chosen in enumerate(indices):
        held = op.hold(f"{op.node.name}_indices", torch.from_numpy(chosen.astype(np.int64)))
        x = op.run(torch.index_select, x, axis + _SPATIAL, held)
    return x


def _repeated(x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    return functional.interpolate(x, size=sizes, mode="nearest")


def _indices(op: Operation, old: int, new: int, place: str, rounding: str) -> Array:
    """Return the source index of every pixel along one axis.

    Source: ONNX operators, Resize, attribute coordinate_transformation_mode.

    Raises:
        OperatorError: If coordinates or rounding are unknown.
    """
    at, scale = np.arange(new, dtype=np.float64), new / old
    if place in _HALF_PIXEL:
        found = (at + 0.5) / scale - 0.5 if new > 1 or place == "half_pixel" else at * 0
    elif place == "asymmetric":
        found = at / scale
    elif place == "align_corners":
        found = at * (old - 1) / (new - 1) if new > 1 else at * 0
    else:
        raise op.refused(f"coordinates {place!r}")
    if rounding not in _ROUNDED:
        raise op.refused(f"nearest_mode {rounding!r}")
    return np.clip(_ROUNDED[rounding](found), 0, old - 1).astype(np.int64)


TABLE: Table = {"Resize": resize, "Upsample": resize}
