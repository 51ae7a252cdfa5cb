"""Expectations of a data set, read strictly from a TOML file, and which of them are violated.

Decides which expectations exist; violated ones are named after their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor import tasks
from compressor.data._shades import levels_of
from compressor.data._table import Table
from compressor.errors import RecipeError
from wire.errors import SettingsError
from wire.settings import fields_from, read_toml

_SIDES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Expectations; a key that is not given is not checked.

    ``classes``: exactly these, in any order. ``slices``: exactly these. ``min_rows``, ``min_rows_per_class``,
    ``min_rows_per_slice``: lower bounds. ``max_class_ratio``: rows of the largest class over the smallest.
    ``max_corrupt``: files left out. ``max_duplicate_ratio``: rows that repeat another row's content, 0..1.
    ``height``, ``width``: ``[least, most]`` in pixels. ``value_range``: ``[least, most]`` of all pixels, 0..255,
    with 16 bits 0..65535. ``mean_range``: ``[least, most]`` of an image's mean. ``max_clipped_ratio``: pixels at
    either end, 0..1.
    """

    classes: tuple[str, ...] | None = None
    slices: tuple[str, ...] | None = None
    min_rows: int | None = None
    min_rows_per_class: int | None = None
    min_rows_per_slice: int | None = None
    max_class_ratio: float | None = None
    max_corrupt: int | None = None
    max_duplicate_ratio: float | None = None
    height: tuple[float, ...] | None = None
    width: tuple[float, ...] | None = None
    value_range: tuple[float, ...] | None = None
    mean_range: tuple[float, ...] | None = None
    max_clipped_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One expectation: its key, whether it holds, the expected and the actual value."""

    name: str
    holds: bool
    wanted: str
    got: str


def read_schema(path: Path) -> Schema:
    """Return the schema in the TOML file at ``path``.

    Raises:
        RecipeError: If it can't be read, or has an unknown key or a value of a wrong type.
    """
    try:
        schema = fields_from(Schema, read_toml(path), str(path))
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    for name in ("height", "width", "value_range", "mean_range"):
        limits = getattr(schema, name)
        if limits is not None and (len(limits) != _SIDES or limits[0] > limits[1]):
            message = f"Expected {name} in {path} as [least, most], got {list(limits)}"
            raise RecipeError(message)
    return schema


def validate(table: Table, schema: Schema) -> tuple[Expectation, ...]:
    """Return every given expectation of ``schema``, met or violated, in the order of its keys.

    For a regression the groups of ``compressor data explore`` count as classes.
    """
    table, _ = tasks.of_rows(table).targets.grouped(table)
    checks: Mapping[str, Callable[[Table, object], Expectation]] = {
        "classes": lambda t, want: _same("classes", want, set(t.class_names)),
        "slices": lambda t, want: _same("slices", want, set(t.slices.tolist())),
        "min_rows": lambda t, want: _least("min_rows", want, {"": len(t)}),
        "min_rows_per_class": lambda t, want: _least("min_rows_per_class", want, _classes(t)),
        "min_rows_per_slice": lambda t, want: _least("min_rows_per_slice", want, _slices(t)),
        "max_class_ratio": lambda t, want: _most("max_class_ratio", want, _balance(t)),
        "max_corrupt": lambda t, want: _most("max_corrupt", want, len(t.corrupt)),
        "max_duplicate_ratio": lambda t, want: _most("max_duplicate_ratio", want, 1 - len(set(t.hashes)) / len(t)),
        "height": lambda t, want: _within("height", want, [float(image.shape[0]) for image in t.images]),
        "width": lambda t, want: _within("width", want, [float(image.shape[1]) for image in t.images]),
        "value_range": lambda t, want: _within(
            "value_range", want, [float(end) for one in _levels(t) for end in (one.min(), one.max())]
        ),
        "mean_range": lambda t, want: _within("mean_range", want, [float(one.mean()) for one in _levels(t)]),
        "max_clipped_ratio": lambda t, want: _most("max_clipped_ratio", want, _clipped(t)),
    }
    given = {name: getattr(schema, name) for name in checks}
    return tuple(check(table, given[name]) for name, check in checks.items() if given[name] is not None)


def _same(name: str, wanted: object, found: set[str]) -> Expectation:
    want = set(wanted) if isinstance(wanted, tuple) else set()
    missing, extra = sorted(want - found), sorted(found - want)
    parts = [f"{word} {', '.join(names[:10])}" for word, names in (("missing", missing), ("extra", extra)) if names]
    return Expectation(name=name, holds=not parts, wanted=", ".join(sorted(want)), got="; ".join(parts) or "the same")


def _least(name: str, wanted: object, counts: Mapping[str, int]) -> Expectation:
    least = min(counts, key=lambda key: counts[key])
    got = f"{counts[least]} of {least}" if least else str(counts[least])
    return Expectation(name=name, holds=counts[least] >= _number(wanted), wanted=f"at least {wanted}", got=got)


def _most(name: str, wanted: object, found: float) -> Expectation:
    return Expectation(name=name, holds=found <= _number(wanted), wanted=f"at most {wanted}", got=f"{found:.4g}")


def _within(name: str, wanted: object, found: list[float]) -> Expectation:
    low, high = wanted if isinstance(wanted, tuple) else (0.0, 0.0)
    outside = [row for row, value in enumerate(found) if not low <= value <= high]
    got = f"{min(found):.4g} to {max(found):.4g}"
    where = f", {len(outside)} outside, first {outside[0]}" if outside else ""
    return Expectation(name=name, holds=not outside, wanted=f"{low:g} to {high:g}", got=got + where)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _classes(table: Table) -> dict[str, int]:
    counts = np.bincount(table.labels, minlength=len(table.class_names)).tolist()
    return {f"class {name}": count for name, count in zip(table.class_names, counts, strict=True)}


def _slices(table: Table) -> dict[str, int]:
    names, counts = np.unique(table.slices, return_counts=True)
    return {f"slice {name}": count for name, count in zip(names.tolist(), counts.tolist(), strict=True)}


def _balance(table: Table) -> float:
    counts = _classes(table).values()
    return max(counts) / max(min(counts), 1)


def _levels(table: Table) -> Iterator[npt.NDArray[np.uint8] | npt.NDArray[np.uint16]]:
    return map(levels_of, table.images)


def _clipped(table: Table) -> float:
    at_ends = total = 0
    for levels in _levels(table):
        at_ends += int(np.count_nonzero((levels == 0) | (levels == np.iinfo(levels.dtype).max)))
        total += levels.size
    return float(at_ends / total)
