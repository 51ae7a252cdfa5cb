"""Windows of sensor data with one or more channels, from tables, long series with labelled anomalies, or strokes.

The content of ``data.path`` (a zip, a folder or one file) decides the format:

- ``combined_windows.json`` and CSV series (``timestamp`` and channels), as in the Numenta Anomaly Benchmark: windows of
  ``steps``, every ``stride``; a window is ``anomaly`` if at least half of it is labelled so, else ``normal``.
  ``source_windows`` neighbours form one source, so that train and gate share no neighbours.
- JSON with ``strokes`` (``label``, ``strokePoints`` of x and y), as recorded by the magic wand: one window per stroke.
  The slice is the file's name without its last ``_part`` (the person who drew it), the source the stroke itself.
  Source of the format: https://github.com/petewarden/magic_wand_digit_data.
- CSV or Parquet tables: columns ``window`` (its name) and ``label``, optionally ``source`` and the slice column; every
  other column is a channel, every line a step.

If targets are numbers (``[data] label = "number"``), a table has ``target`` (or several ``target_…``) instead of
``label``; for a series they are the next ``horizon`` steps, and windows that touch an anomaly get a slice of their own.

The device's own front end, ``window`` or ``stroke``, given by ``[data] front_end``, converts each to a picture.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

from compressor import tasks
from compressor.data import _series, _window_table, check_options
from compressor.data._archive import Names, opened
from compressor.data._delimited import check_columns
from compressor.data._front_end import Ranged, SensorSample, chosen, options_of, ranged, tabled
from compressor.data._table import Table, check_label
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "slices", "allow_corrupt", "front_end", "options", "columns"})
_COLUMNS = ("window", "label", "source", "target")
_OF_SERIES = ("stride", "source_windows", _series.HORIZON)
_TABLES = (".csv", ".parquet")
_MAX_STROKES_BYTES = 64 * 1024 * 1024


def front_end(data: DataRecipe) -> tuple[str, dict[str, float]]:
    """Return the front end's name and all its options, as in the manifest.

    Raises:
        DataError: If the front end is missing or unknown, or an option is unknown or out of range.
    """
    own = {name: value for name, value in data.options.items() if name != _series.HORIZON}
    return chosen(replace(data, options=own), ("window", "stroke"))


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all windows in ``data.path``.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no windows.
        ColumnError: If a table lacks a column.
        CorruptImageError: If the front end rejects more windows than ``data.allow_corrupt``.
        DataError: If a value is not a finite number (file, row and column are named), or an option is invalid.
    """
    path = (root or Path()) / data.path
    return tabled(data, path, front_end(data), _samples(path, data), what="windows that can't be used")


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return the windows' numbers before conversion to 8 bits, (steps, channels), to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``, or if the front end is ``stroke``, which has no ranges.
        SensorError: If a window has other steps or channels than the options.
    """
    name, options = front_end(data)
    if name != "window":
        message = f"Expected in [data] front_end 'window', got {name!r}, which has no ranges to fit"
        raise DataError(message)
    return ranged(_samples((root or Path()) / data.path, data, text=True), name, options)


def _samples(path: Path, data: DataRecipe, *, text: bool = False) -> list[SensorSample]:
    """Return all windows; their bytes are raw float32 if options have ``binary`` and ``text`` is off, else JSON."""
    options = options_of(data)
    binary, columns = bool(options.get("binary", 0)) and not text, tasks.of(data).columns
    with opened(path) as store:
        names = store.names()
        if any(name.endswith(_series.LABELS) for name in names):
            _check_unread(data, "a series", () if columns else (_series.HORIZON,))
            found = _series.samples(store, options, binary=binary, ahead=columns)
        elif any(name.endswith(".json") for name in names):
            _check_unread(data, "strokes", _OF_SERIES)
            found = [sample for name in names if name.endswith(".json") for sample in _strokes(store, name)]
        else:
            check_options(data, _OF_SERIES, "a table of windows")
            found = _tables(store, data, binary=binary)
    if not found:
        message = f"Expected windows in {path} (CSV, Parquet, strokes or series with {_series.LABELS}), got none"
        raise ArchiveError(message)
    return found


def _check_unread(data: DataRecipe, form: str, options: tuple[str, ...]) -> None:
    """Reject settings that only tables use: the names of columns, and ``options`` that ``form`` does not use."""
    check_options(data, options, form if tasks.of(data).columns else f"{form} and classes as labels")
    if data.columns:
        message = f"Expected no columns in [data] with {form}, got {dict(data.columns)}"
        raise DataError(f"{message}: leave it out; only a table of windows has columns of other names")
    if data.slices:
        message = f"Expected no slices = {data.slices!r} in [data] with {form}, whose slices are its files"
        raise DataError(f"{message}: leave it out; only a table of windows has a slice column")


def _tables(store: Names, data: DataRecipe, *, binary: bool) -> list[SensorSample]:
    check_columns(data.columns, _COLUMNS, data.dataset)
    names, columns = [name for name in store.names() if name.endswith(_TABLES)], tasks.of(data).columns
    return [
        sample
        for name in names
        for sample in _window_table.samples(
            store, name, data.slices, binary=binary, columns=columns, names=data.columns
        )
    ]


def _strokes(store: Names, name: str) -> list[SensorSample]:
    """Return the strokes of a JSON file; a stroke's bytes are a JSON list of its points."""
    try:
        document = json.loads(store.read(name, _MAX_STROKES_BYTES))
        strokes = document["strokes"]
        listed = list(enumerate(strokes))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"Expected {name} as JSON with a list 'strokes', got: {type(error).__name__} {str(error)[:80]}"
        raise DataError(message) from error
    return [_stroke(name, place, stroke) for place, stroke in listed]


def _stroke(name: str, place: int, stroke: object) -> SensorSample:
    stem = PurePosixPath(name).stem
    try:
        points = [(point["x"], point["y"]) for point in stroke["strokePoints"]]  # type: ignore[index]
        label = str(stroke["label"])  # type: ignore[index]
    except (KeyError, TypeError) as error:
        message = f"Expected stroke {place} of {name} with label and strokePoints of x and y, got no {error}"
        raise DataError(message) from error
    check_label(label, f"{name}, stroke {place}")
    who = stem.rpartition("_")[0] or stem
    return SensorSample(
        name=f"{name} stroke {place}",
        data=json.dumps(points).encode(),
        label=label,
        slice=who,
        source=f"{stem}/{place}",
    )
