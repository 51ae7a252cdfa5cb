"""Windows of sensor lines: CSV or JSON lines from a file that grows, a FIFO or a serial device.

A line is a step in time: ``0.1,0.2``, ``[0.1, 0.2]`` or ``{"x": 0.1, "y": 0.2}``. ``steps`` lines are one input, made
into the bytes that the front end ``window`` reads; the next begins ``hop`` lines later. A line that isn't numbers is
reported once, and the window begins anew after it: its steps would not be evenly spaced. A first line of names is left
out. Of a file only lines written from now on are read, unless ``whole``.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.sources import Surroundings
from edge_agent.sources._descriptors import CUT, arriving, check_baud, followed
from edge_agent.sources._stream import Pace, StreamSource
from wire.errors import SettingsError
from wire.settings import Bound

LINE_INVALID = "source_line_invalid"
MAX_LINE_BYTES = 64 * 1024
_MAX_STEPS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "lines"``: CSV or JSON lines of a growing file, a FIFO or a serial device."""

    path: Path = Path("/dev/ttyUSB0")  # the file, FIFO or device
    steps: Annotated[int, Bound(0, _MAX_STEPS)] = 0  # lines of one input; 0: those of the release's front end
    hop: Annotated[int, Bound(0, _MAX_STEPS)] = 0  # lines from one input to the next; 0: as many as steps
    columns: tuple[str, ...] = ()  # of lines with names, in the order of the channels; else all, in their order
    whole: bool = False  # also the lines that the file has already
    baud: Annotated[int, Bound(0, 4_000_000)] = 0  # rate of a serial device; 0: as it is set
    backlog: Annotated[int, Bound(1, 10_000)] = 16  # newest inputs that wait for the model
    retry_s: Annotated[float, Bound(0.01, 3600)] = 1.0  # pause before it is opened again; doubled up to 30 s

    def __post_init__(self) -> None:
        """Reject a rate that no serial line has."""
        if not check_baud(self.baud):
            message = f"Expected baud as a rate of serial lines, such as 9600 or 115200, got {self.baud}"
            raise SettingsError(message)


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> StreamSource:
    """Return the source; a file or device that is away is waited for.

    Raises:
        SourceError: If neither settings nor release say how many lines are one input.
    """
    if not (settings.steps or surroundings.options().get("steps")):
        message = "Expected steps in [source], or a release whose front end is window, got neither: set steps"
        raise SourceError(message)
    windows = _Windows(settings, surroundings)
    pace = Pace(backlog=settings.backlog, retry_s=settings.retry_s)
    return StreamSource(str(settings.path), windows.read, pace, clock, surroundings)


class _Windows:
    """Lines to windows, over all reconnections. For one thread."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        self._settings, self._surroundings = settings, surroundings
        self._start = settings.path.stat().st_size if not settings.whole and settings.path.is_file() else 0
        self._names: list[str] = []
        self._rows: list[list[float]] = []
        self._left_out = 0  # lines until the next window
        self._told = False

    def read(self, stop: threading.Event) -> Iterator[bytes]:
        """Yield the windows of one connection."""
        self._rows.clear()
        path = self._settings.path
        if path.is_file():
            chunks = followed(path, stop, start=self._start)
        else:
            chunks = arriving(path, stop, baud=self._settings.baud)
        self._start = 0
        for line in _lines(chunks, self._cut):
            row = self._row(line)
            if not row:
                continue
            if self._left_out:
                self._left_out -= 1
                continue
            self._rows.append(row)
            steps = self._settings.steps or int(self._surroundings.options().get("steps", 0))
            if steps and len(self._rows) >= steps:
                yield self._encoded(self._rows[-steps:])
                hop = self._settings.hop or steps
                self._left_out = max(0, hop - len(self._rows))
                del self._rows[:hop]

    def _cut(self) -> None:
        self._rows.clear()
        self._names, self._left_out = [], 0

    def _row(self, line: bytes) -> list[float]:
        """Return the numbers of a line; [] for an empty one, names, or an invalid one, which ends the window."""
        try:
            text = line.decode("utf-8-sig").strip()
            if not text:
                return []
            if text[0] in "[{":
                return _numbers(json.loads(text), self._settings.columns)
            cells = [cell.strip() for cell in text.split(",")]
            if not any(_is_number(cell) for cell in cells):
                self._names = cells
                return []
            if self._settings.columns and self._names:
                cells = [cells[self._names.index(name)] for name in self._settings.columns]
            return [float(cell) for cell in cells]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            self._rows.clear()
            if not self._told:
                self._told = True
                got = f"got {line[:80]!r} ({type(error).__name__}: {str(error)[:80]})"
                text = f"Expected numbers as CSV or JSON in a line of {self._settings.path}, {got}"
                self._surroundings.tell(LINE_INVALID, f"{text}: such lines are left out, and windows begin after them")
            return []

    def _encoded(self, rows: list[list[float]]) -> bytes:
        if self._surroundings.options().get("binary"):
            return b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
        return json.dumps(rows).encode()


def _lines(chunks: Iterator[bytes], cut: Callable[[], None]) -> Iterator[bytes]:
    """Yield complete lines; one above ``MAX_LINE_BYTES`` comes in parts, which are no numbers."""
    held = b""
    for chunk in chunks:
        if chunk == CUT:
            held = b""
            cut()
        *lines, held = (held + chunk).split(b"\n")
        yield from lines
        if len(held) > MAX_LINE_BYTES:
            yield b"?" + held
            held = b""


def _numbers(value: object, columns: tuple[str, ...]) -> list[float]:
    """Return the numbers of a line's JSON value.

    Raises:
        TypeError: If they are none.
        KeyError: If a column is missing.
    """
    if isinstance(value, dict):
        value = [value[name] for name in columns] if columns else list(value.values())
    cells = value if isinstance(value, list) else []
    if not cells or not all(type(cell) in {int, float} for cell in cells):
        raise TypeError("no numbers")
    return [float(cell) for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
