"""Front end and options of a data set whose samples are not images, and the preprocessing of any for the manifest.

Decides which of a recipe's ``[data] options`` belong to the front end and which to the loader. Ranges (``low_0``,
``high_0``, ``floor_db``, ...) are constants of the recipe, never computed from the rows that ``load`` returns: those
are split afterwards, so such a range would depend on gate rows. ``compressor data fit`` prints ranges computed from
train rows only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from compressor import plugins
from compressor.data import datasets
from compressor.data._split import told_groups
from compressor.data._stored_images import kept as hashed
from compressor.data._table import Table, make_table, make_value_table
from compressor.errors import CorruptImageError, CorruptInputError, DataError, PluginError
from compressor.recipe.model import DataRecipe
from edge_agent import front_ends
from edge_agent.errors import SensorError
from edge_agent.front_ends import log_mel, mfcc, settings_from, window
from wire.manifest import DECODES, ORIENTATIONS, Preprocessing

_NAMES_SHOWN = 5
SILENCE_DB = -199.0

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSample:
    """One sample before its front end: the bytes that a device would get, and its metadata.

    ``split``: as the data set tells it, or empty. ``values``: for a regression, the numbers to predict by name; the
    label is then unused. ``problem``: why its file can't be read; it then counts as corrupt. ``columns``: the names of
    its columns of numbers, one for each, if it has such.
    """

    name: str
    data: bytes
    label: str
    slice: str
    source: str
    split: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranged:
    """A sample's real numbers before conversion to 8 bits, float64 (T, C), with its source."""

    values: Values
    source: str


