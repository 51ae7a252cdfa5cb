"""Answers of the inference child: builds the record of each input and hands it to every sink.

Decides when an input is finished at its source: when every sink has sent, filtered or dropped its answer. A source
that can read an input again does so after a crash, under the same id; so an answer that waited for a sink comes again.
"""

from __future__ import annotations

import math
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from operator import itemgetter

from edge_agent import sinks
from edge_agent.errors import SinkError
from edge_agent.inference.served_model import Inference, ServedModel
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings, misfit
from edge_agent.sources import Capture, readable
from edge_agent.streams.open_events import OpenEvents
from wire.answers import AnswerRecord
from wire.canonical import canonical_bytes
from wire.codec import Json, to_document

CLOSE_S = 2.0
OPEN_S = 5.0  # for sinks from outside, together
_STACK_BYTES = 1024 * 1024  # of a sink's threads: by default 8 MiB each count against the child's limit on memory
WRITTEN_S = 60.0  # a spool commits each second
NOT_NUMBERS = "outputs_not_finite"
_TEXT = 500
NO_INPUT = Capture("", b"")
BEGAN, ENDED = "began", "ended"


@dataclass(slots=True, kw_only=True)
class Answers:
    """All sinks of one child. For one thread; ``joining`` gets sinks that other threads opened."""

    deliveries: Sequence[Delivery] = ()
    device: str = ""
    watch: Callable[[AnswerRecord, bytes, ServedModel], None] | None = None
    """Gets each record, its input and the model; must not wait."""
    drift: str = ""
    """What the server says about the inputs, "" for unknown."""
    open_events: OpenEvents = field(default_factory=partial(OpenEvents, None))
    _start: str = field(default_factory=lambda: secrets.token_hex(4))
    _number: int = 0
    joining: queue.SimpleQueue[Delivery] = field(default_factory=queue.SimpleQueue)
    _waiting: deque[tuple[int, Callable[[], None]]] = field(default_factory=deque)
    _owing: deque[tuple[int, Mapping[str, Json]]] = field(default_factory=deque)
    _had: tuple[int, ...] = ()  # up to which answer each sink was through when owed ends were last noted

    @property
    def wanted(self) -> bool:
        """Whether anybody gets answers."""
        return bool(self.deliveries) or self.watch is not None

    def expect(self) -> None:
        """Count an input as offered that the model has run on; its answer follows a little later."""
        for delivery in self.deliveries:
            delivery.expect()

    def misfits(self, model: ServedModel) -> list[str]:
        """Return what sinks' filters can't do for the answers of ``model``, a sentence for each such sink."""
        return [text for each in self.deliveries if (text := _misfit(each.name, each.settings, model))]

    def answered(
        self,
        model: ServedModel,
        capture: Capture,
        outcome: Inference,
        at: tuple[int, float, float],
        *,
        held: bool = False,
    ) -> None:
        """Offer the answer to ``capture``; ``at``: when it was read, UTC ms and monotonic s, and the time now.

        ``held``: sinks that sleep are not woken by it, but by ``release``.
        """
        if not self.wanted:
            return
        at_ms = capture.place.taken_ms(at[0])
        shown, inputs = model.in_stream(outcome, capture.place, at_ms)
        said = model.answer(shown)
        finite = bool(said.label or said.values)
        record = AnswerRecord(
            id=self._id(capture),
            at_ms=at_ms,
            device=self.device,
            release=model.manifest.release,
            task=model.task_name,
            stream=capture.place.name,
            label=said.label,
            confidence=said.confidence if math.isfinite(said.confidence) else None,
            values=said.values,
            boxes=model.boxes(shown, said),
            anomalous=said.anomalous,
            labels=said.labels,
            scores=said.scores,
            events=self._events(model, capture.place.name),
            inputs=inputs,
            supported=model.supported(outcome),
            support_rate=model.support_rate,
            drift=self.drift,
            latency_ms=round((at[2] - at[1]) * 1000, 3),
            run_ms=round(outcome.run_ms, 3),
            error="" if finite else NOT_NUMBERS,
            text="" if finite else "Expected numbers from the model, got NaN or infinity",
        )
        self._offer(record, capture, model, at[2], held=held)
        self._forget_ended(record)

    def failed(self, model: ServedModel, capture: Capture, why: tuple[str, str], at: tuple[int, float, float]) -> None:
        """Offer the record of an input that got no answer; ``why``: a code and a text."""
        if not self.wanted:
            return
        record = AnswerRecord(
            id=self._id(capture),
            at_ms=capture.place.taken_ms(at[0]),
            device=self.device,
            release=model.manifest.release,
            task=model.task_name,
            stream=capture.place.name,
            error=why[0],
            text=why[1][:_TEXT],
            drift=self.drift,
            latency_ms=round((at[2] - at[1]) * 1000, 3),
        )
        self._offer(record, capture, model, at[2])

    def _events(self, model: ServedModel, stream: str) -> tuple[Mapping[str, Json], ...]:
        """Return what began and ended since the last record, kept before any sink has it."""
        found = model.take_events()
        if found:
            self.open_events.begun(event for event in found if event["state"] == BEGAN)
        return tuple(_beside(event, stream) for event in found)

    def _forget_ended(self, record: AnswerRecord) -> None:
        """Keep the ends in ``record``, which was offered last, for the sinks that are not through with it."""
        ended = [{"stream": record.stream, **event} for event in record.events if event["state"] != BEGAN]
        if ended:
            self._owing.extend((self._number, event) for event in ended)
            self._note_owed(ended)

    def _note_owed(self, ended: Sequence[Mapping[str, Json]] = ()) -> None:
        had = {delivery.name: delivery.settled for delivery in self.deliveries}
        if not ended and self._had == tuple(had.values()):
            return
        self._had = tuple(had.values())
        through = min(had.values(), default=self._number)
        while self._owing and self._owing[0][0] <= through:
            self._owing.popleft()
        owed = [
            (event, tuple(name for name, number in had.items() if number < offered)) for offered, event in self._owing
        ]
        self.open_events.ended(owed, ended)

    def keep_open(self, model: ServedModel) -> None:
        """Note until when the open events were seen, for a process that has to end them."""
        self.open_events.begun(model.open_events())

    def end_silent(self, model: ServedModel, now_ms: int, now_s: float) -> None:
        """End the events of streams whose senders have stopped, with their last inputs; called while nothing waits."""
        if model.streams is None or not self.wanted or not model.streams.end_silent(now_s):
            return
        record = self._of_events(model, model.take_events(), now_ms)
        self._offer(record, NO_INPUT, model, now_s)
        self._forget_ended(record)

    def interrupt(self, model: ServedModel, now_ms: int, now_s: float) -> None:
        """End all streams of ``model``, because it serves no longer: its open events end with their last inputs."""
        if model.streams is None or not self.wanted:
            return
        model.streams.end_all()
        self._interrupted(model, model.take_events(), now_ms, now_s)

    def end_left(self, model: ServedModel, now_ms: int, now_s: float) -> None:
        """End the events that a former process had begun, and send ends to the sinks that lack them.

        They have ended as far as ``model``, which serves now, is concerned.
        """
        left, self.open_events.left = self.open_events.left, []
        owed, self.open_events.left_owed = self.open_events.left_owed, []
        for sinks_owed, group in groupby(owed, key=itemgetter(1)):
            record = self._of_events(model, [{**_named(event), "state": ENDED} for event, _ in group], now_ms)
            self._offer(record, NO_INPUT, model, now_s, only=sinks_owed)
            self._forget_ended(record)
        self._interrupted(model, left, now_ms, now_s)

    def _interrupted(self, model: ServedModel, events: Sequence[Mapping[str, Json]], now_ms: int, now_s: float) -> None:
        if not events:
            return
        record = self._of_events(model, [{**event, "state": ENDED, "interrupted": True} for event in events], now_ms)
        self._offer(record, NO_INPUT, model, now_s)
        self._forget_ended(record)

    def _of_events(self, model: ServedModel, events: Sequence[Mapping[str, Json]], now_ms: int) -> AnswerRecord:
        """Return the record of events without an input."""
        return AnswerRecord(
            id=self._id(NO_INPUT),
            at_ms=now_ms,
            device=self.device,
            release=model.manifest.release,
            task=model.task_name,
            events=tuple(events),
        )

    def _id(self, capture: Capture) -> str:
        if capture.id:
            return readable(capture.id)
        return f"{self._start}-{self._number + 1}"

    def _offer(
        self,
        record: AnswerRecord,
        capture: Capture,
        model: ServedModel,
        now_s: float,
        *,
        held: bool = False,
        only: Sequence[str] | None = None,
    ) -> None:
        """Offer ``record`` to every sink and to ``watch``; ``only``: to the sinks of these names alone."""
        self._number += 1
        if self.watch is not None and only is None:
            self.watch(record, capture.data, model)
        for delivery in self.deliveries:
            if only is None or delivery.name in only:
                delivery.offer(record, now_s, held=held)
            else:
                delivery.join_at(self._number)

    def release(self) -> None:
        """Wake the sinks for the answers that were held."""
        for delivery in self.deliveries:
            delivery.wake()

    def when_settled(self, done: Callable[[], None]) -> None:
        """Call ``done`` once every sink is through with the answer offered last; at once if it already is."""
        self._waiting.append((self._number, done))
        self.settle()

    def settle(self) -> None:
        """Finish the inputs whose answers are settled everywhere."""
        while not self.joining.empty():
            joined = self.joining.get()
            joined.join_at(self._number)
            self.deliveries = (*self.deliveries, joined)
        if self._owing:
            self._note_owed()
        if not self._waiting:
            return
        settled = min((delivery.settled for delivery in self.deliveries), default=self._number)
        while self._waiting and self._waiting[0][0] <= settled:
            self._waiting.popleft()[1]()

    @property
    def figures(self) -> dict[str, Json]:
        """The counts of each sink by name, for the heartbeat."""
        return {delivery.name: dict(delivery.account.counts) for delivery in self.deliveries}

    def close(self) -> None:
        """Let the sinks take what waits, for a short time, and finish the inputs."""
        for delivery in self.deliveries:
            delivery.close(0)  # all begin to end now: several slow ones take no longer than one
        end_s = time.monotonic() + CLOSE_S
        for delivery in self.deliveries:
            delivery.close(max(0.0, end_s - time.monotonic()))
        self.settle()


