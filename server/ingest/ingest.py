"""Stores the devices' messages: each counts exactly once, and is acknowledged only after it is committed.

Order: take a batch from the inbox; decode (rejected messages are counted and become events); in one transaction
merge windows, store rows and advance the watermarks; after the commit, acknowledge. A message that is dropped or fails
on the way is not acknowledged, so the device sends it again. Does not interpret messages: the readers of the store do.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from server.config import IngestConfig
from server.errors import DatabaseRefusedError, DiskFullError, ServerError
from server.fleet.fleet import Fleet, Outbox
from server.ingest.allowance import Allowances
from server.ingest.decode import Arrival, StreamKey, read_arrival
from server.ingest.drift_batches import decode_many
from server.ingest.faults import FaultEvents, RejectedMessage
from server.ingest.watermarks import Acceptance, StreamProgress
from server.ingest.write_batch import WriteBatch, device_time, load_progress
from server.outages import Outages
from server.store.database import Database
from server.store.fleet import hold_devices
from wire.errors import WireError
from wire.messages import Ack, DriftState, Get, Sample, Stream, Watermark
from wire.topics import CHUNK_REQUEST, Kind, Topic, fleet_filter, is_name
from wire.transport import Incoming, Link, LinkChange, Notice

_LOG = logging.getLogger(__name__)
_HAND_OVER_TIMEOUT_S = 1.0
_CACHE_LIMIT = 50_000
_REFUSALS = (
    sa.exc.OperationalError,
    DatabaseRefusedError,
    DiskFullError,
    OSError,
)  # disk full, locked: not the messages' fault
_STORE = "storing of messages"
_REPORT_LEAF = f"/{Kind.TELE.value}/{Stream.DRIFT.value}"

SampleSink = Callable[[str, Sample, int], None]
"""Stores a sample of a device that arrived at a time (UTC ms); idempotent."""


def subscriptions(group: str, *, shared: bool = False) -> tuple[str, ...]:
    """Return the topics that the server subscribes to; ``group`` is the name of its shared subscription.

    ``shared``: other processes may ingest with it. Then samples, whose images are files of the state directory, come
    to the server alone.

    mosquitto grants every subscription and checks access only on delivery: a device that knew the name could join the
    group, and messages that the broker routes to it would be lost. So the name is a secret of the server.
    """
    return (
        *(_shared(group) if shared else (f"$share/{group}/{fleet_filter(Kind.TELE)}",)),
        f"{fleet_filter(Kind.BLOB).removesuffix('#')}{CHUNK_REQUEST}",
        *(fleet_filter(kind) for kind in (Kind.STATE, Kind.REPORTED, Kind.EVENT, Kind.RES, Kind.GET)),
    )


def ingest_subscriptions(group: str) -> tuple[str, ...]:
    """Return the topics of a process that only ingests: what is stored in the database alone, and comes in masses."""
    return tuple(f"$share/{group}/{_telemetry_filter(stream)}" for stream in _STREAMS)


def _shared(group: str) -> tuple[str, ...]:
    return (*ingest_subscriptions(group), _telemetry_filter(Stream.SAMPLE))


def _telemetry_filter(stream: Stream) -> str:
    return f"{fleet_filter(Kind.TELE).removesuffix('#')}{stream.value}"


_STREAMS = (Stream.DRIFT, Stream.INFER, Stream.HW, Stream.ANSWER)


@dataclass(slots=True, kw_only=True)
class IngestFigures:
    """Counts of ingest since the start."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    dropped: int = 0


