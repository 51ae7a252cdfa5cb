"""Scenes composed of scikit-learn's handwritten digits: pictures with boxes that need no download.

Each scene has one to five digits of different sizes and contrasts on an uneven background, without much overlap; a
tenth of the scenes has none. The slice is the light: ``bright`` has dark ink on a light ground, ``dim`` light ink on a
dark one with more noise. A handwritten digit is used in scenes of one split alone, so the data set tells the splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from compressor.data._table import BOX, Table, make_box_table
from compressor.data.digits import source_images
from compressor.recipe.model import DataRecipe

READS = frozenset({"orientation", "decode"})  # used for the manifest: the device's images are encoded
SIDE = 96
DIGITS = (0, 1, 2, 3, 4)
"""The classes; more need a longer training."""
COUNTS = {"train": 640, "calibration": 120, "gate": 400, "reference": 440}
"""Scenes of each split."""
LIGHTS = ("bright", "dim")
_MOST, _EMPTY_RATIO = 5, 0.1
_SIZES = (14, 34)  # of a digit's longer side, pixels
_OVERLAP_RATIO = 0.15  # of the smaller box
_TRIES = 12  # places tried for a digit before it is left out
_SHARES = {"train": 0.5, "calibration": 0.08, "gate": 0.25, "reference": 0.17}  # of the handwritten digits
_INK = 40
Floats = npt.NDArray[np.float32]


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the scenes with their boxes. Needs no path."""
    del data, root
    pools = _pools()
    names = [(split, place) for split, count in COUNTS.items() for place in range(count)]
    made = [scene(pools[split], place, _number(split, place)) for split, place in names]
    table = make_box_table(
        [image for image, _ in made], [boxes for _, boxes in made], tuple(map(str, DIGITS)),
        slices=[LIGHTS[place % len(LIGHTS)] for _, place in names],
        sources=[f"scene-{split}-{place:04d}" for split, place in names],
    )  # fmt: skip
    return replace(table, told=np.array([split for split, _ in names], dtype=np.str_))


def _number(split: str, place: int) -> int:
    return 10_000 * list(COUNTS).index(split) + place


def _pools() -> dict[str, npt.NDArray[np.int64]]:
    """Return the rows of ``source_images`` for each split: by their order, every digit in the same shares."""
    labels = source_images()[1]
    found: dict[str, list[npt.NDArray[np.int64]]] = {split: [] for split in COUNTS}
    for digit in DIGITS:
        rows = np.flatnonzero(labels == digit)
        ends = np.rint(np.cumsum(list(_SHARES.values())) * len(rows)).astype(int)
        for split, part in zip(COUNTS, np.split(rows, ends[:-1]), strict=True):
            found[split].append(part)
    return {split: np.concatenate(parts) for split, parts in found.items()}


def scene(pool: Sequence[int] | npt.NDArray[np.int64], place: int, number: int) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Return the scene ``number`` of digits from the rows ``pool``: uint8 (96, 96, 3) and its boxes, float32 (n, 5).

    ``place`` decides the light.
    """
    rng = np.random.default_rng([20_260, number])
    images, labels = source_images()
    ground, sign, noise = (0.75, -1.0, 0.02) if place % len(LIGHTS) == 0 else (0.25, 1.0, 0.04)
    canvas = _ground(rng, ground)
    boxes = np.zeros((0, BOX), np.float32)
    for _ in range(0 if rng.random() < _EMPTY_RATIO else int(rng.integers(1, _MOST + 1))):
        row = int(rng.choice(pool))
        ink = _scaled(images[row], int(rng.integers(*_SIZES)), float(rng.uniform(0.8, 1.25)))
        corner = _placed(ink, boxes, rng)
        if corner is None:
            continue
        top, left = corner
        canvas[top : top + ink.shape[0], left : left + ink.shape[1]] += sign * float(rng.uniform(0.3, 0.6)) * ink
        edges = np.array([left, top, left + ink.shape[1], top + ink.shape[0]], np.float32) / SIDE
        boxes = np.concatenate([boxes, np.array([[DIGITS.index(labels[row]), *edges]], np.float32)])
    frame = canvas[..., None] * rng.uniform(0.9, 1.1, 3) + rng.normal(0, noise, (SIDE, SIDE, 3))
    return np.clip(np.rint(255 * frame), 0, 255).astype(np.uint8), boxes


def _ground(rng: np.random.Generator, level: float) -> Floats:
    """Return an uneven background around ``level``, float32 (96, 96)."""
    coarse = rng.normal(level, 0.06, (6, 6)).astype(np.float32)
    return np.array(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)


def _scaled(digit: npt.NDArray[np.uint8], longer: int, stretch: float) -> Floats:
    """Return the ink of ``digit``, cut to what is drawn and scaled, 0..1; its longer side has ``longer`` pixels."""
    rows, columns = (np.flatnonzero((digit > _INK).any(axis=axis)) for axis in (1, 0))
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = cut.shape[0], cut.shape[1] * stretch
    factor = longer / max(height, width)
    size = (max(3, round(width * factor)), max(3, round(height * factor)))
    ink: Floats = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC), np.float32) / np.float32(255)
    return ink


def _placed(ink: Floats, boxes: Floats, rng: np.random.Generator) -> tuple[int, int] | None:
    """Return a place, top and left, at which ``ink`` hardly overlaps ``boxes``; None if none was found."""
    height, width = ink.shape
    for _ in range(_TRIES):
        top, left = int(rng.integers(0, SIDE - height + 1)), int(rng.integers(0, SIDE - width + 1))
        own = np.array([left, top, left + width, top + height]) / SIDE
        low, high = np.maximum(boxes[:, 1:3], own[:2]), np.minimum(boxes[:, 3:], own[2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        smaller = np.minimum((boxes[:, 3:] - boxes[:, 1:3]).prod(axis=1), (own[2:] - own[:2]).prod())
        if (shared <= _OVERLAP_RATIO * smaller).all():
            return top, left
    return None
