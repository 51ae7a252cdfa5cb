"""``--set KEY=VALUE``: single values of a recipe changed on the command line, typed as the recipe's keys are.

A key is ``table.key``: ``train.epochs``, ``data.options.steps``, ``targets.host.runtime``, ``gates.accuracy_drop.max``,
and ``compress.STEP.key`` for the step of that name. ``data.size`` is width and height. Changes the document before it
is read, so that every check of a recipe's file holds for them too. Decides no range: ``read`` does.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from compressor import steps
from compressor.errors import RecipeError
from compressor.gates.evidence import GateRecipe
from compressor.recipe.model import (
    DEFAULT_STEPS,
    AcceptanceRecipe,
    AlarmRecipe,
    DataRecipe,
    DecoderRecipe,
    ModelRecipe,
    SmoothingRecipe,
    TargetRecipe,
    TrainRecipe,
)
from wire.settings import names_of, nearest, type_name

TABLES = ("model", "data", "train", "compress", "targets", "gates", "acceptance", "smoothing", "alarm", "decoder")
"""Of a recipe."""
PLAIN: Mapping[str, type] = {
    "model": ModelRecipe, "data": DataRecipe, "train": TrainRecipe, "acceptance": AcceptanceRecipe,
    "alarm": AlarmRecipe,
}  # fmt: skip
"""The tables that are a dataclass each."""
_OPEN: Mapping[str, type] = {"smoothing": SmoothingRecipe, "decoder": DecoderRecipe}
"""Tables whose ``kind`` is a plug-in, which declares the other keys."""
_NAMED: Mapping[str, type] = {"targets": TargetRecipe, "gates": GateRecipe}
_SIZE = "size"
_EXAMPLE = "--set train.epochs=3"


def changed(document: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return ``document``, the tables of a recipe's file, with ``changes``: each ``KEY=VALUE``, the last one wins.

    A text needs no quotes, a list of texts may be written with commas; anything else is written as in TOML.

    Raises:
        RecipeError: If one is not of this form, its key does not exist (the nearest is named), or its value is of
            another type.
    """
    found = copy.deepcopy(dict(document))
    for change in changes:
        key, equals, value = change.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or len(parts) < 2 or not all(parts):  # noqa: PLR2004 - a table and a key
            raise RecipeError(f"Expected --set TABLE.KEY=VALUE, as in {_EXAMPLE}, got {change[:100]!r}{_near(key)}")
        if parts == ["data", _SIZE]:
            _set(found, ["data", "width"], value)
            parts = ["data", "height"]
        _set(found, parts, value)
    return found


def _set(document: dict[str, Any], parts: Sequence[str], value: str) -> None:
    table, *rest = parts
    where = f"--set {'.'.join(parts)}"
    if table == "compress":
        _set_step(document, rest, value, where)
    elif table in PLAIN:
        _put(_inner(document, table, where), PLAIN[table], rest, value, where)
    elif table in _NAMED:
        if len(rest) < 2:  # noqa: PLR2004 - a name and a key
            message = f"Expected {where} with a name and a key, as targets.host.runtime or gates.size_bytes.max"
            raise RecipeError(f"{message}, got {'.'.join(parts)!r}")
        name, key = ".".join(rest[:-1]), rest[-1]  # the name of a gate from outside has dots
        inner = _inner(_inner(document, table, where), name, where)
        if table == "gates" and key in {"max", "min"}:
            inner.pop("min" if key == "max" else "max", None)  # a gate has one limit
        _put(inner, _NAMED[table], [key], value, where)
    elif table in _OPEN:
        hints = get_type_hints(_OPEN[table])
        known = rest[0] in names_of(_OPEN[table]) - {"options"}  # other keys are the smoother's or decoder's own
        typed = _typed(value, hints[rest[0]], where) if known else _toml(value, where, lambda: value)
        _inner(document, table, where)[rest[0]] = typed
    else:
        message = f"Expected {where} in one of the tables {', '.join(TABLES)}, got {table!r}"
        raise RecipeError(message + _near(".".join(parts)))


