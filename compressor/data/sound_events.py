"""Long recordings with the events in them: a zip or folder of WAV files, a CSV of events beside each.

::

    set/
    ├── kitchen/
    │   ├── monday.wav     (8- or 16-bit PCM, mono or stereo, of hours if need be)
    │   └── monday.csv     start_s,end_s,label
    └── hall/…

Or one list at the top, with the column ``path`` for the recording: a recording without events has a line there with its
path alone. Times are seconds from the start of the recording. A recording without events that has a list of its own has
the header alone in it: its hours count, too. The source is the recording, the slice its folder. The windows are cut as
a device cuts them: ``[data] options`` has ``stride_s``, ``inside_ratio`` and ``tolerance_s`` beside the options of the
front end.
"""

from __future__ import annotations

import io
import math
import struct
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from compressor.data._archive import Names, opened
from compressor.data._delimited import check_columns
from compressor.data._event_windows import (
    BACKGROUND,
    EventWindows,
    Recording,
    SoundEvent,
    ranged_windows,
    settings,
    tabled,
)
from compressor.data._event_windows import front_end as shared_front_end
from compressor.data._front_end import Ranged
from compressor.data._layout import is_hidden
from compressor.data._named_files import NamedFiles
from compressor.data._table import Table, check_label
from compressor.data._window_table import Columns, read
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe
from edge_agent.streams.recordings import Sound, mono
from edge_agent.streams.wav_header import plain_wav

READS = frozenset({"path", "front_end", "options", "columns"})
COLUMNS = ("start_s", "end_s", "label", "path")
_OF_EVENTS = ("start_s", "end_s", "label")
_SHOWN = 5
MAX_RECORDING_BYTES = 1024 * 1024 * 1024
"""Nine hours at 16 kHz; a recording is in memory while it is cut."""
_ALL = "all"
_ROUNDING_S = 0.05
_MOST_CHANNELS, _WIDE = 2, 2


class _Line(NamedTuple):
    """A line of a list of events, as texts, and where it stands."""

    start: str
    end: str
    label: str
    listed: str
    row: int

    def time(self, column: str, text: str) -> float:
        """Return ``text``, of ``column``, as seconds.

        Raises:
            DataError: If it is not a finite number.
        """
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            message = f"Expected a finite number in {self.listed}, column {column!r}, row {self.row}, got {text!r}"
            raise DataError(f"{message}: mend the value or leave the line out")
        return found


def front_end(data: DataRecipe) -> tuple[str, dict[str, float]]:
    """Return the front end's name and all its options, as in the manifest.

    Raises:
        DataError: If the front end is missing or unknown, or an option is unknown or out of range.
    """
    return shared_front_end(data, EventWindows)


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all windows of the recordings in ``data.path`` (a zip or a folder), by name and time.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no WAV.
        ColumnError: If a list of events lacks a column.
        DataError: If a recording is cut off, of another rate or without a list of its events, an event is not inside
            its recording or in no window, or an option is unknown or out of range.
    """
    ends, cut = front_end(data), settings(data, EventWindows)
    check_columns(data.columns, COLUMNS, data.dataset)
    path = (root or Path()) / data.path
    with opened(path) as store:
        return tabled(_recordings(store, path, data, int(ends[1]["sample_rate_hz"])), ends, cut)


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return decibels (``log_mel``) or coefficients (``mfcc``) before conversion to 8 bits, to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``.
        SensorError: If the front end can't read a window.
    """
    ends, path = front_end(data), (root or Path()) / data.path
    with opened(path) as store:
        return ranged_windows(_recordings(store, path, data, int(ends[1]["sample_rate_hz"])), ends)


def _recordings(store: Names, path: Path, data: DataRecipe, rate_hz: int) -> Iterator[Recording]:
    there = set(store.names())
    sounds = [name for name in store.names() if name.lower().endswith(".wav") and not is_hidden(name)]
    if not sounds:
        message = f"Expected recordings (WAV, and a CSV with start_s,end_s,label beside each) in {path}, got none"
        raise ArchiveError(message)
    beside = {name: PurePosixPath(name).with_suffix(".csv").as_posix() for name in sounds}
    common = next((name for name in sorted(there - set(beside.values())) if _is_list(name)), "")
    shared = _by_recording(store, common, data, sounds) if common and not set(beside.values()) <= there else {}
    if lost := [name for name in sounds if beside[name] not in there and name not in shared]:
        raise DataError(_no_events(lost, beside, common if shared else "", data.columns))
    own = {wanted: column for wanted, column in data.columns.items() if wanted in _OF_EVENTS}
    for name in sounds:
        listed = beside[name]
        sound = pcm(store.read(name, MAX_RECORDING_BYTES), name, rate_hz)
        rows = shared[name] if name in shared else _lines(read(store, listed, columns=own, wanted=_OF_EVENTS))
        events = [_event(line, len(sound) / rate_hz) for line in rows]
        parts = PurePosixPath(name).parts[:-1]
        yield Recording(
            name=PurePosixPath(name).with_suffix("").as_posix(), sound=sound,
            events=sorted(events, key=lambda event: event.start_s), slice="/".join(parts) or _ALL,
        )  # fmt: skip


