"""Printed digits on plates of several colours in the format of ``labelled_images``: a zip of PNG with ``labels.csv``.

The plates are the slices: those that the recipe trains on, and one that it does not train on.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from compressor.recipe.model import DataRecipe
from compressor.stand_ins._zipped import write_zip

ROWS_A_SLICE = 1_000
_FONT_PX = 26
_PLATES = ((20, 20, 25), (35, 30, 60), (15, 50, 40), (70, 20, 20))


def write(folder: Path, data: DataRecipe) -> Path:
    """Write ``ROWS_A_SLICE`` crops of ``data.width`` x ``data.height`` pixels for each slice; return the zip."""
    rng = np.random.default_rng(0)
    font = ImageFont.load_default(_FONT_PX)
    files: dict[str, bytes] = {}
    lines = [f"path,label,{data.slices or 'slice'},source"]  # without one, digits so alike would be near copies
    for number, plate in enumerate((*(data.train_slices or ("plate",)), "another-plate")):
        for row in range(ROWS_A_SLICE):
            digit = row % 10
            name = f"images/{number}-{row:04d}.png"
            files[name] = _crop(digit, _PLATES[number % len(_PLATES)], (data.width, data.height), font, rng)
            lines.append(f"{name},{digit}.0,{plate},{name}")
    return write_zip(folder / "meter-digits.zip", {"labels.csv": "\n".join(lines).encode(), **files})


def _crop(
    digit: int,
    plate: tuple[int, int, int],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    rng: np.random.Generator,
) -> bytes:
    image = Image.new("RGB", size, plate)
    place = (size[0] / 2 + rng.uniform(-1.5, 1.5), size[1] / 2 + rng.uniform(-1.5, 1.5))
    light = int(rng.integers(170, 250))
    ImageDraw.Draw(image).text(place, str(digit), fill=(light, light, light), font=font, anchor="mm")
    noisy = np.asarray(image) + rng.normal(0, 8, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
