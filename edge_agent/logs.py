"""The log of the device's processes: standard error, which a journal reads, and a small ring of files on the device.

The ring is for devices without a journal, for ``edge-agent logs`` and for the server's command ``logs``: two files of
``FILE_BYTES`` at most, the older one is overwritten; at most ``LINES_A_MINUTE`` records a minute and process, so that a
fault that repeats does not wear out the flash. Passwords are masked before they are written.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path

FILE, OLDER = "agent.log", "agent.log.1"
FILE_BYTES = 256 * 1024
LINES_A_MINUTE = 120
_MINUTE_S = 60.0
_LONGEST = 4_000  # characters of one record, a traceback included
_LEAST_SECRET = 6  # a shorter one would mask ordinary words
_IN_ADDRESS = re.compile(r"(?<=://)(?:[^/\s]+|[^/\s:@]+:(?!\d+/)\S+)(?=@)")
"""Name and password before the last ``@``: a password may have one, or a slash. A port and a path are no password."""
_IN_QUERY = re.compile(r"([?&][^=&\s]*(?:pas|pwd|token|secret|key)[^=&\s]*=)[^&\s]+", re.IGNORECASE)
_TEXT = "level=%(levelname)s logger=%(name)s %(message)s"
_START = re.compile(r"time=(\S+) level=([A-Z]+) ")
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
_UTC = "%Y-%m-%dT%H:%M:%S"


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write records of ``level`` and above to standard error; for a journal with their priority, without their time.

    Source: sd-daemon(3), the prefixes ``<0>`` to ``<7>``; systemd.exec(5), ``$JOURNAL_STREAM``.
    """
    journal = bool(os.environ.get("JOURNAL_STREAM"))
    logging.basicConfig(level=level, format=_TEXT if journal else f"time=%(asctime)s {_TEXT}", stream=sys.stderr)
    if journal:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_WithPriority(_TEXT))


class _WithPriority(logging.Formatter):
    """Begins each line with the priority that the journal reads."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of ``record``."""
        priority = next(found for least, found in _PRIORITIES if record.levelno >= least)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def masked(text: str, secrets: Collection[str] = ()) -> str:
    """Return ``text`` with each of ``secrets``, and each password in an address, replaced by ``***``."""
    for secret in secrets:
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "***")
    return _IN_QUERY.sub(r"\1***", _IN_ADDRESS.sub("***", text))


class LogRing(logging.Handler):
    """Appends to the ring below a state directory; several processes may. A disk that can't be written is no fault."""

    def __init__(self, state: Path, secrets: Collection[str] = ()) -> None:
        """Write below ``state``, without ``secrets``."""
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(_TEXT))
        self._path, self._older, self._secrets = state / FILE, state / OLDER, tuple(secrets)
        self._minute_s, self._lines, self._left_out = time.monotonic(), 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Append ``record``, on one line or indented, unless too many came in this minute."""
        now_s = time.monotonic()
        if now_s - self._minute_s >= _MINUTE_S:
            self._minute_s, self._lines = now_s, 0
        if self._lines >= LINES_A_MINUTE:
            self._left_out += 1
            return
        self._lines += 1
        stamp = f"{time.strftime(_UTC, time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        text = masked(self.format(record), self._secrets)[:_LONGEST].replace("\n", "\n  ")
        if self._left_out:
            text = f"{text} left_out_before={self._left_out}"
            self._left_out = 0
        self._append(f"time={stamp} {text}\n".encode(errors="replace"))

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if self._path.exists() and self._path.stat().st_size + len(line) > FILE_BYTES:
                self._path.replace(self._older)
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError:  # full or read-only: standard error has it, and the agent reports the disk
            self._left_out += 1


def log_to_ring(state: Path, secrets: Collection[str] = ()) -> None:
    """Write records of INFO and above to the ring below ``state`` too."""
    logging.getLogger().addHandler(LogRing(state, secrets))


def read_ring(state: Path, most: int, *, since_ms: int = 0, level: int = logging.INFO) -> list[str]:
    """Return the newest ``most`` records below ``state`` since ``since_ms`` (UTC) of ``level`` and above, oldest first.

    Raises:
        OSError: If a file can't be read; one that is missing is empty.
    """
    since = f"{time.strftime(_UTC, time.gmtime(since_ms / 1000))}.{since_ms % 1000:03d}Z"
    levels = logging.getLevelNamesMapping()
    found: deque[str] = deque(maxlen=most)
    for stamp, name, text in _records(state):
        if stamp >= since and levels.get(name, logging.CRITICAL) >= level:
            found.append(text)
    return list(found)


def newest_lines(
    state: Path, most: int, most_bytes: int, *, since_ms: int = 0, level: int = logging.INFO
) -> tuple[list[str], int]:
    """Return as ``read_ring``, but at most ``most_bytes`` of UTF-8, and how many of the asked ones are left out.

    Raises:
        OSError: If a file can't be read.
    """
    found = read_ring(state, most, since_ms=since_ms, level=level)
    kept: list[str] = []
    for text in reversed(found):
        most_bytes -= len(text.encode()) + 1
        if most_bytes < 0:
            break
        kept.append(text)
    return kept[::-1], len(found) - len(kept)


def _records(state: Path) -> Iterator[tuple[str, str, str]]:
    """Yield time, level and text of each record, with its further lines."""
    head, lines = ("", ""), [""]
    for path in (state / OLDER, state / FILE):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        for line in text.splitlines():
            if start := _START.match(line):
                if head[0]:
                    yield *head, "\n".join(lines)
                head, lines = (start[1], start[2]), [line]
            else:
                lines.append(line)
    if head[0]:
        yield *head, "\n".join(lines)