def chosen(data: DataRecipe, known: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """Return the front end of ``data``, one of ``known``, and all its options including defaults.

    Raises:
        DataError: If it is missing (the device could not read its sensor) or unknown, or an option is unknown or out of
            range.
    """
    if data.front_end not in known:
        message = f"Expected in [data] front_end one of {', '.join(known)}, got {data.front_end or 'none'}"
        raise DataError(f"{message}: device and data set {data.dataset!r} must read a sensor alike")
    return data.front_end, completed(data.front_end, options_of(data))


def window_front_end(data: DataRecipe) -> tuple[str, dict[str, float]]:
    """Return the name and all options of the front end of a data set whose samples are windows of numbers.

    Raises:
        DataError: If the front end is missing or another one, or an option is unknown or out of range.
    """
    return chosen(data, ("window",))


def options_of(data: DataRecipe) -> dict[str, float]:
    """Return ``[data] options`` as numbers."""
    return {name: float(value) for name, value in data.options.items()}


def completed(name: str, options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` of the front end ``name`` with all defaults filled in.

    Raises:
        DataError: If an option is unknown or out of range.
    """
    try:
        return front_ends.complete(name, options)
    except SensorError as error:
        message = f"[data] options: {error}"
        raise DataError(message) from error


def check_corrupt(corrupt: Sequence[str], data: DataRecipe, path: Path, what: str) -> None:
    """Check that at most ``data.allow_corrupt`` rows of ``path`` were left out.

    ``corrupt``: of each its name, a colon and the reason; ``what``: how messages call them.

    Raises:
        CorruptImageError: If there are more; of a front end's inputs it is ``CorruptInputError``.
    """
    if len(corrupt) > data.allow_corrupt:
        message = f"Expected at most {data.allow_corrupt} {what} in {path}, got {len(corrupt)}: {_by_reason(corrupt)}"
        error = CorruptInputError if data.front_end else CorruptImageError
        raise error(f"{message}: mend them, or leave them out by allow_corrupt in [data]")


def _by_reason(corrupt: Sequence[str]) -> str:
    """Return the first rows of each reason, which is said once with their number; reasons may differ in numbers."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for text in corrupt:
        name, _, reason = text.partition(": ")
        alike.setdefault(re.sub(r"\d+", "0", reason), []).append((name, reason))
    said = []
    for rows in list(alike.values())[:_NAMES_SHOWN]:
        names = ", ".join(name for name, _ in rows[:_NAMES_SHOWN])
        more = f" and {len(rows) - _NAMES_SHOWN} more" if len(rows) > _NAMES_SHOWN else ""
        said.append(f"{names}{more}: {rows[0][1]}")
    return "; ".join(said)


def tabled(
    data: DataRecipe, path: Path, front_end: tuple[str, Mapping[str, float]], samples: Iterable[SensorSample], *,
    what: str,
) -> Table:  # fmt: skip
    """Return the table of the front end's pictures of ``samples``; ``front_end``: its name and options.

    ``what``: the name of rejected samples in messages; ``path`` is their origin. Of a generator's samples one is in
    memory at a time.

    Raises:
        CorruptInputError: If it rejects more than ``data.allow_corrupt``.
        DataError: If it rejects all, or samples have the same columns in different orders.
    """
    kept, corrupt = list[SensorSample](), list[str]()
    images = hashed(_pictures(samples, *front_end, kept, corrupt))  # one by one: a picture may be larger than its data
    check_corrupt(corrupt, data, path, what)
    slices, sources = [sample.slice for sample in kept], [sample.source for sample in kept]
    left_out = tuple(text.split(": ", 1)[0] for text in corrupt)
    if kept and kept[0].values:
        names, values = _values(kept)
        table = make_value_table(images, values, names, slices=slices, sources=sources, corrupt=left_out)
    else:
        labels = [sample.label for sample in kept]
        table = make_table(images, labels, slices=slices, sources=sources, corrupt=left_out)
    table = replace(table, columns=_columns(kept, path))
    if not data.split and not any(sample.split for sample in kept):
        return table
    places = [sample.name for sample in kept]
    table = replace(
        table, told=np.array([sample.split for sample in kept], np.str_), names=np.array(places, dtype=np.str_)
    )
    told_groups(table, names=places)
    return table


def _columns(samples: Sequence[SensorSample], path: Path) -> tuple[str, ...]:
    """Return the names of the columns that all samples share; empty if they have none, or others.

    Raises:
        DataError: If they have the same ones in another order: numbers would be read as those of another column.
    """
    first = next(iter(samples)).columns if samples else ()
    for sample in samples:
        if sample.columns != first and sorted(sample.columns) == sorted(first):
            wanted, got = ", ".join(first)[:200], ", ".join(sample.columns)[:200]
            message = f"Expected the columns {wanted} in one order in {path}, got {got} of {sample.name}"
            raise DataError(f"{message}: write all files with the same order of columns")
    return first if all(sample.columns == first for sample in samples) else ()


def ranged(samples: Iterable[SensorSample], name: str, options: Mapping[str, float]) -> list[Ranged]:
    """Return the numbers of ``samples`` before conversion to 8 bits, to fit ranges; ``name``: the front end.

    Of ``log_mel`` decibels, of ``mfcc`` coefficients, of ``window`` the (steps, channels), which must be text. Digital
    silence (padding) is left out: a range is fitted on recorded sound only.

    Raises:
        DataError: If the front end is another one, which has no ranges.
        SensorError: If a sample is cut off or of another kind, or has other steps or channels than the options.
    """
    samples = _checked(samples)
    if name == "window":
        settings = settings_from(window.Settings, options)
        return [Ranged(window.fitted(window.parse(sample.data), settings), sample.source) for sample in samples]
    if name == "mfcc":
        cepstral = settings_from(mfcc.Settings, options)
        return [Ranged(mfcc.cepstrum(sample.data, cepstral), sample.source) for sample in samples]
    if name != "log_mel":
        message = f"Expected in [data] front_end 'window', 'log_mel' or 'mfcc', got {name!r}, which has no ranges"
        raise DataError(f"{message} to fit")
    unfloored = settings_from(log_mel.Settings, {**options, "floor_db": SILENCE_DB, "ceiling_db": 0.0})
    levels = ((log_mel.decibels(sample.data, unfloored), sample.source) for sample in samples)
    return [Ranged(values[values > SILENCE_DB][:, None], source) for values, source in levels]  # without padding


def _checked(samples: Iterable[SensorSample]) -> Iterator[SensorSample]:
    for sample in samples:
        if sample.problem:
            raise SensorError(sample.problem)
        yield sample


def _values(samples: list[SensorSample]) -> tuple[tuple[str, ...], list[list[float]]]:
    names = tuple(samples[0].values)
    for sample in samples:
        if tuple(sample.values) != names:
            got = ", ".join(sample.values) or "none"
            message = (
                f"Expected the values {', '.join(names)} of {sample.name}, got {got}: give all files the same columns"
            )
            raise DataError(message)
    return names, [list(sample.values.values()) for sample in samples]


def _pictures(
    samples: Iterable[SensorSample], name: str, options: Mapping[str, float], kept: list[SensorSample],
    corrupt: list[str],
) -> Iterator[npt.NDArray[np.uint8]]:  # fmt: skip
    """Yield the pictures; their samples, without the bytes, are added to ``kept``.

    ``name: reason`` of rejected ones is added to ``corrupt``.
    """
    for sample in samples:
        if sample.problem:
            corrupt.append(f"{sample.name}: {sample.problem}")
            continue
        try:
            picture = front_ends.decode(name, sample.data, options)
        except SensorError as error:
            corrupt.append(f"{sample.name}: {error}")
        else:
            kept.append(replace(sample, data=b""))
            yield picture


def preprocessing_of(data: DataRecipe, layout: str = "NCHW") -> Preprocessing:
    """Return the manifest's preprocessing from an image of ``data`` to the input tensor in ``layout``.

    Every option of a front end is written out: a later change of defaults does not affect old bundles.

    Raises:
        DataError: If the data set has no such front end, or an option is unknown or out of range.
    """
    options: dict[str, float] = {}
    if data.front_end:
        name = f"{data.dataset.partition(':')[0]}:front_end" if ":" in data.dataset else data.dataset
        try:
            asked = plugins.resolve("compressor.data", name, "front_end", known=datasets())
            options = cast("tuple[str, dict[str, float]]", asked(data))[1]
        except PluginError:  # the data set has no front_end: options unknown to the front end are the data set's
            known, given = completed(data.front_end, {}), options_of(data)
            own = {key: value for key, value in given.items() if key in known or key.rstrip("0123456789_") in known}
            options = completed(data.front_end, own)
    return Preprocessing(
        width=data.width,
        height=data.height,
        colour=data.colour,
        resample=data.resample,
        scale=data.pixel_scale,
        mean=data.per_channel("mean"),
        std=data.per_channel("std"),
        layout=layout,
        resize=data.resize,
        resize_to=data.resize_to,
        fill=data.fill,
        antialias=data.antialias,
        bits=data.bits,
        orientation=ORIENTATIONS[0] if data.front_end else data.orientation,
        decode=DECODES[0] if data.front_end else data.decode,
        front_end=data.front_end,
        front_end_options={key: float(options[key]) for key in sorted(options)},
    )
