"""Writes short texts into a picture, with letters of five by seven points of its own: no drawing package is installed.

``letters.json`` has the letters, digits and some signs; any other character is shown as "?".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

SCALE = 2
"""Pixels of a point."""
ADVANCE, LETTER_HEIGHT = 6 * SCALE, 7 * SCALE
"""Pixels from one letter to the next, and of a letter's height."""


@cache
def letters() -> Mapping[str, NDArray[np.bool_]]:
    """Return the points of each letter, bool, (7, 5)."""
    data = json.loads(files("server.alerts").joinpath("letters.json").read_text(encoding="utf-8"))
    return {letter: np.array([[point == "#" for point in row] for row in rows]) for letter, rows in data.items()}


def text_width(text: str) -> int:
    """Return how many pixels ``text`` takes."""
    return len(text) * ADVANCE


def write(pixels: NDArray[np.uint8], text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    """Write ``text`` into ``pixels`` (uint8, (H, W, 3), RGB) with its upper left corner at ``x``, ``y``.

    What lies outside of the picture is left out.
    """
    height, width, _ = pixels.shape
    for place, letter in enumerate(text):
        if letter == " ":
            continue
        points = letters().get(letter, letters()["?"])
        rows, columns = np.nonzero(np.kron(points, np.ones((SCALE, SCALE), np.bool_)))
        rows, columns = rows + y, columns + x + place * ADVANCE
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        pixels[rows[inside], columns[inside]] = colour
