"""Ten figures of an image that drift shows in; private to ``monitor``, which owns their names.

Works on whole batches with few numpy calls: on one small image the cost is the calls, not the
pixels. Luma is kept as exact integers in float32 (weights in 1/256), so that sums and differences
are the same on every processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NAMES = (
    "luma_mean", "luma_sd", "dark_ratio", "clipped_ratio", "laplacian_log", "noise",
    "red_green", "blue_yellow", "gradient_x", "gradient_y",
)  # fmt: skip
LOWEST = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0)
HIGHEST = (1.0, 0.5001, 1.0, 1.0, 20.0, 10.0, 1.0, 1.0, 1.0, 1.0)

# Source: ITU-R BT.601, luma of RGB, rounded to 1/256.
_WEIGHTS = np.array([77, 150, 29], np.float32)
_FULL = 255.0 * 256.0
_DARK = np.float32(0.1 * _FULL)  # below a tenth: nothing to see
_CLIPPED = np.float32(0.98 * _FULL)  # above 250 of 255: the sensor is saturated
_NOISE_FACTOR = float(np.sqrt(np.pi / 2) / 6)
_MIN_SIDE = 3
_CHUNK_PIXELS = 1 << 18


def image_features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features of ``images``, uint8 (N, H, W, 3), as float64 (N, 10), in the order of ``NAMES``.

    Luma, gradients and noise are in units of full scale (1.0). Images of fewer than 3 pixels a side
    give NaN, which counts as invalid.
    """
    count, height, width, _ = images.shape
    if min(height, width) < _MIN_SIDE:
        return np.full((count, len(NAMES)), np.nan)
    step = max(1, _CHUNK_PIXELS // (height * width))
    if count <= step:
        return _features(images)
    return np.concatenate([_features(images[start : start + step]) for start in range(0, count, step)])


def _features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    count, height, width, _ = images.shape
    floats = images.astype(np.float32)
    luma = (floats.reshape(-1, 3) @ _WEIGHTS).reshape(count, height * width)
    out = np.empty((count, len(NAMES)))
    _levels(luma, out)
    _colours(floats.reshape(count, height, width * 3), out)
    _structure(luma, out, height, width)
    return out


def _levels(luma: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    pixels = luma.shape[1]
    ones = np.ones(pixels, np.float32)
    mean = np.add.reduce(luma, axis=1, dtype=np.float64) / pixels
    centred = luma - mean.astype(np.float32)[:, None]
    out[:, 0] = mean / _FULL
    out[:, 1] = np.sqrt(np.vecdot(centred, centred) / pixels) / _FULL
    out[:, 2] = (luma < _DARK) @ ones / pixels
    out[:, 3] = (luma > _CLIPPED) @ ones / pixels


def _colours(rows: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    count, height, triples = rows.shape
    columns = np.ones(height, np.float32) @ rows  # below 2^24, so exact: grey images give exactly 0
    total = np.add.reduce(columns.reshape(count, triples // 3, 3), axis=1, dtype=np.float64)
    red, green, blue = (total / (255.0 * height * (triples // 3))).T
    out[:, 6] = red - green
    out[:, 7] = blue - (red + green) / 2


def _structure(luma: NDArray[np.float32], out: NDArray[np.float64], height: int, width: int) -> None:
    """Fill in what needs differences between pixels.

    Differences run over flattened rows; columns where they cross a row's end are set to 0.
    """
    inner = (height - 2) * (width - 2) * _FULL
    across = np.zeros_like(luma)
    np.subtract(luma[:, 1:], luma[:, :-1], out=across[:, :-1])
    across[:, width - 1 :: width] = 0
    down = luma[:, width:] - luma[:, :-width]
    out[:, 8] = np.vecdot(across, across) / (height * (width - 1) * _FULL**2)
    out[:, 9] = np.vecdot(down, down) / ((height - 1) * width * _FULL**2)
    bend_x = np.zeros_like(luma)
    np.subtract(across[:, 1:], across[:, :-1], out=bend_x[:, 1:])
    bend_x[:, ::width] = bend_x[:, width - 1 :: width] = 0
    laplacian = bend_x[:, width:-width] + (down[:, width:] - down[:, :-width])
    laplacian[:, ::width] = laplacian[:, width - 1 :: width] = 0
    # in squared grey levels of 1/255, so that the logarithm spreads over its range
    out[:, 4] = np.log1p(np.vecdot(laplacian, laplacian) * (255.0 / _FULL / inner * 255.0))
    # Source: Immerkaer, Fast noise variance estimation, CVIU 64(2), 1996, equation 5.
    slope = bend_x[:, width:] - bend_x[:, :-width]
    twist = slope[:, width:] - slope[:, :-width]
    out[:, 5] = np.add.reduce(np.abs(twist), axis=1) * (_NOISE_FACTOR / inner)
