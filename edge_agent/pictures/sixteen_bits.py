"""Grey pictures of 16 bits, as thermal cameras write them: their levels, as they are stored in the file.

A picture is passed on as two bytes a pixel, uint8 (H, W, 2), the low byte first: so that code that keeps, hashes and
stores pictures needs to know of one type only. Decides how they are read from a file and how people and the drift
monitor see them, in 8 bits. Never clips or stretches a level that a model gets.
"""

from __future__ import annotations

import io
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.errors import ImageError
from wire.manifest import Preprocessing

Bytes: TypeAlias = "NDArray[np.uint8]"
Levels: TypeAlias = "NDArray[np.uint16]"

FORMATS = ("PNG", "TIFF")
"""Those that keep 16 bits as they are: PIL scales a PGM whose largest level is not 65535."""
SUFFIXES = frozenset({".png", ".tif", ".tiff"})
MOST = 2**16 - 1
_MODES = frozenset({"I;16", "I;16L", "I;16B"})
_AXES, _BYTES = 3, 2
_SEEN_DEVIATIONS = 4.0
"""People and monitor see the mean and so many standard deviations on either side: all but the hottest spots."""


def to_levels(picture: Bytes) -> Levels:
    """Return the levels of ``picture``, uint8 (H, W, 2): uint16 (H, W).

    Raises:
        ImageError: If it has another type or shape.
    """
    if picture.dtype != np.uint8 or picture.ndim != _AXES or picture.shape[2] != _BYTES or 0 in picture.shape:
        message = f"Expected a picture of 16 bits as uint8 (H, W, 2), got {picture.dtype} {picture.shape}"
        raise ImageError(message)
    return np.ascontiguousarray(picture).view("<u2")[..., 0].astype(np.uint16)


def to_bytes(levels: Levels) -> Bytes:
    """Return ``levels``, uint16 (H, W), as a picture: uint8 (H, W, 2)."""
    return np.ascontiguousarray(levels, "<u2").view(np.uint8).reshape(*levels.shape, _BYTES)


def found_in(data: bytes) -> bool:
    """Return whether ``data`` begin as such a picture; what is broken does not count."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS).mode in _MODES
    except Exception:  # noqa: BLE001 - PIL's parsers raise various errors on broken bytes, which decoding reports
        return False


def check_mode(image: Image.Image) -> None:
    """Check that an opened ``image`` is grey with 16 bits.

    Raises:
        ImageError: If it is not.
    """
    if image.mode not in _MODES:
        message = f"Expected a grey image of 16 bits, got mode {image.mode!r} in a {image.format}"
        raise ImageError(f"{message}: save it as a PNG or TIFF of unsigned 16 bits, or use a recipe for 8 bits")


def read_levels(image: Image.Image) -> Levels:
    """Return the levels of an opened ``image``, decoded: uint16 (H, W), as they are stored."""
    image.load()
    return np.asarray(np.asarray(image), np.uint16)


def seen(picture: Bytes, pre: Preprocessing) -> Bytes:
    """Return ``picture``, uint8 (H, W, 2), for eyes and the drift monitor: uint8 (H, W, 3), equal channels.

    Black is four standard deviations below the mean of ``pre``, white four above: with numbers that fit the data, a
    scene of few levels is neither black nor without contrast.

    Raises:
        ImageError: If it has another type or shape.
    """
    levels = to_levels(picture)
    mean, std = (pre.mean or (0.0,))[0], (pre.std or (1.0,))[0]
    half = 255 / 2
    factor, offset = half * pre.scale / (std * _SEEN_DEVIATIONS), half - half * mean / (std * _SEEN_DEVIATIONS)
    shades = np.rint((levels * factor + offset).clip(0, 255)).astype(np.uint8)
    return np.repeat(shades[..., None], 3, axis=2)