def _misfit(name: str, settings: SinkSettings, model: ServedModel) -> str:
    """Return what the filter of the sink ``name`` can't do for the answers of ``model``, "" if nothing."""
    useless = model.useless_filters
    manifest = model.manifest
    wrong = misfit(settings, model.task_name, useless, manifest.labels)
    passes = "only errors pass it" if settings.events_only and "events_only" in useless else "all answers pass it"
    if settings.thresholds and "thresholds" not in useless:
        passes = f"{manifest.release} never answers with it, and other labels pass from {settings.above:g} on"
    return f"{name}: {wrong}: {passes}" if wrong else ""


def _beside(event: Mapping[str, Json], stream: str) -> Mapping[str, Json]:
    """Return an event as in the record of an input of ``stream``: only another stream is named."""
    return {key: value for key, value in event.items() if key != "stream" or value != stream}


def _named(event: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return a kept event as in the record of no input: only a stream with a name is named."""
    return {key: value for key, value in event.items() if key != "stream" or value}


class ToAgent:
    """Hands answers to the control process, and waits until it has written them to the spool."""

    def __init__(self, send: Callable[[Mapping[str, Json], bytes], None]) -> None:
        """Use ``send`` to send a frame."""
        self._send = send
        self._number = 0
        self._written = -1
        self._news = threading.Condition()

    def send(self, records: Sequence[AnswerRecord]) -> None:
        """Return when all ``records`` are written. Several sinks may call it at once.

        Raises:
            SinkError: If they are not within ``WRITTEN_S``, as on a full disk; they may be written all the same.
        """
        rows: list[Json] = [to_document(record) for record in records]
        with self._news:
            self._number += 1
            number = self._number
            self._send({"type": "answers", "number": number}, canonical_bytes({"rows": rows}))
            if not self._news.wait_for(lambda: self._written >= number, WRITTEN_S):
                message = f"Expected the answers in the spool within {WRITTEN_S:g} s, got none: free the disk"
                raise SinkError(message)

    def written(self, number: Json) -> None:
        """Note that all answers up to ``number`` are written."""
        with self._news:
            self._written = max(self._written, number if isinstance(number, int) else -1)
            self._news.notify_all()


def open_answers(
    documents: Mapping[str, Json],
    around: sinks.SinkSurroundings,
    model: ServedModel | None = None,
    *,
    wait_s: float = OPEN_S,
) -> Answers:
    """Return the sinks that ``documents`` describe by name; one that can't be opened is reported and left out.

    A filter that does nothing for the answers of ``model`` is reported; its sink stays, as after a change of releases:
    an agent or a release that is newer than the settings must not end what an application reads. A sink that fails must
    not stop inference: drift is counted and reported without it. Sinks from outside are opened by threads of their own;
    one that takes longer than ``wait_s`` is reported, and gets answers from when it is open.
    """
    accounts = open_accounts(around.state, list(documents))
    found = Answers(device=around.device)

    def opened(name: str, document: Json) -> None:
        try:
            sink, settings = sinks.load(document if isinstance(document, dict) else {}, replace(around, name=name))
        except SinkError as error:
            around.tell(error.code, f"{name}: {error}")
            return
        if model is not None and (wrong := _misfit(name, settings, model)):
            around.tell(SinkError.code, wrong)
        found.joining.put(Delivery(name, sink, settings, accounts[name], around.tell))

    before = threading.stack_size(_STACK_BYTES)
    try:
        openers = {}
        for name, document in documents.items():
            if isinstance(document, dict) and ":" in str(document.get("kind")):
                openers[name] = threading.Thread(target=opened, args=(name, document), name=f"open-{name}", daemon=True)
                openers[name].start()
            else:
                opened(name, document)
        until_s = time.monotonic() + wait_s
        for name, opener in openers.items():
            opener.join(max(0.0, until_s - time.monotonic()))
            if opener.is_alive():
                text = f"Expected to open within {wait_s:g} s, got no end of it: no answers until it is open"
                around.tell(SinkError.code, f"{name}: {text}")
    finally:
        threading.stack_size(before)
    found.settle()
    return found
