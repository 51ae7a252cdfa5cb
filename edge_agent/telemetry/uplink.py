"""Publishes the agent's retained documents, responses and the spool's rows over the transport.

Decides what is published and when. Retained documents are sent again on every connection, so a broker without
persistence is enough. What waited through an outage is replayed at a bounded rate, beside what is new.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field, replace

from edge_agent.config import TransportConfig
from edge_agent.errors import SpoolError
from edge_agent.telemetry.rows import seal, topic_of
from edge_agent.telemetry.spool import Row, Spool
from wire.codec import encode
from wire.errors import WireError
from wire.messages import DeviceState, Get, Reported, Response, State, Watermark
from wire.topics import CHUNK_DATA, CHUNK_REQUEST, Kind, Topic, device_filter
from wire.transport import Listener, Transport, Will

_LOG = logging.getLogger(__name__)
MAX_ANSWERS = 64
OUTAGE_S = 60.0  # what waited through a shorter loss of the connection is not late
BURST_S = 8.0  # a replay may be ahead of its rate by this much: a short backlog is sent at once


@dataclass(slots=True, kw_only=True)
class Uplink:
    """One device's side of the topics. One thread."""

    transport: Transport
    spool: Spool
    config: TransportConfig
    site: str
    device: str
    boot: str
    agent_version: str
    up: bool = False
    _down_s: float = 0.0
    _paced_s: float = 0.0
    _replay_bytes: float = float("inf")
    _state: State = field(default_factory=State)
    _due: dict[Kind, bytes] = field(default_factory=dict)
    _answers: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_ANSWERS))

    def start(self, listener: Listener, now_ms: int, now_s: float) -> None:
        """Connect in the background, with a will that sets the state to lost."""
        self._down_s = self._paced_s = now_s
        will = encode(State(state=DeviceState.LOST, at_ms=now_ms, boot=self.boot, agent_version=self.agent_version))
        kinds = [Kind.DESIRED, Kind.CMD]
        chunks = str(Topic(site=self.site, device=self.device, kind=Kind.BLOB, leaf=CHUNK_DATA))
        self.transport.start(
            listener,
            subscriptions=(*(device_filter(self.site, self.device, kind) for kind in kinds), chunks),
            will=Will(self._topic(Kind.STATE), will, self.config.will_delay_s),
        )

    def connected(self, now_ms: int, now_s: float) -> None:
        """Publish the state, ask for ``desired``, and send unacknowledged rows again.

        Raises:
            SpoolError: If the spool can't be read.
        """
        self.up = True
        self.spool.take_all_back()
        if now_s - self._down_s >= OUTAGE_S:
            self.spool.begin_replay()
        if self._state.at_ms:  # the server compares it with its own clock
            self._state = replace(self._state, at_ms=now_ms)
        self._due[Kind.STATE] = encode(self._state)
        self.request_desired(now_ms)

    def request_desired(self, now_ms: int) -> None:
        """Ask the server for ``desired``."""
        self._due[Kind.GET] = encode(Get(at_ms=now_ms))

    def disconnected(self, now_s: float) -> None:
        """Stop sending until the next connection."""
        if self.up:
            self._down_s = now_s
        self.up = False

    def report_state(self, state: DeviceState, now_ms: int, reason: str = "") -> None:
        """Publish the state and the reason why it is not ready, if one of them has changed."""
        if state is not self._state.state or reason != self._state.reason or not self._state.at_ms:
            self._state = State(
                state=state, at_ms=now_ms, boot=self.boot, agent_version=self.agent_version, reason=reason
            )
            self._due[Kind.STATE] = encode(self._state)

    def send_reported(self, reported: Reported) -> None:
        """Publish the full document."""
        self._due[Kind.REPORTED] = encode(reported)

    def answer(self, response: Response) -> None:
        """Queue the response to a command."""
        self._answers.append(encode(response))

    def ask_for_chunks(self, request: bytes) -> None:
        """Send a request for chunks of a blob, unless the link is down or full: the downloading part asks again."""
        if self.up:
            topic = Topic(site=self.site, device=self.device, kind=Kind.BLOB, leaf=CHUNK_REQUEST)
            self._publish(str(topic), request, retain=False)

    def acked(self, watermarks: tuple[Watermark, ...]) -> None:
        """Delete the rows that the server has stored.

        Raises:
            SpoolError: If the spool can't be written; the server will acknowledge again.
        """
        for watermark in watermarks:
            self.spool.acked(watermark)

    def turn(self, now_s: float) -> None:
        """Publish as much as the transport accepts: documents, responses, then rows by priority."""
        if not self.up:
            return
        for kind in [Kind.STATE, Kind.REPORTED, Kind.GET]:
            payload = self._due.get(kind)
            if payload is not None and self._publish(self._topic(kind), payload, retain=kind is not Kind.GET):
                del self._due[kind]
        while self._answers and self._publish(self._topic(Kind.RES), self._answers[0], retain=False):
            self._answers.popleft()
        if self._due:
            return
        config = self.config
        rate = config.replay_bytes_per_s
        allowed_bytes = self._replay_bytes + rate * max(0.0, now_s - self._paced_s)
        self._replay_bytes = min(rate * BURST_S, allowed_bytes) if rate else float("inf")  # 0: no limit
        self._paced_s = now_s
        rows = self.spool.hand_out(
            now_s,
            limit=config.inflight_messages,
            resend_s=config.ack_timeout_s,
            unacked=config.unacked_rows,
            replay_bytes=self._replay_bytes,
        )
        for index, row in enumerate(rows):
            if not self._send(row):
                for kept in rows[index:]:
                    self.spool.take_back(kept)
                return
            if row.late:
                self._replay_bytes -= row.length_bytes

    def stop(self, now_ms: int) -> None:
        """Publish the state disconnected, and disconnect in order."""
        self.report_state(DeviceState.DISCONNECTED, now_ms)
        if self.up:
            self._publish(self._topic(Kind.STATE), encode(self._state), retain=True)
        self.transport.stop()

    def _send(self, row: Row) -> bool:
        try:
            payload = seal(row, oldest_seq=self.spool.oldest(row.stream, row.boot), boot=self.boot)
        except (WireError, ValueError) as error:
            _LOG.error("row can't be sent, left behind stream=%s seq=%s error=%s", row.stream, row.seq, error)
            self._forget(row)
            return True
        return self._publish(str(topic_of(row, self.site, self.device)), payload, retain=False)

    def _forget(self, row: Row) -> None:
        try:
            self.spool.drop(row)
        except SpoolError as error:
            _LOG.warning("row can't be dropped error=%s", error)

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> bool:
        return self.transport.publish(topic, payload, retain=retain) is not None

    def _topic(self, kind: Kind) -> str:
        return str(Topic(site=self.site, device=self.device, kind=kind))
