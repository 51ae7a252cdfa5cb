"""Long series with labelled spans of anomalies, cut into windows.

Source: Lavin and Ahmad, Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark, 2015; file
form of https://github.com/numenta/NAB: ``combined_windows.json`` maps a series' path to spans [first, last].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from compressor.data._archive import Names
from compressor.data._front_end import Sample
from compressor.data._window_table import Columns, encoded, read
from compressor.errors import DataError

LABELS = "combined_windows.json"
OPTIONS = {"stride": 0.0, "source_windows": 8.0}
"""``stride`` in steps (0: windows touch and don't overlap); ``source_windows``: so many neighbours are one source."""
_MAX_LABEL_BYTES = 16 * 1024 * 1024
_TIME = "timestamp"
_HALF = 0.5


def samples(store: Names, options: Mapping[str, float], *, binary: bool) -> list[Sample]:
    """Return the windows of every CSV series that the label file knows, in the order of their names.

    Raises:
        DataError: If ``steps`` is not given, a series has no label entry, or a value or time can't be read.
    """
    steps = int(options.get("steps", 0))
    if steps < 2:  # noqa: PLR2004 - a window is more than a point
        message = f"Expected [data] options with steps of 2 or more, got {steps}: a series is cut into such windows"
        raise DataError(message)
    stride = int(options.get("stride", OPTIONS["stride"])) or steps
    group = int(options.get("source_windows", OPTIONS["source_windows"]))
    if stride < 1 or group < 1 or group * stride < steps:
        message = (
            f"Expected stride and source_windows of 1 or more that span a window of {steps}, got {stride}, {group}"
        )
        raise DataError(message)
    spans = _labels(store)
    found: list[Sample] = []
    for name in store.names():
        if name.endswith(".csv"):
            table = read(store, name)
            anomalous = _anomalous(table, _spans_of(spans, name))
            found += _cut(table, anomalous, (steps, stride, group), binary=binary)
    return found


def _cut(
    table: Columns, anomalous: npt.NDArray[np.bool_], sizes: tuple[int, int, int], *, binary: bool
) -> list[Sample]:
    """Return the windows of one series; where windows overlap, those that reach into the next source are left out."""
    steps, stride, group = sizes
    channels = [column for column in table.columns if column != _TIME]
    if not channels:
        message = f"Expected a column of numbers besides {_TIME!r} in {table.name}, got none: add the channel"
        raise DataError(message)
    values = np.stack([table.numbers(column) for column in channels], axis=1)
    series = PurePosixPath(table.name).stem
    found = []
    for place, start in enumerate(range(0, len(values) - steps + 1, stride)):
        source, end_of_source = place // group, (place // group + 1) * group * stride
        if start + steps > end_of_source:
            continue
        label = "anomaly" if anomalous[start : start + steps].mean() >= _HALF else "normal"
        data = encoded(values[start : start + steps], binary=binary)
        found.append(Sample(f"{table.name} step {start}", data, label, series, f"{series}/{source}"))
    return found


def _labels(store: Names) -> Mapping[str, object]:
    name = next(name for name in store.names() if name.endswith(LABELS))
    try:
        document = json.loads(store.read(name, _MAX_LABEL_BYTES))
    except (ValueError, RecursionError) as error:
        message = f"Expected {name} as JSON, got: {str(error)[:120]}"
        raise DataError(message) from error
    if not isinstance(document, dict):
        message = f"Expected {name} to map series to spans, got {type(document).__name__}"
        raise DataError(message)
    return document


def _spans_of(spans: Mapping[str, object], name: str) -> list[tuple[datetime, datetime]]:
    file = PurePosixPath(name).name
    own = next((value for key, value in spans.items() if PurePosixPath(key).name == file), None)
    if not isinstance(own, list):
        message = f"Expected spans of {file} in {LABELS}, got none: add an entry (an empty list where all is normal)"
        raise DataError(message)
    try:
        return [(datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in own]
    except (TypeError, ValueError) as error:
        message = f"Expected spans of {file} in {LABELS} as [first, last] times, got: {error}"
        raise DataError(message) from error


def _anomalous(table: Columns, spans: list[tuple[datetime, datetime]]) -> npt.NDArray[np.bool_]:
    """Return which lines of the series lie in a span, bool (N,)."""
    marks = []
    for row, text in enumerate(table.required(_TIME), start=table.first_row):
        try:
            moment = datetime.fromisoformat(text)
            marks.append(any(first <= moment <= last for first, last in spans))
        except (TypeError, ValueError) as error:
            message = f"Expected a time in {table.name}, column {_TIME!r}, row {row}, got {text[:40]!r}: {error}"
            raise DataError(message) from error
    return np.array(marks, dtype=bool)
