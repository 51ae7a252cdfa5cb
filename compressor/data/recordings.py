"""Recordings of sensors, a CSV or Parquet file each, cut into windows: columns are channels, lines are steps in time.

::

    set/                            set/                             set/
    ├── walk/                       ├── labels.csv                   ├── ann.csv   time,x,y,z,label
    │   ├── ann-1.csv   time,x,y,z  │     path,label,source          └── bob.csv
    │   └── bob-1.csv               ├── ann.csv        time,x,y,z
    └── run/…                       └── bob.csv

The label is that of the folder (as in ``class_folders``, with its splits), of ``labels.csv`` at the top, or of a column
``label`` in the files: then a window has the label of more than half of its steps, and one without such a label is left
out. If targets are numbers, the columns ``target`` or ``target_…`` hold them, and the last step of a window counts.

``[data] options``: ``steps`` and ``channels`` of a window, ``stride`` from one to the next (0: they don't overlap).
The source is the recording, so that train and gate share none. ``source_windows`` = K makes each K neighbours one
source, and leaves out windows that reach into the next: only if neighbours of that distance are as different as
recordings are.
The device's own front end, ``window``, converts each window to a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from compressor import tasks
from compressor.data._archive import Names, opened
from compressor.data._delimited import UNREAD, check_columns
from compressor.data._front_end import Ranged, SensorSample, Values, options_of, ranged, tabled
from compressor.data._front_end import window_front_end as front_end
from compressor.data._layout import is_hidden, placed
from compressor.data._table import Table, check_label, check_spelled, source_name
from compressor.data._window_table import Columns, encoded, read
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "slices", "allow_corrupt", "front_end", "options", "columns"})
COLUMNS = ("path", "label", "source", "target", "timestamp")
_SUFFIXES = (".csv", ".tsv", ".parquet")
_LISTINGS = ("labels.csv", "labels.tsv")
_TIMES = ("timestamp", "time", "t")
_LABEL, _SOURCE, _TARGET, _PATH, _TIME = "label", "source", "target", "path", "timestamp"
_NORMAL = "[data] normal"
_MAX_WINDOWS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    """One file; ``label`` is empty if its lines have labels."""

    name: str
    label: str = ""
    split: str = ""
    source: str = ""
    slice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """How recordings are cut, in steps; ``group`` windows form one source, 0: all of a recording."""

    steps: int
    stride: int
    group: int


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all windows of the recordings in ``data.path`` (a zip, a folder or one file).

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no recording.
        ColumnError: If a file lacks a column.
        CorruptImageError: If the front end rejects more windows than ``data.allow_corrupt``.
        DataError: If a value is not a finite number (file, row and column are named), a recording is shorter than a
            window, or an option is invalid.
        SplitError: If one content or recording is in two of the splits that the folders tell.
    """
    path = (root or Path()) / data.path
    unlabelled = list[str]()
    samples = _samples(path, data, unlabelled=unlabelled)
    table = tabled(data, path, front_end(data), samples, what="windows that can't be used")
    return replace(table, remarks=(*table.remarks, *_said_of(unlabelled, data)))


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return the windows' numbers before conversion to 8 bits, (steps, channels), to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``.
        SensorError: If a window has other channels than the options.
    """
    return ranged(_samples((root or Path()) / data.path, data, text=True), *front_end(data))


def _said_of(unlabelled: Sequence[str], data: DataRecipe) -> tuple[str, ...]:
    """Return a remark on the files without a label of their own, if there are some."""
    if not unlabelled:
        return ()
    more = f" and {len(unlabelled) - 1} files more" if len(unlabelled) > 1 else ""
    return (
        f"no column {_LABEL!r} in {unlabelled[0]}{more}: all windows are {data.normal[0]!r}, as [data] normal has it",
    )


def _samples(
    path: Path, data: DataRecipe, *, text: bool = False, unlabelled: list[str] | None = None
) -> list[SensorSample]:  # fmt: skip
    """Return the windows; ``unlabelled`` gets the names of files without a label, whose windows are normal."""
    check_columns(data.columns, COLUMNS, data.dataset)
    options, numbers = options_of(data), tasks.of(data).columns
    cut = _cut_of(options)
    binary = bool(options.get("binary", 0)) and not text
    found: list[SensorSample] = []
    with opened(path) as store:
        for recording in _recordings(store, data, path, numbers=numbers):
            skipped = {_PATH, _LABEL, _SOURCE} if recording.label else {_PATH}
            own = {wanted: name for wanted, name in data.columns.items() if wanted not in skipped}
            table = read(store, recording.name, columns=own, wanted=(_LABEL, _TIME))
            if unlabelled is not None and _is_all_normal(table, recording, data, numbers=numbers):
                unlabelled.append(recording.name)
            found += _windows(_steps(table, recording, data, numbers=numbers), recording, cut, binary=binary)
            if len(found) > _MAX_WINDOWS:
                message = f"Expected at most {_MAX_WINDOWS} windows in {path}, got more at {recording.name}"
                raise DataError(f"{message}: make stride larger")
    if not found:
        message = f"Expected windows in {path}, got none that has one label for more than half of its steps"
        raise DataError(f"{message}: make steps smaller")
    return found


def _cut_of(options: Mapping[str, float]) -> _Cut:
    steps = int(options.get("steps", 64))
    stride, group = int(options.get("stride", 0)) or steps, int(options.get("source_windows", 0))
    if group and group * stride < steps:
        message = f"Expected stride and source_windows that span a window of {steps} steps, got {stride}, {group}"
        raise DataError(message)
    return _Cut(steps=steps, stride=stride, group=group)


def _recordings(store: Names, data: DataRecipe, path: Path, *, numbers: bool) -> list[_Recording]:
    """Return the recordings, as ``labels.csv``, their folders or nothing describes them."""
    names = [name for name in store.names() if name.lower().endswith(_SUFFIXES) and not is_hidden(name)]
    listing = next((name for name in names if name in _LISTINGS), None)
    if listing is not None:
        return _listed(store, listing, data)
    if not names:
        message = f"Expected recordings (CSV or Parquet, one a file) in {path}, got none"
        raise ArchiveError(message)
    if numbers or any("/" not in name for name in names) or _says_labels(store, names[0], data):
        return [_Recording(name=name) for name in names]
    return [
        _Recording(name=file.name, label=file.label, split=file.split, source=file.source)
        for file in placed(store.names(), _SUFFIXES, str(path))
    ]


def _says_labels(store: Names, name: str, data: DataRecipe) -> bool:
    own = data.columns.get(_LABEL, _LABEL)
    return own in read(store, name, wanted=(own, _TIME)).columns


def _listed(store: Names, listing: str, data: DataRecipe) -> list[_Recording]:
    table = read(store, listing, columns={k: v for k, v in data.columns.items() if k in {_PATH, _LABEL, _SOURCE}},
                 wanted=(_PATH, _LABEL))  # fmt: skip
    check_spelled([column for column in table.columns if column != data.slices], (_SOURCE,), listing)
    paths, labels = table.required(_PATH), table.required(_LABEL)
    sources = table.columns.get(_SOURCE, [""] * len(paths))
    parts = table.required(data.slices) if data.slices else [""] * len(paths)
    for row, label in enumerate(labels, start=table.first_row):
        check_label(label, f"{listing}, row {row}, column {_LABEL!r}")
    return [
        _Recording(name=name.replace("\\", "/").removeprefix("./"), label=label, source=str(source or ""), slice=part)
        for name, label, source, part in zip(paths, labels, sources, parts, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """The columns of one recording by meaning, a value for each step; ``labels`` and ``parts`` may be empty."""

    values: Values
    labels: Sequence[str]
    parts: Sequence[str]
    targets: Mapping[str, Values]
    source: str


def _steps(table: Columns, recording: _Recording, data: DataRecipe, *, numbers: bool) -> _Steps:
    """Return the columns of ``recording``: whatever is no label, target, source, slice or time is a channel."""
    targets = [name for name in table.columns if numbers and (name == _TARGET or name.startswith(f"{_TARGET}_"))]
    if numbers and not targets:
        table.check_has(_TARGET)
    times = _TIMES if _TIME not in data.columns else (_TIME,)
    told = {name for name in table.columns if name.casefold() in times}
    told |= {_SOURCE, *targets} & set(table.columns)
    normal = _is_all_normal(table, recording, data, numbers=numbers)
    lines = len(next(iter(table.columns.values()), ()))
    labels = [data.normal[0]] * lines if normal else [] if numbers or recording.label else table.required(_LABEL)
    parts = table.required(data.slices) if data.slices and not recording.slice else []
    told |= ({_LABEL} if labels and not normal else set()) | ({data.slices} if parts else set())
    channels = [name for name in table.columns if name not in told and not name.endswith(UNREAD)]
    check_spelled([name for name in table.columns if name not in told], (_LABEL, _SOURCE, _TIME), table.name)
    own = recording.source or (_constant(table, _SOURCE) if _SOURCE in told else "")
    return _Steps(
        values=_matrix(table, channels),
        labels=labels,
        parts=parts,
        targets={name: table.numbers(name) for name in targets},
        source=source_name(own) or str(PurePosixPath(recording.name).with_suffix("")),
    )


def _is_all_normal(table: Columns, recording: _Recording, data: DataRecipe, *, numbers: bool) -> bool:
    """Return whether nothing labels ``recording``, and the recipe names one label that is normal."""
    if numbers or recording.label or _LABEL in table.columns:
        return False
    return _NORMAL in tasks.of(data).own and len(data.normal) == 1


def _windows(steps: _Steps, recording: _Recording, cut: _Cut, *, binary: bool) -> list[SensorSample]:
    """Return the windows of one recording, in order."""
    if len(steps.values) < cut.steps:
        message = f"Expected at least {cut.steps} steps in {recording.name}, got {len(steps.values)}"
        raise DataError(f"{message}: no window could be cut from it; leave it out, or make steps smaller")
    found = []
    for place, start in enumerate(range(0, len(steps.values) - cut.steps + 1, cut.stride)):
        end, group = start + cut.steps, place // cut.group if cut.group else 0
        if cut.group and end > (group + 1) * cut.group * cut.stride:
            continue
        label = recording.label or (_majority(steps.labels[start:end]) if steps.labels else "")
        if not label and not steps.targets:
            continue
        check_label(label, f"{recording.name}, step {start}")
        found.append(
            SensorSample(
                name=f"{recording.name} step {start}",
                data=encoded(steps.values[start:end], binary=binary),
                label=label,
                slice=recording.slice or (_majority(steps.parts[start:end]) or "mixed" if steps.parts else "all"),
                source=f"{steps.source}/{group}" if cut.group else steps.source,
                split=recording.split,
                values={name: float(row[end - 1]) for name, row in steps.targets.items()},
            )
        )
    return found


def _matrix(table: Columns, channels: Sequence[str]) -> Values:
    if not channels:
        message = f"Expected a column of numbers in {table.name}, got {', '.join(table.columns) or 'none'}"
        raise ColumnError(f"{message}: add the channels")
    return np.stack([table.numbers(column) for column in channels], axis=1)


def _constant(table: Columns, column: str) -> str:
    """Return the one value of ``column``."""
    found = sorted(set(table.required(column)))
    if len(found) > 1:
        message = f"Expected one {column} of the recording {table.name}, got {', '.join(found)[:200]}"
        raise DataError(f"{message}: write a file for each")
    return found[0] if found else ""


def _majority(values: Sequence[str]) -> str:
    """Return the value of more than half of ``values``, or empty."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else ""
