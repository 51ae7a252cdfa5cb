"""What every sink of the folder promises; a new file there is tested by existing, and delivers if ``PLACES`` has it."""

from __future__ import annotations

import contextlib
import gc
import json
import queue
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent import sinks
from edge_agent.errors import SinkError
from edge_agent.sinks import SinkConfig, SinkSurroundings
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from tests.edge_agent.sinks.receiver import until
from wire.answers import AnswerRecord
from wire.codec import Json, encode
from wire.errors import SettingsError
from wire.settings import Bound, rules

LIMIT_S = 10.0


@dataclass(kw_only=True)
class Place:
    """A place for one sink. ``got``: what its receiver has so far, after ``begin``, which is called once it is open."""

    state: Path
    keys: dict[str, Json] = field(default_factory=dict)
    got: Callable[[], list[bytes]] = list
    begin: Callable[[], None] = lambda: None
    to_agent: Callable[..., None] = lambda _records: None


def _jsonl(state: Path, _request: pytest.FixtureRequest, _stack: ExitStack) -> Place:
    return Place(state=state, got=lambda: lines(state / "answers" / "one.jsonl"))


def _exec(state: Path, _request: pytest.FixtureRequest, _stack: ExitStack) -> Place:
    file = state / "got"
    file.touch()
    return Place(state=state, keys={"command": ["/usr/bin/tee", "-a", str(file)]}, got=lambda: lines(file))


def _unix(state: Path, _request: pytest.FixtureRequest, stack: ExitStack) -> Place:
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    data = bytearray()

    def got() -> list[bytes]:
        with contextlib.suppress(BlockingIOError):
            while piece := client.recv(65_536):
                data.extend(piece)
        return bytes(data).split(b"\n")[:-1]

    def begin() -> None:
        client.connect(str(state / "answers" / "one.sock"))
        client.setblocking(False)

    return Place(state=state, got=got, begin=begin)


def _fleet(state: Path, _request: pytest.FixtureRequest, _stack: ExitStack) -> Place:
    found: list[bytes] = []
    return Place(state=state, got=lambda: found, to_agent=lambda records: found.extend(map(encode, records)))


def _mqtt(state: Path, request: pytest.FixtureRequest, stack: ExitStack) -> Place:
    broker = request.getfixturevalue("broker")
    found: list[bytes] = []
    there: queue.SimpleQueue[None] = queue.SimpleQueue()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe("+/+/answer")
    client.on_subscribe = lambda *_: there.put(None)
    client.on_message = lambda _client, _data, message: found.append(message.payload)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    stack.callback(client.loop_stop)
    stack.callback(client.disconnect)
    there.get(timeout=LIMIT_S)
    return Place(state=state, keys={"port": broker.port}, got=lambda: found)


PLACES: dict[str, Callable[..., Place]] = {
    "exec": _exec, "fleet": _fleet, "jsonl": _jsonl, "mqtt": _mqtt, "unix": _unix,
}  # fmt: skip
"""How each kind is received; another one is opened with its defaults."""
NOWHERE: dict[str, dict[str, Json]] = {"exec": {"command": ["/nonexistent"]}, "mqtt": {"port": 1}}
KINDS = [pytest.param(kind, marks=pytest.mark.broker if kind == "mqtt" else ()) for kind in sinks.names()]


def lines(file: Path) -> list[bytes]:
    """Return the whole lines of a file."""
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def held() -> tuple[int, int]:
    """Return how many threads and descriptors this process has; paho keeps a pair of sockets until its client goes."""
    gc.collect()
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory with a short name: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="tf-") as name:
        yield Path(name)


@pytest.fixture
def place(request: pytest.FixtureRequest, state: Path) -> Iterator[Callable[[str], tuple[Place, Any, Any]]]:
    """Open a sink of a kind at its place; return place, sink and common settings."""
    with ExitStack() as stack:

        def opened(kind: str) -> tuple[Place, Any, Any]:
            place = PLACES[kind](state, request, stack) if kind in PLACES else Place(state=state)
            return (place, *load(kind, place))

        yield opened


def load(kind: str, place: Place) -> tuple[Any, Any]:
    """Return the sink and its common settings, as a child does with what a control process has checked."""
    document = SinkConfig.from_table({"kind": kind, **place.keys}, "agent.toml sinks one", None).document
    around = SinkSurroundings(name="one", state=place.state, device="cam-1", site="north", to_agent=place.to_agent)
    opened = sinks.load(document, around)
    place.begin()
    return opened


