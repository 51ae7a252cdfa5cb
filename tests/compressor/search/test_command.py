"""The command line of the search, as a person types it."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from compressor.search.command import command


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
