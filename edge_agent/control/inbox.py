"""Handles messages from the server: desired states, acknowledgements, commands. Invalid ones are only counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.config import SampleConfig
from edge_agent.control.reported import Reporter
from edge_agent.control.supervisor import Supervisor
from edge_agent.measuring.coordinator import MeasurementCoordinator as MeasureDesk
from edge_agent.telemetry.commands import (
    BUDGET_KEY,
    KEPT_IDS,
    CommandState,
    CommandStateFile,
    allowed_bytes,
    expired,
    grant_samples,
)
from wire.codec import Json, decode, to_document
from wire.errors import MessageError, WireError
from wire.measurement import MEASURE_VERB
from wire.messages import MAX_GEN_STEP, Ack, Command, Desired, Response, Watermark
from wire.topics import Kind, Topic, parse_topic
from wire.transport import Incoming


@dataclass(slots=True, kw_only=True)
class Inbox:
    """Parses messages and passes them on. ``server_said`` gets the server's time."""

    offer: Callable[[Desired], None]
    acked: Callable[[tuple[Watermark, ...]], None]
    answer: Callable[[Response], None]
    unreadable: Callable[[str, str], None]
    supervisor: Supervisor
    reporter: Reporter
    config: SampleConfig
    ledger: CommandStateFile
    measuring: MeasureDesk
    server_said: Callable[[int], None] = lambda _server_ms: None
    _ledger: CommandState | None = None
    _seen: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_IDS))
    _told: int = 0

    def take(self, message: Incoming, now_ms: int) -> None:
        """Handle one message; an unreadable one is reported to ``unreadable``."""
        if not message.payload:
            return  # a retained message was cleared
        try:
            self._read(parse_topic(message.topic), message.payload, now_ms)
        except WireError as error:
            self.unreadable(f"{error.code}_{message.topic.rpartition('/')[2][:32]}", str(error))

    def _read(self, topic: Topic, payload: bytes, now_ms: int) -> None:
        if topic.kind is Kind.DESIRED:
            self._desired(decode(Desired, payload))
        elif topic.kind is Kind.CMD and topic.leaf == "ack":
            ack = decode(Ack, payload)
            self.server_said(ack.at_ms)
            self.acked(ack.watermarks)
        elif topic.kind is Kind.CMD:
            self._command(decode(Command, payload), topic.leaf, now_ms)

    def _desired(self, desired: Desired) -> None:
        seen = self.reporter.updater.record.desired.gen
        if desired.gen > seen + MAX_GEN_STEP:
            message = f"Expected a gen of at most {seen + MAX_GEN_STEP}, got {desired.gen}: it is ignored"
            raise MessageError(message)
        self.offer(desired)

    def _command(self, command: Command, verb: str, now_ms: int) -> None:
        ledger = self._known(now_ms)
        if command.id in self._seen:
            return  # QoS 1 may deliver twice
        self._seen.append(command.id)
        if command.id in ledger.seen:  # executed before a restart; its response may not have been sent
            if verb == "samples":
                self.answer(Response(id=command.id, ok=True, code="repeated", text="the command was acted on before"))
            return
        if expired(command, now_ms):
            self.answer(Response(id=command.id, ok=False, code="expired", text="the command came too late"))
        elif verb == "samples":
            self.answer(self._samples(command, now_ms))
        elif verb == MEASURE_VERB:
            refused = self._keep(ledger.remember(command), command) or self.measuring.asked(command)
            if refused is not None:
                self.answer(refused)
        elif verb == "selftest":
            self.answer(Response(id=command.id, ok=True, data=to_document(self.reporter.reported(now_ms))))
        else:
            text = f"Expected samples, measure or selftest, got {verb!r}"
            self.answer(Response(id=command.id, ok=False, code="unsupported", text=text))

    def _samples(self, command: Command, now_ms: int) -> Response:
        allowed = allowed_bytes(self.config.max_bytes_per_day, self._wanted())
        ledger = self._known(now_ms)
        grant = grant_samples(command, ledger.left(allowed, now_ms))
        if isinstance(grant, Response):
            return grant
        child = self.supervisor.child
        if child is None or self.supervisor.serving is None:
            return Response(id=command.id, ok=False, code="not_serving", text="no release is served now")
        # before the child gets it: a restart must not grant it again
        refused = self._keep(ledger.granting(grant, now_ms).remember(command), command)
        if refused is not None:
            return refused
        child.say({"type": "samples", **to_document(grant)})
        return Response(id=command.id, ok=True, data={"budget_bytes": grant.budget_bytes})

    def sampled(self, request: str, length_bytes: int, now_ms: int) -> None:
        """Deduct an input of the child from its grant, before it is sent on: a restart must not grant it again.

        Raises:
            OSError: If the ledger can't be written.
        """
        ledger = self._known(now_ms).sampled(request, length_bytes)
        self.ledger.write(ledger)
        self._ledger = ledger

    def serving(self, now_ms: int) -> None:
        """Send a newly started child the rest of each grant; on a swap within a child it keeps them."""
        child, allowed = self.supervisor.child, allowed_bytes(self.config.max_bytes_per_day, self._wanted())
        if child is None or self.supervisor.starts == self._told:
            return
        self._told = self.supervisor.starts
        for grant in self._known(now_ms).open if allowed else ():
            child.say({"type": "samples", **to_document(grant)})

    def _wanted(self) -> Json:
        return self.reporter.updater.record.desired.config.get(BUDGET_KEY)

    def _known(self, now_ms: int) -> CommandState:
        if self._ledger is None:
            self._ledger = self.ledger.read(now_ms)
        return self._ledger

    def _keep(self, ledger: CommandState, command: Command) -> Response | None:
        """Store the ledger; return a response that refuses the command if that fails."""
        try:
            self.ledger.write(ledger)
        except OSError as error:
            text = f"Expected to keep what the command does, got: {error}: free the disk"
            return Response(id=command.id, ok=False, code="disk", text=text)
        self._ledger = ledger
        return None
