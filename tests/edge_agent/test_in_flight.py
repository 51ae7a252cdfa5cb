"""What is in flight, in a file that outlives its writer."""

import os
from pathlib import Path

import pytest

from edge_agent.in_flight import FOLDER, Held, InFlight, clear_held, read_held


def test_says_what_is_held_and_how_much_was_served(tmp_path: Path) -> None:
    """Marked before, cleared after; only what was served counts."""
    flight = InFlight(tmp_path)
    flight.begin("a.png")
    assert read_held(tmp_path) == Held(os.getpid(), "a.png", 0)
    flight.end(served=True)
    flight.begin("b.png")
    flight.end(served=False)
    assert read_held(tmp_path) == Held(os.getpid(), "", 1)


@pytest.mark.parametrize("name", ["ä 1.png", "x" * 255, os.fsdecode(b"\xff.png")])
def test_the_next_process_finds_what_was_left(name: str, tmp_path: Path) -> None:
    """Whatever a file may be called."""
    InFlight(tmp_path).begin(name)
    assert InFlight(tmp_path).left == name
    clear_held(tmp_path)
    assert InFlight(tmp_path).left == ""


@pytest.mark.parametrize("data", [b"", b"TFI1", b"\0" * 40, b"garbage" * 100])
def test_what_can_not_be_read_blames_nobody(data: bytes, tmp_path: Path) -> None:
    """A damaged or foreign file is nothing."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "in_flight").write_bytes(data)
    assert read_held(tmp_path) is None
    assert InFlight(tmp_path).left == ""


def test_a_disk_that_can_not_be_written_marks_nothing_and_ends_nothing(tmp_path: Path) -> None:
    """Serving goes on unmarked."""
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    flight = InFlight(tmp_path)
    flight.begin("a.png")
    flight.end(served=True)
    assert read_held(tmp_path) is None
