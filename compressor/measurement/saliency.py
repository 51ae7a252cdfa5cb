"""Inputs whose prediction changed, and the image regions that it depends on (occlusion saliency). Pure.

Decides which flips are shown first, and computes saliency without gradients, so that it works for every runtime. Does
not run a model itself: the caller passes a function.

Source: M. D. Zeiler, R. Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2
(occlusion sensitivity).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from compressor.errors import MeasureError
from compressor.measurement.predictions import Compared

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]

SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One input that the two models classify differently.

    ``row``: its index in the set, with the true ``label`` and ``slice``; the class ``before`` and ``after``, and for
    each the margin: probability of that class minus the next largest (0..1).
    """

    row: int
    label: int
    before: int
    after: int
    before_margin: float
    after_margin: float
    slice: str

    @property
    def lost(self) -> bool:
        """Whether it was right before and is wrong now."""
        return self.before == self.label

    @property
    def won(self) -> bool:
        """Whether it was wrong before and is right now."""
        return self.after == self.label


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A flip with its saliency before and after, float32 (H, W): the drop of the class's probability under a patch."""

    flip: Flip
    before: Floats
    after: Floats


def flips(compared: Compared) -> tuple[Flip, ...]:
    """Return the inputs that compression flipped: lost ones first, most confident first, then the others."""
    before, after = compared.float_model, compared.candidate
    rows = np.flatnonzero(before.classes != after.classes)
    surely_before, surely_after = _margins(before.logits[rows]), _margins(after.logits[rows])
    found = [
        Flip(
            row=int(row),
            label=int(compared.labels[row]),
            before=int(before.classes[row]),
            after=int(after.classes[row]),
            before_margin=float(surely_before[index]),
            after_margin=float(surely_after[index]),
            slice=str(compared.slices[row]),
        )
        for index, row in enumerate(rows)
    ]
    return tuple(sorted(found, key=lambda flip: (not flip.lost, -flip.before_margin, flip.row)))


def _margins(logits: Floats) -> NDArray[np.float64]:
    if not len(logits):
        return np.zeros(0)
    largest = np.sort(special.softmax(logits.astype(np.float64), axis=1), axis=1)[:, -2:]
    return np.asarray(largest[:, -1] - largest[:, 0] if largest.shape[1] > 1 else largest[:, -1])


def saliency(predict: Predict, image: Floats, label: int, *, patches: int = 8) -> Floats:
    """Return how far the probability of class ``label`` drops where the image is hidden, float32 (H, W), -1..1.

    Args:
        predict: Maps float32 (N, C, H, W) to logits (N, classes); called once.
        image: One input, float32 (C, H, W); a patch is replaced by the mean of each channel.
        label: The class to explain.
        patches: Steps along the longer side; each patch is two steps wide, so that patches overlap.

    Raises:
        MeasureError: If the image has another rank, ``label`` is not a class, or the logits are not finite.
    """
    if image.ndim != 3 or not image.size or patches < 1:  # noqa: PLR2004 - channel, row, column
        message = f"Expected an image (C, H, W) and at least one patch, got {image.shape} and {patches}"
        raise MeasureError(f"{message}: pass one row without its batch axis")
    masks = _masks(image.shape[1], image.shape[2], patches)
    hidden = np.where(masks[:, None], image.mean(axis=(1, 2), keepdims=True), image)
    said = np.asarray(predict(np.concatenate([image[None], hidden]).astype(np.float32)))
    if said.shape[0] != len(masks) + 1 or not 0 <= label < said.shape[-1] or not np.isfinite(said).all():
        message = f"Expected finite logits of {len(masks) + 1} inputs with a class {label}, got {said.shape}"
        raise MeasureError(f"{message}: check the model and the label")
    chance = special.softmax(said.astype(np.float64), axis=1)[:, label]
    falls = chance[0] - chance[1:]
    return np.asarray((falls[:, None, None] * masks).sum(axis=0) / masks.sum(axis=0), dtype=np.float32)


def _masks(height: int, width: int, patches: int) -> NDArray[np.bool_]:
    """Return bool masks (P, H, W): overlapping squares that cover every pixel."""
    step = math.ceil(max(height, width) / patches)
    rows, columns = np.arange(height), np.arange(width)
    return np.array(
        [
            ((rows >= top) & (rows < top + 2 * step))[:, None] & ((columns >= left) & (columns < left + 2 * step))
            for top in range(-step, height, step)
            for left in range(-step, width, step)
        ]
    )
