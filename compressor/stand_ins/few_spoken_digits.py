"""Half of the clips of ``spoken_digits``: enough for recordings made of them, which have many windows a clip."""

from __future__ import annotations

from pathlib import Path

from compressor.recipe.model import DataRecipe
from compressor.stand_ins.spoken_digits import write_clips

TAKES = 40
KINDS = (0, 1, 2, 3, 6, 4, 5, 4, 5, 4)
"""The first five digits, the keywords, have a pitch, and the others are hiss: two epochs suffice."""


def write(folder: Path, data: DataRecipe) -> Path:
    """Write ``TAKES`` clips for each digit and voice; return the zip."""
    return write_clips(folder, data, TAKES, KINDS)
