"""Sensor lines: windows of a file that grows and is rotated, of a FIFO, and of a real terminal device."""

from __future__ import annotations

import json
import os
import tty
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_agent import front_ends
from edge_agent.errors import SourceError
from edge_agent.sources._stream import StreamSource
from edge_agent.sources.lines import Settings
from tests.edge_agent.sinks.receiver import until
from tests.edge_agent.sources.prepared import Told, next_input
from wire.errors import SettingsError


@pytest.fixture
def lines(stream: Callable[..., StreamSource]) -> Callable[..., tuple[StreamSource, Told]]:
    """Open a source of lines, with what it reports."""

    def start(
        path: Path, release: dict[str, float] | None = None, read: tuple[str, ...] = (), **settings: object
    ) -> tuple[StreamSource, Told]:
        told: Told = []
        return stream("lines", release=release, read=read, told=told, path=str(path), retry_s=0.01, **settings), told

    return start


def _next(source: StreamSource) -> object:
    return json.loads(next_input(source).data)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_windows_of_steps_begin_every_hop_lines(lines: Callable, tmp_path: Path) -> None:
    """Half a line waits for its rest; JSON lists are lines too."""
    path = tmp_path / "log.csv"
    path.write_text("x,y\n1,2\n3,4\n[5, 6]\n7,")
    source, _ = lines(path, steps=2, hop=1, whole=True)
    assert _next(source) == [[1, 2], [3, 4]]
    assert _next(source) == [[3, 4], [5, 6]]
    _append(path, "8\n")
    assert _next(source) == [[5, 6], [7, 8]]


def test_a_hop_above_the_window_leaves_lines_out(lines: Callable, tmp_path: Path) -> None:
    """Of every three lines the first two are a window."""
    path = tmp_path / "log.csv"
    path.write_text("".join(f"{n}\n" for n in range(1, 7)))
    source, _ = lines(path, steps=2, hop=3, whole=True)
    assert [_next(source), _next(source)] == [[[1], [2]], [[4], [5]]]


def test_a_file_is_followed_over_rotation_and_truncation(lines: Callable, tmp_path: Path) -> None:
    """What was there before isn't read; a window never spans two files."""
    path = tmp_path / "log.csv"
    path.write_text("9\n9\n")
    source, told = lines(path, steps=2)
    _append(path, "1\n2\n3\n")
    assert _next(source) == [[1], [2]]
    path.rename(tmp_path / "log.csv.1")
    path.write_text("4\n5\n\n\n\n")
    assert _next(source) == [[4], [5]]
    path.write_text("6\n7\n")
    assert _next(source) == [[6], [7]]
    assert told == []


def test_a_fifo_outlives_its_writers(lines: Callable, tmp_path: Path) -> None:
    """One writer leaves in the middle of a window, and another goes on."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    source, told = lines(path, steps=2, columns=["b", "a"])
    _append(path, '{"a": 1, "b": 2}\n')
    _append(path, '{"b": 4, "a": 3, "c": 9}\n')
    assert _next(source) == [[2, 1], [4, 3]]
    assert told == []


def test_a_serial_device_is_read_and_read_again_when_it_is_back(lines: Callable, tmp_path: Path) -> None:
    """A pseudo terminal that is pulled and plugged in under the same name."""
    path = tmp_path / "tty"
    for first in (1, 3):
        master, slave = os.openpty()
        tty.setraw(slave)
        path.unlink(missing_ok=True)
        path.symlink_to(os.ttyname(slave))
        if first == 1:
            source, _ = lines(path, steps=2, baud=115_200)
        os.write(master, f"9\r\n{first}\r\n{first + 1}\r\n".encode())
        assert _next(source) == [[first], [first + 1]]
        os.close(slave)
        os.close(master)


@pytest.mark.parametrize("line", ["1,x", '{"b": 1}', "[1, null]", "[", "\xff", "1," * 40_000, "[true]"])
def test_a_line_of_no_numbers_is_named_once_and_ends_its_window(line: str, lines: Callable, tmp_path: Path) -> None:
    """The next window begins after it."""
    path = tmp_path / "log.csv"
    path.write_text(f"1\n{line}\n2\n{line}\n3\n4\n", encoding="latin-1")
    source, told = lines(path, steps=2, columns=["a"], whole=True)
    assert _next(source) == [[3], [4]]
    assert [code for code, _ in told] == ["source_line_invalid"]


@pytest.mark.parametrize("columns", [[], ["y", "x"]])
def test_a_message_of_the_device_ends_its_window_and_nothing_more(
    columns: list[str], lines: Callable, tmp_path: Path
) -> None:
    """It is reported, and does not take the place of the names of the columns."""
    path = tmp_path / "log.csv"
    path.write_text("y,x\n1,2\nERROR: no sensor\n3,4\n5,6\n")
    source, told = lines(path, steps=2, columns=columns, whole=True)
    assert _next(source) == [[3, 4], [5, 6]]
    assert [code for code, _ in told] == ["source_line_invalid"]


def test_a_device_that_restarts_sends_its_names_again(lines: Callable, tmp_path: Path) -> None:
    """No window spans the restart; other columns beside the wanted ones may be in another order."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    source, told = lines(path, steps=2, columns=["x"])
    _append(path, "x,y\n1,2\nx,y\n3,4\n5,6\ny,x\n7,8\n9,10\n")
    assert [_next(source), _next(source)] == [[[3], [5]], [[8], [10]]]
    assert told == []


