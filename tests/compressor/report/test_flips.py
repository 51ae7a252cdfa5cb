"""Thumbnails: small, exact, and coloured by the sign of the saliency."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from compressor.report.flips import LARGEST_PX, data_uri, overlay


def _opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def test_a_small_input_keeps_every_pixel() -> None:
    """Nothing is smoothed: the page magnifies."""
    pixels = np.random.default_rng(0).integers(0, 256, (28, 20, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(_opened(data_uri(pixels))), pixels)


def test_a_large_photo_becomes_small() -> None:
    """A report does not carry the data set."""
    assert _opened(data_uri(np.zeros((600, 800, 3), np.uint8))).size == (LARGEST_PX, 72)


def test_saliency_for_the_answer_is_orange_and_against_it_blue() -> None:
    """Without an influence on the answer the picture stays grey."""
    made = overlay(np.full((1, 3, 3), 128, np.uint8), np.array([[1.0, -1.0, 0.0]], np.float32), 1.0).astype(int)
    assert made[0, 0, 0] > made[0, 0, 2]
    assert made[0, 1, 2] > made[0, 1, 0]
    assert made[0, 2].tolist() == [128, 128, 128]


def test_no_saliency_at_all_divides_by_nothing() -> None:
    """If no region matters to the model, the picture is unchanged."""
    assert np.all(overlay(np.full((2, 2, 3), 128, np.uint8), np.zeros((2, 2), np.float32), 0.0) == 128)
