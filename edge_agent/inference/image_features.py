"""Ten features of an image that are sensitive to drift; private to ``drift_counters``, which names them.

One image at a time, on flat arrays, with few numpy calls: for a small image the calls dominate the cost, not the
pixels. Luma is stored as integers in float32 (weights in 1/256), so that differences are exact and the same on every
processor.
"""

from __future__ import annotations

import math
from functools import lru_cache

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
_DARK = np.float32(0.1 * _FULL)  # below a tenth: too dark
_CLIPPED = np.float32(0.98 * _FULL)  # above 249 of 255: the sensor is saturated
_NOISE_FACTOR = math.sqrt(math.pi / 2) / 6
_MIN_SIDE = 3
_EXACT_PIXELS = 2**24 // 255  # their sum is an integer that float32 represents exactly


def image_features(image: NDArray[np.uint8]) -> list[float]:
    """Return the features of ``image``, uint8 (H, W, 3), in the order of ``NAMES``.

    Luma, gradients and noise are in units of full scale (1.0). An image with fewer than 3 pixels per side gives NaN,
    which counts as invalid.
    """
    height, width, _ = image.shape
    if min(height, width) < _MIN_SIDE:
        return [math.nan] * len(NAMES)
    floats = image.astype(np.float32)
    luma = floats.reshape(-1, 3).dot(_WEIGHTS)
    red, green, blue = _channel_means(floats)
    mean = (77 * red + 150 * green + 29 * blue) / 256
    pixels = height * width
    centred = luma - np.float32(mean * _FULL)
    return [
        mean,
        math.sqrt(float(centred.dot(centred)) / pixels) / _FULL,
        np.count_nonzero(luma < _DARK) / pixels,
        np.count_nonzero(luma > _CLIPPED) / pixels,
        *_structure(luma, height, width, red - green, blue - (red + green) / 2),
    ]


def _channel_means(floats: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return the means of red, green and blue, 0..1; sums stay below 2^24, so grey images differ by exactly 0."""
    height, width, _ = floats.shape
    if height * width <= _EXACT_PIXELS:
        totals = _ones(height * width).dot(floats.reshape(-1, 3))
    else:
        columns = _ones(height).dot(floats.reshape(height, width * 3))
        totals = np.add.reduce(columns.reshape(width, 3), axis=0, dtype=np.float64)
    red, green, blue = totals.tolist()
    full = 255.0 * height * width
    return red / full, green / full, blue / full


@lru_cache(maxsize=8)
def _ones(length: int) -> NDArray[np.float32]:
    return np.ones(length, np.float32)


def _structure(
    luma: NDArray[np.float32], height: int, width: int, red_green: float, blue_yellow: float
) -> tuple[float, float, float, float, float, float]:
    """Return the features based on differences between neighbours (and the colours, in the order of ``NAMES``).

    Differences are computed over flattened rows; those across a row's end are set to 0.
    """
    last = width - 1
    across = luma[1:] - luma[:-1]
    across[last::width] = 0
    down = luma[width:] - luma[:-width]
    bend_x = across[1:] - across[:-1]  # at [i]: around pixel i + 1
    bend_x[last::width] = 0
    bend_x[last - 1 :: width] = 0
    laplacian = down[width:] - down[:-width]
    laplacian[1:-1] += bend_x[width : -width or None]
    laplacian[::width] = 0
    laplacian[last::width] = 0
    slope = bend_x[width:] - bend_x[:-width]
    twist = slope[width:] - slope[:-width]
    np.abs(twist, out=twist)
    inner = (height - 2) * (width - 2)
    return (
        math.log1p(float(laplacian.dot(laplacian)) / (256.0**2 * inner)),  # grey levels of 1/255, squared
        # Source: Immerkaer, Fast noise variance estimation, CVIU 64(2), 1996, equation 5.
        float(twist.dot(_ones(twist.size))) * _NOISE_FACTOR / (inner * _FULL),
        red_green,
        blue_yellow,
        float(across.dot(across)) / (height * last * _FULL**2),
        float(down.dot(down)) / ((height - 1) * width * _FULL**2),
    )
