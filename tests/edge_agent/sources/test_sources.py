"""Sources: what all of them promise, then each one's own."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import sources
from edge_agent.device.clock import FakeClock
from edge_agent.errors import SourceError
from edge_agent.sources.synthetic import MAX_IMAGE_BYTES


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., tuple[sources.Source, FakeClock]]:
    """Open a source of a kind on a folder of three images."""

    def build(kind: str, **settings: object) -> tuple[sources.Source, FakeClock]:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for name in ("b.png", "a.png", "c.png"):
            (folder / name).write_bytes(name.encode())
        clock = FakeClock()
        return sources.load({"kind": kind, "path": str(folder), **settings}, clock), clock

    return build


@pytest.mark.parametrize("kind", sources.names())
def test_conformance_gives_each_image_whole_and_never_waits(kind: str, opened: Callable) -> None:
    """Three images come once each within their time; then there is nothing, at once."""
    source, clock = opened(kind, repeat=False)
    taken = []
    for _ in range(20):
        if (capture := source.take()) is not None:
            taken.append(capture)
            source.done(capture)
        clock.advance(0.2)
    assert sorted(capture.name for capture in taken) == ["a.png", "b.png", "c.png"]
    assert all(capture.data == capture.name.encode() for capture in taken)
    assert source.take_dropped() == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "telepathy"},
        {"kind": 3},
        {"kind": "_placement"},
        {},
        {"kind": "synthetic", "path": "/nonexistent"},
        {"kind": "directory"},
        {"kind": "directory", "path": "/"},
    ],
)
def test_refuses_what_it_can_not_open(settings: dict) -> None:
    """An unknown kind or an empty place is a coded error."""
    with pytest.raises(SourceError, match="Expected") as raised:
        sources.load(settings, FakeClock())
    assert raised.value.code == "source_invalid"


@pytest.mark.parametrize("value", [-1, "many", True, 1.5])
def test_refuses_a_setting_of_the_wrong_type(value: object, tmp_path: Path) -> None:
    """A backlog is a number of images from 0."""
    with pytest.raises(SourceError, match="the source's backlog as int"):
        sources.load({"kind": "directory", "path": str(tmp_path), "backlog": value}, FakeClock())


def test_directory_takes_in_name_order_ignores_dots_and_deletes(opened: Callable, tmp_path: Path) -> None:
    """A name with a dot in front isn't there yet; what was served is gone."""
    source, clock = opened("directory")
    (tmp_path / "images" / ".d.png").write_bytes(b"half")
    (tmp_path / "images" / "folder").mkdir()
    names = []
    for _ in range(20):
        clock.advance(0.2)
        while (capture := source.take()) is not None:
            names.append(capture.name)
            source.done(capture)
    assert names == ["a.png", "b.png", "c.png"]
    assert sorted(item.name for item in (tmp_path / "images").iterdir()) == [".d.png", "folder"]


def test_directory_may_keep_its_files(opened: Callable, tmp_path: Path) -> None:
    """With ``keep`` each file is taken once and stays."""
    source, clock = opened("directory", keep=True)
    for _ in range(10):
        capture = source.take()
        clock.advance(2)
        if capture is not None:
            source.done(capture)
    assert source.take() is None
    assert len(list((tmp_path / "images").iterdir())) == 3


def test_directory_drops_the_oldest_beyond_its_backlog_and_counts_them(opened: Callable, tmp_path: Path) -> None:
    """Two may wait: of three the first is dropped, once."""
    source, clock = opened("directory", backlog=2)
    assert source.take() is None
    clock.advance(2.1)
    assert source.take().name == "b.png"
    assert (source.take_dropped(), source.take_dropped()) == (1, 0)
    assert not (tmp_path / "images" / "a.png").exists()


def test_synthetic_replays_at_its_rate_shuffled_by_its_seed(opened: Callable) -> None:
    """Ten a second, over and over, each round complete, the same order for the same seed."""
    orders = []
    for _ in range(2):
        source, clock = opened("synthetic", rate_hz=10.0, seed=4)
        names = []
        for _ in range(120):
            names += [capture.name] if (capture := source.take()) else []
            clock.advance(0.05)
        assert len(names) in {60, 61}
        assert all(set(names[i : i + 3]) == {"a.png", "b.png", "c.png"} for i in range(0, 57, 3))
        orders.append(names)
    assert orders[0] == orders[1]
    assert len({tuple(orders[0][i : i + 3]) for i in range(0, 57, 3)}) > 1


def test_synthetic_drops_what_was_due_while_nobody_took(opened: Callable) -> None:
    """After ten seconds away at ten a second, 100 are counted as dropped and none is caught up."""
    source, clock = opened("synthetic", rate_hz=10.0)
    clock.advance(10)
    assert source.take() is not None
    assert source.take_dropped() == 100
    assert source.take() is None


def test_synthetic_says_what_of_a_zip_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An image above the limit is not replayed, and not left out without a word; the limit itself is."""
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("whole.png", bytes(MAX_IMAGE_BYTES))
        archive.writestr("large.png", bytes(MAX_IMAGE_BYTES + 1))
    source = sources.load({"kind": "synthetic", "path": str(tmp_path / "data.zip")}, FakeClock())
    assert (capture := source.take()) is not None
    assert capture.name == "whole.png"
    assert "count=1" in caplog.text


def test_synthetic_reads_zips(tmp_path: Path) -> None:
    """Images of a zip come without being unpacked to disk; other entries don't."""
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("images/1.png", b"one")
        archive.writestr("labels.csv", b"path,label")
    source = sources.load({"kind": "synthetic", "path": str(tmp_path / "data.zip")}, FakeClock())
    assert source.take() == sources.Capture("images/1.png", b"one")


def test_synthetic_never_replays_what_ended_a_child(opened: Callable, tmp_path: Path) -> None:
    """Not in the next process either, which keeps the list in its state directory."""
    (tmp_path / "state" / "source").mkdir(parents=True)
    opened("directory")
    for _ in range(2):
        clock, around = FakeClock(), sources.Surroundings(state=tmp_path / "state")
        source = sources.load({"kind": "synthetic", "path": str(tmp_path / "images")}, clock, around)
        assert source.refuse(sources.Capture("b.png", b""), "input_crashed", final=True)
        names = set()
        for _ in range(20):
            clock.advance(0.2)
            names |= {capture.name} if (capture := source.take()) else set()
        assert names == {"a.png", "c.png"}
