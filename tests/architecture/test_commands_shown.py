"""Every command that README and docs show exists, with the options that are shown."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from compressor.cli import app as compressor
from edge_agent.cli import main as edge_agent
from server.cli import main as fleet_server

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS: dict[str, click.Command] = {"compressor": compressor, "edge-agent": edge_agent, "fleet-server": fleet_server}
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ENDS = {"|", ">", "<", "&", "&&", ";", "…"}


def _lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each line in a block of code that begins with a program, up to a pipe or redirection."""
    for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(\S*/)?(compressor|edge-agent|fleet-server) ", line):
                words = shlex.split(line, comments=True)
                yield words[: next((place for place, word in enumerate(words) if word in ENDS), len(words))]


def _unknown(words: list[str]) -> str:
    """Return the first unknown part of a command line, or nothing."""
    rest = words[1:]
    command: click.Command | None = PROGRAMS[words[0].rpartition("/")[2]]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        context = click.Context(command)
        below = command.get_command(context, rest[0])
        rest = rest[1:] if below is not None else rest
        command = below or command.get_command(context, "list")  # which may be left out
        if command is None:
            return rest[0]
    known = {name for item in command.get_params(click.Context(command)) for name in (*item.opts, *item.secondary_opts)}
    given = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
    return next((name for name in given if name not in known), "")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_shown_exists(path: Path) -> None:
    """A reader who copies a line gets no "no such option"."""
    wrong = {" ".join(words): _unknown(words) for words in _lines(path.read_text(encoding="utf-8"))}
    assert {line: word for line, word in wrong.items() if word} == {}


def test_commands_are_found_on_the_pages() -> None:
    """The test above looks at something."""
    assert sum(len(list(_lines(path.read_text(encoding="utf-8")))) for path in PAGES) > 30


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_toml_is_toml(path: Path) -> None:
    """An example with two files has two blocks, or only tables that can stand in one file."""
    for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        tomllib.loads(block)
