"""Parses the child's frames into windows, heartbeats and samples. Pure.

The child is another process and may be wrong: every field is checked.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.pipe_frames import Frame
from edge_agent.telemetry.rows import WindowPart
from wire import leb128
from wire.codec import Json, from_document
from wire.errors import MessageError
from wire.histogram import Counters, Shape
from wire.messages import Sample

MAX_SAMPLE_BYTES = 180 * 1024  # so that with base64 and its envelope it is within the server's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One heartbeat."""

    n: int = 0
    errors: int = 0
    dropped: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    classes: tuple[int, ...] = ()
    artifact: str = ""
    release: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _WindowHeader:
    artifact: str = ""
    ref_id: str = ""
    start_ms: int = 0
    len_ms: int = 0
    context: int = 0
    n: int = 0
    streams: int = 0
    classes: int = 0
    confidence_bins: int = 10
    closed: bool = True
    extra: Mapping[str, Json] = field(default_factory=dict)


def read_heartbeat(frame: Frame) -> Heartbeat:
    """Return the heartbeat in ``frame``.

    Raises:
        MessageError: If it is not one.
    """
    return from_document(Heartbeat, frame.header)


def read_window(frame: Frame) -> WindowPart:
    """Return the window, or the part of one, in ``frame``.

    Raises:
        WireError: If header and counters don't fit.
    """
    header = from_document(_WindowHeader, frame.header)
    shape = Shape(header.streams, header.classes, header.confidence_bins)
    values, used = leb128.decode(frame.payload, shape.total)
    if used != len(frame.payload):
        message = f"Expected {used} bytes of counters, got {len(frame.payload)}"
        raise MessageError(message)
    counters = Counters(shape, header.n, tuple(values))
    return WindowPart(
        artifact=header.artifact,
        ref_id=header.ref_id,
        start_ms=header.start_ms,
        len_ms=header.len_ms,
        context=header.context,
        counters=counters,
        closed=header.closed,
    )


def read_sample(frame: Frame) -> Sample:
    """Return the sample in ``frame``.

    Raises:
        MessageError: If it is not one, or too large to send.
    """
    if not 0 < len(frame.payload) <= MAX_SAMPLE_BYTES:
        message = f"Expected an image of 1 to {MAX_SAMPLE_BYTES} bytes, got {len(frame.payload)}"
        raise MessageError(message)
    known = {key: value for key, value in frame.header.items() if key not in {"type", "boot", "seq", "data"}}
    return from_document(Sample, {**known, "data": base64.b64encode(frame.payload).decode()})


@dataclass(slots=True, kw_only=True)
class Minute:
    """Heartbeats folded into one row of ``tele/infer``."""

    n: int = 0
    errors: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    classes: list[int] = field(default_factory=list)

    def add(self, heartbeat: Heartbeat) -> None:
        """Add one heartbeat; p50 is the mean weighted by inferences, p95 the maximum."""
        total = self.n + heartbeat.n
        if total:
            self.p50_ms = (self.p50_ms * self.n + heartbeat.p50_ms * heartbeat.n) / total
        self.p95_ms = max(self.p95_ms, heartbeat.p95_ms)
        self.n, self.errors = total, self.errors + heartbeat.errors
        longer = max(len(self.classes), len(heartbeat.classes))
        mine = [*self.classes, *[0] * (longer - len(self.classes))]
        theirs = [*heartbeat.classes, *[0] * (longer - len(heartbeat.classes))]
        self.classes = [left + right for left, right in zip(mine, theirs, strict=True)]

    def row(self, at_ms: int) -> dict[str, Json]:
        """Return the row."""
        return {
            "at_ms": at_ms, "n": self.n, "errors": self.errors, "p50_ms": round(self.p50_ms, 3),
            "p95_ms": round(self.p95_ms, 3), "classes": list(self.classes),
        }  # fmt: skip
