"""Images in 8 bits, for comparisons and for eyes: those of 16 bits are stretched, all others are as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from compressor.data._stored_images import Images, shapes_of
from edge_agent.pictures import sixteen_bits

_DARKEST, _BRIGHTEST = 0.001, 0.999
"""Shares of the pixels that become black and white: a dead pixel decides nothing."""
_COLOURS = 3
Shades = npt.NDArray[np.uint8]


def is_deep(image: Shades) -> bool:
    """Return whether ``image``, of a table, has 16 bits."""
    return bool(image.shape[2] != _COLOURS)


def levels_of(image: Shades) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return the levels of ``image``, of a table: itself, or uint16 (H, W)."""
    return sixteen_bits.to_levels(image) if is_deep(image) else image


def shaded(images: Images) -> Iterator[Shades]:
    """Yield each of ``images`` as uint8 (H, W, 3); those of 16 bits are stretched by the range of all of them."""
    if not len(images) or shapes_of(images)[0, 2] == _COLOURS:
        yield from images
        return
    low, high = _range(images)
    for image in images:
        yield _stretched(image, low, high)


def face(image: Shades) -> Shades:
    """Return ``image`` as uint8 (H, W, 3), for eyes: one of 16 bits is stretched by its own range."""
    return _stretched(image, *_range([image])) if is_deep(image) else image


def _range(images: Iterable[Shades]) -> tuple[int, int]:
    counts = np.zeros(sixteen_bits.MOST + 1, np.int64)
    for image in images:
        counts += np.bincount(sixteen_bits.to_levels(image).ravel(), minlength=len(counts))
    shares = counts.cumsum() / max(int(counts.sum()), 1)
    low, high = np.searchsorted(shares, (_DARKEST, _BRIGHTEST)).tolist()
    return int(low), max(int(high), int(low) + 1)


def _stretched(image: Shades, low: int, high: int) -> Shades:
    ratio = (sixteen_bits.to_levels(image).astype(np.float64) - low) / (high - low)
    return np.repeat(np.rint(ratio.clip(0, 1) * 255).astype(np.uint8)[..., None], _COLOURS, axis=2)
