"""A file of JSON lines, one answer a line, rotated by bytes.

Lines are whole: one that a full disk or a power cut left incomplete is cut off before the next is written. When the
file would exceed ``max_bytes`` it becomes ``NAME.1``, the former ``.1`` becomes ``.2``, and the last is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edge_agent.device.disk import place_advice
from edge_agent.errors import SinkError
from edge_agent.sinks import FOLDER, SinkSurroundings
from wire.answers import AnswerRecord, encode_answer
from wire.settings import Bound

_MODE = 0o640
_TAIL_BYTES = 64 * 1024
_HEAD = b'{"'
"""The first bytes of every record. The last line of another file must not be cut off."""
"""The only folder in the state directory where answers may be written: the agent's own files are beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[sinks.NAME]`` of ``kind = "jsonl"``: answers as JSON lines in a file, rotated by bytes."""

    path: Path | None = None  # the file; without one STATE/answers/NAME.jsonl
    max_bytes: Annotated[int, Bound(4096, 2**53)] = 8 * 1024 * 1024  # of one file
    files: Annotated[int, Bound(1, 1000)] = 4  # kept, the present one included
    sync: bool = False  # every batch is flushed to the disk: it survives a power cut, and wears out flash


class JsonLines:
    """Appends to one file. For one thread."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Open the file and cut off an incomplete last line.

        Raises:
            SinkError: If it can't be opened, or is no file of answers.
        """
        self._path, self._settings = path, settings
        self._descriptor = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, _MODE)
            self._size = os.fstat(self._descriptor).st_size
            if not self._size:
                os.fchmod(self._descriptor, _MODE)  # whatever the umask: who may enter the folder is decided there
            head = os.pread(self._descriptor, len(_HEAD), 0)
            if not _HEAD.startswith(head):
                os.close(self._descriptor)
                message = f"Expected a file of answers or none at {self._path}, got another one, which begins with"
                raise SinkError(f"{message} {head!r}: give path a file of its own")
            tail = os.pread(self._descriptor, _TAIL_BYTES, max(0, self._size - _TAIL_BYTES))
            if tail and not tail.endswith(b"\n"):
                self._cut(self._size - len(tail) + tail.rfind(b"\n") + 1)
        except OSError as error:
            message = f"Expected a file that can be written at {self._path}, got: {error.strerror}"
            raise SinkError(f"{message}: {place_advice(error)}") from error

    def _cut(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)
        self._size = size_bytes

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Append the answers.

        Raises:
            SinkError: If they can't be written; none of them stays in the file then.
        """
        start, written = self._size, b""
        try:
            for record in records:
                line = encode_answer(record) + b"\n"
                if self._size + len(written) + len(line) > self._settings.max_bytes and self._size + len(written):
                    self._write(written)
                    self._rotate()
                    start, written = 0, b""
                written += line
            self._write(written)
            if self._settings.sync:
                os.fdatasync(self._descriptor)
        except OSError as error:
            self._cut(start)
            message = f"Expected to write to {self._path}, got: {error.strerror}: free space on its disk"
            raise SinkError(message) from error
        return len(records)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(data)

    def _rotate(self) -> None:
        if self._settings.sync:
            os.fdatasync(self._descriptor)
        os.close(self._descriptor)
        for number in range(self._settings.files - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            if newer.exists():
                newer.replace(older)
        if self._settings.files == 1:
            self._path.unlink(missing_ok=True)
        self._open()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def open_sink(settings: Settings, around: SinkSurroundings) -> JsonLines:
    """Return the sink for the file of ``settings``.

    Raises:
        SinkError: If there is no path, or the file can't be opened, or belongs to the agent or somebody else.
    """
    path = settings.path
    if path is None and around.state is not None:
        path = around.state / FOLDER / f"{around.name}.jsonl"
    if path is None:
        raise SinkError(f"Expected a path of the file for answers, got none: set path in [sinks.{around.name}]")
    if around.state is not None:
        state, real = around.state.resolve(), path.resolve()
        if real.is_relative_to(state) and not real.is_relative_to(state / FOLDER):
            message = f"Expected a file outside of the agent's own ones ({around.state}), got {path}"
            raise SinkError(f"{message}: write to {around.state / FOLDER}, or leave path out")
    return JsonLines(path, settings)
