"""Handles messages from the server: desired states, acknowledgements, commands. Invalid ones are only counted.

Decides whether a command is executed: not if it has expired, was seen before, is unknown, or exceeds the budget for
samples. ``samples.json`` keeps the command ids seen and the grants over a restart.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from edge_agent.config import SampleConfig
from edge_agent.control.reported import Reporter
from edge_agent.control.supervisor import Supervisor
from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, write_record
from edge_agent.logs import newest_lines
from edge_agent.measuring.coordinator import MeasurementCoordinator
from edge_agent.pipe_frames import LANES, MAX_SAMPLES
from wire.codec import Json, decode, from_document, to_document
from wire.errors import MessageError, WireError
from wire.messages import (
    MAX_GEN,
    MAX_GEN_STEP,
    MEASURE_VERB,
    Ack,
    Command,
    Desired,
    DriftState,
    LogsAnswer,
    LogsRequest,
    Response,
    Watermark,
)
from wire.software import SOFTWARE_VERB
from wire.topics import CHUNK_DATA, Kind, Topic, parse_topic
from wire.transport import Incoming

DAY_MS = 86_400_000
KEPT_IDS = 64
KEPT_GRANTS = 8  # as many as a child serves at once
MAX_LOG_LINES, MAX_LOG_BYTES = 1000, 48 * 1024
BUDGET_KEY = "sample_bytes_per_day"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleGrant:
    """The limits of one request for samples: a number of inputs, and their total bytes.

    ``ratio``: the probability with which each input is taken; 0: as many of each window as the limits allow. ``day``
    (since 1970) on which its bytes were set aside.
    """

    request: str
    count: int
    budget_bytes: int
    lane: str
    ratio: float = 0.0
    day: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandState:
    """The state of commands that must survive a restart.

    ``granted_bytes`` of raw input on ``day`` (days since 1970): all that a request for a count may use, and what was
    sent by a ratio, which takes few of many inputs and is charged for each as it leaves; ``open``: the rest of each
    grant, newest last; ``seen``: recent command ids, for de-duplication, newest last.
    """

    day: int = 0
    granted_bytes: int = 0
    open: tuple[SampleGrant, ...] = ()
    seen: tuple[str, ...] = ()

    def left(self, allowed_bytes: int, now_ms: int) -> int:
        """Return how many bytes may still be granted today."""
        return max(0, allowed_bytes - (self.granted_bytes if self.day == now_ms // DAY_MS else 0))

    def granting(self, grant: SampleGrant, now_ms: int) -> CommandState:
        """Return the ledger after a grant; a second grant for the same request replaces the first."""
        day = now_ms // DAY_MS
        reserved_bytes = 0 if grant.ratio else grant.budget_bytes
        granted_bytes = reserved_bytes + (self.granted_bytes if self.day == day else 0)
        kept = [other for other in self.open if other.request != grant.request]
        granted = replace(grant, day=day)
        return replace(self, day=day, granted_bytes=granted_bytes, open=(*kept, granted)[-KEPT_GRANTS:])

    def sampled(self, request: str, length_bytes: int) -> CommandState:
        """Return the ledger after the child sent one input for ``request``.

        What a grant has set aside and did not need is free again on the same day, once all its inputs are sent.
        """
        left = [
            replace(grant, count=grant.count - 1, budget_bytes=grant.budget_bytes - length_bytes)
            if grant.request == request
            else grant
            for grant in self.open
        ]
        unused_bytes = sum(
            grant.budget_bytes
            for grant in left
            if grant.count <= 0 and grant.budget_bytes > 0 and grant.day == self.day and not grant.ratio
        )
        return replace(
            self,
            granted_bytes=self.granted_bytes - unused_bytes,
            open=tuple(grant for grant in left if grant.count > 0 and grant.budget_bytes > 0),
        )

    def charges(self, request: str) -> bool:
        """Return whether inputs for ``request`` are charged as they leave: all but those of a granted count."""
        return not any(grant.request == request and not grant.ratio for grant in self.open)

    def spending(self, length_bytes: int, now_ms: int) -> CommandState:
        """Return the ledger after one input was sent for which no bytes were set aside before."""
        day = now_ms // DAY_MS
        spent_bytes = length_bytes + (self.granted_bytes if self.day == day else 0)
        return replace(self, day=day, granted_bytes=spent_bytes)

    def remember(self, command: Command) -> CommandState:
        """Return the ledger with this command among those seen."""
        return replace(self, seen=(*self.seen, command.id)[-KEPT_IDS:])


def allowed_bytes(config_bytes: int, desired: Json) -> int:
    """Return the daily budget: the server's setting, but at most the device owner's limit."""
    wanted = desired if isinstance(desired, int) and not isinstance(desired, bool) else 0
    return max(0, min(config_bytes, wanted))


def expired(command: Command, now_ms: int) -> bool:
    """Return whether a command has expired; one without an expiry never does."""
    return 0 < command.expires_ms < now_ms


def grant_samples(command: Command, left_bytes: int) -> SampleGrant | Response:
    """Return the grant, or the response that refuses the command.

    With a ``ratio``, the limit of inputs is called ``at_most``, not ``count``: an agent that does not know ratios then
    refuses the request, in place of sending that many at once.
    """
    arguments = command.arguments
    ratio = arguments.get("ratio", 0.0)
    count, budget = arguments.get("at_most" if ratio else "count"), arguments.get("budget_bytes")
    lane, request = arguments.get("lane", "audit"), arguments.get("request", command.id)
    number = count if isinstance(count, int) and not isinstance(count, bool) else 0
    if not 0 < number <= MAX_SAMPLES or lane not in LANES or not isinstance(request, str):
        wanted = f"1 to {MAX_SAMPLES} samples of lane {' or '.join(LANES)} and a request"
        text = f"Expected {wanted}, got {str(count)[:40]} of lane {str(lane)[:40]}"
        return Response(id=command.id, ok=False, code="arguments_invalid", text=text)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        text = f"Expected a ratio from 0 to 1, got {str(ratio)[:40]}"
        return Response(id=command.id, ok=False, code="arguments_invalid", text=text)
    if left_bytes <= 0:
        text = (
            "Expected a budget for samples left today, got none: both max_bytes_per_day in [samples] of agent.toml "
            f"(0: off) and {BUDGET_KEY} in the desired config have to allow it"
        )
        return Response(id=command.id, ok=False, code="budget_zero", text=text)
    asked = budget if isinstance(budget, int) and budget > 0 else left_bytes
    return SampleGrant(
        request=request, count=number, budget_bytes=min(asked, left_bytes), lane=str(lane), ratio=float(ratio)
    )


@dataclass(frozen=True, slots=True)
class CommandStateFile:
    """The file ``samples.json`` below the state directory."""

    state: Path
    disk: Disk

    def read(self, now_ms: int) -> CommandState:
        """Return the ledger."""
        try:
            return from_document(CommandState, read_record(self.state / "samples.json"))
        except FileNotFoundError:
            return CommandState()
        except (OSError, WireError):
            return CommandState(day=now_ms // DAY_MS, granted_bytes=sys.maxsize)

    def write(self, ledger: CommandState) -> None:
        """Store the ledger.

        Raises:
            OSError: If it can't be written.
        """
        write_record(self.disk, self.state / "samples.json", to_document(ledger))


@dataclass(slots=True, kw_only=True)
class Inbox:
    """Parses messages and passes them on. ``server_time`` gets the server's time, ``drift`` what it says of inputs."""

    offer: Callable[[Desired], None]
    acked: Callable[[tuple[Watermark, ...]], None]
    answer: Callable[[Response], None]
    unreadable: Callable[[str, str], None]
    supervisor: Supervisor
    reporter: Reporter
    config: SampleConfig
    ledger: CommandStateFile
    measuring: MeasurementCoordinator
    benchmark: Callable[[Command], Response | None]
    chunk: Callable[[bytes], None]
    server_time: Callable[[int], None] = lambda _server_ms: None
    drift: Callable[[DriftState | None], None] = lambda _state: None
    software: Callable[[Command], Response] | None = None
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
            self.server_time(ack.at_ms)
            self.acked(ack.watermarks)
            self.drift(ack.drift)
        elif topic.kind is Kind.CMD:
            self._command(decode(Command, payload), topic.leaf, now_ms)
        elif topic.kind is Kind.BLOB and topic.leaf == CHUNK_DATA:
            self.chunk(payload)

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
            return
        verbs: dict[str, Callable[[], Response | None]] = {
            "samples": lambda: self._samples(command, now_ms),
            MEASURE_VERB: lambda: self._keep(ledger.remember(command), command) or self.measuring.receive(command),
            "benchmark": lambda: self.benchmark(command),
            "logs": lambda: self._logs(command),
            "selftest": lambda: Response(id=command.id, ok=True, data=to_document(self.reporter.reported(now_ms))),
        }
        if self.software is not None:
            verbs[SOFTWARE_VERB] = partial(self.software, command)
        if verb in verbs:
            response = verbs[verb]()
        else:
            text = f"Expected one of {', '.join(verbs)}, got {verb!r}"
            response = Response(id=command.id, ok=False, code="unsupported", text=text)
        if response is not None:  # otherwise it follows later
            self.answer(response)

    def _logs(self, command: Command) -> Response:
        """Return the newest lines of this device's log, within ``MAX_LOG_BYTES``."""
        levels = logging.getLevelNamesMapping()
        try:
            asked = from_document(LogsRequest, command.arguments)
        except MessageError as error:
            return Response(id=command.id, ok=False, code="arguments_invalid", text=str(error))
        if not (0 < asked.lines <= MAX_LOG_LINES and 0 <= asked.since_ms < MAX_GEN and asked.level in levels):
            text = f"Expected 1 to {MAX_LOG_LINES} lines, since_ms in UTC and a level as INFO or ERROR, got {asked}"
            return Response(id=command.id, ok=False, code="arguments_invalid", text=text[:500])
        try:
            found, left_out = newest_lines(
                self.ledger.state, asked.lines, MAX_LOG_BYTES, since_ms=asked.since_ms, level=levels[asked.level]
            )
        except OSError as error:
            return Response(id=command.id, ok=False, code="disk", text=f"Expected to read the log, got: {error}")
        return Response(id=command.id, ok=True, data=to_document(LogsAnswer(tuple(found), left_out)))

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
        child.send({"type": "samples", **to_document(grant)})
        return Response(id=command.id, ok=True, data={"budget_bytes": grant.budget_bytes})

    def sampled(self, request: str, length_bytes: int, now_ms: int) -> bool:
        """Deduct an input of the child from its grant, before it is sent on: a restart must not grant it again.

        Return False if it was drawn by a ratio, or for no open grant, and exceeds what is left of today's budget.

        Raises:
            OSError: If the ledger can't be written.
        """
        ledger = self._known(now_ms)
        if ledger.charges(request):
            if length_bytes > ledger.left(allowed_bytes(self.config.max_bytes_per_day, self._wanted()), now_ms):
                return False
            ledger = ledger.spending(length_bytes, now_ms)
        ledger = ledger.sampled(request, length_bytes)
        self.ledger.write(ledger)
        self._ledger = ledger
        return True

    def corrected(self, length_bytes: int, now_ms: int) -> bool:
        """Deduct an input that the device's user corrected from today's budget; return False if it exceeds it.

        The owner's limit applies; the server's setting, which is for what it requests itself, does not.

        Raises:
            OSError: If the ledger can't be written.
        """
        ledger = self._known(now_ms)
        if length_bytes > ledger.left(self.config.max_bytes_per_day, now_ms):
            return False
        spent = ledger.spending(length_bytes, now_ms)
        self.ledger.write(spent)
        self._ledger = spent
        return True

    def serving(self, now_ms: int) -> None:
        """Send a newly started child the rest of each grant; on a swap within a child it keeps them."""
        child, allowed = self.supervisor.child, allowed_bytes(self.config.max_bytes_per_day, self._wanted())
        if child is None or self.supervisor.starts == self._told:
            return
        self._told = self.supervisor.starts
        for grant in self._known(now_ms).open if allowed else ():
            child.send({"type": "samples", **to_document(grant)})

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
