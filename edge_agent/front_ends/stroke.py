"""A gesture's path in two dimensions as a picture: a line along the path, brighter towards its end.

JSON (a list of ``{"x": .., "y": ..}`` or of pairs) -> centred and scaled by its own larger extent, so that position and
size of the gesture have no effect -> a polyline of ``line_px`` on ``side`` x ``side`` pixels. Brightness from 96
(start) to 255 (end) keeps the direction.

Source: the rasterised strokes of TensorFlow Lite Micro's ``magic_wand`` (``rasterize_stroke.cpp``), which encodes time
as colour instead of brightness.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import Pixels, Values, as_array
from wire.errors import SettingsError
from wire.settings import Bound

MAX_STROKE_BYTES = 1024 * 1024
MAX_POINTS = 4096
SUFFIXES = frozenset({".json"})
_DARKEST, _BRIGHTEST = 96, 255
_STEP_PX = 1.0  # between two dabs along the path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[data] options`` of ``front_end = "stroke"``."""

    side: Annotated[int, Bound(8, 128)] = 32  # of the picture, in pixels
    line_px: Annotated[float, Bound(1.0, 16.0)] = 2.5  # width of the line
    margin_px: Annotated[float, Bound(0.0, 32.0)] = 3.0  # left free on each side: half a line and room to shift

    def __post_init__(self) -> None:
        """Check the values together.

        Raises:
            SettingsError: If the margins leave no room.
        """
        if 2 * self.margin_px >= self.side - 2:
            message = f"Expected margins that leave room, got {self.margin_px:g} of {self.side} pixels"
            raise SettingsError(message)


def decode(data: bytes, settings: Settings) -> Pixels:
    """Return the picture of the stroke in ``data``, uint8 (side, side, 3), equal channels.

    Raises:
        SensorError: If ``data`` is not a list of 2 to ``MAX_POINTS`` finite points.
    """
    side, margin = settings.side, settings.margin_px
    points = points_of(data)
    middle, extent = (points.max(axis=0) + points.min(axis=0)) / 2, float(np.ptp(points, axis=0).max())
    placed = (points - middle) * ((side - 1 - 2 * margin) / max(extent, 1e-9)) * (1, -1) + (side - 1) / 2
    return _drawn(_dense(placed), side, settings.line_px)


def points_of(data: bytes) -> Values:
    """Return the points in ``data``, float64 (N, 2), x to the right and y up.

    Raises:
        SensorError: If ``data`` is not a list of 2 to ``MAX_POINTS`` finite points.
    """
    if len(data) > MAX_STROKE_BYTES:
        raise SensorError(f"Expected a stroke of at most {MAX_STROKE_BYTES} bytes, got {len(data)}")
    try:
        found = json.loads(data)
        rows = [(point["x"], point["y"]) if isinstance(point, dict) else point for point in found]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        message = f"Expected a stroke as JSON, a list of points with x and y, got {len(data)} bytes: {str(error)[:80]}"
        raise SensorError(message) from error
    points = as_array(rows)
    if points.ndim != 2 or points.shape[1] != 2 or not 2 <= len(points) <= MAX_POINTS:  # noqa: PLR2004 - x and y
        raise SensorError(f"Expected 2 to {MAX_POINTS} points with x and y, got {points.shape}")
    if not np.isfinite(points).all():
        raise SensorError(f"Expected finite points, got {points[~np.isfinite(points).all(axis=1)][0].tolist()}")
    return points


def _dense(points: Values) -> Values:
    """Return (M, 3): points at most ``_STEP_PX`` apart along the path, and the elapsed share of time, 0..1."""
    lengths = np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1))
    moved = np.concatenate([[True], lengths > 0])
    gone = np.concatenate([[0.0], np.cumsum(lengths)])[moved]
    at = np.linspace(0, gone[-1], int(np.ceil(gone[-1] / _STEP_PX)) + 1)
    time = np.arange(len(points))[moved] / (len(points) - 1)
    return np.stack([np.interp(at, gone, column) for column in (*points[moved].T, time)], axis=1)


def _drawn(path: Values, side: int, line_px: float) -> Pixels:
    """Return the picture: each pixel gets the brightest dab over it, with an edge of one pixel."""
    axis = np.arange(side, dtype=np.float64)
    ink = _DARKEST + (_BRIGHTEST - _DARKEST) * path[:, 2]
    across, down = ((axis - path[:, i, None]) ** 2 for i in (0, 1))
    distance = np.sqrt(down[:, :, None] + across[:, None, :])  # sqrt is rounded exactly on all platforms, hypot is not
    cover = np.clip(line_px / 2 + 0.5 - distance, 0, 1)
    picture = np.max(cover * ink[:, None, None], axis=0)
    return np.repeat(np.rint(picture).astype(np.uint8)[:, :, None], 3, axis=2)
