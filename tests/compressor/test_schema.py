"""The JSON schema of a recipe agrees with what is read: the recipes here are valid, mistakes are not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from compressor import data, steps
from compressor.cli import app
from compressor.errors import PackageError
from compressor.gates.kinds import KINDS
from compressor.recipe.schema import schema

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [*sorted((ROOT / "models").rglob("*.toml")), *sorted((ROOT / "tests" / "compressor").rglob("*recipe.toml"))]
SCHEMA = schema()
CHECKER = jsonschema.Draft7Validator(SCHEMA)


def faults(text: str) -> list[str]:
    """Return what the schema finds in the recipe ``text``."""
    return [f"{list(error.path)}: {error.message}" for error in CHECKER.iter_errors(tomllib.loads(text))]


def test_the_schema_is_one() -> None:
    """By its own draft, and as JSON."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_here_is_valid(path: Path) -> None:
    """An editor that uses the schema marks none of them."""
    assert faults(path.read_text()) == []


def test_recipes_are_found() -> None:
    """The test above looks at something."""
    assert len(RECIPES) >= 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nepochs = 3\n", "'model' is a required property"),
        ('[model]\nname = "m"\nsize = 3\n', "'size' was unexpected"),
        ('[model]\nname = "m"\n[train]\nepochs = 0\n', "less than the minimum"),
        ('[model]\nname = "m"\n[train]\nepochs = "3"\n', "is not of type 'integer'"),
        ('[model]\nname = "m"\n[train]\noptimizer = "adam"\n', "is not one of"),
        ('[model]\nname = "m"\n[data]\ndataset = "digit"\n', "not valid under any"),
        ('[model]\nname = "m"\n[data]\noptions = {steps = "x"}\n', "not valid under any"),
        ('[model]\nname = "m"\n[[compress]]\nstep = "prune"\nmacs = 1\n', "not valid under any"),
        ('[model]\nname = "m"\n[gates]\nacuracy = {min = 0.9}\n', "does not match"),
        ('[model]\nname = "m"\n[gates]\naccuracy = {max = 0.9}\n', "was unexpected"),
        ('[model]\nname = "m"\n[gates]\naccuracy = {confidence = 0.9}\n', "not valid under any"),
        ('[model]\nname = "m"\n[targets.host]\nruntime = 3\n', "is not of type 'string'"),
        ('[model]\nname = "m"\n[smoothing]\nkind = "meen"\n', "is not one of"),
        ('[model]\nname = "m"\n[decoder]\nkind = "ssd"\nlayout = "suppresed"\n', "is not one of"),
        ('[modle]\nname = "m"\n', "'modle' was unexpected"),
    ],
)
def test_a_mistake_is_marked(text: str, said: str) -> None:
    """Unknown keys and tables, types, ranges, choices, missing keys."""
    assert any(said in fault for fault in faults(text)), faults(text)


@pytest.mark.parametrize(
    "text",
    [
        '[model]\nname = "m"\nnetwork = "my.module:build"\n[data]\ndataset = "my.module:load"\ntask = "my.module:T"\n',
        '[model]\nname = "m"\n[gates]\n"my.module:GATE" = {max = 3}\nsize_bytes = {max = 9, on = "host"}\n',
        'compress = []\n[model]\nname = "m"\nonnx = "m.onnx"\nconstants = {a = 1, b = [1.5, 2]}\n',
        '[model]\nname = "m"\n[smoothing]\nkind = "mean"\ngap_ms = 3000\n',
        '[model]\nname = "m"\n[decoder]\nkind = "yolo"\nlayout = "anchors"\nanchors = [10, 13.5]\nmost = 20\n',
    ],
)
def test_what_a_person_brings_is_valid(text: str) -> None:
    """Plug-ins and gates of one's own, further inputs, a smoother's keys."""
    assert faults(text) == []


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of the plain tables with its schema."""
    for name in ("model", "data", "train", "acceptance"):
        for key, value in SCHEMA["properties"][name]["properties"].items():
            yield f"{name} {key}", value


def test_keys_have_meanings_choices_and_defaults() -> None:
    """As an editor shows them."""
    found = dict(properties())
    assert found["train epochs"] == {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 12}
    assert found["data label"]["description"].startswith("`exact` (each label is a class)")
    assert "classes counts" not in found["data label"]["description"]
    assert set(found["data dataset"]["anyOf"][0]["enum"]) == set(data.datasets())
    assert sum("description" in value for value in found.values()) >= 30
    assert set(SCHEMA["properties"]["gates"]["properties"]) == set(KINDS)
    found_steps = {one["properties"]["step"]["const"] for one in SCHEMA["properties"]["compress"]["items"]["anyOf"]}
    assert found_steps == set(steps.names())


def test_the_command_prints_and_writes_it(tmp_path: Path) -> None:
    """An earlier schema is replaced, another file is not."""
    assert json.loads(CliRunner().invoke(app, ["recipe", "schema"]).output) == SCHEMA
    path = tmp_path / "recipe.schema.json"
    for _ in range(2):
        assert CliRunner().invoke(app, ["recipe", "schema", "--out", str(path)]).exit_code == 0
    assert json.loads(path.read_text()) == SCHEMA
    path.write_text("{}")
    done = CliRunner().invoke(app, ["recipe", "schema", "--out", str(path)])
    assert isinstance(done.exception, PackageError)
    assert path.read_text() == "{}"
