"""Reads a recipe, all inputs of a run, strictly from one TOML file.

Decides which keys exist, their types, defaults and ranges. Does not decide whether a data set or a network of that name
exists (their folders do), nor what a gate means (``gates`` does).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from compressor import formats, steps
from compressor.errors import RecipeError
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import KINDS, RENAMED, kind_of
from compressor.recipe.checks import check_recipe, check_unread
from compressor.recipe.model import AcceptanceRecipe, DataRecipe, ModelRecipe, Recipe, TargetRecipe, TrainRecipe
from compressor.steps._settings import Settings as StepSettings
from compressor.steps.quantize import Settings as QuantizeRecipe
from wire.errors import PathError, SettingsError
from wire.paths import without_tilde
from wire.settings import fields_from, names_of, nearest, parse_toml, plain_table, read_toml

DEFAULT_STEPS = [{"step": "quantize"}]
_GIVEN = {"quantize": {"own": None}}  # not set by a table: a scheme's own keys are in the step's table
_TABLES = ("model", "data", "train", "compress", "targets", "gates", "acceptance")


def read_recipe(path: Path | str) -> Recipe:
    """Return the recipe in the file at ``path`` (or ``recipe.toml`` in the folder at ``path``).

    Raises:
        RecipeError: If it can't be read, or has an unknown key, a wrong type or a value out of range.
        PluginError: If an external gate can't be imported.
    """
    file = Path(path) / "recipe.toml" if Path(path).is_dir() else Path(path)
    try:
        document = read_toml(file)
    except SettingsError as error:
        if file.is_file():
            raise RecipeError(str(error)) from error
        message = f"Expected a recipe at {file}, got none: give a recipe's TOML file, or its folder"
        raise RecipeError(message) from error
    recipe = _named(document, str(file))
    model = recipe.model
    try:
        return replace(
            recipe,
            folder=file.parent,
            data=replace(recipe.data, path=without_tilde(recipe.data.path)),
            model=replace(
                model, checkpoint=without_tilde(model.checkpoint), onnx=without_tilde(model.onnx),
                tflite=without_tilde(model.tflite),
            ),
        )  # fmt: skip
    except PathError as error:
        message = f"{file}: {error}"
        raise RecipeError(message) from error


def parse_recipe(data: bytes, name: str = "recipe") -> Recipe:
    """Return the recipe in ``data``; ``name`` is the file's, for messages.

    Raises:
        RecipeError: As in ``read_recipe``.
    """
    try:
        document = parse_toml(data, name)
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    return _named(document, name)


def _named(document: Mapping[str, object], name: str) -> Recipe:
    try:
        return recipe_of(document)
    except RecipeError as error:
        message = f"{name}: {error}"
        raise RecipeError(message) from error


def recipe_of(document: Mapping[str, object]) -> Recipe:
    """Return the recipe in ``document``, the tables of a recipe's file as Python values.

    Raises:
        RecipeError: If there is an unknown key, a wrong type or a value out of range.
        PluginError: If an external gate can't be imported.
    """
    for key in document:
        if key not in _TABLES:
            message = f"Expected one of the tables {', '.join(_TABLES)}, got [{key}]{nearest(key, _TABLES)}"
            raise RecipeError(message)
    model = document.get("model")
    given = model if isinstance(model, dict) else {}
    taken_as_they_are = (one.model_key for one in map(formats.named, formats.known()) if one.finished)
    finished = any(map(given.get, taken_as_they_are))  # nothing is left to compress
    try:
        targets = plain_table(document.get("targets", {"host": {}}), "[targets]")
        recipe = Recipe(
            model=fields_from(ModelRecipe, document.get("model", {}), "[model]"),
            data=fields_from(DataRecipe, document.get("data", {}), "[data]"),
            train=fields_from(TrainRecipe, document.get("train", {}), "[train]"),
            compress=_steps(document.get("compress", [] if finished else DEFAULT_STEPS)),
            targets=tuple(
                fields_from(TargetRecipe, table, f"[targets.{name}]", given={"name": name})
                for name, table in targets.items()
            ),
            gates=_gates(plain_table(document.get("gates", {}), "[gates]")),
            acceptance=fields_from(AcceptanceRecipe, document.get("acceptance", {}), "[acceptance]"),
        )
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    check_recipe(recipe)
    check_unread(recipe)
    return recipe


def _steps(value: object) -> tuple[StepSettings, ...]:
    if not isinstance(value, list):
        message = (
            f"Expected [[compress]] as a list of tables, got {type(value).__name__}: write [[compress]], not [compress]"
        )
        raise RecipeError(message)
    found: list[StepSettings] = []
    for i, item in enumerate(value, start=1):
        where = f"[[compress]] number {i}"
        table = plain_table(item, where)
        step, known = table.get("step"), steps.names()
        if not isinstance(step, str) or step not in known:
            message = f"Expected in {where} a step of {', '.join(known)}, got {step!r}{nearest(str(step), known)}"
            raise RecipeError(message)
        settings = _quantize(table, where) if step == "quantize" else None
        settings = settings or fields_from(steps.module(step).Settings, table, where, given=_GIVEN.get(step))
        if found and steps.level(found[-1]) == steps.ARTIFACT and steps.level(settings) == steps.NETWORK:
            message = f"Expected {where}, {step!r}, before the export, got it after {found[-1].step!r}: move it up"
            raise RecipeError(message)
        found.append(settings)
    return tuple(found)


def _quantize(table: Mapping[str, object], where: str) -> StepSettings | None:
    """Return the step if ``table`` sets keys that the scheme's own file declares, else None."""
    shared = names_of(QuantizeRecipe) - {"own"}
    own = {key: value for key, value in table.items() if key not in shared}
    scheme = table.get("scheme", QuantizeRecipe().scheme)
    if not own or not isinstance(scheme, str):
        return None
    from compressor.quantize import own_settings  # noqa: PLC0415 - a scheme needs onnx, and few have keys of their own

    declared = own_settings(scheme)
    if declared is None:
        return None
    known = sorted(shared | names_of(declared))
    for key in own:
        if key not in known:
            message = f"Expected in {where} one of {', '.join(known)}, got {key!r}{nearest(key, known)}"
            raise RecipeError(message)
    plain = {key: value for key, value in table.items() if key in shared}
    return fields_from(QuantizeRecipe, plain, where, given={"own": fields_from(declared, own, where)})


def _gates(table: Mapping[str, object]) -> tuple[GateRecipe, ...]:
    gates = []
    for name, limits in table.items():
        if name in RENAMED:
            message = f"Expected in [gates] {RENAMED[name]}, as this gate is called now, got {name!r}: rename the key"
            raise RecipeError(message)
        kind = kind_of(name)
        if kind is None:
            message = f"Expected in [gates] one of {', '.join(KINDS)} or 'package.module:ATTRIBUTE', got {name!r}"
            raise RecipeError(message + nearest(name, KINDS))
        gate = fields_from(GateRecipe, limits, f"[gates] {name}", given={"name": name})
        given, wanted = [limit for limit in ("max", "min") if getattr(gate, limit) is not None], kind.limits
        if len(given) != 1 or given[0] not in wanted:
            got = dict(plain_table(limits, name))
            message = f"Expected in [gates] {name} {' or '.join(wanted)}, as {{{wanted[0]} = 0.01}}, got {got}"
            raise RecipeError(message)
        if not math.isfinite(limit := cast("float", getattr(gate, given[0]))):
            message = f"Expected in [gates] {name} {given[0]} a finite number, got {limit}"
            raise RecipeError(message)
        gates.append(gate)
    return tuple(gates)
