"""The file with the input in flight, which outlives its writer."""

import importlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edge_agent import in_flight, sources
from edge_agent.device.clock import FakeClock
from edge_agent.in_flight import ASKED, FOLDER, IN_SOURCE, KEPT, SYNCED, Held, InFlight, clear_held, read_held


def _held(state: Path, *, item: str = "", served: int = 0) -> Held:
    """Return the input that the file shows as held by this process, under the start in the file."""
    return replace(read_held(state), pid=os.getpid(), item=item, served=served, suspect="")


def _held_under(state: Path, run: str, item: str) -> InFlight:
    """Mark ``item`` during the agent's start ``run`` and leave it; return the mark found before."""
    flight = InFlight(state, run)
    flight.begin(item)
    return flight


def test_says_what_is_held_and_how_much_was_served(tmp_path: Path) -> None:
    """Marked before, cleared after; only served inputs count."""
    flight = InFlight(tmp_path)
    flight.begin("a.png")
    assert read_held(tmp_path) == _held(tmp_path, item="a.png")
    flight.end("a.png", served=True)
    flight.begin("b.png")
    flight.end("b.png", served=False)
    assert read_held(tmp_path) == _held(tmp_path, served=1)


@pytest.mark.parametrize("name", ["ä 1.png", "x" * 255, os.fsdecode(b"\xff.png")])
def test_the_next_process_finds_what_was_left(name: str, tmp_path: Path) -> None:
    """Whatever a file may be called."""
    InFlight(tmp_path).begin(name)
    assert InFlight(tmp_path).left == name
    clear_held(tmp_path)
    assert InFlight(tmp_path).left == ""


def test_ended_with_the_agent_it_is_tried_once_more_and_then_set_aside(tmp_path: Path) -> None:
    """The second end is the item's fault, also when others were served in between and the agent ended each time."""
    _held_under(tmp_path, "run 1", "a.png")
    second = InFlight(tmp_path, "run 2")
    assert (second.left, second.again) == ("", "a.png")
    second.begin("b.png")
    second.end("b.png", served=True)
    second.begin("a.png")
    third = InFlight(tmp_path, "run 3")
    assert (third.left, third.again) == ("a.png", "")


@pytest.mark.parametrize(("item", "run", "found"), [
    (KEPT, "run 1", ("", "")), (KEPT, "run 2", ("", "")), (ASKED, "run 1", (ASKED, "")), (ASKED, "run 2", ("", "")),
])  # fmt: skip
def test_what_is_no_input_of_the_source_is_never_tried_again(
    item: str, run: str, found: tuple[str, str], tmp_path: Path
) -> None:
    """A kept input was answered before; a request may have ended the child, and is gone after a power cut."""
    InFlight(tmp_path, "run 1").begin(item)
    after = InFlight(tmp_path, run)
    assert (after.left, after.again) == found


def test_a_second_end_of_the_child_alone_sets_aside_too(tmp_path: Path) -> None:
    """Whatever the cause."""
    _held_under(tmp_path, "run 1", "a.png")
    _held_under(tmp_path, "run 2", "a.png")
    assert InFlight(tmp_path, "run 2").left == "a.png"


def test_a_suspect_that_was_served_is_none_any_more(tmp_path: Path) -> None:
    """A camera that writes every picture under one name meets a power cut each month."""
    for month in range(3):
        flight = _held_under(tmp_path, f"run {month}", "latest.png")
        assert (flight.left, flight.again) == ("", "latest.png" if month else "")
        InFlight(tmp_path, f"again {month}").end("latest.png", served=True)
        _held_under(tmp_path, f"again {month}", "latest.png")


def test_another_start_of_the_machine_is_another_start_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the agent's start has no id."""
    _held_under(tmp_path, "", "a.png")
    monkeypatch.setattr(in_flight, "boot_id", lambda: "the next")
    assert InFlight(tmp_path).again == "a.png"


def test_marks_reach_the_disk_at_once_only_after_the_machine_went_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first marks are flushed, to find an input that crashes the machine; none after an orderly end."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)

    def marks(run: str) -> int:
        synced.clear()
        flight = InFlight(tmp_path, run)
        for number in range(SYNCED + 5):
            flight.begin(f"{number}.png")
            flight.end(f"{number}.png", served=True)
        return len(synced)

    assert (marks("1"), marks("1")) == (1, 0)
    monkeypatch.setattr(in_flight, "boot_id", lambda: "the next")
    assert (marks("2"), marks("2")) == (SYNCED + 1, 0)
    clear_held(tmp_path)
    monkeypatch.setattr(in_flight, "boot_id", lambda: "the one after")
    assert marks("3") == 1


@pytest.mark.parametrize("data", [b"", b"TFI1", b"\0" * 40, b"garbage" * 100])
def test_what_can_not_be_read_blames_nobody(data: bytes, tmp_path: Path) -> None:
    """A damaged or foreign file is nothing."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "in_flight").write_bytes(data)
    assert read_held(tmp_path) is None
    assert InFlight(tmp_path).left == ""


def test_a_disk_that_can_not_be_written_marks_nothing_and_ends_nothing(tmp_path: Path) -> None:
    """Serving continues without marks."""
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    flight = InFlight(tmp_path)
    flight.begin("a.png")
    flight.end("a.png", served=True)
    assert read_held(tmp_path) is None


OUTSIDE = '''
from dataclasses import dataclass
from pathlib import Path
from edge_agent.in_flight import read_held
from edge_agent.sources import Capture

SEEN = [("import", read_held(Path(__file__).parent).item)]

@dataclass(frozen=True)
class Settings:
    def __post_init__(self): SEEN.append(("settings", read_held(Path(__file__).parent).item))

class Asking:
    """Notes what is marked while each of its methods runs."""

    def __init__(self, state, seen): self.state, self.seen = state, seen
    def note(self, name): self.seen.append((name, read_held(self.state).item))
    def take(self): self.note("take"); return Capture("a", b"")
    def done(self, capture): self.note("done")
    def refuse(self, capture, code, *, final=False): self.note("refuse"); return True
    def take_dropped(self): self.note("take_dropped"); return 0

def open_source(settings, clock, around):
    source = Asking(around.state, SEEN)
    source.note("open")
    return source
'''


def test_all_code_of_a_source_from_outside_runs_under_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it hangs or ends the child, no input and no release is to blame; afterwards nothing is marked."""
    (tmp_path / "asking.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    mark = InFlight(tmp_path)
    around = sources.Surroundings(state=tmp_path)
    source = sources.load({"kind": "asking:open_source"}, FakeClock(), around, partial(mark.during, IN_SOURCE))
    capture = source.take()
    source.done(capture)
    source.refuse(capture, "image_invalid")
    source.take_dropped()
    seen = importlib.import_module("asking").SEEN
    assert [name for name, _ in seen] == ["import", "settings", "open", "take", "done", "refuse", "take_dropped"]
    assert {item for _, item in seen} == {IN_SOURCE}
    assert read_held(tmp_path).item == ""
