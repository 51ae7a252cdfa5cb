"""Events as targets: of each window its class, and the event in it with its recording and time.

Checks that the recipe says of windows what the data set cut: the smoother's time from one window to the next is that of
the recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data._event_windows import BACKGROUND, CLASS, COLUMNS, step_s
from compressor.data._table import Labels, Table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe, Recipe

_AXES = 2
_CLOSE_MS = 1.0


def read(table: Table, data: DataRecipe) -> Table:
    """Return ``table`` unchanged.

    Raises:
        DataError: If its labels are no events, the first class is not the background, or there is no event at all.
    """
    if table.labels.ndim != _AXES or table.labels.shape[1] != len(COLUMNS):
        message = f"Expected events in recordings from {data.dataset!r}, because task = 'stream_events', got other rows"
        raise DataError(f"{message}: name a data set with events (sound_events, word_streams), or leave task out")
    if not table.class_names or table.class_names[0] != BACKGROUND:
        message = f"Expected {BACKGROUND!r} as the first class from {data.dataset!r}, got {table.class_names[:1]}"
        raise DataError(f"{message}: it is what a window without an event holds")
    if not (table.labels[:, CLASS] > 0).any():
        raise DataError(f"Expected at least one event from {data.dataset!r}, got none in {len(table)} windows")
    return table


def fitted(recipe: Recipe, table: Table, train: Table) -> Table:
    """Return ``table`` unchanged.

    Raises:
        DataError: If ``[smoothing] interval_ms`` is not the time from one window to the next.
    """
    del train
    wanted_ms, interval_ms = 1000 * step_s(table.labels), recipe.smoothing.interval_ms
    if abs(wanted_ms - interval_ms) > _CLOSE_MS:
        message = f"Expected [smoothing] interval_ms = {wanted_ms:.0f}, the time between windows, got {interval_ms}"
        raise DataError(f"{message}: the gates would judge other streams than devices have; write it")
    return table


def classes(labels: Labels) -> NDArray[np.int64] | None:
    """Return the class of each window, 0 for the background."""
    return np.asarray(labels[:, CLASS], np.int64)


def grouped(table: Table) -> tuple[Table, str]:
    """Return ``table`` with the class of each window as its label, and a note on the windows."""
    labels = np.asarray(table.labels[:, CLASS], np.int64)
    return replace(table, labels=labels, task=""), "windows of recordings: each is shown under the class of its event"


def calibration(rows: Table, train: Table) -> list[Table]:
    """Return only the calibration split."""
    del train
    return [rows]


def check_calibration(tables: Sequence[Table]) -> None:
    """Check that some window has an event: the ranges of the background don't cover it, and no threshold can be chosen.

    Raises:
        DataError: If none has.
    """
    if not any((table.labels[:, CLASS] > 0).any() for table in tables):
        message = f"Expected calibration recordings with events, got none in {sum(map(len, tables))} windows"
        raise DataError(f"{message}: give calibration more of [data] shares, or more recordings")
