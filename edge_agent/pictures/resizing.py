"""Resizing of pictures to a model's input: where a picture is placed, and how its pixels are computed.

Decides sizes, crop and border from the sizes alone, so that device and build host agree on every machine. PIL computes
the pixels, 8 bits in integers, 16 bits in its mode ``F``, rounded; ``bilinear`` without a filter is computed here.
Reads no files and knows no colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.errors import ImageError
from wire.manifest import RESIZES, Preprocessing

Levels = TypeVar("Levels", np.uint8, np.uint16)
Indices: TypeAlias = "NDArray[np.intp]"

MAX_ASPECT = 16
"""Of a picture for a centre crop: of a longer one, most would be computed only to be cut off."""
_STRETCH, _CENTRE_CROP, _LETTERBOX = RESIZES
_FILTERS = {
    "nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """``width`` and ``height`` of the resized picture, and the input's corner in it, which a border makes negative."""

    width: int
    height: int
    left: int = 0
    top: int = 0


def placed(width: int, height: int, pre: Preprocessing) -> Placement:
    """Return how a picture of ``width`` x ``height`` pixels is resized, and which part of it becomes the input.

    Source of the sizes: ``torchvision.transforms.Resize(resize_to)`` and ``CenterCrop`` for ``centre_crop``;
    ``LetterBox`` of ultralytics 8 for ``letterbox``.

    Raises:
        ImageError: If it is longer than ``MAX_ASPECT`` to 1 and must be cropped, or ``pre.resize`` is unknown.
    """
    if pre.resize == _STRETCH:
        return Placement(width=pre.width, height=pre.height)
    if pre.resize == _LETTERBOX:
        ratio = min(pre.width / width, pre.height / height)
        wide, high = max(1, round(width * ratio)), max(1, round(height * ratio))
        left, top = -((pre.width - wide) // 2), -((pre.height - high) // 2)
        return Placement(width=wide, height=high, left=left, top=top)
    if pre.resize != _CENTRE_CROP:
        message = f"Expected a resize of {', '.join(RESIZES)}, got {pre.resize!r}"
        raise ImageError(message)
    if max(width, height) > MAX_ASPECT * min(width, height):
        message = f"Expected a picture of at most {MAX_ASPECT} to 1 for a centre crop, got {width}x{height}"
        raise ImageError(f"{message}: cut it to what matters")
    if (pre.resize_to and width <= height) or (not pre.resize_to and pre.width * height >= pre.height * width):
        wide = pre.resize_to or pre.width
        high = max(int(wide * height / width), 0 if pre.resize_to else pre.height)
    else:
        high = pre.resize_to or pre.height
        wide = max(int(high * width / height), 0 if pre.resize_to else pre.width)
    left, top = round((wide - pre.width) / 2.0), round((high - pre.height) / 2.0)
    return Placement(width=wide, height=high, left=left, top=top)


def framed(edges: NDArray[np.float32], width: int, height: int, pre: Preprocessing) -> NDArray[np.float32]:
    """Return x0, y0, x1, y1, (K, 4), ratios of a picture of ``width`` x ``height`` pixels, as ratios of the input."""
    scale, shift = _frame(width, height, pre)
    return np.asarray(edges * scale + shift, np.float32)


def unframed(edges: NDArray[np.float32], width: int, height: int, pre: Preprocessing) -> NDArray[np.float32]:
    """Return x0, y0, x1, y1, (K, 4), ratios of the input, as ratios of the picture; what is on a border is cut off."""
    scale, shift = _frame(width, height, pre)
    return np.asarray(np.clip((edges - shift) / scale, 0, 1), np.float32)


def _frame(width: int, height: int, pre: Preprocessing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return factor and shift from ratios of a picture to ratios of the input, (4,) each."""
    place = placed(width, height, pre)
    scale = np.array([place.width / pre.width, place.height / pre.height] * 2)
    return scale, -np.array([place.left / pre.width, place.top / pre.height] * 2)


@overload
def resized(pixels: Image.Image, pre: Preprocessing) -> NDArray[np.uint8]: ...


@overload
def resized(pixels: NDArray[Levels], pre: Preprocessing) -> NDArray[Levels]: ...


def resized(pixels: NDArray[Any] | Image.Image, pre: Preprocessing) -> NDArray[Any]:
    """Return ``pixels``, (H, W) or (H, W, 3), as ``pre`` resizes them: (height, width) or (height, width, 3).

    A picture of PIL's modes ``L`` or ``RGB`` gives the same as its array, without a copy of all its pixels.

    Raises:
        ImageError: As in ``placed``, or if ``pre.resample`` is unknown.
    """
    if pre.resample not in _FILTERS:
        message = f"Expected a resample of {', '.join(_FILTERS)}, got {pre.resample!r}"
        raise ImageError(message)
    width, height = pixels.size if isinstance(pixels, Image.Image) else (pixels.shape[1], pixels.shape[0])
    place = placed(width, height, pre)
    if (place.width, place.height) == (width, height):
        scaled = np.asarray(pixels)
    elif not pre.antialias:
        scaled = _between_four(np.asarray(pixels), place.width, place.height)
    else:
        scaled = _filtered(pixels, place, _FILTERS[pre.resample])
    if place.width < pre.width or place.height < pre.height:
        framed = np.full((pre.height, pre.width, *scaled.shape[2:]), pre.fill, scaled.dtype)
        framed[-place.top : place.height - place.top, -place.left : place.width - place.left] = scaled
        return framed
    if (place.width, place.height) == (pre.width, pre.height):
        return scaled
    return scaled[place.top : place.top + pre.height, place.left : place.left + pre.width]


def _filtered(
    pixels: NDArray[Any] | Image.Image, place: Placement, resampling: Image.Resampling
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    size = (place.width, place.height)
    if isinstance(pixels, Image.Image):
        return np.asarray(pixels.resize(size, resampling))
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(size, resampling))
    real = np.rint(np.asarray(Image.fromarray(pixels.astype(np.float32)).resize(size, resampling)))
    return np.asarray(real.clip(0, np.iinfo(pixels.dtype).max), pixels.dtype)  # cubic filters overshoot


def _between_four(pixels: NDArray[Levels], width: int, height: int) -> NDArray[Levels]:
    """Return ``pixels`` at the new size, each computed of the four that are nearest to its centre, as OpenCV does.

    In float32, one operation at a time: no processor may merge two of them, so every machine gets the same numbers.
    """
    above, below, down = _neighbours(pixels.shape[0], height)
    before, after, across = _neighbours(pixels.shape[1], width)
    down, across = down[:, None], across[None, :]
    if pixels.ndim > 2:  # noqa: PLR2004 - rows, columns, channels
        down, across = down[..., None], across[..., None]

    def row(of: Indices) -> NDArray[np.float32]:
        first, second = (pixels[of[:, None], at[None, :]].astype(np.float32) for at in (before, after))
        mixed: NDArray[np.float32] = first + (second - first) * across
        return mixed

    upper = row(above)
    return np.asarray(np.rint(upper + (row(below) - upper) * down), pixels.dtype)


def _neighbours(size: int, wanted: int) -> tuple[Indices, Indices, NDArray[np.float32]]:
    """Return for each of ``wanted`` places the pixels beside it among ``size``, and its distance from the first."""
    at = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).clip(0, size - 1)
    first = np.floor(at).astype(np.intp)
    return first, np.minimum(first + 1, size - 1), (at - first).astype(np.float32)