def some(first: int, count: int) -> list[AnswerRecord]:
    """Return answers with values in most keys."""
    return [
        AnswerRecord(id=f"{number}-ä\n", at_ms=number, label="7", confidence=0.5, values={"a": 1.5}, supported=True)
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_counts_as_delivered_reaches_the_receiver(kind: str, place: Callable) -> None:
    """Complete records, in order, each as the JSON of the record; a sink without a place here delivers what it can."""
    at, sink, _ = place(kind)
    records = [*some(0, 3), *some(3, 40)]
    assert (sink.send(records[:3]), sink.send(records[3:])) == (3, 40)
    if kind in PLACES:
        until(lambda: len(at.got()) == 43)
        assert [json.loads(line) for line in at.got()] == [json.loads(encode(record)) for record in records]
    sink.close()


@pytest.mark.parametrize("kind", KINDS)
def test_close_releases_threads_processes_and_descriptors(kind: str, place: Callable) -> None:
    """Also after answers; a swap of models or a stop must not leave anything behind."""
    at, first, _ = place(kind)
    first.send(some(0, 3))
    first.close()
    before = held()
    sink, _ = sinks.load({"kind": kind, **at.keys}, SinkSurroundings(name="two", state=at.state, device="cam-1"))
    with contextlib.suppress(SinkError):
        sink.send(some(0, 3))
    sink.close()
    del sink
    until(lambda: all(now <= was for now, was in zip(held(), before, strict=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_receiver_it_says_so_or_counts(kind: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody connected, no program, no broker: answers are dropped or the error is the sink's own; it never hangs."""
    with contextlib.suppress(AttributeError):
        monkeypatch.setattr(f"edge_agent.sinks.{kind}._WAIT_S", 0.1)
    sink, _ = load(kind, Place(state=state, keys=NOWHERE.get(kind, {})))
    raised, delivered = None, 0
    try:
        delivered = sink.send(some(0, 3))
    except SinkError as error:
        raised = error
    assert raised is None or (raised.delivered == 0 and str(raised).startswith("Expected "))
    assert 0 <= delivered <= 3
    sink.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_account_of_every_sink_is_complete(kind: str, place: Callable) -> None:
    """Through its queue and thread: each answer is sent or dropped, and all are settled."""
    _, sink, common = place(kind)
    account = open_accounts(None, ["one"])["one"]
    delivery = Delivery("one", sink, common, account, lambda _code, _text: None)
    for record in some(0, 700):
        delivery.offer(record, 0.0)
    until(lambda: not account.open)
    delivery.close(LIMIT_S)
    assert account.counts["offered"] == 700 == account.counts["sent"] + account.counts["dropped"] == delivery.settled


@pytest.mark.parametrize("kind", sinks.names())
def test_every_setting_of_a_sink_says_its_range_or_needs_none(kind: str) -> None:
    """All have defaults, and no number is without a range; none has the name of a key of every sink."""
    declared = sinks.settings_of(kind)
    numbers = {one.name for one in fields(declared) if type(one.default) in {int, float}}
    assert numbers == {name for name, rule in rules(declared).items() if isinstance(rule, Bound)}
    with pytest.raises(SettingsError, match="'no_such_key'"):
        SinkConfig.from_table({"kind": kind, "no_such_key": 1}, "agent.toml sinks one", None)
    assert {one.name for one in fields(declared)}.isdisjoint({one.name for one in fields(SinkSettings)})


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
)


@pytest.mark.parametrize("kind", sinks.names())
@given(data=st.data())
def test_any_value_of_any_key_is_taken_or_refused_by_its_name(kind: str, data: st.DataObject) -> None:
    """What TOML can hold never raises anything else, and what is taken is taken again by the child."""
    keys = sorted({one.name for declared in (sinks.settings_of(kind), SinkSettings) for one in fields(declared)})
    table = data.draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=4))
    try:
        found = SinkConfig.from_table({"kind": kind, **NOWHERE.get(kind, {}), **table}, "agent.toml sinks one", None)
    except SettingsError as error:
        found, text = None, str(error)
    if found is None:
        assert "[sinks.one]" in text
        return
    again = SinkConfig.from_table(found.document, "agent.toml sinks one", None)
    assert again == found
    assert json.loads(json.dumps(found.document)) == found.document
