"""The unix socket: every client gets whole lines from when it connects, and a slow one stops nobody."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.errors import SinkError
from edge_agent.sinks import SinkSurroundings, load
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from edge_agent.sinks.unix import Settings, UnixSocket
from tests.edge_agent.sinks.receiver import until
from wire.answers import AnswerRecord

LIMIT_S = 10.0
Opened = Callable[..., UnixSocket]
Connected = Callable[[], socket.socket]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="tf-") as name:
        yield Path(name)


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[..., UnixSocket]]:
    """Open sinks at ``folder / "s"``; closed at the end."""
    sinks: list[UnixSocket] = []

    def build(**keys: int) -> UnixSocket:
        sinks.append(UnixSocket(folder / "s", Settings(**keys)))
        return sinks[-1]

    yield build
    for sink in sinks:
        sink.close()


@pytest.fixture
def connected(folder: Path) -> Iterator[Callable[[], socket.socket]]:
    """Make clients; closed at the end."""
    clients: list[socket.socket] = []

    def connect() -> socket.socket:
        clients.append(client := socket.socket(socket.AF_UNIX))
        client.settimeout(LIMIT_S)
        client.connect(str(folder / "s"))
        return client

    yield connect
    for client in clients:
        client.close()


def ids(client: socket.socket, count: int | None = None) -> list[str]:
    """Return the ids of ``count`` lines, or of all up to the end of the connection; an incomplete last one is none."""
    found = []
    with client.makefile("rb") as lines:
        while count is None or len(found) < count:
            line = lines.readline()
            if not line.endswith(b"\n"):
                break
            found.append(json.loads(line)["id"])
    return found


def some(*numbers: int, length: int = 0) -> list[AnswerRecord]:
    """Return answers with these ids, and a text of ``length``."""
    return [AnswerRecord(id=str(number), text="x" * length) for number in numbers]


def test_a_client_reads_answers_from_when_it_connects(opened: Opened, connected: Connected) -> None:
    """An answer without a client is dropped; two clients get the same ones, in order."""
    sink = opened()
    assert sink.send(some(1)) == 0
    first = connected()
    assert sink.send(some(2, 3)) == 2
    second = connected()
    assert sink.send(some(4)) == 1
    assert (ids(first, 3), ids(second, 1)) == (["2", "3", "4"], ["4"])


def test_a_client_that_is_gone_counts_no_more(opened: Opened, connected: Connected) -> None:
    """Its place is free again, and without others answers are dropped."""
    sink = opened(clients=1)
    for number in range(5):
        client = connected()
        assert sink.send(some(number)) == 1
        assert ids(client, 1) == [str(number)]
        client.close()
        until(lambda: not sink._clients)
    assert sink.send(some(9)) == 0


def test_a_slow_client_is_disconnected_and_the_others_get_everything(
    opened: Opened, connected: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    """The bound is in bytes, 64 KiB here; the slow client has whole lines up to where it was cut."""
    sink = opened(client_bytes=65_536)
    slow, fast = connected(), connected()
    got: list[str] = []
    for number in range(200):
        assert sink.send(some(number, length=10_000)) == 1
        got += ids(fast, 1)
    assert got == [str(number) for number in range(200)]
    read = ids(slow)
    assert read == [str(number) for number in range(len(read))]
    assert len(read) < 100
    assert "it reads too slowly" in caplog.text


def test_a_batch_larger_than_the_bound_reaches_a_client_that_reads(opened: Opened, connected: Connected) -> None:
    """The bound is on what an earlier batch left, so no fast client is cut for a long answer."""
    sink = opened(client_bytes=4096)
    client = connected()
    assert sink.send(some(1, 2, length=500_000)) == 2
    assert ids(client, 2) == ["1", "2"]


def test_one_client_too_many_is_disconnected(opened: Opened, connected: Connected) -> None:
    """The others stay."""
    sink = opened(clients=2)
    clients = [connected() for _ in range(3)]
    assert ids(clients[2]) == []
    assert sink.send(some(1)) == 1
    assert [ids(client, 1) for client in clients[:2]] == [["1"], ["1"]]


def test_a_client_that_writes_disturbs_nobody(opened: Opened, connected: Connected) -> None:
    """What it writes is not read; it still gets answers."""
    sink = opened()
    client = connected()
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while client.send(b"x" * 65_536):
            pass
    client.settimeout(LIMIT_S)
    assert sink.send(some(1)) == 1
    assert ids(client, 1) == ["1"]


def test_the_socket_of_a_killed_agent_is_replaced(folder: Path, opened: Opened, connected: Connected) -> None:
    """Nobody listens there any more; owner and group may connect, and the file goes when the sink is closed."""
    code = f"import os,socket; socket.socket(socket.AF_UNIX).bind({str(folder / 's')!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    sink = opened()
    assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o660
    client = connected()
    assert sink.send(some(1)) == 1
    assert ids(client, 1) == ["1"]


def test_a_socket_that_another_program_has_is_left_alone(folder: Path, opened: Opened, connected: Connected) -> None:
    """Two agents, or two tables, of one path: the second is refused and the first goes on."""
    sink = opened()
    with pytest.raises(SinkError, match=r"nobody to listen at .*/s, got another program"):
        UnixSocket(folder / "s", Settings())
    client = connected()
    assert sink.send(some(1)) == 1
    assert ids(client, 1) == ["1"]


def test_a_file_in_the_place_of_the_socket_is_left_alone(folder: Path) -> None:
    """A typing error must not delete a person's file."""
    (folder / "s").write_text("mine")
    with pytest.raises(SinkError, match="got another file"):
        UnixSocket(folder / "s", Settings())
    assert (folder / "s").read_text() == "mine"


