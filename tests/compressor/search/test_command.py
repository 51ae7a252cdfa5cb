"""The command line of the search, as a person types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor.cli.search import command
from compressor.errors import CompressorError


def test_help_shows_examples_and_exit_codes() -> None:
    """A person learns the command from its help."""
    said = CliRunner().invoke(command, ["--help"]).output
    assert "compressor search mine.toml --storage" in said
    assert "Exit codes" in said
    assert "Ctrl-C stops; the same command resumes." in said


def test_help_imports_neither_torch_nor_optuna() -> None:
    """The command line starts fast."""
    code = "import sys, compressor.cli.search as c; print({'torch', 'optuna', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("storage", ["postgresql+nodriver://x/y", "nonsense", "sqlite:////proc/none/search.db"])
def test_refuses_a_storage_that_cannot_be_opened_before_it_trains(storage: str, tmp_path: Path) -> None:
    """A wrong URL is reported within seconds, before training; it is not shown, because it may contain a password."""
    recipe = Path(__file__).with_name("search_recipe.toml")
    done = CliRunner().invoke(command, [str(recipe), "--out", str(tmp_path / "out"), "--storage", storage])
    assert isinstance(done.exception, CompressorError)
    assert "--storage" in str(done.exception)
    assert storage not in str(done.exception)
    assert not list((tmp_path / "out").glob("cache/*"))
