"""Small pictures inside the page: an input, and an input with the saliency of a model. Pure.

Decides size, colours and scale. Does not compute saliency.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST_PX = 96
"""Longer sides are reduced to this; smaller pictures stay, and the page magnifies them without smoothing."""
_FOR, _AGAINST = (255, 106, 0), (47, 129, 247)
_STRONGEST = 0.7  # opacity of the strongest saliency
_FADED = 0.75  # contrast of the picture under saliency

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def data_uri(pixels: Pixels) -> str:
    """Return uint8 (H, W, 3) as a PNG in a data URI, at most ``LARGEST_PX`` long."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST_PX, LARGEST_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def overlay(pixels: Pixels, saliency: Floats, strongest: float) -> Pixels:
    """Return the picture in grey with ``saliency`` over it: orange in favour of the class, blue against it.

    Args:
        pixels: uint8 (H, W, 3).
        saliency: float32 (H, W).
        strongest: The saliency (above 0) with full opacity; pictures to be compared share it.
    """
    grey = pixels.astype(np.float32).mean(axis=2, keepdims=True)
    ground = 128 + _FADED * (grey - 128)
    cover = _STRONGEST * np.clip(np.abs(saliency) / max(strongest, 1e-9), 0, 1)[..., None]
    colour = np.where(saliency[..., None] > 0, np.array(_FOR, np.float32), np.array(_AGAINST, np.float32))
    return np.asarray(np.rint(ground * (1 - cover) + colour * cover).clip(0, 255), dtype=np.uint8)
