"""Windows of sensor lines: CSV or JSON lines from a file that grows, a FIFO or a serial device.

A line is a step in time: ``0.1,0.2``, ``[0.1, 0.2]`` or ``{"x": 0.1, "y": 0.2}``. ``steps`` lines are one input, made
into the bytes that the front end ``window`` reads; the next begins ``hop`` lines later. A line that isn't numbers is
reported once, and the window begins anew after it: its steps would not be evenly spaced. Of a file only lines written
from now on are read, unless ``whole``.

A line of names is no input. It is the first one, of a file its first line even where that is not read, and later one
that repeats it or has all ``columns``: a device that restarts sends it again. Other text, such as a message of the
device, is a line that isn't numbers.

Names are compared with those of the columns that the release was trained on: the same in another order are put in its
order, and lines with other names are refused, unless ``columns`` says which of them are the channels.
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
from edge_agent.streams.column_names import REORDERED, listed, misfit
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
    columns: tuple[str, ...] = ()  # of lines with names, in the order of the channels; else those of the release
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


class _NamesError(LookupError):
    """A line has names that the release doesn't read."""


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
        self._told: set[bool] = set()  # whether names were wrong, or numbers
        self._wanted: tuple[str, ...] = ()  # of the release that read the line before
        self._reordered = False  # told of it

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
        own = self._settings.columns
        columns = own or self._surroundings.columns()
        known = (bool(columns) and set(columns) <= set(cells)) or (not own and cells == self._names)
        return known or (not self._begun and (len(cells) > 1 or not own))

    def _order(self, names: list[str], *, sure: bool) -> tuple[str, ...]:
        """Return the names of the channels among ``names`` of a line, in the release's order; () for all as they are.

        ``sure``: they are names, not perhaps a message of the device.

        Raises:
            _NamesError: If the release reads columns of other names.
        """
        wanted = self._surroundings.columns()
        own = self._settings.columns
        if own and set(own) != set(wanted):
            return own
        remark = not sure and len(names) != len(wanted) and not set(names) & set(wanted)
        if not names or remark or len(wanted) <= 1:
            return own
        given = own or tuple(names)
        if wrong := misfit(wanted, given, tuple(names)):
            message = f"{self._unlike(wanted, given)} ({wrong}): such lines are left out"
            advice = "name them as the training data does, or set columns in [source] to those of the channels"
            raise _NamesError(f"{message}; {advice}")
        if wanted != self._wanted:
            self._rows.clear()  # of another release, perhaps in another order
            self._reordered = False
        if given != wanted and not self._reordered:
            self._surroundings.tell(REORDERED, f"{self._unlike(wanted, given)}: read by their names")
            self._reordered = True
        self._wanted = wanted
        return wanted

    def _unlike(self, wanted: tuple[str, ...], given: tuple[str, ...]) -> str:
        return f"Expected the columns {listed(wanted)} in {self._settings.path}, got {listed(given)}"

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
                    value = [value[name] for name in self._order(list(value), sure=True) or self._keys]
                return _numbers(value)
            cells = _cells(text)
            if not any(_is_number(cell) for cell in cells):
                if not self._is_names(cells):
                    raise ValueError("no numbers")  # noqa: TRY301 - handled as the others
                self._rows.clear()
                self._names = cells
                return []
            if self._names and (order := self._order(self._names, sure=False)):
                if len(cells) != len(self._names) and not self._settings.columns:
                    raise ValueError(f"{len(cells)} cells for {len(self._names)} names")  # noqa: TRY301 - as above
                cells = [cells[self._names.index(name)] for name in order]
            return [float(cell) for cell in cells]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            self._rows.clear()
            self._tell(error, line)
            return []

    def _tell(self, error: Exception, line: bytes) -> None:
        """Report the first line of other names, and the first that isn't numbers."""
        named = isinstance(error, _NamesError)
        if named in self._told:
            return
        self._told.add(named)
        got = f"got {line[:80]!r} ({type(error).__name__}: {str(error)[:80]})"
        text = f"Expected numbers as CSV or JSON in a line of {self._settings.path}, {got}"
        text = str(error) if named else f"{text}: such lines are left out, and windows begin after them"
        self._surroundings.tell(LINE_INVALID, text)

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
