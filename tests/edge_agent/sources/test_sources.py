"""Sources: the contract of all, then the tests of each."""

import queue
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from edge_agent import sources
from edge_agent.config import AgentConfig, read_config
from edge_agent.device.clock import FakeClock, SystemClock
from edge_agent.errors import AgentConfigError, SourceError
from edge_agent.sources._stream import StreamSource
from edge_agent.sources.push import PushSource
from edge_agent.sources.synthetic import MAX_IMAGE_BYTES
from edge_agent.streams.recorded_inputs import RecordedInputs
from tests.edge_agent.sources.prepared import prepared, publish, taken
from wire.manifest import Manifest
from wire.settings import Bound, rules

ROOT = Path(__file__).parents[3]


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


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the kind of a source in a file beside this one, for this process and its children."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return "outside_microphone:open_source"


@pytest.fixture(params=[*sources.names(), "outside"])
def source(request: pytest.FixtureRequest, tmp_path: Path, outside: str) -> Iterator[tuple[sources.Source, FakeClock]]:
    """Every source of the folder, with what it needs, and an external one."""
    document = {"kind": outside} if request.param == "outside" else prepared(request.param, tmp_path / "inputs")
    if request.param == "mqtt":
        document["port"] = port = request.getfixturevalue("broker").port
        for number in range(8):
            publish(port, f"conformance/{number}", b"data")
    clock = FakeClock()
    opened = sources.load(document, clock)
    if isinstance(opened, PushSource):
        assert all(opened.offer(opened.new_id(), b"data") for _ in range(3))
    yield opened, clock
    if isinstance(opened, StreamSource):
        opened.close()


def test_conformance_gives_inputs_with_a_name_and_bytes(source: tuple[sources.Source, FakeClock]) -> None:
    """Inputs arrive one by one, and the source accepts that each was served."""
    found = taken(*source, 3)
    assert found
    for capture in found:
        assert capture.name
        assert isinstance(capture.data, bytes)
        source[0].done(capture)


def test_conformance_an_input_refused_for_good_does_not_come_again(source: tuple[sources.Source, FakeClock]) -> None:
    """``final`` is always respected, also by a source that repeats itself."""
    first = taken(*source, 1)[0]
    assert source[0].refuse(first, "input_crashed", final=True) is True
    later = taken(*source, 5)
    assert first.name not in {capture.name for capture in later}


def test_conformance_counts_what_was_dropped_once(source: tuple[sources.Source, FakeClock]) -> None:
    """The count starts at 0, and each drop is reported once."""
    taken(*source, 1)
    source[1].advance(10)
    source[0].take()
    assert source[0].take_dropped() >= 0
    assert source[0].take_dropped() == 0


@pytest.mark.parametrize("kind", ["directory", "synthetic"])
def test_files_come_whole_and_once_each(kind: str, opened: Callable) -> None:
    """Three images within their time; then there is nothing, at once."""
    source, clock = opened(kind, **({"repeat": False} if kind == "synthetic" else {}))
    taken = []
    for _ in range(20):
        if (capture := source.take()) is not None:
            taken.append(capture)
            source.done(capture)
        clock.advance(0.2)
    assert sorted(capture.name for capture in taken) == ["a.png", "b.png", "c.png"]
    assert all(capture.data == capture.name.encode() for capture in taken)
    assert source.take_dropped() == 0


@pytest.mark.parametrize("kind", sources.names())
def test_every_setting_of_a_source_says_its_range_or_needs_none(kind: str) -> None:
    """A frozen dataclass of named fields, all with defaults, no number without a range."""
    declared = sources.settings_of(kind)
    declared()
    numbers = {one.name for one in fields(declared) if type(one.default) in {int, float}}
    assert numbers == {name for name, rule in rules(declared).items() if isinstance(rule, Bound)}


def _configured(tmp_path: Path, text: str) -> AgentConfig:
    (tmp_path / "agent.toml").write_text(f"[source]\n{text}\n")
    return read_config(tmp_path / "agent.toml")