def _no_events(lost: Sequence[str], beside: Mapping[str, str], common: str, columns: Mapping[str, str]) -> str:
    """Return what to say of the recordings ``lost``, of which no list tells events; ``common``: the list of all."""
    names = ", ".join(lost[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
    places = f"{beside[lost[0]]} or {common}, got no line of it" if common else f"{beside[lost[0]]}, got no such file"
    if len(lost) > 1:
        places = (
            f"{common}, got no line of these {len(lost)}" if common else f"a .csv beside each, got {len(lost)} without"
        )
    path = columns.get("path", "path")
    none = f"a line with its path alone, in the column {path!r}," if common else "the header alone"
    head = ",".join(columns.get(one, one) for one in _OF_EVENTS)
    return f"Expected the events of {names} in {places}: write {head} and a line an event; {none} says: no event"


def _is_list(name: str) -> bool:
    return name.lower().endswith(".csv") and "/" not in name and not is_hidden(name)


def _by_recording(store: Names, name: str, data: DataRecipe, sounds: Sequence[str]) -> dict[str, list[_Line]]:
    """Return the lines of the list ``name`` of all recordings by the recording that each names.

    Raises:
        DataError: If a line names none.
    """
    table = read(store, name, columns=data.columns, wanted=COLUMNS)
    paths = table.required("path")
    files, found = NamedFiles(sounds, "the recordings"), dict[str, list[_Line]]()
    for stated, line in zip(paths, _lines(table), strict=True):
        where = f"{name}, row {line.row}"
        own = files.find(stated, where)
        if own not in sounds:
            message = f"Expected a recording of the set as path in {where}, got {stated[:200]!r}"
            raise DataError(f"{message}: put it there, or leave the line out")
        lines = found.setdefault(own, [])
        if line.start or line.end or line.label:
            lines.append(line)
    return found


def _lines(table: Columns) -> list[_Line]:
    """Return each line of a list: start, end and label as texts, the list's name, and the row."""
    cells = enumerate(zip(*map(table.optional, _OF_EVENTS), strict=True), start=table.first_row)
    return [_Line(start, end, label, table.name, row) for row, (start, end, label) in cells]


def _event(line: _Line, lasts_s: float) -> SoundEvent:
    """Return the event of ``line`` in a recording that ``lasts_s``."""
    where = f"{line.listed}, row {line.row}"
    if not line.label:
        message = f"Expected a value in {line.listed}, column 'label', row {line.row}, got none"
        raise DataError(f"{message}: fill it in or leave the row out")
    check_label(line.label, where)
    if line.label == BACKGROUND:
        message = f"Expected the label of an event in {where}, got {line.label!r}"
        raise DataError(f"{message}, the name of windows without one: leave the line out")
    start_s, end_s = line.time("start_s", line.start), line.time("end_s", line.end)
    if not 0 <= start_s < end_s <= lasts_s + _ROUNDING_S:
        message = f"Expected 0 <= start_s < end_s <= {lasts_s:.3f}, the end of the recording, in {where}"
        raise DataError(f"{message}, got {start_s:g} and {end_s:g}: mend the line")
    return SoundEvent(start_s, end_s, line.label)


def pcm(data: bytes, name: str, rate_hz: int) -> Sound:
    """Return the sound in the WAV ``data``, the file ``name``, as mono of 16 bits.

    Raises:
        DataError: If it is not an 8- or 16-bit PCM WAV of ``rate_hz``, mono or stereo, or is cut off.
    """
    try:
        with wave.open(io.BytesIO(plain_wav(data))) as file:
            header = file.getparams()
            body = file.readframes(header.nframes)
    except (wave.Error, struct.error, EOFError, OSError, ValueError, ArithmeticError, RuntimeError) as error:
        message = f"Expected a WAV (8- or 16-bit PCM) in {name}, got: {str(error) or 'cut off'}"
        raise DataError(f"{message}: convert it to plain 16-bit PCM") from error
    width, channels = header.sampwidth, header.nchannels
    if width not in {1, _WIDE} or channels not in range(1, _MOST_CHANNELS + 1):
        message = f"Expected 8 or 16 bits and one or two channels in {name}, got {8 * width} and {channels}"
        raise DataError(f"{message}: convert it")
    if header.framerate != rate_hz:
        message = f"Expected sound at {rate_hz} Hz in {name}, got {header.framerate} Hz"
        raise DataError(f"{message}: convert it, or set sample_rate_hz in [data] options")
    if not header.nframes or len(body) != header.nframes * channels * width:
        message = f"Expected {header.nframes} frames of sound in {name}, got {len(body)} bytes"
        raise DataError(f"{message}: the file is empty or cut off; copy it again")
    return mono(body, width, channels)
