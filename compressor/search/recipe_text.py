"""A recipe as TOML text, so that the result of a search can be run, read and stored like any other recipe.

Decides only the layout: ``parse_recipe(recipe_text(recipe).encode())`` gives the same recipe. Paths become absolute,
because the text is in another folder than the original recipe.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor import formats
from compressor.errors import RecipeError
from compressor.recipe.model import AcceptanceRecipe, AlarmRecipe, Recipe
from edge_agent import decoders
from wire.settings import given_of, is_given

_BARE = re.compile("[A-Za-z0-9_-]+")


def absolute(recipe: Recipe, data_root: Path | None = None) -> Recipe:
    """Return ``recipe`` with absolute paths of data and models; ``data_root`` is the base of a relative data path."""
    folder, model = recipe.folder.resolve(), recipe.model
    given = {
        name: str(folder / getattr(model, name))
        for name in ("checkpoint", "teacher", *formats.model_keys())
        if getattr(model, name)
    }
    data, root = recipe.data, (data_root or folder).resolve()
    paths = {name: str(root / getattr(data, name)) for name in ("path", "unlabelled") if getattr(data, name)}
    paths |= {"calibration": str(folder / data.calibration)} if data.calibration else {}
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(model, **given),  # type: ignore[arg-type]
        data=dataclasses.replace(data, **paths),  # type: ignore[arg-type]
    )


def recipe_text(recipe: Recipe, remarks: tuple[str, ...] = ()) -> str:
    """Return ``recipe`` as TOML with every value; ``remarks`` become comments at the top.

    Raises:
        RecipeError: If a value that was replaced in ``recipe`` is of a type that TOML does not have.
    """
    parts = ["\n".join(f"# {' '.join(remark.split())}" for remark in remarks)] if remarks else []
    if not recipe.compress:
        parts.append("compress = []")
    parts += [_table(f"[{name}]", getattr(recipe, name)) for name in ("model", "data", "train")]
    parts += [_table("[[compress]]", step) for step in recipe.compress]
    parts += [_table(f"[targets.{_key(target.name)}]", target, without="name") for target in recipe.targets]
    gates = [f"{_key(gate.name)} = {_inline(_pairs(gate, 'name'))}" for gate in recipe.gates]
    if recipe.acceptance != AcceptanceRecipe():
        parts.append(_table("[acceptance]", recipe.acceptance))
    if recipe.alarm != AlarmRecipe():
        parts.append(_table("[alarm]", recipe.alarm))
    if recipe.smoothing.kind:
        keys = {"kind": recipe.smoothing.kind, "interval_ms": recipe.smoothing.interval_ms, **recipe.smoothing.options}
        parts.append("\n".join(["[smoothing]", *(f"{key} = {_value(value)}" for key, value in keys.items())]))
    if recipe.decoder.kind:
        settings = decoders.settings_from(recipe.decoder.kind, recipe.decoder.options)
        own = {"kind": recipe.decoder.kind, **given_of(settings)}
        parts.append("\n".join(["[decoder]", *(f"{key} = {_value(value)}" for key, value in own.items())]))
    return "\n\n".join([*parts, "\n".join(["[gates]", *gates])]) + "\n"


def _table(head: str, value: Any, without: str = "") -> str:  # noqa: ANN401 - any dataclass of a recipe
    return "\n".join([head, *(f"{name} = {_value(item)}" for name, item in _pairs(value, without).items())])


def _pairs(value: Any, without: str) -> dict[str, Any]:  # noqa: ANN401 - any dataclass of a recipe
    """Return the fields of a recipe's dataclass, except those that are empty by default and were not set."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):  # a scheme's own keys are in the step's table
            found |= _pairs(item, "")
            continue
        empty = isinstance(item, str | tuple | list | Mapping) and not item
        if field.name != without and item is not None and not (empty and not is_given(value, field.name)):
            found[field.name] = item
    return found


def _value(value: Any) -> str:  # noqa: ANN401 - any value of a recipe
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return _inline(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, int | float):
        return repr(float(value) if isinstance(value, float) else int(value))  # numpy's float64 is one of them
    message = (
        f"Expected in a recipe text, numbers, true or false, lists or tables, got {type(value).__name__} {value!r}"
    )
    raise RecipeError(f"{message}: replace it")


def _inline(values: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in values.items()) + "}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    """Return a TOML basic string: that of JSON, whose escapes TOML shares, with DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