def test_settings_of_a_source_come_from_agent_toml(tmp_path: Path, opened: Callable) -> None:
    """``backlog``, ``rate_hz`` and ``seed``, which nothing could set, reach the source that the child opens."""
    opened("directory")
    config = _configured(tmp_path, 'kind = "synthetic"\npath = "images"\nrate_hz = 10\nseed = 4')
    assert config.source.document == {"kind": "synthetic", "path": f"{tmp_path}/images", "rate_hz": 10.0, "seed": 4}
    clock = FakeClock()
    source = sources.load(config.source.document, clock)
    clock.advance(1.95)
    assert source.take() is not None
    assert source.take_dropped() == 19
    config = _configured(tmp_path, 'path = "images"\nbacklog = 1')
    source = sources.load(config.source.document, clock := FakeClock())
    source.take()
    clock.advance(2.1)
    assert (source.take(), source.take_dropped()) == (sources.Capture("c.png", b"c.png"), 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backlg = 10", r"agent.toml \[source\] one of path, .*, got 'backlg': did you mean 'backlog'"),
        ('kind = "synthetic"\nsed = 1', r"got 'sed': did you mean 'seed'"),
        ('kind = "synthetic"\nrate_hz = 10001', r"\[source\] rate_hz between 0 and 10000, got 10001"),
        ('kind = "syntetic"', r"kind as one of .*directory.*, synthetic .*, got 'syntetic': did you mean 'synthetic'"),
        ("kind = 3", r"kind as one of .*, got 3"),
    ],
)
def test_a_key_or_value_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The file, the table and the nearest key are named."""
    with pytest.raises(AgentConfigError, match=words):
        _configured(tmp_path, text)


def test_a_key_that_every_kind_once_took_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A device with such a file starts after an update of its agent, and reports the ignored key."""
    config = _configured(tmp_path, 'kind = "synthetic"\npath = "x"\nsettle_s = 1.0')
    assert config.source.document == {"kind": "synthetic", "path": f"{tmp_path}/x"}
    assert "kind=synthetic keys=['settle_s']" in caplog.text


def test_a_source_from_outside_has_keys_of_its_own(tmp_path: Path, outside: str) -> None:
    """Checked as strictly, without an edit elsewhere."""
    config = _configured(tmp_path, f'kind = "{outside}"\nclip_s = 0.5\nrate_hz = 8000')
    source = sources.load(config.source.document, clock := FakeClock())
    clock.advance(0.5)
    capture = source.take()
    assert capture is not None
    assert len(capture.data) == 44 + 8000
    with pytest.raises(AgentConfigError, match=r"agent.toml \[source\] one of rate_hz, clip_s, got 'clip': did you"):
        _configured(tmp_path, f'kind = "{outside}"\nclip = 0.5')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise KeyError('x')", "to import, got KeyError"),
        ("import os; os._exit(3)", r"got the end of its process \(3\)"),
        ("print('hello')", "Expected a function 'open_source' in broken, got NoneType"),
    ],
)
def test_a_source_from_outside_that_is_broken_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    """It ends the process that asks it, not the agent's."""
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(AgentConfigError, match=words):
        _configured(tmp_path, 'kind = "broken:open_source"')


