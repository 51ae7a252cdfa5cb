"""``compressor data``: exit codes, lines for scripts, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compressor.cli.data import data
from compressor.errors import DataError, RecipeError
from compressor.exploration.schema import read_schema

RECIPE = """
[model]
name = "tiny"
[data]
dataset = "windows"
path = "steps.csv"
front_end = "window"
options = {steps = 1}
shares = {train = 0.4, calibration = 0.2, gate = 0.2, reference = 0.2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe of 40 windows of 2 steps in 2 classes."""
    rows = [f"w{i // 2},{i // 2 % 2},{i * 37 % 101},{i * 53 % 97}" for i in range(80)]
    (tmp_path / "steps.csv").write_text("\n".join(["window,label,x,y", *rows]))
    text = RECIPE.replace("{steps = 1}", "{steps = 2, channels = 2, low = 0, high = 101}")
    (tmp_path / "recipe.toml").write_text(text)
    return tmp_path / "recipe.toml"


def call(*arguments: object) -> Result:
    """Return the result of ``compressor data``."""
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def test_explore_prints_counts_and_writes_both_files(recipe: Path, tmp_path: Path) -> None:
    """Lines are name, tab, number; the folder holds HTML and JSON of one exploration."""
    done = call("explore", recipe, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "rows\t40\n" in done.stdout
    assert json.loads((tmp_path / "out" / "data.json").read_text())["rows"] == 40
    assert (tmp_path / "out" / "data.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("schema", "code", "said"),
    [
        ('classes = ["0", "1"]\nmin_rows_per_class = 20\nheight = [2, 2]', 0, "ok\tclasses"),
        ('classes = ["0", "2"]', 2, "violated\tclasses\t0, 2\tmissing 2; extra 1"),
        ("min_rows_per_class = 21", 2, "violated\tmin_rows_per_class\tat least 21\t20 of class 0"),
        ("width = [3, 9]", 2, "violated\twidth\t3 to 9\t2 to 2, 40 outside, first 0"),
        ("value_range = [0, 100]", 2, "violated\tvalue_range"),
    ],
)
def test_validate_names_each_expectation(recipe: Path, tmp_path: Path, schema: str, code: int, said: str) -> None:
    """Exit code 0 if all hold, 2 if one is violated; each line has the expected and the actual value."""
    (tmp_path / "schema.toml").write_text(schema)
    done = call("validate", recipe, "--schema", tmp_path / "schema.toml")
    assert done.exit_code == code, done.output
    assert said in done.stdout


def test_a_schema_that_expects_nothing_is_refused(recipe: Path, tmp_path: Path) -> None:
    """An empty file would pass anything, so it is an error."""
    (tmp_path / "schema.toml").write_text("")
    assert isinstance(call("validate", recipe, "--schema", tmp_path / "schema.toml").exception, DataError)


@pytest.mark.parametrize(
    ("text", "said"), [("min_row = 3", "did you mean 'min_rows'"), ("width = [3]", "least, most"), ("= 1", "TOML")]
)
def test_schemas_are_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    """Unknown keys, half ranges and broken files are errors that name the next step."""
    (tmp_path / "schema.toml").write_text(text)
    with pytest.raises(RecipeError, match=said):
        read_schema(tmp_path / "schema.toml")


def test_the_digest_follows_the_content(recipe: Path) -> None:
    """Equal data, equal digest; one changed value, another digest. Rows per split add up."""
    first = json.loads(call("digest", recipe, "--json").stdout)
    assert json.loads(call("digest", recipe, "--json").stdout) == first
    assert sum(count for name, count in first.items() if name != "digest") == 40
    table = recipe.parent / "steps.csv"
    table.write_text(table.read_text().replace("w0,0,0,0", "w0,0,50,0"))
    assert json.loads(call("digest", recipe, "--json").stdout)["digest"] != first["digest"]


def test_fit_prints_lines_that_a_recipe_takes(recipe: Path) -> None:
    """One low and one high per channel."""
    done = call("fit", recipe)
    assert [line.split(" = ")[0] for line in done.stdout.splitlines()] == ["low_0", "low_1", "high_0", "high_1"]


def test_bare_sounds_are_referred_to_a_recipe(tmp_path: Path) -> None:
    """Reading a sensor's files needs a recipe; without one the error states it."""
    (tmp_path / "0_ann_0.wav").write_bytes(b"")
    assert "Expected a recipe" in str(call("explore", tmp_path).exception)


@pytest.mark.parametrize("command", ["explore", "validate", "digest", "fit"])
def test_every_command_teaches_by_example(command: str) -> None:
    """--help shows how it is called."""
    assert "Example" in call(command, "--help").stdout
