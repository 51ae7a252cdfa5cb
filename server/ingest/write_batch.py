"""Writes one batch of messages to the store, inside one transaction.

The order of a device's boots: their ids are random, and a device's clock can't be trusted. A running device sends
``state`` and ``reported`` before anything else, so a boot first mentioned in one of them is newer than all known boots.
Messages kept from earlier boots follow, oldest first: a boot first mentioned in an event, while another boot is known,
is placed right before the newest. A place never changes once assigned, so events carry it, and their order holds when
the boots are deleted.

The time of something: the device's own time if plausible, else the time of arrival. A device's clock may show 1970 or
next year. An implausible time must not make a row that counts as the newest, is never deleted or is deleted at once,
nor a window that makes the server recompute the fleet's evidence. See ADR 16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import sqlalchemy as sa

from server.config import IngestConfig
from server.ingest.decode import Arrival, StreamKey, is_key
from server.ingest.device_rows import DeviceRows
from server.ingest.drift_batches import WindowReport
from server.ingest.faults import FaultEvents, shortened
from server.ingest.watermarks import StreamProgress, from_text, to_text
from server.ingest.windows import fold
from server.registry.events import Origin, event_row
from server.registry.lineage import note_model, note_transition
from server.software.ledger import note_software
from server.store import events as event_store
from server.store import fleet as fleet_store
from server.store.monitoring import ingest as store
from server.store.monitoring import usage as usage_store
from wire.codec import from_document
from wire.errors import WireError
from wire.messages import Batch, DayUsage, DeviceState, Event, Get, Reported, Response, Severity, State, Stream

_MAX_WINDOW_MS = 7 * 86_400_000  # a longer window has no grid worth keeping
_EARLIEST_MS = 1_700_000_000_000  # November 2023: no device of this project counted anything before


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """The plausible times of something that arrives at ``now_ms``.

    ``skew_ms``: tolerated error of a clock. ``oldest_ms``: an older time can't be told from a wrong clock.
    ``is_off``: the device's clock is known to be off by more, so a message that seems late is not.
    """

    now_ms: int
    skew_ms: int
    oldest_ms: int
    is_off: bool = False

    def of(self, at_ms: int) -> int:
        """Return the time of something at ``at_ms`` by the device's clock; never after its arrival."""
        return min(at_ms, self.now_ms) if self._can_be(at_ms, at_ms) else self.now_ms

    def of_window(self, start_ms: int, len_ms: int, *, late: bool = False) -> int:
        """Return the start under which a window is stored: its own, or that of the window in which it arrived.

        ``late``: the device says that the window waited on it, which a clock that is right may say of any age.
        """
        length_ms = min(len_ms, _MAX_WINDOW_MS)
        if late and not self.is_off and _EARLIEST_MS < start_ms <= self.now_ms - self.oldest_ms:
            return start_ms
        if self._can_be(
            start_ms, start_ms + 2 * length_ms
        ):  # it is sent after its end, by the next one's at the latest
            return start_ms
        return self.now_ms - self.now_ms % max(length_ms, 1)

    def _can_be(self, at_ms: int, sent_ms: int) -> bool:
        if not self.now_ms - self.oldest_ms < at_ms <= self.now_ms + self.skew_ms:
            return False
        return not self.is_off or sent_ms >= self.now_ms - self.skew_ms


_SPAN = 2**20  # room between two boots for others that are mentioned late


@dataclass(frozen=True, slots=True)
class Mention:
    """A message that names ``boot``; ``runs``: the message shows that this boot is the running one."""

    boot: str
    runs: bool


def places(known: Mapping[str, int], mentions: Iterable[Mention]) -> dict[str, int]:
    """Return the places of the boots in ``mentions`` that are not in ``known``; a higher place is a later boot."""
    everyone, fresh = dict(known), {}
    for mention in mentions:
        if mention.boot in everyone:
            continue
        newest = max(everyone.values(), default=0)
        if mention.runs or not everyone:
            place = newest + _SPAN
        else:
            below = max((place for place in everyone.values() if place < newest), default=0)
            place = max(below, newest - _SPAN) + 1
        everyone[mention.boot] = fresh[mention.boot] = place
    return fresh


