"""Recordings of sound with events, cut into windows as a device hears them: one row each, in order.

Decides which event a window holds, and the form of such labels: ``COLUMNS``, float64 (N, 7). The windows of a recording
stay together: its name is their source. Rows count as duplicates only if the recordings are equal: silence in two
recordings looks the same, and would join them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt

from compressor.data._front_end import Ranged, SensorSample, chosen, ranged
from compressor.data._stored_images import HashedImages, kept
from compressor.data._table import Table, make_table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe
from edge_agent import front_ends
from edge_agent.errors import SensorError
from edge_agent.streams.recordings import Sound, as_wav, window_starts
from wire.errors import SettingsError
from wire.settings import Bound, names_of, numbers_from

BACKGROUND = "background"
"""The class of windows without an event; always the first."""
COLUMNS = ("class", "recording", "at_s", "event", "start_s", "end_s", "tolerance_s")
"""Of labels: the class of the window, the number of its recording, its middle; then the event that it overlaps most, by
number in the recording (-1: none), with start and end, and the tolerance of a match."""
CLASS, RECORDING, AT_S, EVENT, START_S, END_S, TOLERANCE_S = range(len(COLUMNS))
MAX_WINDOWS = 2_000_000
_NO_EVENT = -1
T = TypeVar("T")
Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWindows:
    """``[data] options`` of recordings with events, beside those of the front end."""

    stride_s: Annotated[float, Bound(0.005, 60)] = 0.2  # from one window to the next
    inside_ratio: Annotated[float, Bound(0.05, 1)] = 0.6  # of the event, or of the window if that is shorter
    tolerance_s: Annotated[float, Bound(0, 60)] = 0.5  # so far from an event its detection may be


@dataclass(frozen=True, slots=True)
class SoundEvent:
    """One event of a recording, in seconds from its start."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording: mono sound, int16 (S,), and its events in the order of time; ``name`` is for messages, too."""

    name: str
    sound: Sound
    events: Sequence[SoundEvent]
    slice: str = "all"


@dataclass(slots=True, kw_only=True)
class _WindowRows:
    """Labels of the rows so far; filled while the pictures are made."""

    labels: list[Rows] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    slices: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    unheard: int = 0


def front_end(data: DataRecipe, own: type) -> tuple[str, dict[str, float]]:
    """Return the name and all options of the front end; ``own``: the dataclass of the data set's own options.

    Raises:
        DataError: If it is missing or unknown, or an option is unknown or out of range.
    """
    others = {key: value for key, value in data.options.items() if key not in names_of(own)}
    return chosen(replace(data, options=others), ("log_mel", "mfcc"))


def settings(data: DataRecipe, own: type[T]) -> T:
    """Return the data set's own options, the dataclass ``own``.

    Raises:
        DataError: If one is out of range.
    """
    given = {key: float(value) for key, value in data.options.items() if key in names_of(own)}
    try:
        return numbers_from(own, given, "[data] options")
    except SettingsError as error:
        raise DataError(str(error)) from error


def tabled(recordings: Iterable[Recording], ends: tuple[str, Mapping[str, float]], cut: EventWindows) -> Table:
    """Return the table of all windows of ``recordings``, taken one by one; ``ends``: the front end and its options.

    Raises:
        DataError: If a recording is shorter than a window, an event is in none, or there are too many windows.
    """
    rows = _WindowRows()
    held = kept(_pictures(recordings, ends, cut, rows))
    if not rows.labels:
        raise DataError("Expected recordings with windows, got none")
    labels = np.stack(rows.labels)
    kinds = sorted(set(rows.names) - {BACKGROUND})
    images = HashedImages(held.images, rows.hashes)
    table = make_table(images, rows.names, slices=rows.slices, sources=rows.sources)
    index = {name: number for number, name in enumerate((BACKGROUND, *kinds))}
    labels[:, CLASS] = [index[name] for name in rows.names]
    unheard = (f"{rows.unheard} events begin after the last window of their recording and are left out",)
    return replace(
        table, labels=labels, class_names=(BACKGROUND, *kinds), remarks=unheard if rows.unheard else ()
    )  # fmt: skip


