"""Small grey pictures and perceptual hashes: the feature space in which images are compared."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from compressor.progress import StageProgress

SIDE = 16
_HASH_SIZE = (9, 8)  # width, height: eight differences a row
Thumbs = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]


def thumbnails(images: Iterable[npt.NDArray[np.uint8]], count: int, stage: StageProgress) -> tuple[Thumbs, Hashes]:
    """Return each image as grey float32 (N, SIDE, SIDE), 0..255, and its 64-bit difference hash, uint64 (N,).

    ``images``: ``count`` arrays of uint8 (H, W, 3), of any size, taken one by one.
    Source of the hash: N. Krawetz, Kind of Like That (dHash), 2013: bit = a pixel is brighter than its left neighbour.
    """
    thumbs = np.empty((count, SIDE, SIDE), np.float32)
    bits = np.empty((count, 64), bool)
    for i, image in enumerate(images):
        grey = Image.fromarray(image).convert("L")
        thumbs[i] = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
        small = np.asarray(grey.resize(_HASH_SIZE, Image.Resampling.BOX), np.int16)
        bits[i] = (np.diff(small, axis=1) > 0).ravel()
        stage.advance()
    return thumbs, np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
