"""The folder as a source: which files it takes, when they are complete, and that it deletes nothing else."""

import fcntl
import io
import os
import queue
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent import sources
from edge_agent.device.clock import FakeClock
from edge_agent.errors import ImageError, SourceError
from edge_agent.inference.preprocess import cropped, decode_image
from edge_agent.sources._bad_inputs import BadInputs
from edge_agent.sources._folder_events import FolderEvents
from wire.manifest import Preprocessing


@pytest.fixture(autouse=True)
def _leases() -> Iterator[None]:
    """Ignore SIGIO like the child, so that a source may check which process has a file open."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


class Folder:
    """A source on a folder with a state directory beside it, and the messages that it logged."""

    def __init__(self, path: Path, **settings: object) -> None:
        """Open it."""
        self.state, self.inbox = path / "state", path / "pictures"
        self.state.mkdir(exist_ok=True)
        (self.state / "source").mkdir(exist_ok=True)
        self.clock, self.told = FakeClock(), []
        around = sources.Surroundings(state=self.state, tell=lambda code, text: self.told.append((code, text)))
        self.source = sources.load({"kind": "directory", "path": str(self.inbox), **settings}, self.clock, around)

    def write(self, name: str, data: bytes = b"x") -> Path:
        """Write a file in place."""
        (self.inbox / name).write_bytes(data)
        return self.inbox / name

    def served(self, seconds: float, code: str = "") -> list[str]:
        """Serve the inputs that arrive within ``seconds``, or refuse them with ``code``; return the names taken."""
        names = []
        for _ in range(round(seconds / 0.1)):
            self.clock.advance(0.1)
            while (capture := self.source.take()) is not None:
                names.append(capture.name)
                if code:
                    self.source.refuse(capture, code)
                else:
                    self.source.done(capture)
        return names

    def names(self) -> list[str]:
        """Return the names in the folder."""
        return sorted(path.name for path in self.inbox.iterdir())

    def bad(self) -> list[str]:
        """Return the names in ``bad``."""
        return sorted(path.name for path in (self.state / "bad").glob("*"))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Folder]:
    """Open sources."""
    return lambda **settings: Folder(tmp_path, **settings)


def test_a_folder_that_can_not_be_made_is_named_whole_with_the_step(tmp_path: Path) -> None:
    """Where nobody may make one, as below /etc for the agent's unit; elsewhere its permissions are the step."""
    for folder, step in ((Path("/sys/pictures"), "ReadWritePaths"), (tmp_path / "file" / "pictures", "permissions")):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SourceError, match=rf"can be made or read at {folder}, got: .*{step}"):
            sources.load({"kind": "directory", "path": str(folder)}, FakeClock(), sources.Surroundings(state=tmp_path))


def test_touches_only_the_suffixes_that_the_release_reads(folder: Callable[..., Folder]) -> None:
    """Notes, a video and a file without suffix stay, and one message names the suffixes that are ignored."""
    pictures = folder()
    for name in ("notes.txt", "video.mp4", "README", "a.png", "B.JPG"):
        pictures.write(name)
    assert pictures.served(3) == ["B.JPG", "a.png"]
    assert pictures.names() == ["README", "notes.txt", "video.mp4"]
    assert [code for code, _ in pictures.told] == ["source_ignored"]


def test_counts_what_it_leaves_alone(folder: Callable[..., Folder]) -> None:
    """Files of other suffixes, folders, and files that can't be opened, as they lie there now."""
    pictures = folder()
    assert pictures.source.left_alone.total == 0
    for name in ("a.csv", "b.csv", ".hidden", "c.png.tmp"):
        pictures.write(name)
    (pictures.inbox / "2026").mkdir()
    assert pictures.served(3) == []
    found = pictures.source.left_alone
    assert (found.ignored, found.unreadable, found.names) == (3, 0, ("2026", "a.csv", "b.csv"))
    assert "a release that reads rows of numbers" in found.text
    for path in (pictures.inbox / "a.csv", pictures.inbox / "b.csv"):
        path.unlink()
    (pictures.inbox / "2026").rmdir()
    pictures.served(3)
    assert pictures.source.left_alone.total == 0


