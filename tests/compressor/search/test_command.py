"""The command line of the search, as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor.recipe import read_recipe
from compressor.search.command import command

RECIPE = Path(__file__).with_name("search_recipe.toml")


def test_help_shows_examples_and_exit_codes() -> None:
    """A person learns the command from its help."""
    said = CliRunner().invoke(command, ["--help"]).output
    assert "compressor search mine.toml --storage" in said
    assert "Exit codes" in said
    assert "Ctrl-C stops; the same command goes on." in said


def test_help_imports_neither_torch_nor_optuna() -> None:
    """The command line starts fast."""
    code = "import sys, compressor.search.command as c; print({'torch', 'optuna', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_search_ends_with_the_gates_and_a_recipe_that_runs(tmp_path: Path) -> None:
    """Two trials, the choice through the gates: its exit code, its bundle, and chosen.toml as run reads it."""
    done = CliRunner().invoke(command, [str(RECIPE), "--out", str(tmp_path), "--trials", "2", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["verdict"], [trial["origin"] for trial in told["trials"]]) == ("pass", ["fp32", "recipe"])
    assert all(Path(path).is_file() for path in told["files"])
    assert {"search.html", "search.json", "chosen.toml", "search.db", "gate.json"} <= {
        p.name for p in tmp_path.iterdir()
    }
    assert read_recipe(tmp_path / "chosen.toml").targets == read_recipe(RECIPE).targets