def _set_step(document: dict[str, Any], rest: Sequence[str], value: str, where: str) -> None:
    """Set a key of the only step of a name; a list of steps that is not written is the default one."""
    written = document.setdefault("compress", copy.deepcopy(DEFAULT_STEPS))
    there = [step for step in written if isinstance(step, dict)] if isinstance(written, list) else []
    names = [str(step.get("step")) for step in there]
    if len(rest) != 2 or names.count(rest[0]) != 1:  # noqa: PLR2004 - a step and a key
        said = f"{names.count(rest[0])} of that name" if rest[0] in names else f"no step {rest[0]!r}"
        message = f"Expected {where} as compress.STEP.KEY of one of the recipe's steps ({', '.join(names) or 'none'})"
        raise RecipeError(f"{message}, got {said}{nearest(rest[0], names)}")
    own = names_of(steps.module(rest[0]).Settings)
    step = there[names.index(rest[0])]
    if rest[1] in own:
        _put(step, steps.module(rest[0]).Settings, rest[1:], value, where)
    else:  # a key of the scheme's own, or unknown: the reader knows
        step[rest[1]] = _toml(value, where, lambda: value)


def _put(table: dict[str, Any], cls: type, rest: Sequence[str], value: str, where: str) -> None:
    """Set the key ``rest[0]`` of ``cls`` in ``table``, or ``rest[1]`` in the table of that name."""
    hints = {name: hint for name, hint in get_type_hints(cls, include_extras=True).items() if name in names_of(cls)}
    known = sorted({*hints, _SIZE} if cls is DataRecipe else hints)
    key, *inner = rest
    if key not in hints:
        message = f"Expected {where} with a key of {', '.join(known)}, got {key!r}"
        raise RecipeError(message + (nearest(key, known) or _near(where.removeprefix("--set "))))
    hint = hints[key]
    if not inner:
        table[key] = _typed(value, hint, where)
    elif get_origin(hint) is Mapping:
        _inner(table, key, where)[".".join(inner)] = _typed(value, get_args(hint)[1], where)
    else:
        message = f"Expected {where} to end at {key!r}, which is {type_name(hint)}, got {'.'.join(inner)!r} below it"
        raise RecipeError(message)


def _inner(table: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = table.setdefault(key, {})
    if not isinstance(found, dict):
        raise RecipeError(f"Expected {where} in a table, got {key} = {str(found)[:60]!r} in the recipe: mend it there")
    return found


def _typed(value: str, hint: object, where: str) -> object:
    """Return ``value`` as the type ``hint`` is written in a recipe."""
    wanted = type_name(hint)
    if wanted == "text":
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        return _toml(value, where, lambda: value) if quoted else value
    if wanted == "a list of text" and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",")] if value else []
    if "text" in wanted.split(" or "):
        return _toml(value, where, lambda: value)

    def refuse() -> object:
        message = f"Expected {where} to be {wanted}, got {value[:60]!r}"
        raise RecipeError(f"{message}: write it as in a recipe")

    return _toml(value, where, refuse)


def _toml(value: str, where: str, otherwise: Callable[[], object]) -> object:
    """Return the one TOML value in ``value``, or the result of ``otherwise`` if there is none."""
    try:
        found = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return otherwise()
    if set(found) != {"value"}:  # a line break and further keys
        raise RecipeError(f"Expected {where} with one value, got several lines")
    return found["value"]


def _near(key: str) -> str:
    """Return the known key nearest to ``key``, as a question, or nothing."""
    known = [f"{table}.{name}" for table, cls in PLAIN.items() for name in sorted(names_of(cls))]
    last = key.strip().rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    return f": did you mean {same[0]!r}?" if same else nearest(key.strip(), [*known, "data.size"])
