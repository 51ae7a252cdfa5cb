"""The file of JSON lines: complete lines, rotation, a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from edge_agent.errors import SinkError
from edge_agent.sinks import SinkConfig, SinkSurroundings, load
from edge_agent.sinks.jsonl import JsonLines, Settings
from wire.answers import AnswerRecord
from wire.errors import SettingsError


def ids(path: Path) -> list[str]:
    """Return the ids in a file of complete lines."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line)["id"] for line in text.splitlines()]


def some(*numbers: int) -> list[AnswerRecord]:
    """Return answers with these ids."""
    return [AnswerRecord(id=str(number)) for number in numbers]


def test_the_default_path_is_in_the_state_directory(tmp_path: Path) -> None:
    """A sink without a path writes STATE/answers/NAME.jsonl."""
    sink, _ = load({"kind": "jsonl"}, SinkSurroundings(name="log", state=tmp_path))
    assert sink.send(some(1, 2)) == 2
    assert ids(tmp_path / "answers" / "log.jsonl") == ["1", "2"]


def test_a_line_that_a_power_cut_left_is_cut_off(tmp_path: Path) -> None:
    """The next answer begins a line of its own."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"id":"1"}\n{"id":"2')
    JsonLines(path, Settings()).send(some(3))
    assert ids(path) == ["1", "3"]


@pytest.mark.parametrize("name", ["identity.json", "slots/a.json", "../notes.txt"])
def test_files_of_the_agent_and_of_others_stay_as_they_are(tmp_path: Path, name: str) -> None:
    """A path that names one by mistake is refused; nothing is appended, and no last line is cut off."""
    state = tmp_path / "state"
    (state / "slots").mkdir(parents=True)
    text = '{"mine":1}' if name.endswith("json") else "first\nsecond"
    (state / name).write_text(text)
    with pytest.raises(SinkError, match=r"got another one|outside of the agent's own"):
        load({"kind": "jsonl", "path": str(state / name)}, SinkSurroundings(name="log", state=state))
    assert (state / name).read_text() == text


def test_files_are_rotated_before_they_are_too_long(tmp_path: Path) -> None:
    """No file exceeds the limit, the newest is the first, and no more than the asked number stay."""
    path = tmp_path / "a.jsonl"
    sink = JsonLines(path, Settings(max_bytes=4096, files=3))
    for number in range(500):
        sink.send(some(number))
    files = sorted(tmp_path.iterdir(), key=lambda file: int(ids(file)[0]))
    assert [file.name for file in files] == ["a.jsonl.2", "a.jsonl.1", "a.jsonl"]
    assert max(file.stat().st_size for file in files) <= 4096
    kept = [int(name) for file in files for name in ids(file)]
    assert kept == list(range(kept[0], 500))


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written half of a batch is removed again when the disk is full, and the error names the file."""
    path = tmp_path / "a.jsonl"
    sink = JsonLines(path, Settings())
    sink.send(some(1))
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(SinkError, match=r"a\.jsonl, got: No space left"):
        sink.send(some(*range(2, 9)))
    monkeypatch.undo()
    assert sink.send(some(9)) == 1
    assert ids(path) == ["1", "9"]


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"kind": "jsonll"}, "did you mean 'jsonl'"),
        ({"kind": "jsonl", "max_byte": 1}, "did you mean 'max_bytes'"),
        ({"kind": "jsonl", "files": 0}, "between 1 and 1000, got 0"),
        ({"kind": "jsonl", "above": 1.5}, "between 0 and 1, got 1.5"),
        ({}, "kind as one of"),
    ],
)
def test_a_wrong_table_is_refused_by_name(table: dict[str, object], wanted: str) -> None:
    """The error names the table, the expectation and the value."""
    with pytest.raises(SettingsError, match=wanted) as caught:
        SinkConfig.from_table(table, "agent.toml [sinks] log", None)
    assert "log" in str(caught.value)


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """A link could make the agent write into any file of its user."""
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SinkError, match=r"a\.jsonl"):
        JsonLines(tmp_path / "a.jsonl", Settings())


def test_the_group_may_read_whatever_the_umask(tmp_path: Path) -> None:
    """The unit's umask is 0077; a file that a person gave other rights keeps them."""
    before = os.umask(0o077)
    try:
        lines = JsonLines(tmp_path / "a.jsonl", Settings())
        lines.send([AnswerRecord(id="1")])
        lines.close()
        assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o640
        (tmp_path / "a.jsonl").chmod(0o600)
        JsonLines(tmp_path / "a.jsonl", Settings()).close()
        assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
