"""A first recipe for data that nobody has described yet: the text of a recipe with the reason at each key.

Reads the whole data set once, as ``compressor run`` would, so that what is written runs: its classes, rows, sources and
near copies decide on shares, steps and the margins that so many sources can show. Decides nothing that only a person
can: which accuracy the use needs stays a comment.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compressor import data as data_sets
from compressor import tasks
from compressor.data._split import absences, split, told_groups
from compressor.data._table import Shares, Table
from compressor.errors import CorruptImageError, DataError, SplitError
from compressor.exploration.duplicates import with_near_sources
from compressor.exploration.layouts import recognised
from compressor.exploration.layouts.form import Layout
from compressor.exploration.load import fit_ranges
from compressor.progress import Progress
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import parse_recipe
from compressor.tasks._drafting import UNSHOWN, DraftedParts, Facts, Key, WrittenLabels
from wire.settings import is_given
from wire.topics import is_name

_SEEDS = 50
_RANGES = frozenset({"low", "high"})
_SMALL = 2_000
_WIDTH = 120
_SHOWN = 3
_WHY_AS_TOLD = (
    "the files tell the splits, and some rows look like rows of another: figures may be better than on new rows"
)
_FITTED = frozenset({"sound", "window", "row"})
"""Kinds whose ranges are fitted on train rows."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of a recipe, and what a person should know before it is run."""

    text: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What the data are: the table, with near copies as one source, the recipe's ``[data]``, the split with ``seed``.

    ``gate``: independent samples in the gate split; ``smallest``: in the gate split of the slice with the fewest;
    ``calibration``: rows in its split.
    """

    table: Table
    data: DataRecipe
    train: int
    gate: int
    smallest: int
    seed: int
    absent: tuple[str, ...]
    calibration: int


def draft(
    path: Path, beside: Path, progress: Progress, *, allow_corrupt: int = 0, labels: Sequence[str] = ()
) -> Draft:  # fmt: skip
    """Return a recipe for the data at ``path``; ``beside``: the folder in which it will lie.

    ``allow_corrupt``: so many files may be broken; the recipe allows as many as are. ``labels``: the column of a table
    that is the label, or the columns of 0 and 1 that are several.

    Raises:
        DataError: If no data set reads its layout, its data can't be used, or they are too few for a split.
        CorruptImageError: If more files are broken.
        PluginError: If a package that reads them is missing.
    """
    layout = recognised(path, labels)
    progress.say(f"{layout.dataset}: {layout.why}")
    data = replace(_data(layout, path), allow_corrupt=allow_corrupt)
    if "" in layout.texts and not data.task:  # rows without a label can't be read as those of a class
        layout, data = _with(layout, data, _seen_in(layout.texts))
    try:
        table = data_sets.load(data, Path())
    except CorruptImageError as error:
        if "allow_corrupt" not in str(error):  # none of the files is there: leaving out all is no way
            raise
        message = f"{error} (compressor init --allow-corrupt N sets it)"
        raise type(error)(message) from error
    data = replace(data, allow_corrupt=len(table.corrupt))
    if not is_given(data, "task") and not is_given(data, "label"):
        texts = np.array(table.class_names, dtype=np.str_)[table.labels]
        layout, guessed = _with(layout, data, WrittenLabels(texts=texts, sources=table.sources, told=table.told))
        table = data_sets.load(guessed, Path()) if guessed != data else table
        data = guessed
    measured = _measured_with_near_copies(table, data, progress)
    if layout.kind in _FITTED:
        measured = _fitted(measured)
    parts = tasks.of(measured.data).drafting.parts(_facts(layout, measured))
    text = _text(layout, measured, parts, os.path.relpath(path.resolve(), beside.resolve()))
    parse_recipe(text)
    remarks = (
        *layout.remarks,
        *_left_out(table.corrupt),
        *table.remarks,
        *measured.absent,
        *_unshown(parts),
        *parts.remarks,
    )
    return Draft(text, remarks)


def _seen_in(texts: Sequence[str]) -> WrittenLabels:
    each = np.array([f"row {place}" for place in range(len(texts))], dtype=np.str_)
    return WrittenLabels(texts=np.array(texts, dtype=np.str_), sources=each)


def _with(layout: Layout, data: DataRecipe, seen: WrittenLabels) -> tuple[Layout, DataRecipe]:
    """Return ``layout`` and ``data`` with the keys of the task that claims rows with the labels ``seen``."""
    claims = (tasks.named(name).drafting.keys(seen) for name in tasks.known())
    keys = next(filter(None, claims), ())
    if not keys:
        return layout, data
    data = replace(data, **_given(keys))  # type: ignore[arg-type]
    layout = replace(layout, keys=(*keys, *layout.keys))
    known = getattr(importlib.import_module(f"compressor.data.{data.dataset}"), "COLUMNS", ())
    if not (tasks.of(data).columns and "target" in known):
        return layout, data
    columns = {("target" if wanted == "label" else wanted): own for wanted, own in data.columns.items()}
    columns = columns if "target" in columns else {"target": "label", **columns}
    if all(key.name != "columns" for key in layout.keys):
        layout = replace(layout, keys=(*layout.keys, Key(name="columns", value={}, why="the numbers to predict")))
    return layout, replace(data, columns={wanted: own for wanted, own in columns.items() if wanted != own})


def _measured_with_near_copies(table: Table, data: DataRecipe, progress: Progress) -> _Measured:
    """Return the split of ``table``, whose near copies count as one source where it names none.

    Where they are in two of the splits that the files tell, the recipe keeps these (``near_copies``). Where they would
    leave too few, rows count by themselves, and the recipe says that they look alike.

    Raises:
        DataError: If there is no split.
    """
    unnamed = table.sources == table.hashes
    if not unnamed.any():
        return _measured(table, data)
    joined = with_near_sources(table, progress, unnamed)
    if _clash(joined) and not _clash(table):
        data = replace(data, near_copies="as_told")
        joined = with_near_sources(table, progress, unnamed, as_told=True)
    if tasks.of(data).whole_sources:
        return _measured(table, data)
    count = len(set(joined.sources.tolist()))
    try:
        told_groups(joined)
        return _measured(joined, data)
    except DataError:
        alike = (
            f"{len(table)} rows look nearly alike, as {count} sources: gates take them for independent, name sources"
        )
        measured = _measured(table, data)
        return measured if count == len(table) else replace(measured, absent=(*measured.absent, alike))


def _clash(table: Table) -> bool:
    """Return whether ``table`` has a source in two of the splits that its files tell."""
    try:
        told_groups(table)
    except SplitError:
        return True
    return False


def _left_out(corrupt: Sequence[str]) -> tuple[str, ...]:
    return (f"broken and left out: {len(corrupt)}, such as {corrupt[0][:200]}",) if corrupt else ()


def _unshown(parts: DraftedParts) -> tuple[str, ...]:
    """Return a remark on each gate whose margin the rows at hand are too few to show, as its comment says."""
    return tuple(f"gate {key.name}: {key.why}" for key in parts.gates if UNSHOWN in key.why)


def _given(keys: Sequence[Key]) -> dict[str, object]:
    """Return the values of ``keys`` as a recipe has them."""
    return {key.name: tuple(key.value) if isinstance(key.value, list) else key.value for key in keys}


def _data(layout: Layout, path: Path) -> DataRecipe:
    given = _given(layout.keys)
    options = given.get("options")
    if isinstance(options, Mapping):
        given["options"] = {**options, **layout.provisional}  # until they are fitted
    width, height = layout.size
    return DataRecipe(dataset=layout.dataset, path=str(path.resolve()), width=width, height=height, **given)  # type: ignore[arg-type]


def _measured(table: Table, data: DataRecipe) -> _Measured:
    """Return the split of ``table`` with shares for so many sources, by the first seed that leaves no part empty.

    Raises:
        DataError: If there is none.
    """
    count = len(set(table.sources.tolist()))
    told = set() if table.told is None else set(table.told.tolist())
    whole = told >= {"calibration", "reference"} and "" not in told
    least = tasks.of(data).drafting.CALIBRATION_SHARE
    data = data if whole else replace(data, shares=shares_for(count, least))
    table = table if whole else replace(table, shares=Shares(**data.shares))
    for seed in range(_SEEDS):
        try:
            splits = split(table, seed)
        except SplitError as error:
            reason = str(error)
            continue
        parts = table.slices[splits.gate].tolist()
        return _Measured(
            table=table,
            data=data,
            train=len(splits.train),
            gate=len(splits.gate),
            smallest=min(parts.count(part) for part in set(table.slices.tolist())),
            seed=seed,
            absent=tuple(absences(table, splits)),
            calibration=len(splits.calibration),
        )
    message = f"Expected enough sources for train, calibration, gate and reference, got {count} of {len(table)} rows"
    raise DataError(f"{message}: {reason}")


def _fitted(measured: _Measured) -> _Measured:
    """Return ``measured`` with ranges of the train rows, by which rows may become equal that were not, or no longer."""
    fitted = fit_ranges(measured.data, Path(), seed=measured.seed)
    margin = tasks.of(measured.data).drafting.RANGE_MARGIN
    for high in [name for name in fitted if name.startswith("high")]:
        low = high.replace("high", "low")
        if fitted[high] == fitted[low]:
            fitted[high] += 1
        if margin:
            reach = margin * (fitted[high] - fitted[low])
            fitted |= {low: float(f"{fitted[low] - reach:.4g}"), high: float(f"{fitted[high] + reach:.4g}")}
    kept = {name: value for name, value in measured.data.options.items() if name.partition("_")[0] not in _RANGES}
    data = replace(measured.data, options={**kept, **fitted})
    return _measured(data_sets.load(data, Path()), data)


def shares_for(count: int, least: float = 0.0) -> dict[str, float]:
    """Return the share of each split for ``count`` sources: where they are few, more of them judge.

    ``least``: of the calibration split.
    """
    usual = round(min(0.15, max(0.02, 100 / count)), 2)
    gate, reference = (0.3, 0.25) if count >= 2 * _SMALL else (0.4, 0.1)
    calibration = max(least, usual)
    gate = round(gate - (calibration - usual), 2)
    return {
        "train": round(1 - calibration - gate - reference, 2),
        "calibration": calibration,
        "gate": gate,
        "reference": reference,
    }


def _text(layout: Layout, measured: _Measured, parts: DraftedParts, path: str) -> str:
    """Return the recipe, each key with its reason in a comment."""
    table, data = measured.table, measured.data
    sources = len(set(table.sources.tolist()))
    lines = [
        f"# Drafted by `compressor init` from {Path(path).name}: {len(table)} rows of {sources} sources.",
        "# Each comment is a reason, not a rule: change what you know better, then `compressor run` this file.",
        *(f"# Note: {' '.join(said.split())}" for said in (*measured.absent, *table.remarks)),
        *(f"# {said}" for said in parts.notes),
        "[model]",
        f"name = {_value(name_of(path))}",
        *map(_key, parts.network),
    ]
    if parts.labels:
        lines.append(_line("labels", list(table.class_names), f"{len(table.class_names)} classes, in this order"))
    lines += ["", "[data]", _line("dataset", data.dataset, layout.why), _line("path", path, "relative to this file")]
    fitted = "; ranges fitted on train rows, 99 % inside" if layout.kind in _FITTED else ""
    if layout.kind in _FITTED - {"sound"} and (margin := tasks.of(data).drafting.RANGE_MARGIN):
        fitted += f", and {100 * margin:g} % more on both sides, so that what is unusual is not cut off"
    for key in (key for key in layout.keys if getattr(data, key.name) != {}):
        lines.append(_line(key.name, getattr(data, key.name), key.why + (fitted if key.name == "options" else "")))
    seed = "the splits; keep it, or gate rows become train rows"
    seed = f"the first that leaves no split empty; {seed}" if measured.seed else seed
    lines += [
        _line("width", data.width, layout.size_why),
        f"height = {data.height}",
        *([_line("allow_corrupt", data.allow_corrupt, _why_corrupt(table.corrupt))] if table.corrupt else []),
        *([_line("shares", data.shares, _why_shares(table, sources))] if data.shares else []),
        *([_line("near_copies", data.near_copies, _WHY_AS_TOLD)] if is_given(data, "near_copies") else []),
        "",
        "[train]",
        *map(_key, parts.train),
        _line("seed", measured.seed, seed),
    ]
    for name, keys in parts.tables.items():
        lines += ["", f"[{name}]", *map(_key, keys)]
    lines += [
        "",
        "[[compress]]",
        _line("step", "quantize", "int8: a quarter of the size, and faster on all targets"),
        _line("scheme", "static_int8", "ranges from the calibration rows, which are neither learnt from nor judged"),
        _line("reduce_range", True, "7-bit weights: x86 without VNNI saturates with 8; false for ARM"),
        "",
        "[targets.host]",
        _line("runtime", "onnx", "litert for a TFLite file"),
        _line("cpu", platform.machine() or "x86_64", "this host: gates are measured here"),
        "",
        "[gates]",
        *(f"# {hint}" for hint in parts.hints),
        *map(_key, parts.gates),
    ]
    return "\n".join(lines) + "\n"


def _facts(layout: Layout, measured: _Measured) -> Facts:
    data = measured.data
    return Facts(
        table=measured.table, kind=layout.kind, width=data.width, height=data.height, train=measured.train,
        gate=measured.gate, smallest=measured.smallest, sliced=bool(data.slices), options=data.options,
        calibration=measured.calibration, interval_s=layout.interval_s,
    )  # fmt: skip


def _key(key: Key) -> str:
    return _line(key.name, key.value, key.why)


def _why_shares(table: Table, sources: int) -> str:
    drawn = "of what the folders or the table leave open" if table.told is not None else f"of {sources} sources"
    return f"{drawn}, split by source: none is in two splits"


def _why_corrupt(corrupt: Sequence[str]) -> str:
    names = ", ".join(json.dumps(name[:80], ensure_ascii=False) for name in corrupt[:_SHOWN])
    more = f" and {len(corrupt) - _SHOWN} more" if len(corrupt) > _SHOWN else ""
    return f"broken and left out: {names}{more}; mend them, and remove this line"


def name_of(path: str) -> str:
    """Return a model's name from the name of the data."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", Path(path).stem.lower()).strip("-_")[:63].strip("-_")
    return plain if is_name(plain) else "model"


def _line(key: str, value: object, why: str) -> str:
    """Return a key with its reason, behind it or, if that is too long, above it."""
    written, reason = f"{key} = {_value(value)}", f"# {' '.join(why.split())}"
    together = f"{written}  {reason}"
    return together if len(together) <= _WIDTH else f"{reason}\n{written}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)
