"""Long series with labelled anomaly spans, cut into windows: labelled accordingly, or with the next values as targets.

Source: Lavin and Ahmad, Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark, 2015; format
of https://github.com/numenta/NAB: ``combined_windows.json`` maps a series' path to spans [first, last].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from compressor.data._archive import Names
from compressor.data._front_end import SensorSample
from compressor.data._window_table import Columns, encoded, read
from compressor.errors import DataError

LABELS = "combined_windows.json"
OPTIONS = {"stride": 0.0, "source_windows": 8.0}
"""``stride`` in steps (0: windows are adjacent); ``source_windows``: number of neighbours that form one source."""
HORIZON = "horizon"
"""Option of a regression: how many steps after the window are predicted, for every channel (1)."""
_MAX_LABEL_BYTES = 16 * 1024 * 1024
_TIME = "timestamp"
_HALF = 0.5
_MAX_HORIZON = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """In steps: of a window, between the starts of two, predicted after it; ``group`` windows form one source."""

    steps: int
    stride: int
    group: int
    horizon: int

    @property
    def whole(self) -> int:
        return self.steps + self.horizon


def samples(store: Names, options: Mapping[str, float], *, binary: bool, ahead: bool = False) -> list[SensorSample]:
    """Return the windows of every CSV series in the label file, in the order of their names.

    ``ahead``: the next ``horizon`` steps are the values to predict; a window is in the slice ``<series> anomaly`` if it
    or its next steps touch an anomaly, so that ``train_slices`` can exclude it.

    Raises:
        DataError: If ``steps`` is not given, a series has no label entry, or a value or time can't be read.
    """
    sizes = _sizes(options, ahead=ahead)
    labels = _labels(store)
    found: list[SensorSample] = []
    for name in store.names():
        if name.endswith(".csv"):
            table = read(store, name)
            anomalous = _anomalous(table, labels, name)
            found += _cut(table, anomalous, sizes, binary=binary)
    return found


def _sizes(options: Mapping[str, float], *, ahead: bool) -> _Sizes:
    steps, horizon = int(options.get("steps", 0)), int(options.get(HORIZON, 1)) if ahead else 0
    if steps < 2:  # noqa: PLR2004 - a window is more than a point
        message = f"Expected [data] options with steps of 2 or more, got {steps}: a series is cut into such windows"
        raise DataError(message)
    if ahead and not 1 <= horizon <= _MAX_HORIZON:
        message = f"Expected [data] options with horizon of 1 to {_MAX_HORIZON} steps, got {horizon}"
        raise DataError(message)
    stride = int(options.get("stride", OPTIONS["stride"])) or steps + horizon
    group = int(options.get("source_windows", OPTIONS["source_windows"]))
    if stride < 1 or group < 1 or group * stride < steps + horizon:
        span = f"a window of {steps}" + (f" and {horizon} after it" if horizon else "")
        message = f"Expected stride and source_windows of 1 or more that span {span}, got {stride}, {group}"
        raise DataError(message)
    return _Sizes(steps=steps, stride=stride, group=group, horizon=horizon)


def _cut(table: Columns, anomalous: npt.NDArray[np.bool_], sizes: _Sizes, *, binary: bool) -> list[SensorSample]:
    """Return the windows of one series; overlapping windows that reach into the next source are left out."""
    channels = [column for column in table.columns if column != _TIME]
    if not channels:
        message = f"Expected a column of numbers besides {_TIME!r} in {table.name}, got none: add the channel"
        raise DataError(message)
    values = np.stack([table.numbers(column) for column in channels], axis=1)
    if len(values) < sizes.whole:
        message = f"Expected at least {sizes.whole} steps in {table.name}, got {len(values)}"
        raise DataError(f"{message}: no window could be cut from it; leave it out, or make steps smaller")
    series = PurePosixPath(table.name).stem
    found = []
    for place, start in enumerate(range(0, len(values) - sizes.whole + 1, sizes.stride)):
        source, end_of_source = place // sizes.group, (place // sizes.group + 1) * sizes.group * sizes.stride
        end = start + sizes.steps
        if start + sizes.whole > end_of_source:
            continue
        touched = anomalous[start : start + sizes.whole]
        label = "anomaly" if touched.mean() >= _HALF else "normal"
        part = f"{series} anomaly" if sizes.horizon and touched.any() else series
        following = {
            f"{channel}_in_{step}": float(value)
            for step, row in enumerate(values[end : end + sizes.horizon], start=1)
            for channel, value in zip(channels, row, strict=True)
        }
        data = encoded(values[start:end], binary=binary)
        found.append(
            SensorSample(
                name=f"{table.name} step {start}",
                data=data,
                label=label,
                slice=part,
                source=f"{series}/{source}",
                values=following,
            )
        )
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


def _anomalous(table: Columns, labels: Mapping[str, object], name: str) -> npt.NDArray[np.bool_]:
    """Return which lines of the series ``name`` lie in a span that ``labels`` give for it, bool (N,)."""
    file = PurePosixPath(name).name
    own = next((value for key, value in labels.items() if PurePosixPath(key).name == file), None)
    if not isinstance(own, list):
        message = f"Expected spans of {file} in {LABELS}, got none: add an entry (an empty list where all is normal)"
        raise DataError(message)
    try:
        spans = [(datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in own]
    except (TypeError, ValueError) as error:
        message = f"Expected spans of {file} in {LABELS} as [first, last] times, got: {error}"
        raise DataError(message) from error
    marks = []
    for row, text in enumerate(table.required(_TIME), start=table.first_row):
        try:
            moment = datetime.fromisoformat(text)
            marks.append(any(first <= moment <= last for first, last in spans))
        except (TypeError, ValueError) as error:
            message = f"Expected a time in {table.name}, column {_TIME!r}, row {row}, got {text[:40]!r}: {error}"
            raise DataError(message) from error
    return np.array(marks, dtype=bool)
