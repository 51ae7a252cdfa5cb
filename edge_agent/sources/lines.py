"""Windows of sensor lines: CSV or JSON lines from a file that grows, a FIFO or a serial device.

A line is a step in time: ``0.1,0.2``, ``[0.1, 0.2]`` or ``{"x": 0.1, "y": 0.2}``. ``steps`` lines are one input, made
into the bytes that the front end ``window`` reads; the next begins ``hop`` lines later. A line that isn't numbers is
reported once, and the window begins anew after it: its steps would not be evenly spaced. Of a file only lines written
from now on are read, unless ``whole``.

A line of names is no input. It is the first one, of a file its first line even where that is not read, and later one
that repeats it or has all ``columns``: a device that restarts sends it again. Other text, such as a message of the
device, is a line that isn't numbers.
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
        self._names: list[str] = []  # of CSV
        self._keys: list[str] = []  # of the first JSON object: those after it may have another order
        self._begun = False  # a line was read, so that the next one of text need not be names
        self._rows: list[list[float]] = []
        self._left_out = 0  # lines until the next window
        self._told = False

    def read(self, stop: threading.Event) -> Iterator[bytes]:
        """Yield the windows of one connection."""
        self._rows.clear()
        self._begun = False
        path = self._settings.path
        if path.is_file():
            if self._start:
                self._names = _names_in(path)
            chunks = followed(path, stop, start=self._start)
        else:
            chunks = arriving(path, stop, baud=self._settings.baud)
        self._start = 0
        for line in _lines(chunks, self._cut):
            row = self._row(line)
            self._begun |= bool(line.strip())
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
        self._names, self._keys, self._begun, self._left_out = [], [], False, 0

    def _is_names(self, cells: list[str]) -> bool:
        """Return whether a line without a number names the columns."""
        columns = self._settings.columns
        known = set(columns) <= set(cells) if columns else cells == self._names
        return known or (not self._begun and (len(cells) > 1 or not columns))

    def _row(self, line: bytes) -> list[float]:
        """Return the numbers of a line; [] for an empty one, names, or an invalid one, which ends the window."""
        try:
            text = line.decode("utf-8-sig").strip()
            if not text:
                return []
            if text[0] in "[{":
                value = json.loads(text)
                if isinstance(value, dict):
                    self._keys = self._keys or list(value)
                    value = [value[name] for name in self._settings.columns or self._keys]
                return _numbers(value)
            cells = _cells(text)
            if not any(_is_number(cell) for cell in cells):
                if not self._is_names(cells):
                    raise ValueError("no numbers")  # noqa: TRY301 - handled as the others
                self._rows.clear()
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


def _names_in(path: Path) -> list[str]:
    """Return the names in the first line of the file at ``path``; [] if it has none."""
    with path.open("rb") as file:
        cells = _cells(file.readline(MAX_LINE_BYTES).decode("utf-8-sig", "replace").strip())
    return [] if cells[0][:1] in {"[", "{", ""} or any(_is_number(cell) for cell in cells) else cells


def _cells(text: str) -> list[str]:
    return [cell.strip() for cell in text.split(",")]


def _numbers(value: object) -> list[float]:
    """Return the numbers of a line's JSON value.

    Raises:
        TypeError: If they are none.
    """
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
