"""Recognises what a table of numbers is: windows, recordings of sensors, or rows of features; and what its columns are.

Decides by the columns and, where a column is a time, by whether it runs regularly with long runs of one label: a
recording does, a table of rows with a date does not. Fills nothing in and changes no file: columns that can't be
features are drafted as ``ignore``, rows without a value as ``missing = "drop"``, each with its reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from compressor.data._archive import Names
from compressor.data._feature_columns import FeatureColumn, feature_column, is_of_flags
from compressor.data._front_end import Values
from compressor.data._window_table import Columns, columns_of, read
from compressor.errors import DataError
from compressor.exploration.layouts.form import (
    MEANINGS,
    OUR_SPLITS,
    SLICES,
    SPLITS,
    TABLES,
    TIMES,
    Layout,
    ending,
    named,
    place_keys,
    spread,
    window_keys,
    windowed,
)
from compressor.tasks._drafting import Key

LISTS = ("labels.csv", "labels.tsv")
_INDEX = ("id", "index", "idx", "row", "no", "nr", "unnamed: 0", "")
_DATES = ("date", "datetime", "day", *TIMES)
_MOST_CHANNELS, _MOST_COLUMNS = 256, 4096  # of the front end ``window``
_LEAST_STEPS, _LEAST_RUN = 64, 8
_REGULAR, _SAME = 0.9, 0.05
_FEW_RECORDINGS, _WINDOWS_OF_SOURCE, _LEAST_SOURCES = 8, 4, 32
_SHOWN = 6
_ANOMALIES = "docs/how-to/find-anomalies.md"
_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""What a number of a time is in seconds, from its size on: those since 1970 have ten digits in seconds."""


def kind_of_table(store: Names, names: Sequence[str], labels: Sequence[str]) -> tuple[str, str]:
    """Return the data set of the tables ``names`` and why; ``labels``: columns that a person named as labels.

    Raises:
        DataError: If the first table can't be read.
    """
    name = names[0]
    head = columns_of(store, name)
    found = {column.casefold() for column in head}
    if "window" in found:
        return "windows", "a table with a line for each step of a window"
    if any(name in LISTS for name in names):
        return "recordings", "recordings, and a list of their labels"
    time = next((column for column in head if column.casefold() in TIMES), "")
    label = next(iter(labels), "") or named(head, MEANINGS["label"])
    if not time:
        rows = label or len(names) == 1
        return ("features", "a table with a sample in each line") if rows else ("recordings", _A_FILE_EACH)
    if "/" in name or len(names) > 1:
        return "recordings", f"{_A_FILE_EACH}, with a time ({time}) in each line"
    regular, why = _runs_regularly(read(store, name, wanted=(label,)), time, label)
    return ("recordings" if regular else "features"), why


_A_FILE_EACH = "a table for each recording"


def _runs_regularly(table: Columns, time: str, label: str) -> tuple[bool, str]:
    """Return whether lines are steps of one recording, in regular time and with long runs of a label; and why."""
    moments = _moments(table.columns[time])
    if moments is None:
        return False, f"a sample in each line: {time} can't be read as a time"
    if len(moments) < _LEAST_STEPS:
        return False, f"a sample in each line: {len(moments)} lines are too few for a recording"
    steps = np.diff(moments)
    usual = float(np.median(steps))
    share = float((np.abs(steps - usual) <= _SAME * abs(usual)).mean()) if usual > 0 else 0.0
    if share < _REGULAR:
        return False, f"a sample in each line: {time} does not run regularly"
    if not label and (open_columns := _may_be_labels(table)):
        return False, f"a sample in each line: {open_columns[0]} may be its label"
    texts = [str(cell) for cell in table.columns[label]] if label in table.columns else []
    runs = 1 + sum(one != other for one, other in itertools.pairwise(texts))
    if texts and len(texts) / runs < _LEAST_RUN and len(set(texts)) <= len(texts) / _LEAST_RUN:
        return False, f"a sample in each line: {label} changes from line to line, as it does not in a recording"
    return True, f"a recording: {time} runs in steps of {usual:g} s, {100 * share:.0f} % of them equal"


def _may_be_labels(table: Columns) -> list[str]:
    """Return the columns, besides times and what names usually say, that have texts or 0 and 1 alone."""
    told = {*TIMES, *MEANINGS["source"], *SLICES, *SPLITS}
    left = [name for name in table.columns if name.casefold() not in told]
    return [name for name in left if _is_flag_or_text(table, name)]


def _is_flag_or_text(table: Columns, name: str) -> bool:
    try:
        return set(np.unique(table.numbers(name)).tolist()) == {0.0, 1.0}
    except DataError:
        return True