@pytest.mark.parametrize("length", [107, 108])
def test_a_path_is_at_most_as_long_as_the_kernel_takes(length: int, folder: Path) -> None:
    """One byte more is an error that says so."""
    path = folder / ("n" * (length - len(str(folder)) - 1))
    if length == 107:
        UnixSocket(path, Settings()).close()
        assert not path.exists()
    else:
        with pytest.raises(SinkError, match="at most 107 bytes, got 108"):
            UnixSocket(path, Settings())


def test_what_waits_when_the_agent_ends_is_written_to_a_client_that_reads(folder: Path) -> None:
    """The end of a batch that the kernel has not taken yet is not cut off by an orderly end."""
    sink = UnixSocket(folder / "s", Settings())
    reader = f"import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect({str(folder / 's')!r})\nprint(flush=True)"
    reader += "\nprint(sum(line.endswith(b'\\n') for line in s.makefile('rb')))"
    with subprocess.Popen([sys.executable, "-c", reader], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert sink.send(some(*range(100), length=10_000)) == 100
        sink.close()
        assert process.stdout.read() == b"100\n"


def test_without_a_path_it_lies_in_the_state_directory(folder: Path) -> None:
    """A table of its kind alone is enough; without a state directory the key is named."""
    sink, _ = load({"kind": "unix"}, SinkSurroundings(name="app", state=folder))
    assert (folder / "answers" / "app.sock").is_socket()
    sink.close()
    with pytest.raises(SinkError, match=r"set path in \[sinks.app\]"):
        load({"kind": "unix"}, SinkSurroundings(name="app"))


def test_an_account_counts_what_clients_were_given(opened: Opened, connected: Connected) -> None:
    """The sum of sent and dropped is what was offered, with clients that come and go."""
    account = open_accounts(None, ["app"])["app"]
    delivery = Delivery("app", opened(), SinkSettings(), account, lambda _code, _text: None)
    delivery.offer(AnswerRecord(id="0"), 0.0)
    until(lambda: not account.open)
    client = connected()
    for number in range(1, 500):
        delivery.offer(AnswerRecord(id=str(number)), 0.0)
    assert ids(client, 499) == [str(number) for number in range(1, 500)]
    until(lambda: not account.open)
    assert (account.counts["sent"], account.counts["dropped"]) == (499, 1)
