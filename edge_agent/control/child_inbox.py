"""Dispatches the child's frames: windows and samples to telemetry, heartbeats to rows and to probation's health."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.control.child_messages import Heartbeat, Minute, read_heartbeat, read_sample, read_window
from edge_agent.control.supervisor import Supervisor
from edge_agent.errors import FrameError
from edge_agent.pipe_frames import Frame
from edge_agent.sources import SOURCE_UNREAD
from edge_agent.telemetry.rows import Telemetry
from edge_agent.updater.updater import Updater
from wire.errors import WireError
from wire.messages import Stream, UpdatePhase


@dataclass(slots=True, kw_only=True)
class ChildInbox:
    """``unreadable`` and ``fault`` get a kind or code and a text; ``steady`` is called once the child has run for long.

    ``sampled`` gets a request and the length of an input, and returns whether it may be sent on.
    """

    telemetry: Telemetry
    supervisor: Supervisor
    updater: Updater
    unreadable: Callable[[str, str], None]
    fault: Callable[[str, str], None]
    steady: Callable[[], None]
    sampled: Callable[[str, int], bool] = lambda _request, _length_bytes: True
    _minute: Minute = field(default_factory=Minute)
    _steady_s: float = float("inf")

    def take(self, frame: Frame, now_ms: int, now_s: float) -> None:
        """Handle one frame; an unreadable one is reported to ``unreadable``."""
        try:
            if frame.kind == "beat":
                self._count(read_heartbeat(frame), now_s)
            elif frame.kind == "window":
                window = read_window(frame)
                self.telemetry.window(window)
                if not window.closed:
                    self._keep_minute(now_ms)
            elif frame.kind == "sample":
                sample = read_sample(frame)
                if self.sampled(sample.request, len(frame.payload)):
                    self.telemetry.sample(sample)
            elif frame.kind == "fault":
                code = str(frame.header.get("code", "child"))[:64]
                if code == SOURCE_UNREAD and self.updater.record.phase is UpdatePhase.PROBATION:
                    self.updater.health = self.updater.health.left_alone()
                self.fault(code, str(frame.header.get("text", "")))
        except (WireError, FrameError) as error:
            self.unreadable(f"child_{frame.kind[:32]}", str(error))

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
        if self.supervisor.serving is None or self.supervisor.serving != self.supervisor.wanted:
            return  # a model being replaced is no evidence of the new one's health
        if heartbeat.artifact and self.updater.record.artifact_sha256 in {"", heartbeat.artifact}:
            self.updater.health = self.updater.health.beat(
                n=heartbeat.n, errors=heartbeat.errors, p95_ms=heartbeat.p95_ms, classes=heartbeat.classes
            )
        if self.updater.record.phase is not UpdatePhase.PROBATION:
            self.updater.usual = self.updater.usual.add(heartbeat.classes, heartbeat.n)
            self.updater.usual_tries = self.updater.usual_tries.add(heartbeat.n, heartbeat.errors)
        if now_s >= self._steady_s:
            self._steady_s = float("inf")
            self.steady()
