"""A program of the integrator's: reads answers as JSON lines, or is run once for each answer. Without a shell.

Decides when an answer counts as sent. A program that stays: when it has read the line, or with ``confirm`` when it has
written a line about it; if it ends, is killed or reads nothing for ``limit_s``, the others are given to the next one,
which is started after a pause that grows. A program for each answer: when it ends with code 0; otherwise the answer
counts as dropped. Output goes to the log, and no more of it than a person would read.

Source: pipe(7); ioctl_pipe FIONREAD: bytes in a pipe that were not read yet, also after its reader has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import IO, Annotated

from edge_agent.errors import SinkError
from edge_agent.sinks import SinkSurroundings
from wire.answers import AnswerRecord, encode_answer
from wire.errors import SettingsError
from wire.settings import Bound

_LOG = logging.getLogger(__name__)
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.5, 30.0
_STEADY_S = 10.0  # a program that ran for so long starts again without a longer pause
_CLOSE_S = 1.0
_LOOK_MIN_S, _LOOK_MAX_S = 0.0005, 0.02  # no event reports that a pipe was read
_LINE_CHARACTERS, _LINES_A_MINUTE = 300, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[sinks.NAME]`` of ``kind = "exec"``: a program reads answers as JSON lines on its standard input."""

    command: tuple[str, ...] = ()  # the program, an absolute path, and its arguments; no shell reads them
    each: bool = False  # it is run once for each answer; otherwise one stays and reads them all
    confirm: bool = False  # an answer is sent when the program has written a line, not when it has read it
    limit_s: Annotated[float, Bound(0.1, 86_400)] = 30.0  # of a run, or without progress: then killed

    def __post_init__(self) -> None:
        """Check the fields together.

        Raises:
            SettingsError: If there is no absolute path of a program, or ``confirm`` beside ``each``.
        """
        if not self.command or not self.command[0].startswith("/") or any("\0" in part for part in self.command):
            got = repr(list(self.command))
            message = (
                f'Expected command as an absolute path and arguments, got {got}: command = ["/usr/local/bin/hook"]'
            )
            raise SettingsError(message)
        if self.each and self.confirm:
            raise SettingsError("Expected each or confirm, got both: with each, the exit code is the confirmation")