def test_the_names_are_read_of_a_file_whose_lines_are_not(lines: Callable, tmp_path: Path) -> None:
    """Columns are chosen by name also where reading begins at the end."""
    path = tmp_path / "log.csv"
    path.write_text("y,x\n9,9\n")
    source, _ = lines(path, steps=2, columns=["x", "y"])
    _append(path, "1,2\n3,4\n")
    assert _next(source) == [[2, 1], [4, 3]]


def test_numbers_behind_semicolons_are_reported(lines: Callable, tmp_path: Path) -> None:
    """A file of another convention is not silence."""
    path = tmp_path / "log.csv"
    path.write_text("1;2\n3;4\n")
    _, told = lines(path, steps=2, whole=True)
    until(lambda: [code for code, _ in told] == ["source_line_invalid"])


def test_json_objects_may_have_their_names_in_any_order(lines: Callable, tmp_path: Path) -> None:
    """The order is that of the first; one that lacks a name is no line of numbers."""
    path = tmp_path / "log.json"
    path.write_text('{"x": 1, "y": 2}\n{"y": 4, "x": 3}\n{"x": 5}\n')
    source, told = lines(path, steps=2, whole=True)
    assert _next(source) == [[1, 2], [3, 4]]
    until(lambda: [code for code, _ in told] == ["source_line_invalid"])


@pytest.mark.parametrize("columns", [[], ["c", "b", "a"]])
@pytest.mark.parametrize("text", ["c,a,b\n3,1,2\n3,1,2\n", '{"c": 3, "a": 1, "b": 2}\n{"b": 2, "a": 1, "c": 3}\n'])
def test_names_are_put_in_the_order_of_the_release(
    text: str, columns: list[str], lines: Callable, tmp_path: Path
) -> None:
    """Whatever order the lines or the settings have; that it differs is told once."""
    path = tmp_path / "log"
    path.write_text(text)
    source, told = lines(path, steps=2, read=("a", "b", "c"), columns=columns, whole=True)
    assert _next(source) == [[1, 2, 3], [1, 2, 3]]
    assert [code for code, _ in told] == ["columns_reordered"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a,d\n1,2\n", "missing: b; not of the model: d"),
        ("c,d\n1,2\n", "missing: a, b; not of the model: c, d"),
        ("a,b,t\n1,2,3\n", "not of the model: t"),
        ("a,b,a\n1,2,3\n", "twice: a"),
        ('{"t": 3, "a": 1, "b": 2}\n', "not of the model: t"),
        ('{"a": 1}\n', "missing: b"),
    ],
)
def test_names_that_the_release_does_not_read_are_refused(
    text: str, wrong: str, lines: Callable, tmp_path: Path
) -> None:
    """Told apart from lines without numbers, and once; the next line with the right names is read."""
    path = tmp_path / "log"
    path.write_text(f'{text}{text.splitlines()[-1]}\n[\n{{"a": 7, "b": 8}}\n')
    source, told = lines(path, steps=1, read=("a", "b"), whole=True)
    assert _next(source) == [[7, 8]]
    assert [code for code, _ in told] == ["source_line_invalid"] * 2
    assert f"({wrong})" in told[0][1]


def test_own_columns_choose_the_channels_of_other_names(lines: Callable, tmp_path: Path) -> None:
    """A sensor names its channels as it likes; extra ones such as a time are left out, by their names."""
    path = tmp_path / "log"
    path.write_text("t,x,y\n9,1,2\n")
    source, told = lines(path, steps=1, read=("a", "b"), columns=["y", "x"], whole=True)
    assert _next(source) == [[2, 1]]
    assert told == []


@pytest.mark.parametrize(("text", "read"), [("READY\n1,2\n", ("a", "b")), ("value\n1\n", ("a",))])
def test_a_first_message_is_no_header_of_other_names(
    text: str, read: tuple[str, ...], lines: Callable, tmp_path: Path
) -> None:
    """A line without a name of the release, and as many as none, says nothing of the order; nor does one channel's."""
    path = tmp_path / "log"
    path.write_text(text)
    source, told = lines(path, steps=1, read=read, whole=True)
    assert _next(source) == [[1, 2][: len(read)]]
    assert told == []


def test_a_line_of_more_cells_than_names_is_refused(lines: Callable, tmp_path: Path) -> None:
    """Its numbers may stand under other names."""
    path = tmp_path / "log"
    path.write_text("b,a\n1,2,3\n5,6\n")
    source, told = lines(path, steps=1, read=("a", "b"), whole=True)
    assert _next(source) == [[6, 5]]
    assert [code for code, _ in told] == ["columns_reordered", "source_line_invalid"]
    assert "3 cells for 2 names" in told[1][1]


@pytest.mark.parametrize("binary", [0, 1])
def test_the_release_states_the_steps_and_its_front_end_reads_the_window(
    binary: int, lines: Callable, tmp_path: Path
) -> None:
    """The same pixels whether as text or as raw numbers."""
    options = front_ends.complete("window", {"steps": 2, "channels": 2, "binary": binary})
    path = tmp_path / "log.csv"
    path.write_text("-1,1\n0.5,0\n")
    source, _ = lines(path, options, whole=True)
    data = next_input(source).data
    assert np.array_equal(front_ends.decode("window", data, options)[..., 0], [[0, 255], [191, 128]])


def test_without_steps_or_with_a_rate_of_no_line_it_does_not_start(lines: Callable, tmp_path: Path) -> None:
    """Both are named."""
    with pytest.raises(SourceError, match="Expected steps in"):
        lines(tmp_path / "log.csv")
    with pytest.raises(SettingsError, match="got 115201"):
        Settings(baud=115_201)
