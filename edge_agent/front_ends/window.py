"""A window of a sensor with several channels: rows are steps in time, columns are channels.

CSV text (one line per step), JSON (a list of steps) or raw float32, little-endian, step by step (``binary`` = 1). Each
channel is scaled from its own ``low_K`` .. ``high_K`` (fitted on train rows, ``compressor data fit``) to 0 .. 255 and
clipped. A window of another length is rejected, unless ``resample`` = 1 stretches it (linear interpolation). ``stride``
and ``source_windows`` describe how a long series was cut into windows; decoding one window needs neither.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import MAX_SIDE, Pixels, Values, as_array, ranges, to_pixels
from edge_agent.streams.column_names import listed, misfit
from wire.settings import Bound

MAX_WINDOW_BYTES = 4 * 1024 * 1024
MAX_STEPS = 65_536
SUFFIXES = frozenset({".csv", ".json", ".bin", ".f32", ".raw"})
_JSON = ("[", "{")
_EXAMPLE = "as JSON [[0.1, 0.2], [0.3, 0.4]] for two steps of two channels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[data] options`` of ``front_end = "window"``."""

    steps: Annotated[int, Bound(1, MAX_SIDE)] = 64  # in time, the rows of the picture; 1: a row of features
    channels: Annotated[int, Bound(1, 256)] = 1  # the columns of the picture
    binary: Annotated[int, Bound(0, 1)] = 0  # 1: raw float32 instead of text
    resample: Annotated[int, Bound(0, 1)] = 0  # 1: a window of another length is stretched, not rejected
    stride: Annotated[int, Bound(0, 1e9)] = 0  # steps from window to window of a series; 0: they don't overlap
    source_windows: Annotated[int, Bound(1, 1e6)] = 8  # neighbours in a series that stay in one split
    low: Annotated[float, Bound(-1e12, 1e12)] = -1.0  # becomes 0, in every column without a low_K of its own
    high: Annotated[float, Bound(-1e12, 1e12)] = 1.0  # becomes 255, in every column without a high_K of its own
    columns: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values together.

        Raises:
            SettingsError: If a high is not above its low.
        """
        ranges(self.low, self.high, self.columns, self.channels)


def decode(data: bytes, settings: Settings) -> Pixels:
    """Return the picture of the window in ``data``, uint8 (steps, channels, 3).

    Raises:
        SensorError: If ``data`` is not a window of ``steps`` x ``channels`` finite numbers.
    """
    return decode_named(data, settings, ())[0]


def decode_named(data: bytes, settings: Settings, columns: Sequence[str]) -> tuple[Pixels, str]:
    """Return the picture of the window in ``data`` as ``decode`` does; a header is compared with ``columns``.

    The same names in another order are read by name, and a sentence says so; else it is empty.

    Raises:
        SensorError: If ``data`` is not such a window, or its header has other names than ``columns``, if these are any.
    """
    if len(data) > MAX_WINDOW_BYTES:
        raise SensorError(f"Expected a window of at most {MAX_WINDOW_BYTES} bytes, got {len(data)}: send fewer steps")
    if settings.binary:
        step_bytes = 4 * settings.channels
        if not data or len(data) % step_bytes:
            message = f"Expected float32 steps of {step_bytes} bytes, got {len(data)} bytes"
            raise SensorError(f"{message}: the window is cut off")
        values, remark = np.frombuffer(data, "<f4").astype(np.float64).reshape(-1, settings.channels), ""
    else:
        values, remark = _in_order(parse(data), header(data) if columns else (), tuple(columns))
    lows, highs = ranges(settings.low, settings.high, settings.columns, settings.channels)
    return to_pixels(fitted(values, settings, columns), lows, highs), remark


def header(data: bytes) -> tuple[str, ...]:
    """Return the names in the first line of the CSV text ``data``, without blanks around; none: it has no header."""
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return ()
    if text[:1] in _JSON:
        return ()
    cells = next(csv.reader([text.partition("\n")[0]]), [])
    return () if any(map(_is_number, cells)) or not any(cells) else tuple(cell.strip() for cell in cells)


def _in_order(values: Values, found: tuple[str, ...], columns: tuple[str, ...]) -> tuple[Values, str]:
    """Return ``values`` with the header ``found`` in the order of ``columns``, and a sentence if that is another.

    Raises:
        SensorError: If the header has other names.
    """
    if not found or found == columns:
        return values, ""
    if wrong := misfit(columns, found, found):
        message = f"Expected the columns {listed(columns)}, got {listed(found)} ({wrong})"
        raise SensorError(f"{message}: name them as the training data does, or send rows without a header in its order")
    said = f"Expected the columns {listed(columns)}, got {listed(found)}: read by their names"
    return values[:, [found.index(one) for one in columns]], said


def fitted(values: Values, settings: Settings, columns: Sequence[str] = ()) -> Values:
    """Return ``values`` (T, channels) as float64 (steps, channels), checked and resampled; ``columns`` for errors.

    Raises:
        SensorError: If it has other channels or steps than the settings, or a number that is not finite.
    """
    steps, channels = settings.steps, settings.channels
    if values.ndim != 2 or values.shape[1] != channels or not 1 <= len(values) <= MAX_STEPS:  # noqa: PLR2004 - (T, C)
        message = f"Expected a window of 1 to {MAX_STEPS} steps x {channels} channels, got {values.shape}"
        raise SensorError(f"{message}: send {channels} numbers for each step, {_EXAMPLE}")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0].tolist()
        place = f"column {columns[column]!r}" if len(columns) == channels else f"channel {column}"
        message = f"Expected finite numbers, got {values[row, column]} at step {row}, {place}"
        raise SensorError(f"{message}: send a number there, as the training data has it for what is missing")
    if len(values) == steps:
        return values
    if not settings.resample:
        advice = (
            'the source "lines" reads longer files piece by piece; a release built with resample = 1 stretches them'
        )
        raise SensorError(f"Expected {steps} steps, got {len(values)}: send that many in each input; {advice}")
    places = np.linspace(0, len(values) - 1, steps)
    return np.stack([np.interp(places, np.arange(len(values)), column) for column in values.T], axis=1)


def parse(data: bytes) -> Values:
    """Return the numbers in JSON (a list of steps, each a number or a list) or CSV text, float64 (T, C).

    The first line of a CSV may name the channels. Empty cells are not numbers: they become NaN.

    Raises:
        SensorError: If ``data`` is neither.
    """
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        message = f"Expected a window as CSV or JSON text, got {len(data)} bytes that are no UTF-8"
        raise SensorError(f"{message}: write text, or set binary = 1 in the recipe for float32") from error
    if not text:
        message = f"Expected a window as CSV or JSON text, got an empty file ({len(data)} bytes)"
        raise SensorError(f"{message}: write it beside, and rename it when it is whole")
    values = as_array(_json_rows(text) if text[:1] in _JSON else _csv_rows(text))
    return values[:, None] if values.ndim == 1 else values


def _json_rows(text: str) -> list[object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"Expected a window as JSON, got text that is none: {str(error)[:120]}"
        raise SensorError(f"{message}: send a list of steps, {_EXAMPLE}") from error
    if not isinstance(found, list):
        message = f"Expected a window as JSON, a list of steps, got {type(found).__name__} {text[:40]!r}"
        raise SensorError(f"{message}: send {_EXAMPLE}")
    if any(isinstance(step, dict) for step in found):
        message = f"Expected a window as JSON, each step a number or a list, got an object in {text[:40]!r}"
        raise SensorError(f'{message}: send {_EXAMPLE}, or lines of objects by the source "lines"')
    return found


def _csv_rows(text: str) -> list[list[float]]:
    try:
        lines = [line for line in csv.reader(io.StringIO(text)) if line]
    except csv.Error as error:
        raise SensorError(f"Expected a window as CSV text, got: {error}: write a line a step, 0.1,0.2,0.3") from error
    names: list[str] = []
    if lines and not any(map(_is_number, lines[0])):
        names, lines = lines[0], lines[1:]
    cells = [cell for line in (names, *lines) for cell in line if _is_text(cell)]
    if (other := next((one for one in (";", "\t") if any(one in cell for cell in cells)), "")) != "":
        message = f"Expected cells parted by commas, got {other!r} in {text[:40]!r}"
        raise SensorError(f"{message}: write commas between cells, and points in fractions")
    if any(len(cell.split()) > 1 and all(map(_is_number, cell.split())) for cell in cells):
        message = f"Expected cells parted by commas, got blanks between numbers in {text[:40]!r}"
        raise SensorError(f"{message}: write commas between cells")
    if not lines:
        message = f"Expected lines of numbers, got only {text[:60]!r}"
        raise SensorError(f"{message}: write a line of numbers a step below the header")
    wide = len(names or lines[0])
    if uneven := [place for place, line in enumerate(lines) if len(line) != wide]:
        got = f"{len(lines[uneven[0]])} in line {uneven[0] + bool(names) + 1}"
        message = f"Expected {wide} cells in each line, got {got}"
        raise SensorError(f"{message}: write one cell for each {'name of the header' if names else 'channel'}")
    if texts := [place for place in range(wide) if any(_is_text(line[place]) for line in lines)]:
        shown = listed([_described(lines, names, place) for place in texts])
        message = f"Expected numbers in all columns, got text in {len(texts)} of {wide}: {shown}"
        raise SensorError(f"{message}: send the numbers that the model was trained on, and no others")
    return [[float(cell) if cell.strip() else np.nan for cell in line] for line in lines]


def _described(lines: list[list[str]], names: list[str], place: int) -> str:
    text = next(line[place] for line in lines if _is_text(line[place]))
    return f"{names[place] if names else f'column {place}'} {text[:20]!r}"


def _is_text(cell: str) -> bool:
    return bool(cell.strip()) and not _is_number(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