_TEXT_LIMIT, _SHOWN = 2_000, 100  # characters
_DAY_MS = 86_400_000
_DAY_LENGTH, _MAX_FIGURE, _MAX_STREAMS = len("2026-11-29"), 2**62, 16
_NO_BUDGET = "budget_zero"  # the device's answer to a request for samples that its owner does not allow


@dataclass(slots=True, kw_only=True)
class WriteBatch:
    """Writes a batch; the caller commits, and then takes the rows of ``fault_events``, which are stored with it."""

    connection: sa.Connection
    config: IngestConfig
    fault_events: FaultEvents
    now_ms: int
    _senders: frozenset[str] = frozenset()
    _off: frozenset[str] | None = None
    _places: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    _devices: DeviceRows = field(init=False)

    def write(
        self, fresh: Sequence[Arrival], arrivals: Sequence[Arrival], progress: Mapping[StreamKey, StreamProgress]
    ) -> int:
        """Store ``fresh``, every stream's progress, and when devices were last seen (``arrivals``: with duplicates).

        Returns how many rows of ``fault_events`` were stored with them.
        """
        self._senders = frozenset(item.topic.device for item in arrivals)
        self._places = self._placed(fresh)
        self._devices = DeviceRows.read(
            self.connection,
            clocks={item.topic.device for item in fresh if isinstance(item.message, State | Reported | Get)},
            reports={item.topic.device for item in fresh if isinstance(item.message, Reported)},
        )
        for item in fresh:  # first, because it records which clocks are off
            self._apply(item)
        reports = [self._filed(item, item.message) for item in fresh if isinstance(item.message, WindowReport)]
        for error in fold(self.connection, reports, self.now_ms):
            self.fault_events.add(self.now_ms, error.code, str(error))
        batches: list[dict[str, object]] = [
            {
                "device": item.topic.device, "stream": item.topic.leaf, "n": item.message.n,
                "t0_ms": self._time(item.topic.device).of(item.message.t0_ms),
                "rows": [dict(row) for row in item.message.rows], "received_ms": self.now_ms,
            }
            for item in fresh if isinstance(item.message, Batch)
        ]  # fmt: skip
        store.insert_batches(self.connection, batches)
        usage_store.put_device_days(self.connection, [day for item in fresh for day in self._days(item)])
        rows = [self._event(item.topic.device, item.message) for item in fresh if isinstance(item.message, Event)]
        store.put_progress(self.connection, [self._progress(key, reached) for key, reached in progress.items()])
        alive = {
            item.topic.device
            for item in arrivals  # a will is published by the broker: no sign of life
            if not item.retained and not (isinstance(item.message, State) and item.message.state is DeviceState.LOST)
        }
        self._devices.write(alive, self.now_ms)
        faults = self.fault_events.rows
        event_store.insert_events(self.connection, [*rows, *faults])
        return len(faults)

    def _days(self, item: Arrival) -> Iterator[dict[str, object]]:
        """Yield what the rows of ``hw`` in ``item`` report of their days; a report that can't be true is a fault."""
        if not isinstance(item.message, Batch) or item.message.stream is not Stream.HW:
            return
        for row in item.message.rows:
            document = row.get("usage")
            if not isinstance(document, dict):
                continue
            try:
                used = from_document(DayUsage, document)
                day_ms = round(datetime.fromisoformat(used.day).replace(tzinfo=UTC).timestamp() * 1000)
            except (WireError, ValueError) as error:
                self.fault_events.add(
                    self.now_ms, "message_invalid", f"Expected the usage of a day, got: {error}",
                    sender=item.topic.device, registered=True,
                )  # fmt: skip
                continue
            figures = (used.sent_bytes, used.received_bytes, used.written_bytes, used.merged, *used.dropped.values())
            plausible = len(used.day) == _DAY_LENGTH and day_ms <= self.now_ms + _DAY_MS
            if plausible and all(0 <= figure < _MAX_FIGURE for figure in figures):
                yield {
                    "device": item.topic.device, "day": used.day, "sent_bytes": used.sent_bytes,
                    "received_bytes": used.received_bytes, "written_bytes": used.written_bytes,
                    "dropped": {name: used.dropped[name] for name in sorted(used.dropped)[:_MAX_STREAMS]},
                    "merged": used.merged, "received_ms": self.now_ms,
                }  # fmt: skip

    def _placed(self, fresh: Sequence[Arrival]) -> Mapping[str, Mapping[str, int]]:
        """Return the place of every boot, by device; new boots are stored."""
        mentions: dict[str, list[Mention]] = {}
        for item in fresh:
            message = item.message
            if isinstance(message, State | Reported | Event) and message.boot:
                runs = isinstance(message, Reported) or (
                    isinstance(message, State) and message.state is not DeviceState.LOST
                )
                if runs or isinstance(message, Event):
                    mentions.setdefault(item.topic.device, []).append(Mention(message.boot, runs))
        found: dict[str, dict[str, int]] = {device: {} for device in mentions}
        lost = {item.topic.device for item in fresh if isinstance(item.message, State)}
        for row in store.boots_of(self.connection, mentions.keys() | lost):
            found.setdefault(row["device"], {})[row["boot"]] = int(row["place"])
        rows = []
        for device, mentioned in mentions.items():
            for boot, place in places(found[device], mentioned).items():
                found[device][boot] = place
                rows.append({"device": device, "boot": boot, "place": place, "heard_ms": self.now_ms})
        store.insert_boots(self.connection, rows)
        return found

    def _is_outlived(self, device: str, state: State) -> bool:
        """Return whether ``state`` is the will of an earlier boot than the newest known: it is out of date."""
        known = self._places.get(device, {})
        place = known.get(state.boot)
        return state.state is DeviceState.LOST and place is not None and place < max(known.values())

    def _apply(self, item: Arrival) -> None:
        device, message = item.topic.device, item.message
        if isinstance(message, State):
            if message.state is not None and not self._is_outlived(device, message):
                self._devices.note_state(device, message.state)
            # A will was written when the device connected.
            if message.state is not DeviceState.LOST and not item.retained:
                self._note_clock(device, message.at_ms)
        elif isinstance(message, Reported):
            self._reported(device, message, retained=item.retained)
        elif isinstance(message, Get):
            self._note_clock(device, message.at_ms)
        elif isinstance(message, Response):
            answer = {
                "answered_ms": self.now_ms, "ok": message.ok, "code": message.code,
                "text": shortened(message.text, _TEXT_LIMIT), "data": dict(message.data),
            }  # fmt: skip
            awaited = fleet_store.answer_command(self.connection, device, message.id, answer)
            if awaited and message.code == _NO_BUDGET:  # nobody waits for this answer, and nothing else would report it
                self.fault_events.add(self.now_ms, "samples_refused", message.text, sender=device, registered=True)

    def _reported(self, device: str, message: Reported, *, retained: bool) -> None:
        if not self._devices.is_registered(device):
            return
        older = self._devices.reported(device)
        if older == message:
            return
        if not retained:
            self._note_clock(device, message.at_ms)
        at_ms = self._time(device).of(message.at_ms)
        note_model(self.connection, device, older, message, self.now_ms)
        note_transition(self.connection, device, older, replace(message, at_ms=at_ms), self.now_ms)
        since_ms = message.software.since_ms if message.software is not None else 0
        from_ms = self._time(device).of(since_ms) if since_ms else at_ms
        note_software(self.connection, device, older, message, from_ms, self.now_ms)
        self._devices.note_reported(device, message)

    def _note_clock(self, device: str, at_ms: int) -> None:
        if at_ms == 0:
            return
        skew_ms = at_ms - self.now_ms
        noted_ms = skew_ms if abs(skew_ms) > self.config.clock_skew_s * 1000 else 0
        before_ms = self._devices.skew_ms(device) or 0
        if noted_ms != before_ms:
            self._devices.note_skew(device, noted_ms)
        if noted_ms and not before_ms:
            text = f"Expected a clock within {self.config.clock_skew_s:.0f} s, got one off by {skew_ms / 1000:.0f} s"
            self.fault_events.add(self.now_ms, "clock_skew", text, sender=device, registered=True)

    def _time(self, device: str) -> DeviceTime:
        """Return the plausible times of a device; the store is queried at most once more for clocks that are off."""
        skew_ms = self._devices.skew_ms(device)
        if skew_ms is None:
            if self._off is None:
                self._off = fleet_store.devices_with_skew(self.connection, self._senders)
            skew_ms = int(device in self._off)
        return device_time(self.config, self.now_ms, is_off=skew_ms != 0)

    def _filed(self, item: Arrival, report: WindowReport) -> tuple[str, str, WindowReport]:
        """Return a report as ``fold`` takes it, under a plausible time."""
        head, device = report.head, item.topic.device
        start_ms = self._time(device).of_window(head.window_start_ms, head.window_len_ms, late=head.late)
        if start_ms != head.window_start_ms:
            text = (
                f"Expected a window that can have been counted by now, got one from {head.window_start_ms}: set the "
                "device's clock; the window is filed under the time of its arrival"
            )
            self.fault_events.add(self.now_ms, "clock_skew", text, sender=device, registered=True)
            report = replace(report, head=replace(head, window_start_ms=start_ms))
        return item.topic.site, device, report

    def _event(self, device: str, event: Event) -> dict[str, object]:
        """Return the row of ``event``; an invalid kind or code is replaced, so that the event keeps its number."""
        kind, code, text, severity = event.kind, event.code, event.text, event.severity or Severity.INFO
        wrong = next((name for name in (kind, code) if not (name == "" or is_key(name))), None)
        if wrong is not None:  # refused as a whole, the device would send it forever
            got = f"{shortened(wrong, _SHOWN)!r} of {len(wrong):,}"
            text = f"Expected kind and code of an event of at most 64 printable characters, got {got}: {text}"
            kind, code, severity = "ingest", "event_name_refused", Severity.WARNING
        return event_row(
            self._time(device).of(event.at_ms), kind, code, severity, shortened(text, _TEXT_LIMIT), device=device,
            data=event.data, origin=Origin(event.boot, self._places[device][event.boot], event.seq),
        )  # fmt: skip

    def _progress(self, key: StreamKey, reached: StreamProgress) -> dict[str, object]:
        return {
            "device": key.device, "stream": key.stream.value, "boot": key.boot, "through_seq": reached.through_seq,
            "ahead": to_text(reached.ahead), "at_ms": self.now_ms,
        }  # fmt: skip


def device_time(config: IngestConfig, now_ms: int, *, is_off: bool = False) -> DeviceTime:
    """Return the plausible times of a device under these settings."""
    oldest_ms = int(config.retention_days * _DAY_MS)
    return DeviceTime(now_ms=now_ms, skew_ms=int(config.clock_skew_s * 1000), oldest_ms=oldest_ms, is_off=is_off)


def load_progress(connection: sa.Connection, keys: Collection[StreamKey]) -> dict[StreamKey, StreamProgress]:
    """Return the stored progress of the streams ``keys``; a new stream starts at -1."""
    found = {key: StreamProgress() for key in keys}
    for row in store.progress_of(connection, {key.device for key in keys}, {key.boot for key in keys}):
        key = StreamKey(row["device"], Stream(row["stream"]), row["boot"])
        if key in found:
            found[key] = StreamProgress(int(row["through_seq"]), from_text(row["ahead"]))
    return found
