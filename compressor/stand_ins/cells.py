"""Discs, rings and dots of three colours on a bright ground in the form of Pascal VOC, with lists of splits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from compressor.recipe.model import DataRecipe
from compressor.stand_ins._zipped import write_zip

PICTURES = {"train": 150, "val": 40, "test": 70}
_KINDS = {"Platelets": (0.06, (140, 90, 170)), "RBC": (0.18, (225, 150, 140)), "WBC": (0.34, (120, 100, 190))}
"""Diameter as a share of the picture's height, and colour."""
_PLACES = 8  # four across, two down: no object hides another


def write(folder: Path, data: DataRecipe) -> Path:
    """Write the pictures of ``PICTURES``, ``data.width`` x ``data.height`` pixels, and their boxes; return the zip."""
    rng, files, number = np.random.default_rng(0), {}, 0
    for split, count in PICTURES.items():
        names = []
        for _ in range(count):
            names.append(f"cell_{number:05d}")
            picture, annotation = _drawn(names[-1], (data.width, data.height), rng)
            files[f"JPEGImages/{names[-1]}.png"] = picture
            files[f"Annotations/{names[-1]}.xml"] = annotation
            number += 1
        files[f"{data.split}/{split}.txt"] = "\n".join(names).encode()
    return write_zip(folder / "cells.zip", files)


def _drawn(name: str, size: tuple[int, int], rng: np.random.Generator) -> tuple[bytes, bytes]:
    """Return one picture as PNG and its annotation; objects lie on a coarse grid, so that none hides another."""
    width, height = size
    image = Image.new("RGB", size, (235, 225, 225))
    pen, objects = ImageDraw.Draw(image), []
    for place in rng.choice(_PLACES, size=int(rng.integers(3, 7)), replace=False).tolist():
        kind = str(rng.choice(list(_KINDS), p=[0.25, 0.55, 0.2]))
        share, colour = _KINDS[kind]
        across = share * height * rng.uniform(0.85, 1.15)
        x = (place % 4 + 0.5 + rng.uniform(-0.1, 0.1)) * width / 4
        y = (place // 4 + 0.5 + rng.uniform(-0.1, 0.1)) * height / 2
        x, y = (float(np.clip(at, across / 2 + 1, side - across / 2 - 1)) for at, side in ((x, width), (y, height)))
        edges = [round(value, 1) for value in (x - across / 2, y - across / 2, x + across / 2, y + across / 2)]
        pen.ellipse(edges, fill=colour, outline=tuple(level - 40 for level in colour))
        sides = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True))
        objects.append(f"<object><name>{kind}</name><bndbox>{sides}</bndbox></object>")
    noisy = np.asarray(image) + rng.normal(0, 6, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    stated = f"<filename>{name}.png</filename><size><width>{width}</width><height>{height}</height></size>"
    return buffer.getvalue(), f"<annotation>{stated}{''.join(objects)}</annotation>".encode()