def ranged_windows(recordings: Iterable[Recording], ends: tuple[str, Mapping[str, float]]) -> list[Ranged]:
    """Return the numbers of windows that don't overlap before conversion to 8 bits, to fit ranges.

    Raises:
        SensorError: If the front end can't read one.
    """
    rate = int(ends[1]["sample_rate_hz"])
    clip = round(ends[1]["clip_s"] * rate)
    found: list[Ranged] = []
    for recording in recordings:
        cuts = window_starts(len(recording.sound), clip, clip)
        sounds = (as_wav(recording.sound[start : start + clip], rate) for start in cuts)
        windows = [
            SensorSample(name=recording.name, data=data, label="", slice="", source=recording.name) for data in sounds
        ]
        found += ranged(windows, *ends)
    return found


def step_s(labels: Rows) -> float:
    """Return the time from one window to the next, the least in any recording; 0 if no recording has two."""
    inside = labels[1:, RECORDING] == labels[:-1, RECORDING]
    steps = np.diff(labels[:, AT_S])[inside]
    return float(steps.min()) if len(steps) else 0.0


def _pictures(
    recordings: Iterable[Recording], ends: tuple[str, Mapping[str, float]], cut: EventWindows, rows: _WindowRows
) -> Iterator[npt.NDArray[np.uint8]]:
    name, options = ends
    rate, clip_s = int(options["sample_rate_hz"]), options["clip_s"]
    clip, stride = round(clip_s * rate), round(cut.stride_s * rate)
    for number, recording in enumerate(recordings):
        starts = window_starts(len(recording.sound), clip, stride)
        if not starts:
            got = f"{len(recording.sound) / rate:.3g} s"
            message = f"Expected at least a window of {clip_s:g} s in {recording.name}, got {got}"
            raise DataError(f"{message}: leave it out, or make clip_s smaller")
        content = hashlib.sha256(recording.sound.tobytes()).hexdigest()
        labels, classes = _labels(recording, np.array(starts) / rate, clip_s, cut)
        labels[:, RECORDING] = number
        rows.unheard += sum(event.start_s >= starts[-1] / rate + clip_s for event in recording.events)
        rows.labels += list(labels)
        rows.names += classes
        rows.sources += [recording.name] * len(starts)
        rows.slices += [recording.slice] * len(starts)
        rows.hashes += [hashlib.sha256(f"{content} {start}".encode()).hexdigest() for start in starts]
        if len(rows.labels) > MAX_WINDOWS:
            message = f"Expected at most {MAX_WINDOWS} windows, got more at {recording.name}"
            raise DataError(f"{message}: make stride_s larger")
        for start in starts:
            try:
                yield front_ends.decode(name, as_wav(recording.sound[start : start + clip], rate), options)
            except SensorError as error:
                message = f"{recording.name}, {start / rate:.3g} s: {error}"
                raise DataError(message) from error


def _labels(recording: Recording, starts_s: Rows, clip_s: float, cut: EventWindows) -> tuple[Rows, list[str]]:
    """Return the labels of the windows of a recording, without class and recording, and the name of each class."""
    labels = np.zeros((len(starts_s), len(COLUMNS)))
    labels[:, AT_S], labels[:, TOLERANCE_S] = starts_s + clip_s / 2, cut.tolerance_s
    labels[:, EVENT] = _NO_EVENT
    names, most = [BACKGROUND] * len(starts_s), np.zeros(len(starts_s))
    for number, event in enumerate(recording.events):
        lasts_s = min(event.end_s - event.start_s, clip_s)
        shared_s = np.minimum(starts_s + clip_s, event.end_s) - np.maximum(starts_s, event.start_s)
        ratio = np.round(shared_s / lasts_s, 9)
        for row in np.flatnonzero(ratio > most).tolist():
            most[row] = ratio[row]
            labels[row, EVENT:TOLERANCE_S] = number, event.start_s, event.end_s
            names[row] = event.label if ratio[row] >= cut.inside_ratio else BACKGROUND
    held = np.array([name != BACKGROUND for name in names], dtype=bool)
    there, last_s = set(labels[held, EVENT].tolist()), float(starts_s[-1]) + clip_s
    for number, event in enumerate(recording.events):
        if number not in there and event.start_s < last_s:
            message = f"Expected {cut.inside_ratio:g} of each event in a window that holds none more, got none for"
            said = f"{event.label[:100]!r} at {event.start_s:g} to {event.end_s:g} s of {recording.name}"
            raise DataError(f"{message} {said}: make stride_s or inside_ratio smaller, or mend the list of events")
    return labels, names
