"""Sinks from outside of this repository: keys as strict as our own, and no fault of theirs ends agent or child."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, read_config
from edge_agent.errors import AgentConfigError, SinkError
from edge_agent.sinks import SinkSurroundings, load
from wire.answers import AnswerRecord

ROOT = Path(__file__).parents[3]
KIND = "outside_lines:open_sink"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The modules beside this file, and those that a test writes, can be imported here and in processes."""
    for folder in (str(Path(__file__).parent), str(tmp_path)):
        monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{tmp_path}")


def configured(tmp_path: Path, keys: str) -> AgentConfig:
    """Return the settings of a file with one sink."""
    (tmp_path / "agent.toml").write_text(f"[sinks.own]\n{keys}\n")
    return read_config(tmp_path / "agent.toml")


def test_its_own_keys_and_those_of_every_sink_reach_it(tmp_path: Path) -> None:
    """A relative path is made absolute by its own type."""
    document = configured(tmp_path, f'kind = "{KIND}"\npath = "ids"\nwidth = 3\nqueue = 5').sinks["own"].document
    assert document == {"kind": KIND, "path": f"{tmp_path}/ids", "width": 3, "queue": 5}
    sink, common = load(document, SinkSurroundings(name="own"))
    assert (sink.send([AnswerRecord(id="a"), AnswerRecord(id="b")]), common.queue) == (2, 5)
    assert (tmp_path / "ids").read_text() == "  a\n  b\n"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (f'kind = "{KIND}"\nwdth = 3', r"agent.toml \[sinks.own\] one of .*, got 'wdth': did you mean 'width'"),
        (f'kind = "{KIND}"\nwidth = 101', "width between 1 and 100, got 101"),
        (f'kind = "{KIND}"\nqueue = 0', "queue between 1 and 100000, got 0"),
        ('kind = "no_such_module:open_sink"', "the sink 'no_such_module:open_sink' to import, got ModuleNotFoundError"),
        ('kind = "outside_lines:open"', "a function 'open' in outside_lines, got NoneType"),
        ('kind = "ends:open_sink"', r"got the end of its process \(3\)"),
    ],
)
def test_a_mistake_is_refused_before_the_agent_starts(keys: str, words: str, tmp_path: Path) -> None:
    """Table, key and the nearest name are in the error; a module that ends its process ends no other."""
    (tmp_path / "ends.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(AgentConfigError, match=words):
        configured(tmp_path, keys)


def test_what_it_raises_when_it_opens_is_an_error_of_the_sink() -> None:
    """The inference child reports it and goes on; a release is never blamed for it."""
    with pytest.raises(SinkError, match="to open, got KeyError: 'own'"):
        load({"kind": KIND}, SinkSurroundings(name="own"))


def test_the_control_process_does_not_import_it(tmp_path: Path) -> None:
    """Its numpy stays in the process that was asked."""
    (tmp_path / "agent.toml").write_text(f'[sinks.own]\nkind = "{KIND}"\n')
    code = (
        "import sys; from pathlib import Path; from edge_agent.config import read_config\n"
        f"read_config(Path({str(tmp_path / 'agent.toml')!r})); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
