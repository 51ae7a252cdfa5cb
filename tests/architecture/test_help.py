"""Every help page of the three programs, as a newcomer sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from compressor.cli import app as compressor
from edge_agent.cli import main as edge_agent
from server.cli import main as fleet_server

PROGRAMS = {"compressor": compressor, "edge-agent": edge_agent, "fleet-server": fleet_server}


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _commands(below, (*words, name))


PAGES = [words for name, program in PROGRAMS.items() for words in _commands(program, (name,))]


def _page(words: tuple[str, ...]) -> str:
    program, *below = words
    done = CliRunner().invoke(PROGRAMS[program], [*below, "--help"], prog_name=program)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_no_page_shows_the_marks_of_its_source(words: tuple[str, ...]) -> None:
    r"""A literal \b would mean that the lines below it run together."""
    page = _page(words)
    assert "\\b" not in page
    assert "\b" not in page


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_every_page_has_an_example_on_a_line_of_its_own(words: tuple[str, ...]) -> None:
    """A newcomer copies a line and runs it; on a terminal of 100 columns none is folded."""
    page = _page(words)
    called = " ".join(words)
    assert re.search(rf"^    {called}\b.*$", page, flags=re.MULTILINE), page
    assert max(map(len, page.splitlines())) <= 100


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_every_page_says_what_the_command_does_and_each_option(words: tuple[str, ...]) -> None:
    """Every command and every option has a description."""
    command: click.Command = PROGRAMS[words[0]]
    for name in words[1:]:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    options = [item for item in command.params if isinstance(item, click.Option)]
    assert [item.name for item in options if not item.help] == []
    assert (command.help or "").strip()
