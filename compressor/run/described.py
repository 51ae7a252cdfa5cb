"""What a person's model file says of itself, compared with the recipe.

Decides what is an error: classes in another order, because every answer would carry a wrong name. A normalisation that
differs is said: metadata are sometimes copied from another model, and the gates see what is true.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compressor.errors import ModelSignatureError
from compressor.formats._base import FileWords
from compressor.recipe.model import DataRecipe
from wire.settings import is_given

_OTHER_TASKS = {
    "segment": "masks are not read", "pose": "keypoints are not read", "obb": "rotated boxes are not read",
    "classify": "for classes leave [decoder] and [data] task out",
}  # fmt: skip
"""Words of ultralytics for what is no detector."""
_SHOWN = 5
_PIXEL = 255.0
_APART = 0.02
"""Of a deviation, relative, and of a mean in deviations: exporters round."""


def check_labels(words: FileWords, classes: Sequence[str]) -> str:
    """Return "" if the file names its classes as ``classes`` does, or not at all; else a line on other names.

    Raises:
        ModelSignatureError: If they are the same names in another order.
    """
    if not words.labels or words.labels == tuple(classes):
        return ""
    if sorted(words.labels) == sorted(classes):
        listed = ", ".join(f'"{name}"' for name in words.labels)
        message = f"Expected the classes in the order of the file's own labels, got {_few(classes)}"
        raise ModelSignatureError(f"{message}: set [model] labels = [{listed}]")
    if len(words.labels) != len(classes):
        return f"the file names {len(words.labels)} classes ({_few(words.labels)}), the recipe has {len(classes)}"
    return f"the file calls its classes {_few(words.labels)}, the data {_few(classes)}: they are taken in this order"


def check_task(words: FileWords, *, boxes: bool) -> None:
    """Check that a file which a decoder of ``boxes`` reads does not note that it was made for something else.

    Raises:
        ModelSignatureError: If it does: masks, keypoints and rotated boxes are in its outputs then.
    """
    if boxes and words.task in _OTHER_TASKS:
        message = f"Expected a file of a detector, got one that notes the task {words.task!r}"
        raise ModelSignatureError(f"{message}: export a network of the task detect; {_OTHER_TASKS[words.task]}")


def check_sides(words: FileWords, data: DataRecipe) -> None:
    """Check that the input's sides are multiples of the stride that the file notes, if it notes one.

    Raises:
        ModelSignatureError: If one is not: branches of the network would have other sizes where they join.
    """
    if words.stride and (data.width % words.stride or data.height % words.stride):
        message = f"Expected [data] width and height as multiples of {words.stride}, the stride that the file notes"
        raise ModelSignatureError(f"{message}, got {data.width} x {data.height}: set those of the export")


def normalisation(words: FileWords, data: DataRecipe) -> str:
    """Return "" if the file takes pixels as ``data`` gives them, or says nothing; else a line on what would fit."""
    if not words.mean or not words.std or min(words.std) <= 0 or data.front_end:
        return ""
    mean, std = (np.asarray(own) * data.pixel_scale for own in (words.mean, words.std))
    own_mean, own_std = np.atleast_1d(data.mean), np.atleast_1d(data.std)
    try:
        apart = max(float(np.abs((mean - own_mean) / std).max()), float(np.abs(own_std / std - 1).max()))
    except ValueError:  # another number of channels
        apart = np.inf
    if apart <= _APART:
        return ""
    pixels = f"(pixel - {_numbers(words.mean)}) / {_numbers(words.std)}"
    given = f"mean {_numbers(own_mean)} and std {_numbers(own_std)} of 0 to {_PIXEL * data.pixel_scale:.4g}"
    return (
        f"the file's metadata say that it takes {pixels}, and [data] gives it {given}: set mean = {_numbers(mean)} and "
        f"std = {_numbers(std)}, unless they are wrong"
    )


def default_scale(words: FileWords, data: DataRecipe) -> str:
    """Return a line on the inputs that the file gets by the default of ``std``, if nobody says another; else ""."""
    if words.mean or data.front_end or is_given(data, "std"):
        return ""
    mean, std = np.atleast_1d(data.mean), np.atleast_1d(data.std)
    low, high = ((end - mean) / std for end in (0, data.most * data.pixel_scale))
    return (
        f"std = {_numbers(std)} in [data], its default, and mean = {_numbers(mean)} give the file inputs of "
        f"{low.min():.4g} to {high.max():.4g}: if it was trained on others, write mean and std of its training"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _numbers(values: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    texts = [f"{float(value):.4g}" for value in values]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
