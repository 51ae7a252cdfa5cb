"""Long recordings with the events in them: a zip or folder of WAV files, a CSV of events beside each.

::

    set/
    ├── kitchen/
    │   ├── monday.wav     (8- or 16-bit PCM, mono or stereo, of hours if need be)
    │   └── monday.csv     start_s,end_s,label
    └── hall/…

Times are seconds from the start of the recording. A recording without events has a list with the header alone: its
hours count, too. The source is the recording, the slice its folder. The windows are cut as a device cuts them:
``[data] options`` has ``stride_s``, ``inside_ratio`` and ``tolerance_s`` beside the options of the front end.
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from compressor.data._archive import Names, opened
from compressor.data._delimited import check_columns
from compressor.data._event_windows import (
    BACKGROUND,
    EventWindows,
    Recording,
    Sound,
    SoundEvent,
    ranged_windows,
    settings,
    tabled,
)
from compressor.data._event_windows import front_end as shared_front_end
from compressor.data._front_end import Ranged
from compressor.data._layout import is_hidden
from compressor.data._table import Table, check_label
from compressor.data._window_table import read
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "front_end", "options", "columns"})
COLUMNS = ("start_s", "end_s", "label")
MAX_RECORDING_BYTES = 1024 * 1024 * 1024
"""Nine hours at 16 kHz; a recording is in memory while it is cut."""
_ALL = "all"
_ROUNDING_S = 0.05
_MOST_CHANNELS, _WIDE = 2, 2


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
    for name in sounds:
        place = PurePosixPath(name)
        listed = place.with_suffix(".csv").as_posix()
        if listed not in there:
            message = f"Expected the events of {name} in {listed}, got no such file"
            raise DataError(
                f"{message}: write start_s,end_s,label and a line an event; the header alone says: no event"
            )
        sound = pcm(store.read(name, MAX_RECORDING_BYTES), name, rate_hz)
        events = _events(store, listed, data, len(sound) / rate_hz)
        parts = place.parts[:-1]
        yield Recording(
            name=place.with_suffix("").as_posix(), sound=sound, events=events, slice="/".join(parts) or _ALL
        )  # fmt: skip


def _events(store: Names, name: str, data: DataRecipe, lasts_s: float) -> list[SoundEvent]:
    table = read(store, name, columns=data.columns, wanted=COLUMNS)
    labels = [table.required(column) for column in COLUMNS][-1]
    found = []
    times = zip(table.numbers("start_s").tolist(), table.numbers("end_s").tolist(), labels, strict=True)
    for row, (start_s, end_s, label) in enumerate(times, start=table.first_row):
        where = f"{name}, row {row}"
        check_label(label, where)
        if label == BACKGROUND:
            message = f"Expected the label of an event in {where}, got {label!r}"
            raise DataError(f"{message}, the name of windows without one: leave the line out")
        if not 0 <= start_s < end_s <= lasts_s + _ROUNDING_S:
            message = f"Expected 0 <= start_s < end_s <= {lasts_s:.3f}, the end of the recording, in {where}"
            raise DataError(f"{message}, got {start_s:g} and {end_s:g}: mend the line")
        found.append(SoundEvent(start_s, end_s, label))
    return sorted(found, key=lambda event: event.start_s)


def pcm(data: bytes, name: str, rate_hz: int) -> Sound:
    """Return the sound in the WAV ``data``, the file ``name``, as mono of 16 bits.

    Raises:
        DataError: If it is not an 8- or 16-bit PCM WAV of ``rate_hz``, mono or stereo, or is cut off.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
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
    raw = np.frombuffer(body, "<i2") if width == _WIDE else (np.frombuffer(body, np.uint8).astype(np.int16) - 128) << 8
    return np.asarray(raw.reshape(-1, channels).mean(axis=1).astype(np.int16) if channels > 1 else raw, np.int16)
