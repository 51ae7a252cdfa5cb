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

import numpy as np

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import MAX_SIDE, Option, Pixels, Values, as_array, ranges, settled, to_pixels

MAX_WINDOW_BYTES = 4 * 1024 * 1024
MAX_STEPS = 65_536
SUFFIXES = frozenset({".csv", ".json", ".bin", ".f32", ".raw"})
OPTIONS = {
    "steps": Option(default=64, low=2, high=MAX_SIDE, whole=True),
    "channels": Option(default=1, low=1, high=256, whole=True),
    "binary": Option(default=0, low=0, high=1, whole=True),
    "resample": Option(default=0, low=0, high=1, whole=True),
    "stride": Option(default=0, low=0, high=1e9, whole=True),
    "source_windows": Option(default=8, low=1, high=1e6, whole=True),
    "low": Option(default=-1.0, low=-1e12, high=1e12),
    "high": Option(default=1.0, low=-1e12, high=1e12),
}
_NUMBERED = ("low_", "high_")


def complete(options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` with all defaults filled in.

    Raises:
        SensorError: If an option is unknown or out of range, or a high is not above its low.
    """
    wanted = settled(options, OPTIONS, numbered=_NUMBERED)
    ranges(wanted, int(wanted["channels"]))
    return wanted


def decode(data: bytes, options: Mapping[str, float]) -> Pixels:
    """Return the picture of the window in ``data``, uint8 (steps, channels, 3).

    Raises:
        SensorError: If ``data`` is not a window of ``steps`` x ``channels`` finite numbers, or an option is out of
            range.
    """
    wanted = complete(options)
    if len(data) > MAX_WINDOW_BYTES:
        raise SensorError(f"Expected a window of at most {MAX_WINDOW_BYTES} bytes, got {len(data)}")
    if wanted["binary"]:
        step_bytes = 4 * int(wanted["channels"])
        if not data or len(data) % step_bytes:
            message = f"Expected float32 steps of {step_bytes} bytes, got {len(data)} bytes"
            raise SensorError(f"{message}: the window is cut off")
        values = np.frombuffer(data, "<f4").astype(np.float64).reshape(-1, int(wanted["channels"]))
    else:
        values = parse(data)
    return to_pixels(fitted(values, wanted), *ranges(wanted, int(wanted["channels"])))


def fitted(values: Values, options: Mapping[str, float]) -> Values:
    """Return ``values`` (T, channels) as float64 (steps, channels), checked and resampled; ``options`` are complete.

    Raises:
        SensorError: If it has other channels or steps than the options, or a number that is not finite.
    """
    steps, channels = int(options["steps"]), int(options["channels"])
    if values.ndim != 2 or values.shape[1] != channels or not 1 < len(values) <= MAX_STEPS:  # noqa: PLR2004 - (T, C)
        raise SensorError(f"Expected a window of 2 to {MAX_STEPS} steps x {channels} channels, got {values.shape}")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0].tolist()
        raise SensorError(f"Expected finite numbers, got {values[row, column]} at step {row}, channel {column}")
    if len(values) == steps:
        return values
    if not options["resample"]:
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