def test_tells_when_a_release_leaves_alone_what_an_earlier_one_read(folder: Callable[..., Folder]) -> None:
    """Pictures under a model of sounds are reported, and again after a right model in between; other files are not."""
    pictures, reads = folder(), [".png"]
    pictures.source._surroundings = replace(pictures.source._surroundings, suffixes=lambda: frozenset(reads))
    unread = lambda: [code for code, _ in pictures.told].count("source_unread")  # noqa: E731
    pictures.write("a.png")
    assert pictures.served(3) == ["a.png"]
    for times in (1, 2):
        reads[:] = [".wav"]
        pictures.write("notes.txt")
        pictures.served(3)
        assert unread() == times - 1
        pictures.write("b.png")
        assert (pictures.served(3), unread()) == ([], times)
        reads[:] = [".png"]
        assert (pictures.served(3), unread()) == (["b.png"], times)


def test_takes_the_suffixes_that_the_settings_add(folder: Callable[..., Folder]) -> None:
    """A sensor's own suffix is named in agent.toml."""
    pictures = folder(suffixes=".dat, .RAW")
    for name in ("a.dat", "b.raw", "c.bin"):
        pictures.write(name)
    assert pictures.served(1) == ["a.dat", "b.raw"]


@pytest.mark.parametrize("name", [".a.png", "a.png.part", "a.png.tmp", ".hidden", "x.TMP"])
def test_leaves_names_alone_that_say_unfinished(name: str, folder: Callable[..., Folder]) -> None:
    """However long they stay there."""
    pictures = folder(suffixes=".part .tmp")
    pictures.write(name)
    assert (pictures.served(30), pictures.names()) == ([], [name])


def test_a_file_written_in_place_is_taken_when_it_rests(folder: Callable[..., Folder]) -> None:
    """While it grows every 0.4 s it is not taken; half a second after the last byte it is, completely."""
    pictures = folder()
    path = pictures.write("a.png", b"")
    for _ in range(5):
        with path.open("ab") as file:
            file.write(b"12345")
        assert pictures.served(0.4) == []
    pictures.clock.advance(0.2)
    assert pictures.source.take() == sources.Capture("a.png", b"12345" * 5)


def test_a_file_that_is_open_for_writing_is_not_taken_however_long_it_rests(folder: Callable[..., Folder]) -> None:
    """A writer that stalls for a minute has not finished; half a second after its close it has."""
    pictures = folder()
    with (pictures.inbox / "a.png").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert pictures.served(60) == []
    assert pictures.served(0.2) == ["a.png"]


