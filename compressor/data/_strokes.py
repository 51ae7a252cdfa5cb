"""Strokes of the magic wand: JSON with ``strokes``, each with ``label`` and ``strokePoints`` (x and y).

The slice is the file's name without its last ``_part`` (the person who drew it), the source the stroke itself.
Source of the format: https://github.com/petewarden/magic_wand_digit_data.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from compressor.data._archive import Names
from compressor.data._front_end import Sample
from compressor.data._table import check_label
from compressor.errors import DataError

_MAX_FILE_BYTES = 64 * 1024 * 1024


def samples(store: Names) -> list[Sample]:
    """Return the strokes of every JSON file; a stroke's bytes are a JSON list of its points.

    Raises:
        ArchiveError: If a file is too large.
        DataError: If a file is not JSON of this format; file and stroke are named.
    """
    return [sample for name in store.names() if name.endswith(".json") for sample in _file(store, name)]


def _file(store: Names, name: str) -> list[Sample]:
    try:
        document = json.loads(store.read(name, _MAX_FILE_BYTES))
        strokes = document["strokes"]
        listed = list(enumerate(strokes))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"Expected {name} as JSON with a list 'strokes', got: {type(error).__name__} {str(error)[:80]}"
        raise DataError(message) from error
    return [_stroke(name, place, stroke) for place, stroke in listed]


def _stroke(name: str, place: int, stroke: object) -> Sample:
    stem = PurePosixPath(name).stem
    try:
        points = [(point["x"], point["y"]) for point in stroke["strokePoints"]]  # type: ignore[index]
        label = str(stroke["label"])  # type: ignore[index]
    except (KeyError, TypeError) as error:
        message = f"Expected stroke {place} of {name} with label and strokePoints of x and y, got no {error}"
        raise DataError(message) from error
    check_label(label, f"{name}, stroke {place}")
    who = stem.rpartition("_")[0] or stem
    return Sample(
        name=f"{name} stroke {place}",
        data=json.dumps(points).encode(),
        label=label,
        slice=who,
        source=f"{stem}/{place}",
    )
