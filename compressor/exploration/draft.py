"""A first recipe for data that nobody has described yet: the text of a recipe with the reason at each key.

Reads the whole data set once, as ``compressor run`` would, so that what is written runs: its classes, rows, sources and
near copies decide on shares, steps and the margins that so many sources can show. Decides nothing that only a person
can: which accuracy the use needs stays a comment.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compressor import data as data_sets
from compressor import tasks
from compressor.data._split import absences, split
from compressor.data._table import Shares, Table
from compressor.errors import CorruptImageError, DataError, SplitError
from compressor.exploration.duplicates import with_near_sources
from compressor.exploration.layouts import Layout, recognised
from compressor.exploration.load import fit_ranges
from compressor.progress import Progress
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import parse_recipe
from compressor.statistics.power import POWER, samples_for
from wire.topics import is_name

MARGINS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2)
"""Drops in accuracy that a gate may allow, the smallest that the rows can show is taken."""
DISCORDANCE = 0.04
"""Share of rows that exactly one of the float and the int8 model gets right, measured on meter digits: 3.8 %."""
FIRST_LOOK = 0.9
"""Part of the risk that the first look at a gate split has (``gates.looks``)."""
_RISK = 0.05
_BATCHES = 3_000
_SEEDS = 50
_SMALL = 2_000
_NUMBERS_FROM = 20
"""Labels that are all numbers are values to predict if there are more different ones, and few rows of each."""
_SIDE_OF_SMALL_NETWORK = 64
_WIDTH = 120
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of a recipe, and what a person should know before it is run."""

    text: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What the data are: the table, with near copies as one source, the recipe's ``[data]``, the split with ``seed``.

    ``gate``: independent samples in the gate split; ``smallest``: in the gate split of the slice with the fewest.
    """

    table: Table
    data: DataRecipe
    train: int
    gate: int
    smallest: int
    seed: int
    absent: tuple[str, ...]


def draft(path: Path, beside: Path, progress: Progress, *, allow_corrupt: int = 0) -> Draft:
    """Return a recipe for the data at ``path``; ``beside``: the folder in which it will lie.

    ``allow_corrupt``: so many files may be broken; the recipe allows as many as are.

    Raises:
        DataError: If no data set reads its layout, its data can't be used, or they are too few for a split.
        CorruptImageError: If more files are broken.
        PluginError: If a package that reads them is missing.
    """
    layout = recognised(path)
    progress.say(f"{layout.dataset}: {layout.why}")
    data = replace(_data(layout, path), allow_corrupt=allow_corrupt)
    try:
        table = data_sets.load(data, Path())
    except CorruptImageError as error:
        message = f"{error} (compressor init --allow-corrupt N sets it)"
        raise CorruptImageError(message) from error
    data = replace(data, allow_corrupt=len(table.corrupt))
    if _are_numbers(table):
        data = replace(data, label="number")
        table = data_sets.load(data, Path())
    unnamed = table.sources == table.hashes
    if unnamed.any():
        table = with_near_sources(table, progress, unnamed)
    measured = _measured(table, data)
    if layout.kind in {"sound", "window"}:
        measured = _fitted(measured)
    text = _text(layout, measured, os.path.relpath(path.resolve(), beside.resolve()))
    parse_recipe(text)
    return Draft(text, (*_left_out(table.corrupt), *measured.absent))


def _left_out(corrupt: Sequence[str]) -> tuple[str, ...]:
    return (f"broken and left out: {len(corrupt)}, such as {corrupt[0][:200]}",) if corrupt else ()


def _data(layout: Layout, path: Path) -> DataRecipe:
    given = {key.name: key.value for key in layout.keys}
    options = given.get("options")
    if isinstance(options, Mapping) and layout.kind == "window":
        given["options"] = {**options, "low": layout.range[0], "high": layout.range[1]}  # until they are fitted
    width, height = layout.size
    return DataRecipe(dataset=layout.dataset, path=str(path.resolve()), width=width, height=height, **given)  # type: ignore[arg-type]


def _are_numbers(table: Table) -> bool:
    """Return whether the labels are values to predict and not classes."""
    if len(table.class_names) <= max(_NUMBERS_FROM, len(table) // 2):
        return False
    try:
        return all(math.isfinite(float(name)) for name in table.class_names)
    except ValueError:
        return False


def _measured(table: Table, data: DataRecipe) -> _Measured:
    """Return the split of ``table`` with shares for so many sources, by the first seed that leaves no part empty.

    Raises:
        DataError: If there is none.
    """
    count = len(set(table.sources.tolist()))
    told = set() if table.told is None else set(table.told.tolist())
    whole = told >= {"calibration", "reference"} and "" not in told
    data = data if whole else replace(data, shares=shares_for(count))
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
        )
    message = f"Expected enough sources for train, calibration, gate and reference, got {count} of {len(table)} rows"
    raise DataError(f"{message}: {reason}")


def _fitted(measured: _Measured) -> _Measured:
    """Return ``measured`` with ranges of the train rows, by which rows may become equal that were not, or no longer."""
    fitted = fit_ranges(measured.data, Path(), seed=measured.seed)
    fitted |= {high: fitted[high] + 1 for high in fitted if fitted.get(high.replace("high", "low")) == fitted[high]
               and high.startswith("high")}  # fmt: skip
    kept = {name: value for name, value in measured.data.options.items() if name not in {"low", "high"}}
    data = replace(measured.data, options={**kept, **fitted})
    return _measured(data_sets.load(data, Path()), data)


def shares_for(count: int) -> dict[str, float]:
    """Return the share of each split for ``count`` sources: where they are few, more of them judge."""
    calibration = round(min(0.15, max(0.02, 100 / count)), 2)
    gate, reference = (0.3, 0.25) if count >= 2 * _SMALL else (0.4, 0.1)
    return {
        "train": round(1 - calibration - gate - reference, 2),
        "calibration": calibration,
        "gate": gate,
        "reference": reference,
    }


def margin_for(count: int) -> tuple[float, str]:
    """Return the smallest margin that ``count`` sources can show, and why."""
    confidence = 1 - _RISK * FIRST_LOOK
    needed = {margin: samples_for(margin, DISCORDANCE, confidence=confidence) for margin in MARGINS}
    margin = next((one for one in MARGINS if needed[one] <= count), MARGINS[-1])
    equal = f"at {100 * DISCORDANCE:g} % discordance an equal model passes with {100 * POWER:.0f} % power"
    if needed[margin] > count:
        return margin, f"{count} sources judge, {needed[margin]} would show this: expect INCONCLUSIVE, label more"
    below = [one for one in MARGINS if one < margin]
    more = f"; {100 * below[-1]:g} points need {needed[below[-1]]}" if below else ""
    return margin, f"{count} sources judge: {equal}{more}"


def _text(layout: Layout, measured: _Measured, path: str) -> str:
    """Return the recipe, each key with its reason in a comment."""
    table, data, numbers = measured.table, measured.data, tasks.of(measured.data).columns
    sources = len(set(table.sources.tolist()))
    lines = [
        f"# Drafted by `compressor init` from {Path(path).name}: {len(table)} rows of {sources} sources.",
        "# Each comment is a reason, not a rule: change what you know better, then `compressor run` this file.",
        *(f"# Note: {said}" for said in measured.absent),
        "[model]",
        f"name = {_value(name_of(path))}",
        *_network(layout, data),
    ]
    if not numbers:
        lines.append(_line("labels", list(table.class_names), f"{len(table.class_names)} classes, in this order"))
    lines += ["", "[data]", _line("dataset", data.dataset, layout.why), _line("path", path, "relative to this file")]
    if numbers:
        lines.append(_line("label", "number", "the labels are numbers, nearly all different: they are predicted"))
    fitted = "; ranges fitted on train rows, 99 % inside" if layout.kind in {"sound", "window"} else ""
    for key in layout.keys:
        value, why = (data.options, key.why + fitted) if key.name == "options" else (key.value, key.why)
        lines.append(_line(key.name, value, why))
    lines += [
        _line("width", data.width, layout.size_why),
        f"height = {data.height}",
        *([_line("allow_corrupt", data.allow_corrupt, _why_corrupt(table.corrupt))] if table.corrupt else []),
        *([_line("shares", data.shares, _why_shares(table, sources))] if data.shares else []),
        "",
        "[train]",
        *_training(layout, measured),
        "",
        "[[compress]]",
        _line("step", "quantize", "int8: a quarter of the size, and faster on all targets"),
        _line("scheme", "static_int8", "ranges from the calibration rows, which are neither learnt from nor judged"),
        _line("reduce_range", True, "7-bit weights: x86 without VNNI saturates with 8; false for ARM"),
        "",
        "[targets.host]",
        _line("runtime", "onnx", "litert for a TFLite file"),
        _line("cpu", _cpu(), "this host: gates are measured here"),
        "",
        "[gates]",
        *_gates(measured, numbers=numbers),
    ]
    return "\n".join(lines) + "\n"


def _network(layout: Layout, data: DataRecipe) -> list[str]:
    if layout.kind == "sound":
        return [
            _line("network", "ds_cnn", "made for spectrograms (MLPerf Tiny, keyword spotting)"),
            _line("network_options", {"filters": 32}, "half the width of the original"),
        ]
    if layout.kind == "window":
        return [_line("network", "window_cnn", "keeps the place in the window, which a mean over it would lose")]
    if min(data.width, data.height) > _SIDE_OF_SMALL_NETWORK:
        return [
            _line("network", "mobilenet_v2", f"for more than {_SIDE_OF_SMALL_NETWORK} pixels a side"),
            _line("network_options", {"width_mult": 0.35}, "the narrowest of the usual ones"),
        ]
    options: dict[str, object] = {"filters": 16, "stem_stride": 2 if min(data.width, data.height) >= 32 else 1}  # noqa: PLR2004 - the input the network was made for
    return [
        _line(
            "network", "resnet8", f"up to {_SIDE_OF_SMALL_NETWORK} pixels a side (MLPerf Tiny, image classification)"
        ),
        _line("network_options", options, "a stride of 2 in front quarters the work"),
    ]


def _training(layout: Layout, measured: _Measured) -> list[str]:
    batch = 64 if measured.train >= _SMALL else 32
    epochs = min(60, max(10, round(_BATCHES * batch / measured.train)))
    augment = {"image": 1.0, "sound": 0.5, "window": 0.0, "stroke": 1.0}[layout.kind]
    why = "a window shifted or dimmed would be another window" if augment == 0 else "mild geometry and light"
    seed = "the splits; keep it, or gate rows become train rows"
    if measured.seed:
        seed = f"the first that leaves no split empty; {seed}"
    return [
        _line("epochs", epochs, f"about {_BATCHES} batches of {measured.train} train rows"),
        _line("batch", batch, f"{'more' if batch > 32 else 'fewer'} than {_SMALL} train rows"),  # noqa: PLR2004 - the smaller one
        _line("learning_rate", 0.01, "peak of one cycle; a tenth if the loss jumps"),
        _line("augment", augment, why),
        _line("seed", measured.seed, seed),
    ]


def _why_shares(table: Table, sources: int) -> str:
    drawn = "of what the folders or the table leave open" if table.told is not None else f"of {sources} sources"
    return f"{drawn}, split by source: none is in two splits"


def _why_corrupt(corrupt: Sequence[str]) -> str:
    names = ", ".join(json.dumps(name[:80], ensure_ascii=False) for name in corrupt[:_SHOWN])
    more = f" and {len(corrupt) - _SHOWN} more" if len(corrupt) > _SHOWN else ""
    return f"broken and left out: {names}{more}; mend them, and remove this line"


def _gates(measured: _Measured, *, numbers: bool) -> list[str]:
    if numbers:
        spread = float(np.std(measured.table.labels, axis=0).mean())
        limit = float(f"{0.05 * spread:.2g}") or 0.01
        return [
            "# mae = {max = ...}  # the error that your use allows, in the unit of the labels",
            _line("error_increase", {"max": limit}, "a twentieth of the labels' standard deviation"),
        ]
    margin, why = margin_for(measured.gate)
    lines = [
        "# accuracy = {min = 0.9}  # what your use needs: a person knows it, the data do not",
        _line("accuracy_drop", {"max": margin, "confidence": 0.95}, f"against the float model; {why}"),
    ]
    if measured.data.slices:
        by_slice, why = margin_for(measured.smallest)
        lines.append(_line("worst_slice_drop", {"max": by_slice}, f"the slice with the fewest rows: {why}"))
    return lines


def name_of(path: str) -> str:
    """Return a model's name from the name of the data."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", Path(path).stem.lower()).strip("-_")[:63].strip("-_")
    return plain if is_name(plain) else "model"


def _cpu() -> str:
    return platform.machine() or "x86_64"


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