def test_without_leases_a_file_rests_four_times_as_long(
    folder: Callable[..., Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without leases a file must be unchanged for two seconds."""
    monkeypatch.delattr(fcntl, "F_SETLEASE")
    monkeypatch.setattr(fcntl, "F_SETLEASE", 1 << 20, raising=False)
    pictures = folder()
    pictures.write("a.png")
    assert (pictures.served(1.9), pictures.served(0.3)) == ([], ["a.png"])


def test_a_file_that_is_renamed_into_its_name_is_taken_at_once(folder: Callable[..., Folder]) -> None:
    """The hand-over that costs no wait: a hidden name, seen before, becomes a visible one."""
    pictures = folder()
    hidden = pictures.write(".a.png")
    assert pictures.source.take() is None
    hidden.rename(pictures.inbox / "a.png")
    assert pictures.source.take() == sources.Capture("a.png", b"x")


def test_what_can_not_be_decoded_is_tried_again_and_then_moves_to_bad(folder: Callable[..., Folder]) -> None:
    """Two tries, two seconds apart; then it is in ``bad`` with the reason in its name, and nothing is lost."""
    pictures = folder()
    pictures.write("a.png", b"garbage")
    assert pictures.served(2.2, "image_invalid") == ["a.png"]
    assert pictures.served(1, "image_invalid") == ["a.png"]
    assert (pictures.names(), pictures.bad()) == ([], ["00000001-image_invalid-a.png"])
    assert (pictures.state / "bad" / pictures.bad()[0]).read_bytes() == b"garbage"


def test_a_refused_file_that_grows_is_served_whole(folder: Callable[..., Folder]) -> None:
    """A writer that closed its file in the middle: the refused half becomes complete, and nothing is set aside."""
    pictures = folder()
    path = pictures.write("a.png", b"half")
    assert pictures.served(1, "image_invalid") == ["a.png"]
    path.write_bytes(b"half and half")
    assert (pictures.served(3), pictures.bad()) == (["a.png"], [])


def test_a_file_that_came_under_the_name_of_a_served_one_is_not_deleted(folder: Callable[..., Folder]) -> None:
    """``latest.png`` is overwritten while the previous one is decoded."""
    pictures = folder()
    path = pictures.write("latest.png", b"first")
    pictures.served(0.1)
    pictures.clock.advance(1)
    capture = pictures.source.take()
    path.write_bytes(b"the second")
    pictures.source.done(capture)
    assert path.read_bytes() == b"the second"


def test_without_a_state_directory_a_refused_file_stays_where_it_is(tmp_path: Path) -> None:
    """It is not taken again, and not deleted."""
    clock = FakeClock()
    (tmp_path / "a.png").write_bytes(b"garbage")
    source = sources.load({"kind": "directory", "path": str(tmp_path)}, clock)
    taken = []
    for _ in range(100):
        clock.advance(0.1)
        if (capture := source.take()) is not None:
            taken.append(capture.name)
            source.refuse(capture, "image_invalid")
    assert taken == ["a.png", "a.png"]
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("keep", [False, True])
def test_what_ended_a_child_never_comes_again(folder: Callable[..., Folder], *, keep: bool) -> None:
    """Not in the next process either, where files stay in their folder; a new file of its name does."""
    pictures = folder(keep=keep)
    path = pictures.write("killer.png")
    assert pictures.source.refuse(sources.Capture("killer.png", b""), "input_crashed", final=True)
    assert pictures.bad() == ([] if keep else ["00000001-input_crashed-killer.png"])
    again = folder(keep=keep)
    assert again.served(5) == []
    path.write_bytes(b"another one")
    assert again.served(5) == ["killer.png"]


def test_bad_is_bounded_by_number_and_bytes_and_the_oldest_goes(tmp_path: Path) -> None:
    """Three files, or ten bytes; a larger one stays where it is; foreign files are never deleted."""
    bad = BadInputs(tmp_path, max_files=3, max_bytes=10)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "mine.txt").write_text("a person's note, of any length")
    for number, size in enumerate((1, 1, 1, 1, 9, 11)):
        (tmp_path / f"{number}.png").write_bytes(b"x" * size)
        assert bad.move_in(tmp_path / f"{number}.png", "image_invalid") is (size <= 10)
    held = sorted(path.name for path in (tmp_path / "bad").iterdir())
    assert held == ["00000004-image_invalid-3.png", "00000005-image_invalid-4.png", "mine.txt"]
    assert (tmp_path / "5.png").exists()


def test_a_name_is_not_blamed_for_what_once_lay_under_it(folder: Callable[..., Folder]) -> None:
    """A camera that writes each picture under one name is served again after a bad one that could not be moved."""
    pictures = folder()
    (pictures.state / "bad").write_bytes(b"in the way")
    pictures.write("latest.png", b"cut")
    assert pictures.served(6, "image_invalid") == ["latest.png", "latest.png"]
    assert pictures.served(6) == []
    pictures.write("latest.png", b"whole")
    assert pictures.served(3) == ["latest.png"]


def test_an_item_that_is_gone_is_not_skipped_by_its_name(folder: Callable[..., Folder]) -> None:
    """The input that ended a child was lost in a power cut: the next picture of that name is served."""
    pictures = folder()
    pictures.source.refuse(sources.Capture("latest.png", b""), "input_crashed", final=True)
    pictures.write("latest.png")
    assert pictures.served(3) == ["latest.png"]


def test_a_file_that_may_not_be_read_now_is_tried_again_and_told(folder: Callable[..., Folder]) -> None:
    """Out of descriptors, or rights that come later: it is served then."""
    pictures = folder()
    pictures.write("a.png"), pictures.write("b.png")
    pictures.clock.advance(0.1), pictures.source.take(), pictures.clock.advance(2)
    first = pictures.source.take()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    second = pictures.source.take()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (first.name, second, [code for code, _ in pictures.told]) == ("a.png", None, ["source_unreadable"])
    left = pictures.source.left_alone
    assert (left.unreadable, left.names, "let the agent's user read" in left.text) == (1, ("b.png",), True)
    pictures.source.done(first)
    assert (pictures.served(20), pictures.served(20)) == ([], ["b.png"])
    assert pictures.source.left_alone.total == 0


def test_a_folder_that_is_away_is_told_and_served_again_when_it_is_back(folder: Callable[..., Folder]) -> None:
    """A card that was pulled out is reported after ten seconds, once, and again the next time."""
    pictures = folder()
    pictures.served(1)
    pictures.inbox.rmdir()
    pictures.served(8)
    assert pictures.told == []
    for _ in range(2):
        pictures.served(20)
        pictures.inbox.mkdir()
        pictures.write("a.png")
        assert pictures.served(3) == ["a.png"]
        pictures.inbox.rmdir()
    assert [code for code, _ in pictures.told] == ["source_missing"] * 2


@pytest.mark.parametrize(("name", "told"), [("2026-11-29", ["source_no_file"]), (".hidden", []), ("lost+found", [])])
def test_pictures_in_a_folder_below_are_left_alone_and_told(
    name: str, told: list[str], folder: Callable[..., Folder]
) -> None:
    """An FTP camera that creates a folder per day: one message explains why nothing is served."""
    pictures = folder()
    (pictures.inbox / name).mkdir()
    (pictures.inbox / name / "a.png").write_bytes(b"x")
    assert (pictures.served(5), [code for code, _ in pictures.told]) == ([], told)


@pytest.mark.parametrize(("keep", "end"), [(False, "deleted"), (True, "passed over")])
def test_what_is_dropped_is_told_at_once_and_then_once_an_hour(tmp_path: Path, keep: bool, end: str) -> None:  # noqa: FBT001
    """The message has the number of dropped inputs since the last one."""
    folder = Folder(tmp_path, backlog=1, keep=keep)
    for number, wait_s in enumerate([0.0, 3500.0, 100.0]):
        folder.clock.advance(wait_s)
        for name in ("a", "b", "c"):
            folder.write(f"{number}{name}.png", b"x" * (number + 1))
        folder.served(4)
    texts = [text for code, text in folder.told if code == "source_dropped"]
    assert [f"the {count} oldest were {end} unserved" in text for count, text in zip((2, 2), texts, strict=True)] == [
        True, True,
    ]  # fmt: skip


def test_a_file_that_waits_for_its_answer_is_not_taken_twice(folder: Callable[..., Folder]) -> None:
    """It stays in the folder until its answer is delivered, however often the folder is read."""
    pictures = folder()
    pictures.write("a.png")
    pictures.clock.advance(1)
    assert pictures.source.take() is None
    pictures.clock.advance(1)
    capture = pictures.source.take()
    assert pictures.served(5) == []
    pictures.source.done(capture)
    assert (pictures.served(5), pictures.names()) == ([], [])


def test_a_new_file_under_the_name_of_one_that_waits_is_served_too(folder: Callable[..., Folder]) -> None:
    """A camera writes every picture under one name; finishing the first must not delete the second."""
    pictures = folder()
    pictures.write("a.png")
    pictures.clock.advance(1)
    pictures.source.take()
    pictures.clock.advance(1)
    first = pictures.source.take()
    os.utime(pictures.write("a.png", b"second"), ns=(1, 1))
    pictures.clock.advance(1)
    second = pictures.source.take()
    pictures.source.done(first)
    assert (second.data, pictures.names()) == (b"second", ["a.png"])
    pictures.source.done(second)
    assert (pictures.names(), pictures.served(5)) == ([], [])


def picture(**save: object) -> bytes:
    """Return a picture of 8 x 4 pixels, left half black, right half white."""
    out = io.BytesIO()
    image = Image.new("L", (8, 4))
    image.paste(255, (4, 0, 8, 4))
    image.save(out, **{"format": "PNG", **save})
    return out.getvalue()


def decoded(data: bytes) -> Image.Image:
    """Return the picture in ``data``."""
    return Image.open(io.BytesIO(data))


def test_a_region_of_the_picture_is_the_input(folder: Callable[..., Folder]) -> None:
    """Crop and size as asked, made only once the input is marked; without keys the bytes are those of the file."""
    for keys, size, mean in (
        ({"region": [0.5, 0, 0.5, 1]}, (4, 4), 255),
        ({"region": [0, 0.5, 0.5, 0.25]}, (4, 1), 0),
        ({"resize": [2, 3]}, (2, 3), 127),
        ({"region": [0.5, 0, 0.5, 1], "resize": [6, 2]}, (6, 2), 255),
    ):
        pictures = folder(keep=True, **keys)
        pictures.write(f"{size}.png", picture())
        pictures.source._waiting.clear()
        capture = next(found for _ in range(30) if (found := _later(pictures)) is not None)
        assert capture.data == picture()
        part = decoded(capture.prepare(capture.data))
        assert (part.size, part.mode) == (size, "L")
        assert abs(np.asarray(part).mean() - mean) <= 1, keys
        pictures.source.done(capture)
        (pictures.inbox / capture.name).unlink()


def _later(pictures: Folder) -> sources.Capture | None:
    pictures.clock.advance(0.1)
    return pictures.source.take()


def test_a_cropped_picture_keeps_its_orientation_and_a_broken_one_is_named() -> None:
    """The region is one of the picture as stored; the tag still turns it, as the manifest says. Broken bytes raise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = cropped(picture(format="JPEG", exif=exif), (0.5, 0, 0.5, 1), (3, 2))
    assert decode_image(turned, Preprocessing(orientation="exif")).shape == (3, 2, 3)
    with pytest.raises(ImageError, match="Expected an intact image"):
        cropped(picture()[:50], (0.5, 0, 0.5, 1), ())


@pytest.mark.parametrize("keys", [{"region": [0.5, 0, 0.6, 1]}, {"region": [0, 0, 1]}, {"resize": [0, 3]}])
def test_a_region_outside_of_the_picture_is_refused(folder: Callable[..., Folder], keys: dict[str, object]) -> None:
    """The sentence names what is expected."""
    with pytest.raises(SourceError, match=r"Expected re(gion|size) as"):
        folder(**keys)


def test_a_release_of_sounds_reports_that_a_region_is_not_applied(folder: Callable[..., Folder]) -> None:
    """Once, and the bytes stay those of the file."""
    sounds = folder(region=[0, 0, 0.5, 1], suffixes=".wav")
    sounds.source._surroundings = replace(sounds.source._surroundings, options=lambda: {"rate": 16_000.0})
    for name in ("a.wav", "b.wav"):
        sounds.write(name)
    sounds.clock.advance(0.1)
    assert sounds.served(3) == ["a.wav", "b.wav"]
    assert [code for code, _ in sounds.told] == ["source_region"]


def test_a_file_moved_in_wakes_the_loop_also_in_a_folder_that_was_replaced(tmp_path: Path) -> None:
    """News come for a file that is renamed in and for one written whole; a folder that was gone is watched again."""
    news = queue.SimpleQueue()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    events = FolderEvents(inbox, lambda: news.put(1))
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").rename(inbox / "a")
    news.get(timeout=10)
    shutil.rmtree(inbox)
    news.get(timeout=10)
    inbox.mkdir()
    deadline = time.monotonic() + 10
    while events._watch < 0:
        assert time.monotonic() < deadline
        events._end.wait(0.01)
    while not news.empty():
        news.get()
    (inbox / "b").write_bytes(b"x")
    news.get(timeout=10)
    events.close()
    events.thread.join(10)
    assert not events.thread.is_alive()


def test_a_file_moved_in_is_whole_even_if_it_was_written_in_the_same_moment(folder: Callable[..., Folder]) -> None:
    """Its times tell no rename within a tick of the kernel's clock; the news do. One that is written in place rests."""
    pictures = folder(settle_s=5.0)
    pictures.source.events.close()
    for number in range(20):
        (pictures.inbox / ".new").write_bytes(b"x")
        (pictures.inbox / ".new").rename(pictures.inbox / f"{number}.png")
        os.utime(pictures.inbox / f"{number}.png", ns=(2**62, 2**62))  # as if nothing told of the rename
    pictures.write("whole.png")
    os.utime(pictures.inbox / "whole.png", ns=(2**62, 2**62))
    pictures.source.events._moved = {f"{number}.png" for number in range(20)}
    assert sorted(pictures.served(0.2)) == sorted(f"{number}.png" for number in range(20))
    assert pictures.source.wakes is False
    assert pictures.served(8) == ["whole.png"]
    assert pictures.source.wakes is True