class _Output:
    """Reads what a program writes: to the log, bounded, or as confirmations, counted."""

    def __init__(self, name: str, stream: IO[bytes], *, confirms: bool, wake: threading.Condition) -> None:
        """Start the thread; it ends with the program's output."""
        self.lines = 0
        self._name, self._stream, self._confirms, self._wake = name, stream, confirms, wake
        self._minute, self._logged, self._left_out = 0.0, 0, 0
        self._thread = threading.Thread(target=self._read, name=f"output-{name}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait a moment for the rest: a program started by the program may hold the stream open for long."""
        self._thread.join(_CLOSE_S)

    def _read(self) -> None:
        with self._stream, contextlib.suppress(OSError, ValueError):
            while line := self._stream.readline(_LINE_CHARACTERS):
                if not self._confirms:
                    self._log(line)
                elif line.endswith(b"\n"):
                    with self._wake:
                        self.lines += 1
                        self._wake.notify()

    def _log(self, line: bytes) -> None:
        now_s = time.monotonic()
        if now_s - self._minute >= 60 or not self._minute:  # noqa: PLR2004 - a minute
            if self._left_out:
                _LOG.info("hook=%s wrote %d more lines", self._name, self._left_out)
            self._minute, self._logged, self._left_out = now_s, 0, 0
        if self._logged >= _LINES_A_MINUTE:
            self._left_out += 1
            return
        self._logged += 1
        text = line.decode("utf-8", "backslashreplace").rstrip("\n")
        _LOG.info("hook=%s %s", self._name, "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


class _Running:
    """One process of the program. Its limits are those of the agent, except that on memory."""

    def __init__(self, settings: Settings, name: str) -> None:
        """Start it.

        Raises:
            SinkError: If it can't be started.
        """
        self.started_s = time.monotonic()
        self.wake = threading.Condition()
        apart = subprocess.PIPE if settings.confirm else subprocess.STDOUT
        try:
            process = subprocess.Popen(
                settings.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=apart, start_new_session=True
            )
        except OSError as error:
            message = f"Expected a program that can be started at {settings.command[0]}, got: {error.strerror}"
            raise SinkError(f"{message}: correct command, or its permissions") from error
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        with contextlib.suppress(OSError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (hard, hard))
        streams = [stream for stream in (process.stdin, process.stdout, process.stderr) if stream is not None]
        self._process, self.stdin = process, streams[0]
        os.set_blocking(self.stdin.fileno(), False)
        self._outputs = [
            _Output(name, stream, confirms=settings.confirm and stream is process.stdout, wake=self.wake)
            for stream in streams[1:]
        ]

    @property
    def confirmed(self) -> int:
        """How many lines it has written."""
        return self._outputs[0].lines

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def unread_bytes(self) -> int:
        """How much of what was written to it was not read yet."""
        return int.from_bytes(fcntl.ioctl(self.stdin.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)

    def write(self, data: memoryview, wait_s: float) -> int | None:
        """Write as much as there is room for within ``wait_s``; return how much, None if it reads no more."""
        poll = select.poll()
        poll.register(self.stdin, select.POLLOUT)
        try:
            return os.write(self.stdin.fileno(), data) if poll.poll(wait_s * 1000) else 0
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            return None

    def end(self, wait_s: float) -> int:
        """Close its input, wait for its end, kill it and what it started after ``wait_s``; return the exit code."""
        self.stdin.close()
        try:
            code = self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        for output in self._outputs:
            output.join()
        return code


class Hook:
    """The sink of one command. For one thread."""

    def __init__(self, settings: Settings, around: SinkSurroundings) -> None:
        """Prepare; the program is started for the first answer."""
        self._settings, self._name, self._tell = settings, around.name, around.tell
        self._failing = False  # with ``each``
        self._running: _Running | None = None
        self._pause_s, self._not_before_s = 0.0, float("-inf")

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Give the answers to the program.

        Raises:
            SinkError: If it can't be started, has ended, or makes no progress.
        """
        lines = [encode_answer(record) + b"\n" for record in records]
        if self._settings.each:
            return sum(self._run_once(line) for line in lines)
        running = self._present()
        ends = list(accumulate(len(line) for line in lines))
        data, written, delivered, before = memoryview(b"".join(lines)), 0, 0, running.confirmed
        moved_s, moved, look_s = time.monotonic(), -1, _LOOK_MIN_S
        broken = False
        while True:
            code = running.code  # read first: what an ended one has read can't change afterwards
            if written < len(data) and not broken:
                done = running.write(data[written:], look_s)
                broken, written = done is None, written + (done or 0)
            read = written - running.unread_bytes
            confirmed = running.confirmed - before
            delivered = min(confirmed, len(lines)) if self._settings.confirm else bisect_right(ends, read)
            if delivered == len(lines):
                return delivered
            if broken or code is not None:
                why = "its end"
                break
            now_s = time.monotonic()
            if read + confirmed > moved:
                moved_s, moved, look_s = now_s, read + confirmed, _LOOK_MIN_S
            elif now_s - moved_s > self._settings.limit_s:
                why = f"no progress in {self._settings.limit_s:g} s"
                break
            if written == len(data):
                with running.wake:
                    running.wake.wait(look_s)
            look_s = min(_LOOK_MAX_S, look_s * 2)
        code = self._note_end(running)
        if self._settings.confirm:  # its last lines may have come meanwhile
            delivered = min(running.confirmed - before, len(lines))
        message = f"Expected {self._settings.command[0]} to read answers, got {why} (code {code})"
        raise SinkError(f"{message}: it is started again", delivered=delivered)

    def _present(self) -> _Running:
        """Return the running program, started if need be.

        Raises:
            SinkError: If it can't be started, or has ended a moment ago.
        """
        if self._running is not None and self._running.code is not None:
            self._note_end(self._running)
        if self._running is None:
            left_s = self._not_before_s - time.monotonic()
            if left_s > 0:
                message = f"Expected {self._settings.command[0]} to run, got its end: it starts again in {left_s:.1f} s"
                raise SinkError(message)
            self._running = _Running(self._settings, self._name)
        return self._running

    def _note_end(self, running: _Running) -> int:
        """Collect an ended or useless program; decide when the next one may start."""
        code = running.end(0.0)
        now_s = time.monotonic()
        steady = now_s - running.started_s >= _STEADY_S
        self._pause_s = _PAUSE_MIN_S if steady else min(_PAUSE_MAX_S, self._pause_s * 2 or _PAUSE_MIN_S)
        self._not_before_s, self._running = now_s + self._pause_s, None
        _LOG.warning("hook=%s ended code=%d next_start_s=%.1f", self._name, code, self._pause_s)
        return code

    def _run_once(self, line: bytes) -> bool:
        """Run the program for one answer; return whether it ended well within the limit.

        Raises:
            SinkError: If it can't be started.
        """
        running = _Running(self._settings, self._name)
        data, end_s = memoryview(line), running.started_s + self._settings.limit_s
        while data and (left_s := end_s - time.monotonic()) > 0:
            done = running.write(data, left_s)
            if done is None:  # it does not want to read it all
                break
            data = data[done:]
        code = running.end(max(0.0, end_s - time.monotonic()))
        if code and not self._failing:  # once: thirty a second would fill log and spool
            text = f"Expected exit code 0 of {self._settings.command[0]} for an answer, got {code}"
            self._tell(SinkError.code, f"{self._name}: {text}: answers for which it fails are dropped; see its log")
        self._failing = code != 0
        return code == 0

    def close(self) -> None:
        """Close the program's input; it has a second to end."""
        if self._running is not None:
            self._running.end(_CLOSE_S)
            self._running = None


def open_sink(settings: Settings, around: SinkSurroundings) -> Hook:
    """Return the sink of the command of ``settings``; the program is started for the first answer."""
    return Hook(settings, around)
