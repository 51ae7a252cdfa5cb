"""Parses and dispatches the child's frames: windows and samples to telemetry, heartbeats to rows and to probation.

The child is another process and may be wrong: every field is checked.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_agent.control.supervisor import Supervisor
from edge_agent.errors import FrameError
from edge_agent.pipe_frames import CORRECTION, MAX_SAMPLE_BYTES, Frame
from edge_agent.plugin_tables import SOURCE_UNREAD
from edge_agent.telemetry.rows import Telemetry, WindowPart
from edge_agent.telemetry.unread_watch import UnreadWatch
from edge_agent.updater.updater import Updater
from wire import leb128
from wire.answers import AnswerRecord
from wire.codec import Json, decode, from_document, parse_json, to_document
from wire.errors import MessageError, WireError
from wire.histogram import Counters, Shape
from wire.messages import Sample, Stream, UnreadInputs, UpdatePhase
from wire.shadow import ShadowCounts

MAX_ANSWERS_BYTES = 4 * 1024 * 1024  # of one frame: a batch of a sink, with room


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
    sinks: Mapping[str, Json] = field(default_factory=dict)
    left: UnreadInputs = field(default_factory=UnreadInputs)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _WindowHeader:
    """The header of a frame ``window``."""

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


def read_answers(frame: Frame) -> list[dict[str, Json]]:
    """Return the answers in ``frame`` as rows of ``tele/answer``.

    Raises:
        MessageError: If one is not an answer.
    """
    rows = parse_json(frame.payload, limit_bytes=MAX_ANSWERS_BYTES).get("rows")
    if not isinstance(rows, list):
        message = f"Expected a list of answers, got {type(rows).__name__}"
        raise MessageError(message)
    return [to_document(from_document(AnswerRecord, row if isinstance(row, dict) else {})) for row in rows]


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


@dataclass(slots=True, kw_only=True)
class ChildInbox:
    """``unreadable`` and ``fault`` get a kind or code and a text; ``steady`` is called once the child has run for long.

    ``sampled`` gets a request and the length of an input, ``corrected`` the length of an input whose answer a user
    corrected; both return whether it may be sent on. ``compared`` gets the counts of a shadow, ``challenger_ended`` the
    code and text of its end; ``replayed`` gets the digest of a bundle and the counts of its replay after a switch, and
    returns whether that is settled: written, or of no use any more. ``doubted`` is called when ``unread`` has news.
    """

    telemetry: Telemetry
    supervisor: Supervisor
    updater: Updater
    unreadable: Callable[[str, str], None]
    fault: Callable[[str, str], None]
    steady: Callable[[], None]
    sampled: Callable[[str, int], bool] = lambda _request, _length_bytes: True
    corrected: Callable[[int], bool] = lambda _length_bytes: True
    compared: Callable[[ShadowCounts], None] = lambda _counts: None
    challenger_ended: Callable[[str, str], None] = lambda _code, _text: None
    replayed: Callable[[str, ShadowCounts], bool] = lambda _digest, _counts: True
    unread: UnreadWatch = field(default_factory=UnreadWatch)
    doubted: Callable[[], None] = lambda: None
    sinks: Mapping[str, Json] = field(default_factory=dict)
    """The last counts of each sink of answers, by name."""
    _taken: tuple[int, Json] | None = None
    _minute: Minute = field(default_factory=Minute)
    _steady_s: float = float("inf")

    def take(self, frame: Frame, now_ms: int, now_s: float) -> None:
        """Handle one frame; an unreadable one is reported to ``unreadable``."""
        try:
            if frame.kind == "beat":
                self._count(read_heartbeat(frame), now_s)
            elif frame.kind in {"window", "sample", "answers"}:
                self._observe(frame, now_ms)
            elif frame.kind in {"shadow", "shadow_ended"}:
                self._compare(frame)
            elif frame.kind == "replay":
                self._replay(frame)
            elif frame.kind == "fault":
                code = str(frame.header.get("code", "child"))[:64]
                if code == SOURCE_UNREAD and self.updater.record.phase is UpdatePhase.PROBATION:
                    self.updater.health = self.updater.health.left_alone()
                text = str(frame.header.get("text", ""))
                self.unread.passed_over(code, text)
                self.fault(code, text)
        except (WireError, FrameError) as error:
            self.unreadable(f"child_{frame.kind[:32]}", str(error))

    def _observe(self, frame: Frame, now_ms: int) -> None:
        """Hand an observation of the child to telemetry."""
        if frame.kind == "window":
            window = read_window(frame)
            self.telemetry.window(window)
            if not window.closed:
                self._keep_minute(now_ms)
        elif frame.kind == "sample":
            sample = read_sample(frame)
            if sample.lane == CORRECTION:
                if self.corrected(len(frame.payload)):
                    self.telemetry.sample(replace(sample, request="", inclusion_ratio=0.0))
            elif self.sampled(sample.request, len(frame.payload)):
                self.telemetry.sample(sample)
        else:
            for row in read_answers(frame):
                self.telemetry.row(Stream.ANSWER, row)
            self._taken = (self.supervisor.starts, frame.header.get("number"))

    def _compare(self, frame: Frame) -> None:
        """Take what a shadow counted, or its end; that of an earlier attempt is dropped."""
        if Path(str(frame.header.get("bundle", ""))).name != self.updater.record.desired.sha256:
            return
        if frame.kind == "shadow":
            self.compared(decode(ShadowCounts, frame.payload))
        else:
            code = str(frame.header.get("code") or "challenger_crashed")[:64]
            self.challenger_ended(code, str(frame.header.get("text", ""))[:500])

    def _replay(self, frame: Frame) -> None:
        """Take what a replay counted, and let the child forget its inputs unless it could not be written."""
        bundle = str(frame.header.get("bundle", ""))
        settled = self.replayed(Path(bundle).name, decode(ShadowCounts, frame.payload))
        if settled and self.supervisor.child is not None:
            self.supervisor.child.send({"type": "replayed", "bundle": bundle})

    def written(self) -> None:
        """Confirm to the child that the answers taken so far are on the disk."""
        if self._taken is not None and self.supervisor.child is not None and self._taken[0] == self.supervisor.starts:
            self.supervisor.child.send({"type": "written", "number": self._taken[1]})
        self._taken = None

    def serving(self, steady_at_s: float) -> None:
        """Record that a release is served from now on; it counts as steady at ``steady_at_s``."""
        self._steady_s = steady_at_s

    def fold(self, now_ms: int) -> None:
        """Add a row with the heartbeats since the last one."""
        if self._minute.n or self._minute.errors:
            self.telemetry.row(Stream.INFER, self._minute.row(now_ms))
        self._minute = Minute()

    def _keep_minute(self, now_ms: int) -> None:
        """Store the heartbeats so far together with the part of the window: one write for both."""
        if self._minute.n or self._minute.errors:
            self.telemetry.so_far(Stream.INFER, self._minute.row(now_ms))

    def _count(self, heartbeat: Heartbeat, now_s: float) -> None:
        self._minute.add(heartbeat)
        self.sinks = heartbeat.sinks
        if self.supervisor.serving is None or self.supervisor.serving != self.supervisor.wanted:
            return  # a model being replaced is no evidence of the new one's health
        if heartbeat.artifact and self.updater.record.artifact_sha256 in {"", heartbeat.artifact}:
            self.updater.health = self.updater.health.beat(
                n=heartbeat.n, errors=heartbeat.errors, p95_ms=heartbeat.p95_ms, classes=heartbeat.classes
            ).beside(heartbeat.left)
        if self.updater.record.phase is not UpdatePhase.PROBATION:
            self.updater.usual = self.updater.usual.add(heartbeat.classes, heartbeat.n)
            self.updater.usual_tries = self.updater.usual_tries.add(heartbeat.n, heartbeat.errors)
        self._doubt(heartbeat)
        if now_s >= self._steady_s:
            self._steady_s = float("inf")
            self.steady()

    def _doubt(self, heartbeat: Heartbeat) -> None:
        """Note whether the release that serves answers its inputs."""
        record = self.updater.record
        proven = record.phase is not UpdatePhase.COMMITTED or record.answered != 0
        trial = record.phase is UpdatePhase.PROBATION
        if self.unread.beat(
            heartbeat.artifact,
            n=heartbeat.n,
            errors=heartbeat.errors,
            dropped=heartbeat.dropped,
            left=replace(heartbeat.left, never=not proven or (trial and not self.updater.health.inferences)),
            proven=proven,
        ):
            self.doubted()
