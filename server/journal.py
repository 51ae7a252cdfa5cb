"""What one batch of messages changes in the store, inside one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from server.arrivals import Arrival, StreamKey
from server.complaints import Complaints, printable
from server.config import IngestConfig
from server.registry.events import event_row
from server.registry.lineage import note_transition
from server.store import events as event_store
from server.store import fleet as fleet_store
from server.store import ingest as store
from server.unsealing import WindowReport
from server.watermarks import Progress, from_text, to_text
from server.windows import fold
from wire.codec import decode, encode
from wire.messages import Batch, DeviceState, Event, Reported, Response, Severity, State, Stream

_TEXT_LIMIT = 2_000
_NAME_LIMIT = 64
_DAY_MS = 86_400_000


@dataclass(slots=True)
class Journal:
    """Writes a batch; the caller commits."""

    connection: sa.Connection
    config: IngestConfig
    complaints: Complaints
    now_ms: int

    def write(
        self, fresh: Sequence[Arrival], arrivals: Sequence[Arrival], progress: Mapping[StreamKey, Progress]
    ) -> None:
        """Store ``fresh``; note who was heard (``arrivals``, duplicates too) and how far every stream got."""
        reports = [
            (item.topic.site, item.topic.device, item.message)
            for item in fresh
            if isinstance(item.message, WindowReport)
        ]
        for error in fold(self.connection, reports, self.now_ms):
            self.complaints.add(self.now_ms, error.code, str(error))
        store.insert_batches(self.connection, [self._batch(item) for item in fresh if isinstance(item.message, Batch)])
        for item in fresh:
            self._apply(item)
        rows = [self._event(item.topic.device, item.message) for item in fresh if isinstance(item.message, Event)]
        store.put_progress(self.connection, [self._progress(key, reached) for key, reached in progress.items()])
        heard = {item.topic.device for item in arrivals if not item.retained}
        fleet_store.touch_devices(self.connection, sorted(heard), self.now_ms)
        self._note_future_windows(reports)
        event_store.insert_events(self.connection, rows + self.complaints.take())

    def _apply(self, item: Arrival) -> None:
        device, message = item.topic.device, item.message
        if isinstance(message, State):
            self._state(device, message, retained=item.retained)
        elif isinstance(message, Reported):
            self._reported(device, message, retained=item.retained)
        elif isinstance(message, Response):
            answer = {
                "answered_ms": self.now_ms, "ok": message.ok, "code": printable(message.code)[:_NAME_LIMIT],
                "text": printable(message.text)[:_TEXT_LIMIT], "data": dict(message.data),
            }  # fmt: skip
            fleet_store.answer_command(self.connection, device, message.id[:_NAME_LIMIT], answer)

    def _state(self, device: str, message: State, *, retained: bool) -> None:
        if message.state is not None:
            fleet_store.update_device(self.connection, device, {"state": message.state.value})
        if message.state is not DeviceState.LOST and not retained:  # a will was written when the device connected
            self._note_clock(device, message.at_ms)

    def _reported(self, device: str, message: Reported, *, retained: bool) -> None:
        row = fleet_store.one_device(self.connection, device)
        if row is None:
            return
        older = decode(Reported, row["reported"].encode()) if row["reported"] else None
        if older == message:
            return
        note_transition(self.connection, device, older, message, self.now_ms)
        fleet_store.update_device(self.connection, device, {"reported": encode(message).decode()})
        if not retained:
            self._note_clock(device, message.at_ms)

    def _note_clock(self, device: str, at_ms: int) -> None:
        if at_ms == 0:
            return
        skew_ms = at_ms - self.now_ms
        noted_ms = skew_ms if abs(skew_ms) > self.config.clock_skew_s * 1000 else 0
        row = fleet_store.one_device(self.connection, device)
        before_ms = int(row["clock_skew_ms"]) if row else 0
        if noted_ms != before_ms:
            fleet_store.update_device(self.connection, device, {"clock_skew_ms": noted_ms})
        if noted_ms and not before_ms:
            text = f"Expected a clock within {self.config.clock_skew_s:.0f} s, got one off by {skew_ms / 1000:.0f} s"
            self.complaints.add(self.now_ms, "clock_skew", text, sender=device, registered=True)

    def _note_future_windows(self, reports: Sequence[tuple[str, str, WindowReport]]) -> None:
        limit_ms = self.now_ms + int(self.config.clock_skew_s * 1000)
        for _, device, report in reports:
            if report.head.window_start_ms > limit_ms:
                text = f"Expected a window that has begun, got one that starts at {report.head.window_start_ms}"
                self.complaints.add(self.now_ms, "clock_skew", text, sender=device, registered=True)

    def _batch(self, item: Arrival) -> dict[str, object]:
        batch = item.message
        if not isinstance(batch, Batch):
            return {}
        return {
            "device": item.topic.device, "stream": item.topic.leaf, "t0_ms": batch.t0_ms, "n": batch.n,
            "rows": [dict(row) for row in batch.rows], "received_ms": self.now_ms,
        }  # fmt: skip

    def _event(self, device: str, event: Event) -> dict[str, object]:
        oldest_ms = self.now_ms - int(self.config.retention_days * _DAY_MS)
        newest_ms = self.now_ms + int(self.config.clock_skew_s * 1000)
        plausible = oldest_ms < event.at_ms <= newest_ms  # a clock that is off must not hide or delete an event
        at_ms = event.at_ms if plausible else self.now_ms
        return event_row(
            at_ms, printable(event.kind)[:_NAME_LIMIT], printable(event.code)[:_NAME_LIMIT],
            event.severity or Severity.INFO, printable(event.text)[:_TEXT_LIMIT], device=device, data=event.data,
        )  # fmt: skip

    def _progress(self, key: StreamKey, reached: Progress) -> dict[str, object]:
        return {
            "device": key.device, "stream": key.stream.value, "boot": key.boot, "through_seq": reached.through_seq,
            "ahead": to_text(reached.ahead), "at_ms": self.now_ms,
        }  # fmt: skip


def load_progress(connection: sa.Connection, keys: Collection[StreamKey]) -> dict[StreamKey, Progress]:
    """Return how far the streams ``keys`` got, from the store; a new one got nowhere."""
    found = {key: Progress() for key in keys}
    for row in store.progress_of(connection, {key.device for key in keys}, {key.boot for key in keys}):
        key = StreamKey(row["device"], Stream(row["stream"]), row["boot"])
        if key in found:
            found[key] = Progress(int(row["through_seq"]), from_text(row["ahead"]))
    return found
