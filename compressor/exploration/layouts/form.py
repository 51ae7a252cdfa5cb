"""What a layout of files says, for those who recognise one: its form, and the names that columns usually have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from compressor.data._front_end import Values
from compressor.tasks._drafting import Key

T = TypeVar("T")
_SAMPLED = 40  # files that are opened to see what they are like
TABLES = (".csv", ".tsv", ".parquet")
MEANINGS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path", "datei",
             "image_id", "image_name", "imagename", "img_name"),
    "label": ("label", "labels", "tags", "class", "category", "target", "class_name", "y", "klasse"),
    "source": ("source", "video", "recording", "scene", "sequence", "session", "subject", "patient", "group"),
}  # fmt: skip
"""Names that columns of a list of files have, in lower case."""
SLICES = ("site", "camera", "domain", "location", "device")
TIMES = ("timestamp", "time", "t")
SPLITS = ("split", "subset", "part")
OUR_SPLITS = frozenset({"train", "calibration", "gate", "reference", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the files of a data set say.

    ``keys``: of ``[data]``, ``options`` as one key. ``kind``: as in ``Facts``. ``size``: width and height of the input.
    ``provisional``: options with wide ranges, with which the rows are read until ranges are fitted. ``texts``: the
    label of each row as it is written, if a table has them (a row without one can't be read as one of a class).
    ``remarks``: what a person should know of what was chosen. ``interval_s``: seconds from one row to the next of its
    source, 0 if nothing says them.
    """

    dataset: str
    why: str
    kind: str
    size: tuple[int, int]
    size_why: str
    keys: tuple[Key, ...] = ()
    provisional: Mapping[str, float] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    interval_s: float = 0.0


def ending(names: Iterable[str], suffixes: Iterable[str]) -> list[str]:
    """Return those of ``names`` that end in one of ``suffixes``, in whatever case."""
    wanted = tuple(suffixes)
    return [name for name in names if name.lower().endswith(wanted)]


def spread(names: Sequence[T]) -> list[T]:
    """Return at most 40 of ``names``, evenly spread."""
    step = max(1, len(names) // _SAMPLED)
    return list(names[::step][:_SAMPLED])


def named(head: Sequence[str], words: Iterable[str]) -> str:
    """Return the column of ``head`` that has the first of the ``words``, in lower case, that is there; "" if none is.

    Of two columns of one name in lower case it is the first.
    """
    found = {own.strip().casefold(): own for own in reversed(head)}
    return next((found[one] for one in words if one in found), "")


def place_keys(part: str, split: str) -> list[Key]:
    """Return the keys for the column of the slice, ``part``, and that of the ``split``; "" for none."""
    keys = []
    if part:
        keys.append(Key(name="slices", value=part, why="by its name, the place: gates look at each one too"))
    if split:
        keys.append(Key(name="split", value=split, why="it tells the split of each row"))
    return keys


def windowed(
    dataset: str, why: str, options: Mapping[str, float], seen: str, values: Sequence[Values] = ()
) -> Layout:  # fmt: skip
    """Return the layout of windows of numbers with these ``options``; ``values``: what was seen of them."""
    size = max(4, int(options["channels"])), max(4, int(options["steps"]))
    low, high = (float(min(map(np.min, values))), float(max(map(np.max, values)))) if values else (-1.0, 1.0)
    return Layout(
        dataset=dataset, why=why, kind="window", size=size, size_why="a column a channel, a row a step, at least 4",
        keys=window_keys(options, seen), provisional={"low": low, "high": high if high > low else low + 1},
    )  # fmt: skip


def window_keys(options: Mapping[str, float], seen: str) -> tuple[Key, ...]:
    """Return the keys of a front end of numbers."""
    return (
        Key(name="front_end", value="window", why="numbers: the device reads them alike"),
        Key(name="options", value=dict(options), why=seen),
        Key(name="colour", value="grey", why="numbers have one channel"),
    )