@pytest.mark.parametrize(
    ("opens", "takes", "words"),
    [
        ("raise RuntimeError('no camera')", "", "to open, got RuntimeError: no camera"),
        ("return None", "", "to return the next input, got AttributeError"),
        ("return Camera()", "raise OSError('unplugged')", "to return the next input, got OSError: unplugged"),
        ("return Camera()", "raise SystemExit(3)", "to return the next input, got SystemExit: 3"),
        ("return Camera()", "return b'image'", "to return a Capture or None, got b'image'"),
    ],
)
def test_what_an_external_source_raises_is_a_fault_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: str, takes: str, words: str
) -> None:
    """Under its own code, which blames neither the bundle nor the release."""
    code = f"def open_source(*_):\n    {opens}\nclass Camera:\n    def take(self):\n        {takes or 'return None'}\n"
    (tmp_path / "camera_of_mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "camera_of_mine", raising=False)
    with pytest.raises(SourceError, match=words):
        sources.load({"kind": "camera_of_mine:open_source"}, FakeClock()).take()


@pytest.mark.parametrize("closes", ["return None", "raise RuntimeError('stuck')", "raise SystemExit(3)"])
def test_an_external_source_is_closed_at_the_end_whatever_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closes: str
) -> None:
    """Its end is called once, and what it raises ends nothing; one without an end is fine."""
    code = f"class Camera:\n    closed = 0\n    def close(self):\n        Camera.closed += 1\n        {closes}\n"
    (tmp_path / "closing.py").write_text(
        f"{code}def open_source(*_):\n    return Camera()\ndef plain(*_):\n    return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "closing", raising=False)
    for opens in ("open_source", "plain"):
        sources.close(sources.load({"kind": f"closing:{opens}"}, FakeClock()))
    assert sys.modules["closing"].Camera.closed == 1


@pytest.mark.parametrize(("told", "ignored"), [("UnreadInputs(ignored=3)", 3), ("None", 0), ("7", 0)])
def test_an_external_source_may_say_what_lies_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, ignored: int
) -> None:
    """As those of this folder do; anything else says nothing."""
    code = f"class Scanner:\n    left_alone = {told}\ndef open_source(*_):\n    return Scanner()\n"
    (tmp_path / "scanner.py").write_text(f"from wire.messages import UnreadInputs\n{code}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "scanner", raising=False)
    source = sources.load({"kind": "scanner:open_source"}, FakeClock())
    inputs = RecordedInputs(source, Manifest, FakeClock(), lambda *_: None)
    assert sources.left_alone(inputs).ignored == ignored


def test_a_stream_wakes_the_loop_for_each_input(tmp_path: Path) -> None:
    """An input is there when the loop is woken, so that it needs not wait for its next look."""
    path, woken = tmp_path / "numbers.csv", queue.SimpleQueue()
    path.write_text("")
    around = sources.Surroundings(wake=lambda: woken.put(source.take()))
    source = sources.load({"kind": "lines", "path": str(path), "steps": 1}, SystemClock(), around)
    with path.open("a") as file:
        for _ in range(3):
            file.write("1,2\n")
            file.flush()
            assert woken.get(timeout=10).data == b"[[1.0, 2.0]]"
    sources.close(source)
    assert source.ended


def test_the_control_process_loads_nothing_of_a_source_from_outside(tmp_path: Path, outside: str) -> None:
    """Its numpy stays in the process that reads its settings."""
    (tmp_path / "agent.toml").write_text(f'[source]\nkind = "{outside}"\n')
    code = (
        "import sys; from pathlib import Path; from edge_agent.config import read_config\n"
        f"read_config(Path({str(tmp_path / 'agent.toml')!r})); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


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


@pytest.mark.parametrize("value", [0, -1, "many", True, 1.5, 1_000_001])
def test_refuses_a_setting_of_the_wrong_type(value: object, tmp_path: Path) -> None:
    """A backlog is a number of images from 1."""
    with pytest.raises(SourceError, match=r"\[source\] backlog (to be a whole number|between 1 and 1000000), got"):
        sources.load({"kind": "directory", "path": str(tmp_path), "backlog": value}, FakeClock())


def test_directory_takes_in_name_order_ignores_dots_and_deletes(opened: Callable, tmp_path: Path) -> None:
    """A name with a leading dot is ignored; served files are deleted."""
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
    """An image above the limit is not replayed, and is reported; one at the limit is replayed."""
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
    capture = source.take()
    assert capture == sources.Capture("images/1.png", b"one")
    assert (capture.place.name, capture.place.last) == ("images/1.png", True)  # of no stream: the order is random


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