def spacing_s(table: Columns) -> float:
    """Return the usual time from one line of ``table`` to the next, in seconds; 0 if no column is a time that grows.

    Numbers are seconds, or milli-, micro- or nanoseconds since 1970 where they are as large as those.
    """
    time = next((column for column in table.columns if column.casefold() in TIMES), "")
    moments = _moments(table.columns[time]) if time else None
    if moments is None or len(moments) < 2:  # noqa: PLR2004 - from one to the next
        return 0.0
    largest = float(np.abs(moments).max())
    unit = next((one for least, one in _UNITS if largest >= least), 1.0)
    return max(0.0, float(np.median(np.diff(moments))) * unit)


def _moments(cells: Sequence[object]) -> Values | None:
    """Return ``cells`` as seconds, float64 (N,), of numbers or ISO 8601; None if some are neither."""
    try:
        found = np.array([float(cell) for cell in cells])  # type: ignore[arg-type]
    except (TypeError, ValueError):
        try:
            found = np.array([datetime.fromisoformat(str(cell)).timestamp() for cell in cells])
        except (ValueError, OverflowError, OSError):
            return None
    return found if np.isfinite(found).all() else None


def recordings(store: Names, names: Sequence[str], why: str, labels: Sequence[str] = ()) -> Layout:
    """Return the layout of recordings, a table each; ``labels``: the column that a person named as the label.

    Raises:
        DataError: If there is none, or it has no numbers.
    """
    files = [name for name in ending(names, TABLES) if name not in LISTS]
    if not files:
        message = f"Expected recordings beside the list of labels, got {', '.join(names[:5])[:200]}"
        raise DataError(message)
    tables = [read(store, name) for name in spread(files)[:5]]
    label = next(iter(labels), "") or named(list(tables[0].columns), MEANINGS["label"])
    told = {"label", label.casefold(), "source", *TIMES}
    remedy = f": to find anomalies in {labels[0]}, leave --label out ({_ANOMALIES})" if labels else ""
    values = [channels_of(table, told, remedy) for table in tables]
    shortest = min(map(len, values))
    few = len(files) < _FEW_RECORDINGS
    most = sum(map(len, values)) // (2 * _LEAST_SOURCES) if few else shortest // 4
    steps = next((one for one in (128, 64, 32, 16, 8) if one <= most), max(2, min(8, shortest // 4)))
    options = {"steps": steps, "stride": max(1, steps // 2), "channels": values[0].shape[1]}
    seen = f"recordings of {shortest} steps or more; windows overlap by half: rows to learn from, of the same sources"
    if few:
        options["source_windows"] = _WINDOWS_OF_SOURCE
        seen = (
            f"{len(files)} recordings of {shortest} steps or more are too few to split: {_WINDOWS_OF_SOURCE} windows "
            "beside each other are one source, which is right only if minutes differ as much as recordings do"
        )
    interval_s = options["stride"] * spacing_s(tables[0])
    found = replace(windowed("recordings", why, options, seen, values), interval_s=interval_s)
    if not label and len(files) == len(names) and any("/" not in name for name in files):
        return _all_normal(found, tables)
    if label in {"", "label"}:
        return found
    return replace(
        found, keys=(Key(name="columns", value={"label": label}, why="what the tables call it"), *found.keys)
    )


def _all_normal(found: Layout, tables: Sequence[Columns]) -> Layout:
    """Return the layout of recordings without any label: what is unlike them is an anomaly; else ``found``."""
    if any(_may_be_labels(table) for table in tables):
        return found  # the data set says that it lacks a label
    keys = (
        Key(name="task", value="anomaly", why="no column is a label: what is unlike these recordings is an anomaly"),
        Key(name="normal", value=["normal"], why="what all windows are, as no file has a label"),
    )
    remark = f"no column is a label: drafted to find anomalies ({_ANOMALIES}); --label COLUMN names one"
    return replace(found, keys=(*keys, *found.keys), remarks=(remark,))


def channels_of(table: Columns, told: Iterable[str], remedy: str = "") -> Values:
    """Return the channels of ``table``, (T, C): columns of numbers, and none of those in ``told`` (in lower case).

    ``remedy``: what ends the message if there are none.

    Raises:
        DataError: If there are none.
    """
    skipped, found = set(told), []
    for name in table.columns:
        if name.casefold() in skipped:
            continue
        try:
            found.append(table.numbers(name))
        except DataError:  # texts: the data set says so when it reads them
            continue
    if not found or not len(found[0]):
        message = f"Expected columns of numbers in {table.name}, got {', '.join(table.columns)[:200] or 'none'}"
        raise DataError(f"{message} besides label and time{remedy}" if remedy else message)
    return np.stack(found, axis=1)


def features(store: Names, names: Sequence[str], why: str, labels: Sequence[str]) -> Layout:
    """Return the layout of rows of features: what each column is, by its name and its cells.

    Raises:
        DataError: If no column can be told to be the label, or none is of numbers.
    """
    table = read(store, ending(names, TABLES)[0], wanted=tuple(labels) or ("label",))
    columns = {name: feature_column(table, name) for name in table.columns}
    if len(labels) > 1:
        label, reason, told, keys = "", "", list(labels), label_columns(labels)
    else:
        label, reason = _label_of(table, columns, labels)
        told, keys = [label], []
    source = named([name for name in table.columns if name not in told], MEANINGS["source"])
    other = {wanted: own for wanted, own in (("label", label), ("source", source)) if own and own != wanted}
    if other:
        keys.append(Key(name="columns", value=other, why=f"what {table.name} calls them; {reason}"))
    told += [source, *_placed(table, columns, told, keys)]
    left = {name: column for name, column in columns.items() if name not in told}
    ignored = {name: said for name, column in left.items() if (said := _no_feature(table, column))}
    if ignored:
        said = "; ".join(f"{name or 'no name'}: {one}" for name, one in list(ignored.items())[:_SHOWN])
        keys.append(Key(name="ignore", value=list(ignored), why=f"not read. {said}"))
    used = [column for name, column in left.items() if name not in ignored]
    if not used:
        message = f"Expected columns of numbers in {table.name}, got {', '.join(table.columns)[:200] or 'none'}"
        remedy = "write a category as a column of 0 and 1 for each of its values"
        if labels and any(name.casefold() in TIMES for name in table.columns):
            remedy += f"; to find anomalies in {', '.join(labels)[:200]}, leave --label out ({_ANOMALIES})"
        raise DataError(f"{message} besides label and time: {remedy}")
    keys += _missing(used)
    texts = tuple(table.optional(label)) if label else ()
    found = _rows(table, used, why, keys, texts)
    if not ignored:
        return found
    listed = "; ".join(f"{name or 'no name'} ({one})" for name, one in list(ignored.items())[:_SHOWN])
    more = f"; {len(ignored) - _SHOWN} columns more" if len(ignored) > _SHOWN else ""
    return replace(found, remarks=(f"not read of {table.name}: {listed}{more}",))


def label_columns(labels: Sequence[str], why: str = "named by --label") -> list[Key]:
    """Return the keys of several labels with a column of 0 and 1 each."""
    task = f"{len(labels)} labels, each 0 or 1 in a row: {why}"
    return [
        Key(name="task", value="multi_label", why=task),
        Key(name="label_columns", value=list(labels), why="a column of 0 and 1 each"),
    ]


def _label_of(table: Columns, columns: dict[str, FeatureColumn], labels: Sequence[str]) -> tuple[str, str]:
    """Return the column with the labels, and why."""
    head = list(table.columns)
    if labels:
        if labels[0] not in head:
            raise DataError(f"Expected the column {labels[0]!r} in {table.name}, got {', '.join(head)[:200] or 'none'}")
        return labels[0], "the label is named by --label"
    if own := named(head, MEANINGS["label"]):
        return own, f"the label is {own!r}, by its name"
    texts = [
        name
        for name, column in columns.items()
        if _is_text(column) and 1 < len(column.texts) <= len(column.missing) // 2
    ]
    texts = texts or [name for name in columns if len({str(one) for one in table.columns[name]}) > 1
                      and isinstance(table.columns[name][0], str) and is_of_flags(table.columns[name])]  # fmt: skip
    if len(texts) == 1:
        return texts[0], f"the label is {texts[0]!r}, the only column of texts that come again"
    message = f"Expected a column named label, class or target in {table.name}, got {', '.join(head)[:200] or 'none'}"
    raise DataError(
        f'{message}: give it, compressor init … --label COLUMN, or in a recipe columns = {{label = "COLUMN"}} in '
        '[data] (of numbers to predict columns = {target = "COLUMN"}); a recording without any label, with times in '
        f"equal steps in a column called timestamp, is drafted to find anomalies ({_ANOMALIES})"
    )


def _is_text(column: FeatureColumn) -> bool:
    """Return whether most cells that are there are no numbers."""
    there = int((~column.missing).sum())
    return 2 * int((~np.isfinite(column.values).all(axis=1) & ~column.missing).sum()) > there


def _placed(table: Columns, columns: dict[str, FeatureColumn], told: Sequence[str], keys: list[Key]) -> list[str]:
    """Return the columns for slice and split, by their names; ``keys`` gets theirs."""
    left = [name for name in table.columns if name not in told]
    part = named([name for name in left if _is_text(columns[name])], SLICES)
    part = "" if part and columns[part].missing.any() else part
    split = named(left, SPLITS)
    split = split if split and {str(cell or "") for cell in table.columns[split]} <= OUR_SPLITS else ""
    keys += place_keys(part, split)
    return [name for name in (part, split) if name]


def _no_feature(table: Columns, column: FeatureColumn) -> str:
    """Return why a column can't be a feature; "" if it can."""
    lower, count = column.name.strip().casefold(), len(column.missing)
    if column.missing.all():
        return "no value in any row"
    numbers = column.values[np.isfinite(column.values)]
    if lower in _DATES and (_is_text(column) or (np.diff(numbers) >= 0).all()):
        return "a time that only grows or a date: a device would be beyond those of the training"
    if _is_text(column):
        kinds = len(column.texts)
        remedy = "write a column of 0 and 1 for each to use it" if 2 * kinds <= count else "one for nearly each row"
        return f"texts, {kinds} different: {remedy}"
    if lower in _INDEX and len(set(map(str, table.columns[column.name]))) == count:
        return "another number in each row, by its name no feature"
    return ""


def _missing(used: Sequence[FeatureColumn]) -> list[Key]:
    """Return the key that leaves out rows without a value, if there are some."""
    gaps = [column for column in used if column.missing.any()]
    if not gaps:
        return []
    lacking = np.any([column.missing for column in gaps], axis=0)
    rows, count = int(lacking.sum()), len(lacking)
    often = sorted(gaps, key=lambda one: -int(one.missing.sum()))[:_SHOWN]
    names = ", ".join(f"{one.name} {int(one.missing.sum())}" for one in often)
    why = (
        f"{rows} of {count} rows lack a value ({names}): nothing is filled in, and a device does not answer such a row"
    )
    return [Key(name="missing", value="drop", why=why)]


def _rows(
    table: Columns, used: Sequence[FeatureColumn], why: str, keys: Sequence[Key], texts: tuple[str, ...]
) -> Layout:
    """Return the layout of rows of the columns ``used``; nested lists of Parquet are windows of steps and channels."""
    values = np.concatenate([column.values for column in used], axis=1)
    steps = _steps(table, used)
    if steps > 1:
        options = {"steps": steps, "channels": values.shape[1] // steps}
        seen = f"{steps} lists of {values.shape[1] // steps} numbers in each line"
        found = windowed("features", why, options, seen, [values[np.isfinite(values)]])
        return replace(found, keys=(*keys, *found.keys), texts=texts)
    return rows_of("features", why, values, keys, texts=texts, where=table.name)


def _steps(table: Columns, used: Sequence[FeatureColumn]) -> int:
    """Return the number of lists in each line of the only column ``used``, 1 if it has none."""
    cell = table.columns[used[0].name][0] if len(used) == 1 and len(used[0].missing) else None
    return len(cell) if isinstance(cell, list) and cell and isinstance(cell[0], list) else 1


def rows_of(
    dataset: str, why: str, values: Values, keys: Sequence[Key] = (), *, texts: tuple[str, ...] = (), where: str
) -> Layout:
    """Return the layout of rows of features, ``values`` (N, F); each has a range of its own, if there are not too many.

    Raises:
        DataError: If there are more features than a device takes.
    """
    count = values.shape[1]
    if count > _MOST_COLUMNS:
        message = f"Expected at most {_MOST_COLUMNS} features in {where}, got {count}"
        raise DataError(f"{message}: leave some out")
    whole = values[np.isfinite(values).all(axis=1)]
    whole = whole if len(whole) else np.zeros((1, count))
    lows, highs = whole.min(axis=0), whole.max(axis=0)
    if count <= _MOST_CHANNELS:
        options = {"steps": 1, "channels": count}
        provisional = {f"low_{place}": float(low) for place, low in enumerate(lows)}
        provisional |= {f"high_{place}": max(float(high), float(lows[place]) + 1) for place, high in enumerate(highs)}
        seen = f"a row of {count} features, each with a range of its own"
        size = (count, 1)
    else:
        options = {"steps": count, "channels": 1}
        low, high = float(lows.min()), float(highs.max())
        provisional = {"low": low, "high": max(high, low + 1)}
        seen = f"{count} features, more than {_MOST_CHANNELS}: they share one range, so bring them to one size first"
        size = (1, count)
    return Layout(
        dataset=dataset, why=why, kind="row", size=size, size_why="one number for each feature",
        keys=(*keys, *window_keys(options, seen)), provisional=provisional, texts=texts,
    )  # fmt: skip
