"""The guide agrees with the code: keys, types, defaults, gates, commands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import click
import pytest

from compressor import steps
from compressor.cli import app
from compressor.data import datasets
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import KINDS
from compressor.recipe.model import (
    AcceptanceRecipe,
    AlarmRecipe,
    DataRecipe,
    DecoderRecipe,
    ModelRecipe,
    SmoothingRecipe,
    TargetRecipe,
    TrainRecipe,
)
from edge_agent import decoders
from edge_agent.smoothers.events import Settings as EventsSettings
from edge_agent.smoothers.mean import Settings as MeanSettings
from wire.settings import type_name

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "recipe.md").read_text()
TABLES = {
    "[model]": ModelRecipe, "[data]": DataRecipe, "[train]": TrainRecipe, "[targets.NAME]": TargetRecipe,
    "[gates] GATE": GateRecipe, "[acceptance]": AcceptanceRecipe, "[alarm]": AlarmRecipe,
    "[smoothing] events": EventsSettings,
    "[smoothing]": SmoothingRecipe, "[smoothing] mean": MeanSettings, "[decoder]": DecoderRecipe,
    **{f"[decoder] {name}": decoders.settings_of(name) for name in decoders.of_boxes()},
    **{f"[[compress]] {name}": steps.module(name).Settings for name in steps.names()},
}  # fmt: skip


def _documented() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `(\[.+?)` \| (.+?) \| (.+?) \|", GUIDE, flags=re.MULTILINE)
    return {key: (kind, default) for key, kind, default in rows}


def _fields() -> Iterator[tuple[str, str, object]]:
    for table, cls in TABLES.items():
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if (
                cls in {SmoothingRecipe, DecoderRecipe} and field.name == "options"
            ):  # the plug-in's own keys, in its table
                continue
            if field.name not in {"step", "own"} and (field.name != "name" or cls is ModelRecipe):
                yield f"{table} {field.name}", type_name(hints[field.name]), field.default


def test_every_key_of_a_recipe_is_in_the_guide_and_no_other() -> None:
    """A key that is added, renamed or dropped must be so in the guide."""
    assert set(_documented()) == {key for key, _, _ in _fields()}


@pytest.mark.parametrize(("key", "kind", "default"), list(_fields()))
def test_the_guide_has_each_key_with_its_type_and_default(key: str, kind: str, default: object) -> None:
    """Types are worded as in error messages; a default that is a value is written as in a recipe."""
    documented, shown = _documented()[key]
    assert documented == kind.replace("whole number or a number", "number").removeprefix("a ").replace("of a ", "of ")
    if isinstance(default, bool):
        assert shown == f"`{str(default).lower()}`"
    elif isinstance(default, int | float) or (isinstance(default, str) and default):
        assert shown == f"`{default}`"


def test_the_guide_names_every_gate_data_set_and_command() -> None:
    """Everything that a recipe can name is in the guide."""
    wanted = {*KINDS, *datasets()}
    assert {name for name in wanted if f"`{name}`" not in GUIDE} == set()
    commands = app.list_commands(click.Context(app))
    assert {name for name in commands if f"compressor {name} " not in GUIDE} == set()
