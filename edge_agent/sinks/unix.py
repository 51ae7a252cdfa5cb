"""A listening unix socket: each client reads answers as JSON lines, from the moment it connects.

Decides who is disconnected: a client that reads too slowly, so that nobody waits for it, and one too many. An answer
counts as sent when at least one client is given it, and as dropped without a client. What clients write is not read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edge_agent.device.disk import place_advice
from edge_agent.errors import SinkError
from edge_agent.sinks import FOLDER, SinkSurroundings
from wire.answers import AnswerRecord, encode_answer
from wire.settings import Bound

_LOG = logging.getLogger(__name__)
_MODE = 0o660
_LONGEST_PATH_BYTES = 107  # unix(7): sun_path has 108 bytes, the last is zero
_PIECE_BYTES = 64 * 1024  # of one write
_CLOSE_S = 1.0
_RETRY_MS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[sinks.NAME]`` of ``kind = "unix"``: clients of a unix socket read answers as JSON lines."""

    path: Path | None = None  # the socket; without one STATE/answers/NAME.sock. Owner and group may connect
    clients: Annotated[int, Bound(1, 256)] = 16  # at once; further ones are disconnected
    client_bytes: Annotated[int, Bound(4096, 2**30)] = 1024 * 1024  # or one batch, wait for a client before it is cut


@dataclass(eq=False, slots=True)
class _Client:
    """One connection; ``waiting``: bytes that the kernel has not taken yet."""

    connection: socket.socket
    waiting: bytearray = field(default_factory=bytearray)


class UnixSocket:
    """Serves all clients from a thread of its own; ``send`` is called by one other thread and never waits."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Listen at ``path`` and start the thread.

        Raises:
            SinkError: If the path is too long, belongs to something else, or can't be made.
        """
        self._path, self._settings = path, settings
        self._clients: list[_Client] = []
        self._lock = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._end_s = float("inf")  # monotonic; the thread ends by then, and earlier if nothing waits
        self._no_room = False
        try:
            self._listener = listen(path, settings.clients)
        except BaseException:
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            raise
        self._inode = path.stat().st_ino
        self._thread = threading.Thread(target=self._serve, name=f"clients-{path.stem}", daemon=True)
        self._thread.start()

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Give the answers to every client; return 0 if there is none."""
        lines = b"".join(encode_answer(record) + b"\n" for record in records)
        with self._lock:
            unseen = self._accept()
            for client in list(self._clients):
                if client.waiting and len(client.waiting) + len(lines) > self._settings.client_bytes:
                    self._drop(client, "it reads too slowly")
                    continue
                client.waiting += lines
                self._flush(client)
            served = bool(self._clients)
            unseen = unseen or any(client.waiting for client in self._clients)
        if unseen:  # the thread has to wait for other clients, or for one that takes no more now
            self._wake()
        return len(records) if served else 0

    def close(self) -> None:
        """Give clients a second for what waits, disconnect them, and remove the socket if it is still ours."""
        self._end_s = time.monotonic() + _CLOSE_S
        self._wake()
        self._thread.join()
        for client in self._clients:
            client.connection.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self._wake_writer, b"x")

    def _serve(self) -> None:
        """Accept clients, write to those that can take more, and notice those that are gone."""
        while True:
            poll = select.poll()
            poll.register(self._wake_reader, select.POLLIN)
            if not self._no_room:
                poll.register(self._listener, select.POLLIN)
            with self._lock:
                known = {client.connection.fileno(): client for client in self._clients}
                waiting = any(client.waiting for client in self._clients)
                for number, client in known.items():
                    poll.register(number, select.POLLOUT if client.waiting else 0)  # a hang-up is always reported
            left_s = self._end_s - time.monotonic()
            if left_s <= 0 or (left_s <= _CLOSE_S and not waiting):
                return
            found = dict(poll.poll(_RETRY_MS if self._no_room or left_s <= _CLOSE_S else None))
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, 4096)
            with self._lock:
                self._accept()
                for number, client in known.items():
                    if client not in self._clients:
                        continue
                    if found.get(number, 0) & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                        self._drop(client, "")
                    elif found.get(number, 0) & select.POLLOUT:
                        self._flush(client)

    def _accept(self) -> bool:
        """Accept who waits at the socket, and return whether somebody did; the lock is held."""
        accepted = False
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                self._no_room = False
                return accepted
            except OSError:  # the process has no descriptor left: it is tried again later, not at once
                self._no_room = True
                return accepted
            accepted = True
            connection.setblocking(False)
            self._clients.append(client := _Client(connection))
            if len(self._clients) > self._settings.clients:
                self._drop(client, f"there are {self._settings.clients} already")

    def _flush(self, client: _Client) -> None:
        """Write what waits as far as the kernel takes it; the lock is held."""
        try:
            while client.waiting:
                del client.waiting[: client.connection.send(client.waiting[:_PIECE_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._drop(client, "")

    def _drop(self, client: _Client, why: str) -> None:
        """Disconnect a client, with a reason unless it went by itself; the lock is held."""
        if why:
            _LOG.warning("Disconnected a client of answers: %s. socket=%s", why, self._path)
        self._clients.remove(client)
        client.connection.close()


def listen(path: Path, backlog: int) -> socket.socket:
    """Return a listening socket at ``path``; a socket that nobody listens at any more is replaced.

    Raises:
        SinkError: If the path is too long, belongs to something else, or can't be made.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        message = f"Expected a path of a socket of at most {_LONGEST_PATH_BYTES} bytes, got {len(os.fsencode(path))}"
        raise SinkError(f"{message} ({path}): set path")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(path)
        os.fchmod(listener.fileno(), _MODE)  # until the mode is set below, the file has no more than this
        listener.bind(str(path))
        path.chmod(_MODE)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        message = f"Expected a socket that can be made at {path}, got: {error.strerror}"
        raise SinkError(f"{message}: {place_advice(error)}") from error
    except SinkError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket at ``path`` if nobody listens there.

    Raises:
        SinkError: If somebody does, or if it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SinkError(f"Expected nothing or a socket at {path}, got another file: move it, or correct path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full: somebody listens
            pass
    raise SinkError(f"Expected nobody to listen at {path}, got another program that does: set another path")


def open_sink(settings: Settings, around: SinkSurroundings) -> UnixSocket:
    """Return the sink that listens at the path of ``settings``.

    Raises:
        SinkError: If there is no path, or the socket can't be made.
    """
    path = settings.path
    if path is None and around.state is not None:
        path = around.state.absolute() / FOLDER / f"{around.name}.sock"
    if path is None:
        raise SinkError(f"Expected a path of the socket for answers, got none: set path in [sinks.{around.name}]")
    return UnixSocket(path, settings)
