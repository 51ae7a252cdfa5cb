"""The evidence of a verdict over windows as a small picture: PNG, written here, as no drawing package is installed.

Lines are the devices with the most evidence, as shares of the threshold; the red line is the threshold, and 0 lies at
the bottom. The devices' names stand above in the colours of their lines, the levels at the left, and the first and last
window below; the caption says all of it again, for those who can't see the picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from server.alerts.lettering import LETTER_HEIGHT, text_width, write
from server.store.database import Database
from server.store.monitoring.evidence import evidence_of, one_verdict

WIDTH, HEIGHT = 640, 270
LEFT, RIGHT, TOP, BOTTOM = 78, 632, 50, 236
"""The first and last column and row of the drawing inside of its labels."""
WINDOWS, LINES, _LOOKED_AT = 96, 4, 12
_NAME = 22  # letters of a device's name; longer ones are cut
_GAP = 6
_CROWDED = 0.8  # above it the label of the threshold stands where that of the top would
_WHITE, _GREY, _RED, _INK = (255, 255, 255), (214, 214, 214), (179, 38, 30), (64, 70, 80)
_COLOURS = (("blue", (31, 95, 191)), ("orange", (214, 122, 20)), ("green", (46, 125, 50)), ("purple", (123, 31, 162)))
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Point = tuple[int, float]


@dataclass(frozen=True, slots=True)
class DrawnEvidence:
    """A picture and what it shows, in words."""

    png: bytes
    caption: str


@dataclass(frozen=True, slots=True)
class EvidencePicture:
    """Draws the evidence of verdicts as it is stored when asked."""

    database: Database

    def of(self, verdict: int) -> DrawnEvidence | None:
        """Return the picture of ``verdict``; None if there is none of that id, or no evidence of its devices."""
        with self.database.begin() as connection:
            row = one_verdict(connection, verdict) if verdict else None
            if row is None:
                return None
            rows = {name: evidence_of(connection, name, WINDOWS) for name in row["devices"][:_LOOKED_AT]}
        lines = {
            name: sorted(
                (one["start_ms"], one["log_value"] / one["log_threshold"])
                for one in found if one["log_value"] is not None and one["log_threshold"] > 0
            )
            for name, found in rows.items()
        }  # fmt: skip
        return draw({name: line for name, line in lines.items() if line})


def draw(lines: dict[str, list[Point]]) -> DrawnEvidence | None:
    """Return the picture of ``lines``: by device, (start of the window in UTC ms, evidence as a share)."""
    shown = sorted(lines.items(), key=lambda item: -max(share for _, share in item[1]))[:LINES]
    if not shown:
        return None
    first = min(line[0][0] for _, line in shown)
    last = max(line[-1][0] for _, line in shown)
    top = max(1.25, 1.05 * max(share for _, line in shown for _, share in line))
    pixels = np.full((HEIGHT, WIDTH, 3), _WHITE, np.uint8)
    _level(pixels, 0.5 / top, _GREY)
    _level(pixels, 0.0, _GREY)
    for (_, colour), (_, line) in zip(_COLOURS, shown, strict=False):
        _line(pixels, [((at - first) / max(last - first, 1), max(share, 0.0) / top) for at, share in line], colour)
    _level(pixels, 1 / top, _RED)
    _label(pixels, top, [device for device, _ in shown], (first, last))
    names = ", ".join(f"{device} ({colour})" for (colour, _), (device, _) in zip(_COLOURS, shown, strict=False))
    more = f" and {len(lines) - len(shown)} more" if len(lines) > len(shown) else ""
    caption = (
        f"Evidence of {names}{more} as a share of the threshold (red line), {_day(first)} to {_day(last)} UTC; grey: 0 "
        "and half of it"
    )
    return DrawnEvidence(png_of(pixels), caption)


def _label(pixels: NDArray[np.uint8], top: float, devices: Sequence[str], span: tuple[int, int]) -> None:
    """Write the names of ``devices``, the levels of 0 and the threshold, and the ``span`` (UTC ms) into the picture."""
    for place, (device, (_, colour)) in enumerate(zip(devices, _COLOURS, strict=False)):
        name = device if len(device) <= _NAME else f"{device[: _NAME - 2]}.."
        write(pixels, name, LEFT + (place % 2) * (RIGHT - LEFT) // 2, 4 + place // 2 * (LETTER_HEIGHT + _GAP), colour)
    for share, text, colour in ((0.0, "0 %", _INK), (1 / top, "100 %", _RED)):
        write(pixels, text, LEFT - _GAP - text_width(text), _row(share) - LETTER_HEIGHT // 2, colour)
    if 1 / top < _CROWDED:
        text = f"{100 * top:.0f} %"
        write(pixels, text, max(LEFT - _GAP - text_width(text), 0), TOP, _INK)
    begin, end = (_day(at_ms) for at_ms in span)
    write(pixels, begin, LEFT, BOTTOM + _GAP, _INK)
    if end != begin:
        text = f"{end} UTC"
        write(pixels, text, RIGHT - text_width(text), BOTTOM + _GAP, _INK)


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    """Return ``pixels`` (uint8, (H, W, 3), RGB) as a PNG.

    Source: PNG specification, third edition, sections 5 (chunks) and 11.2 (IHDR, IDAT, IEND).
    """
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _level(pixels: NDArray[np.uint8], share: float, colour: tuple[int, int, int]) -> None:
    pixels[_row(share), LEFT : RIGHT + 1] = colour


def _line(pixels: NDArray[np.uint8], points: Sequence[tuple[float, float]], colour: tuple[int, int, int]) -> None:
    """Draw a line through ``points``, (x, y) in 0..1, two pixels thick."""
    columns = np.arange(RIGHT - LEFT + 1)
    heights = np.interp(columns, [x * (RIGHT - LEFT) for x, _ in points], [y for _, y in points])
    rows = [_row(float(y)) for y in heights]
    begin, end = (LEFT + round(points[place][0] * (RIGHT - LEFT)) for place in (0, -1))
    for column, (one, two) in enumerate(zip(rows, [*rows[1:], rows[-1]], strict=True), start=LEFT):
        if begin <= column <= max(end, begin + 1):
            pixels[max(min(one, two) - 1, 0) : max(one, two) + 1, column] = colour


def _row(share: float) -> int:
    return BOTTOM - round(min(max(share, 0.0), 1.0) * (BOTTOM - TOP))


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
