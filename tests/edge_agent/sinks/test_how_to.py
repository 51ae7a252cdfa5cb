"""The applications of docs/how-to/answers.md work as they stand: they are run on real sinks."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.sinks import SinkConfig, SinkSurroundings, load
from edge_agent.sinks.exec import Hook
from edge_agent.sinks.exec import Settings as ExecSettings
from edge_agent.sinks.jsonl import JsonLines
from edge_agent.sinks.jsonl import Settings as FileSettings
from edge_agent.sinks.unix import Settings as SocketSettings
from edge_agent.sinks.unix import UnixSocket
from tests.edge_agent.sinks.receiver import until
from wire.answers import AnswerRecord

UNIT = Path(__file__).parents[3] / "edge_agent" / "device" / "tinyfleet-agent.service"
PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "answers.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in a language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for the socket."""
    with tempfile.TemporaryDirectory(prefix="tf-") as name:
        yield Path(name)


@pytest.fixture
def application() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run a Python block of the page with another path in it; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(number: int, path: str, own: Path) -> subprocess.Popen[str]:
        code = blocks("python")[number]
        assert path in code
        command = [sys.executable, "-S", "-c", code.replace(path, str(own))]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_the_reader_of_a_socket_prints_each_answer(folder: Path, application: Callable) -> None:
    """Until the agent ends: then the application ends too."""
    sink = UnixSocket(folder / "s", SocketSettings())
    process = application(0, "/run/tinyfleet-agent/answers.sock", folder / "s")
    until(lambda: sink.send([AnswerRecord(id="1", label="7")]))
    sink.send([AnswerRecord(id="2", error="image_invalid")])
    sink.close()
    assert process.stdout.read().splitlines()[-2:] == ["1 7", "2 image_invalid"]


def test_the_reader_of_a_file_misses_none_when_files_are_rotated(folder: Path, application: Callable) -> None:
    """In order and once each, over several files."""
    sink = JsonLines(folder / "a.jsonl", FileSettings(max_bytes=4096, files=20))
    process = application(1, "/srv/answers/answers.jsonl", folder / "a.jsonl")
    for first in range(0, 150, 10):
        sink.send([AnswerRecord(id=str(number), label="7") for number in range(first, first + 10)])
        assert [process.stdout.readline() for _ in range(10)] == [
            f"{number} 7\n" for number in range(first, first + 10)
        ]
    assert len(list(folder.iterdir())) > 3
    sink.close()


def test_the_script_confirms_each_answer(folder: Path) -> None:
    """With another command in the place of the journal's."""
    text = blocks("sh")[0].replace("logger -t bell", f"echo >>{folder / 'got'}")
    (folder / "bell").write_text(text)
    (folder / "bell").chmod(0o755)
    sink = Hook(ExecSettings(command=(str(folder / "bell"),), confirm=True), SinkSurroundings(name="bell"))
    assert sink.send([AnswerRecord(id=str(number)) for number in range(20)]) == 20
    sink.close()
    assert (folder / "got").read_text().count('"id"') == 20


@pytest.mark.parametrize("text", blocks("toml"))
def test_the_tables_of_the_page_are_valid(text: str) -> None:
    """A reader copies them."""
    for name, table in tomllib.loads(text)["sinks"].items():
        assert SinkConfig.from_table(table, f"agent.toml sinks {name}", None).kind == table["kind"]


def test_the_page_names_the_folder_and_the_user_of_the_unit() -> None:
    """What a reader copies works on a device where the agent is installed."""
    unit = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#")
    named = set(re.findall(r"/run/[a-z-]+/|-[og] [a-z-]+ ", PAGE))
    assert named == {f"/run/{unit['RuntimeDirectory']}/", f"-o {unit['User']} ", f"-g {unit['Group']} "}
    assert unit["RuntimeDirectoryMode"] == "0750"


def test_a_password_that_is_missing_is_named() -> None:
    """The table for Home Assistant without its second step."""
    table = tomllib.loads(blocks("toml")[-1])["sinks"]["home"]
    document = SinkConfig.from_table(table, "agent.toml sinks home", None).document
    with pytest.raises(Exception, match=r"a password in /etc/tinyfleet/broker\.password, got: No such file"):
        load(document, SinkSurroundings(name="home"))
