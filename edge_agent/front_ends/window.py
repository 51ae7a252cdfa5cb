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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import MAX_SIDE, Pixels, Values, as_array, ranges, to_pixels
from wire.settings import Bound

MAX_WINDOW_BYTES = 4 * 1024 * 1024
MAX_STEPS = 65_536
SUFFIXES = frozenset({".csv", ".json", ".bin", ".f32", ".raw"})


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
    if len(data) > MAX_WINDOW_BYTES:
        raise SensorError(f"Expected a window of at most {MAX_WINDOW_BYTES} bytes, got {len(data)}")
    if settings.binary:
        step_bytes = 4 * settings.channels
        if not data or len(data) % step_bytes:
            message = f"Expected float32 steps of {step_bytes} bytes, got {len(data)} bytes"
            raise SensorError(f"{message}: the window is cut off")
        values = np.frombuffer(data, "<f4").astype(np.float64).reshape(-1, settings.channels)
    else:
        values = parse(data)
    lows, highs = ranges(settings.low, settings.high, settings.columns, settings.channels)
    return to_pixels(fitted(values, settings), lows, highs)


def fitted(values: Values, settings: Settings) -> Values:
    """Return ``values`` (T, channels) as float64 (steps, channels), checked and resampled.

    Raises:
        SensorError: If it has other channels or steps than the settings, or a number that is not finite.
    """
    steps, channels = settings.steps, settings.channels
    if values.ndim != 2 or values.shape[1] != channels or not 1 <= len(values) <= MAX_STEPS:  # noqa: PLR2004 - (T, C)
        raise SensorError(f"Expected a window of 1 to {MAX_STEPS} steps x {channels} channels, got {values.shape}")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0].tolist()
        raise SensorError(f"Expected finite numbers, got {values[row, column]} at step {row}, channel {column}")
    if len(values) == steps:
        return values
    if not settings.resample:
        raise SensorError(f"Expected {steps} steps, got {len(values)}: send that many or set resample = 1")
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
        rows = json.loads(text) if text[:1] == "[" else _csv_rows(text)
    except (UnicodeDecodeError, ValueError, RecursionError, csv.Error) as error:
        message = f"Expected a window as CSV or JSON text, got {len(data)} bytes: {str(error)[:120]}"
        raise SensorError(message) from error
    values = as_array(rows)
    return values[:, None] if values.ndim == 1 else values


def _csv_rows(text: str) -> list[list[float]]:
    lines = [line for line in csv.reader(io.StringIO(text)) if line]
    if lines and not any(_is_number(cell) for cell in lines[0]):
        lines = lines[1:]
    return [[float(cell) if cell.strip() else np.nan for cell in line] for line in lines]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