@dataclass(slots=True, kw_only=True)
class Ingest:
    """The consumer of the inbox. ``receive`` may be called by any thread; ``turn`` by one.

    ``drift_state`` returns what is known about the inputs of a device, which its acknowledgements carry.
    """

    database: Database
    fleet: Fleet
    outbox: Outbox
    config: IngestConfig
    keep_sample: SampleSink | None = None
    drift_state: Callable[[str, int], DriftState | None] = lambda _device, _now_ms: None
    figures: IngestFigures = field(default_factory=IngestFigures)
    fault_events: FaultEvents = field(default_factory=FaultEvents)
    outages: Outages = field(default_factory=Outages)
    _inbox: queue.Queue[tuple[float, Notice]] = field(init=False)
    allowances: Allowances = field(init=False)
    _refused_s: float = float("inf")
    _retry: list[Arrival] = field(default_factory=list)
    _unread: list[Incoming] = field(default_factory=list)
    _progress: dict[StreamKey, StreamProgress] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Create the bounded inbox and the devices' allowances."""
        self._inbox = queue.Queue(self.config.queue_messages)
        self.allowances = Allowances(self.config.device_bytes_per_day)

    def receive(self, notice: Notice) -> None:
        """Enqueue a notice of the transport; waits a second when the inbox is full, then drops it. Never raises."""
        try:
            self._inbox.put((time.monotonic(), notice), timeout=_HAND_OVER_TIMEOUT_S)
        except queue.Full:
            self.figures.dropped += 1

    def turn(self, now_ms: int) -> int:
        """Retry what the store refused, then handle one batch of the inbox; return the number of notices."""
        if self._retry or self._unread:
            self.handle((), now_ms)
        notices = self.take(0.0)
        self.handle(notices, now_ms)
        return len(notices)

    def handle(self, notices: Sequence[Notice], now_ms: int) -> None:
        """Handle one batch that ``take`` returned, after what the store refused before."""
        for notice in notices:
            if isinstance(notice, LinkChange):
                if notice.link is Link.UP:
                    self.fleet.forget_published()
                    _LOG.info("Connected to the broker.")
                else:
                    _LOG.warning(
                        "The connection to the broker changed. link=%s reason=%s", notice.link.value, notice.reason
                    )
        incoming = self._unread + [notice for notice in notices if isinstance(notice, Incoming)]
        arrivals, self._retry, self._unread = self._retry, [], []
        try:
            sites = self.fleet.sites({sender for notice in incoming if is_name(sender := _sender(notice.topic))})
        except _REFUSALS as error:
            self.outages.failed(_STORE, error)
            self._retry, self._unread = arrivals, incoming
            self._refused_s = min(self._refused_s, time.monotonic())
            return
        arrivals += self._believe(incoming, sites, now_ms)
        if arrivals or self.fault_events.rows:
            self._keep(arrivals, now_ms)
        if not self._retry and not self.fault_events.rows:
            self._refused_s = float("inf")
            self.outages.worked(_STORE)

    def take(self, wait_s: float) -> list[Notice]:
        """Return up to one batch of notices; wait up to ``wait_s`` for the first.

        Empty while the store refuses: the inbox bounds what waits, and devices keep the rest.
        """
        taken: list[Notice] = []
        if self._retry or self._unread:
            time.sleep(wait_s)
            return taken
        try:
            taken.append((self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait())[1])
            while len(taken) < self.config.batch_messages:
                taken.append(self._inbox.get_nowait()[1])
        except queue.Empty:
            pass
        return taken

    def lag_s(self) -> float:
        """Return how many seconds the oldest message has waited to be stored; 0 when none waits."""
        with self._inbox.mutex:
            oldest_s = self._inbox.queue[0][0] if self._inbox.queue else float("inf")
        return max(0.0, time.monotonic() - min(oldest_s, self._refused_s))

    def _believe(self, notices: Sequence[Incoming], sites: Mapping[str, str], now_ms: int) -> list[Arrival]:
        """Return the messages that decode and come from a device in ``sites`` (sites of registered devices, by id).

        ``sites`` is read from the store for each batch and not cached: a device that another process enrolled a
        moment ago is known, and a removed one no longer is.
        """
        reports = [notice for notice in notices if notice.topic.endswith(_REPORT_LEAF) and notice.payload]
        decoded = iter(decode_many([notice.payload for notice in reports]))
        found = []
        for notice in notices:
            if not notice.payload:  # a retained message was cleared
                continue
            report = next(decoded) if notice.topic.endswith(_REPORT_LEAF) else None
            sender = _sender(notice.topic)
            try:
                arrival = read_arrival(notice.topic, notice.payload, retained=notice.retained, report=report)
            except WireError as error:
                text = f"{error} on {notice.topic[:200]}"
                self._refuse(now_ms, error.code, text, sender, registered=sender in sites, message=_whole(notice))
                continue
            site = sites.get(arrival.topic.device)
            if site == arrival.topic.site:
                if arrival.key is None or self.allowances.spend(sender, len(notice.payload), now_ms):
                    found.append(arrival)
                else:
                    text = (
                        f"Expected at most {self.config.device_bytes_per_day} bytes a day of a device, got more: see "
                        "whether it is faulty or stolen; the rest waits on it (ingest.device_bytes_per_day)"
                    )
                    self._refuse(now_ms, "device_flood", text, sender)
                continue
            code = "unknown_device" if site is None else "wrong_site"
            text = f"Expected a registered device and its site, got {arrival.topic}"
            self._refuse(now_ms, code, text, sender, registered=site is not None, message=_whole(notice))
        return found

    def _refuse(
        self, now_ms: int, code: str, text: str, sender: str, *, registered: bool = True,
        message: RejectedMessage | None = None,
    ) -> None:  # fmt: skip
        self.figures.refused += 1
        self.fault_events.add(now_ms, code, text, sender=sender, registered=registered, message=message)

    def _keep(self, arrivals: list[Arrival], now_ms: int) -> None:
        try:
            self._commit(arrivals, now_ms)
        except _REFUSALS as error:
            self.outages.failed(_STORE, error)
            self._retry += arrivals
            self._refused_s = min(self._refused_s, time.monotonic())
        except (sa.exc.SQLAlchemyError, ServerError, WireError, ValueError, ArithmeticError) as error:
            if len(arrivals) > 1:
                for arrival in arrivals:
                    self._keep([arrival], now_ms)
                return
            # Skip a message that can never be stored; otherwise the device would send it forever.
            _LOG.warning("A message can't be stored. topic=%s error=%s", arrivals and arrivals[0].topic, error)
            self._refuse(
                now_ms, "not_storable", f"Expected a message that can be stored, got: {error}", "", registered=False
            )
            try:
                self._commit(arrivals, now_ms, discard=True)
            except _REFUSALS:
                self._retry += arrivals

    def _commit(self, arrivals: list[Arrival], now_ms: int, *, discard: bool = False) -> None:
        keys = {arrival.key for arrival in arrivals if arrival.key is not None}
        with self.database.begin() as connection:
            hold_devices(connection, {arrival.topic.device for arrival in arrivals})
            progress = self._progress_of(connection, keys)
            fresh = [arrival for arrival in arrivals if self._is_new(arrival, progress, now_ms)]
            fresh = [] if discard else fresh
            if not (unkept := self._keep_samples(fresh, now_ms)):
                batch = WriteBatch(
                    connection=connection, config=self.config, fault_events=self.fault_events, now_ms=now_ms
                )  # fmt: skip
                faults = batch.write(fresh, arrivals, progress)
        if unkept:  # treated as not received, so that they are sent again
            self._commit([arrival for arrival in arrivals if arrival.key not in unkept], now_ms)
            return
        self.fault_events.take(faults)
        if not self.database.is_shared:
            self._progress.update(progress)
            if len(self._progress) > _CACHE_LIMIT:
                self._progress.clear()
        self.figures.accepted += len(fresh)
        sites = {arrival.topic.device: arrival.topic.site for arrival in arrivals}
        arrived: dict[StreamKey | None, set[int]] = {}
        for arrival in arrivals:
            arrived.setdefault(arrival.key, set()).add(arrival.seq)
        marks: dict[str, list[Watermark]] = {}
        for stream, reached in progress.items():
            ahead = tuple(sorted(arrived[stream] & reached.ahead))
            if reached.through_seq >= 0 or ahead:
                mark = Watermark(stream.stream, stream.boot, reached.through_seq, ahead=ahead)
                marks.setdefault(stream.device, []).append(mark)
        for receiver, watermarks in marks.items():
            topic = Topic(site=sites[receiver], device=receiver, kind=Kind.CMD, leaf="ack")
            self.outbox.send(topic, Ack(tuple(watermarks), now_ms, drift=self.drift_state(receiver, now_ms)))
        if asking := {item.topic.device for item in fresh if isinstance(item.message, Get)}:
            self.fleet.publish_desired(*asking)

    def _progress_of(self, connection: sa.Connection, keys: Collection[StreamKey]) -> dict[StreamKey, StreamProgress]:
        """Return a copy of the progress of ``keys``: what is cached, and the rest from the store."""
        known = {key: self._progress[key].copy() for key in keys if key in self._progress}
        missing = [key for key in keys if key not in known]
        return known | load_progress(connection, missing) if missing else known

    def _is_new(self, arrival: Arrival, progress: dict[StreamKey, StreamProgress], now_ms: int) -> bool:
        key = arrival.key
        if key is None:
            return True
        offer = progress[key].offer(arrival.seq, arrival.oldest_seq)
        if offer is Acceptance.DUPLICATE:
            self.figures.duplicates += 1
        elif offer is Acceptance.TOO_FAR_AHEAD:
            self._refuse(now_ms, "too_far_ahead", f"Expected earlier numbers first, got {arrival.seq}", key.device)
        return offer is Acceptance.NEW

    def _keep_samples(self, fresh: Sequence[Arrival], now_ms: int) -> set[StreamKey | None]:
        """Store the samples; return the streams whose sample did not fit on the disk."""
        unkept: set[StreamKey | None] = set()
        for arrival in fresh:
            if not isinstance(arrival.message, Sample):
                continue
            try:
                if self.keep_sample is not None:
                    is_off = self.fleet.device(arrival.topic.device).clock_skew_ms != 0
                    at_ms = device_time(self.config, now_ms, is_off=is_off).of(arrival.message.at_ms)
                    self.keep_sample(arrival.topic.device, replace(arrival.message, at_ms=at_ms), now_ms)
            except (ServerError, WireError) as error:
                self._refuse(now_ms, error.code, str(error), arrival.topic.device)
            except OSError as error:
                unkept.add(arrival.key)
                text = f"Expected to write a sample, got: {error}: free the server's disk"
                self.fault_events.add(now_ms, "sample_not_kept", text, sender=arrival.topic.device, registered=True)
        return unkept


def _sender(topic: str) -> str:
    return "".join(topic.split("/")[3:4])


def _whole(notice: Incoming) -> RejectedMessage:
    return RejectedMessage(notice.topic, notice.payload)
