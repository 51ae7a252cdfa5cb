"""Coordinates measurements: one at a time, never during an update, never on a hot or discharged device.

Decides whether an order is accepted, when a running one is cancelled, and the response. Does not verify the order's
signature: the job's own child does.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_agent.config import MeasureConfig
from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, write_record
from edge_agent.updater.ports import FetchProgress, Refusal
from wire.canonical import canonical_bytes
from wire.codec import Json
from wire.errors import MessageError
from wire.messages import MAX_ENVELOPE_BYTES, Command, Response

FOLDER = "measure"


@dataclass(frozen=True, slots=True)
class SubmittedReport:
    """A report that the server has stored."""

    order: str
    report_sha256: str


def sweep(state: Path) -> None:
    """Delete the measurement's folder; if that fails, the next start tries again."""
    folder = state / FOLDER
    with contextlib.suppress(OSError):
        if folder.exists():  # else nothing needs to be imported for it
            shutil.rmtree(folder)


_LOG = logging.getLogger(__name__)
NOTE = "measuring.json"
_BEGUN, _MEASURED = "measure_begun", "measured"
GOOD_ENDS = frozenset({_BEGUN, _MEASURED})
"""Codes of events that are no failure."""


@dataclass(frozen=True, slots=True)
class DeviceCondition:
    """The device's current condition. ``battery_ratio`` is 1 without a battery, or while it is charging."""

    temperature_celsius: float = 0.0
    battery_ratio: float = 1.0
    updating: bool = False


@dataclass(frozen=True, slots=True)
class MeasureDone:
    """A measurement has ended; ``result`` is a ``SubmittedReport``, a ``Refusal``, or an unexpected exception."""

    command: str
    result: object


class Measurer(Protocol):
    """Runs a measurement beside the loop."""

    def start(self, envelope: bytes, progress: FetchProgress, done: Callable[[object], None]) -> None:
        """Run it in the background and call ``done`` once, from any thread, with the result."""


class NoMeasurer:
    """The measurer of an agent that does not measure."""

    def start(self, envelope: bytes, progress: FetchProgress, done: Callable[[object], None]) -> None:
        """Refuse."""
        del envelope, progress
        done(Refusal("unsupported", "Expected an agent that measures, got one that does not"))


def refusal(condition: DeviceCondition, config: MeasureConfig) -> Refusal | None:
    """Return why a device in this condition refuses to measure, or None."""
    if not config.enabled:
        text = "Expected [measure] enabled in agent.toml, got false: the device's owner has to allow measurements"
        return Refusal("measure_disabled", text)
    if condition.updating:
        return Refusal("busy", "Expected no update in flight, got one: order again when it has ended")
    if condition.temperature_celsius > config.max_temperature_celsius > 0:
        text = f"Expected at most {config.max_temperature_celsius:g} °C, got {condition.temperature_celsius:g}"
        return Refusal("throttled", f"{text}: a hot processor is throttled, let it cool down")
    if condition.battery_ratio < config.min_battery_ratio:
        text = f"Expected a battery of at least {config.min_battery_ratio:.0%}, got {condition.battery_ratio:.0%}"
        return Refusal("battery_low", f"{text}: charge it")
    return None


@dataclass(slots=True, kw_only=True)
class MeasurementCoordinator:
    """The measurement in progress, if any. Used by the loop's thread only; ``put`` enqueues for it.

    ``report`` gets a code and a text when a measurement begins or ends: events for the operator.
    """

    state: Path
    disk: Disk
    measurer: Measurer
    config: MeasureConfig
    condition: Callable[[], DeviceCondition]
    put: Callable[[MeasureDone], None]
    answer: Callable[[Response], None]
    report: Callable[[str, str], None] = lambda _code, _text: None
    _command: str = ""
    _progress: FetchProgress | None = None

    def resume(self) -> None:
        """Report a measurement interrupted by a restart as failed, and delete its files.

        Raises:
            OSError: If its files can't be deleted.
        """
        sweep(self.state)
        note = self.state / NOTE
        try:
            command = read_record(note).get("command")
        except (FileNotFoundError, MessageError):
            command = ""
        if isinstance(command, str) and command:
            text = "Expected the agent to run through, got a restart in the middle: order the measurement again"
            self.answer(Response(id=command, ok=False, code="interrupted", text=text))
            self.report("interrupted", text)
        self.disk.remove(note)

    def receive(self, command: Command) -> Response | None:
        """Start a measurement; return a response that refuses it, or None: then the response follows at its end."""
        envelope = _envelope(command)
        if self._command:
            refused: Refusal | None = Refusal("busy", "Expected no measurement in progress, got one: wait for its end")
        elif envelope is None:
            refused = Refusal("arguments_invalid", f"Expected an order in at most {MAX_ENVELOPE_BYTES} bytes, got none")
        else:
            refused = refusal(self.condition(), self.config) or self._begin(command.id, envelope)
        return None if refused is None else _refused(command.id, refused)

    def turn(self) -> None:
        """Cancel the measurement if an update is in progress."""
        if self._progress is not None and self.condition().updating:
            self._progress.cancelled.set()

    def finished(self, done: MeasureDone) -> None:
        """Send the response, and become free for the next measurement.

        Raises:
            OSError: If its note file can't be removed.
        """
        self._command, self._progress = "", None
        result = done.result
        if isinstance(result, SubmittedReport):
            self.report(_MEASURED, f"order {result.order}")
            data: dict[str, Json] = {"order": result.order, "report_sha256": result.report_sha256}
            self.answer(Response(id=done.command, ok=True, data=data))
        elif isinstance(result, Refusal):
            self.report(result.code, result.text)
            self.answer(_refused(done.command, result))
        else:
            error = result if isinstance(result, Exception) else None
            _LOG.error("measurement failed result=%r", result, exc_info=error)
            failed = Refusal("measure_failed", f"Expected a report, got: {result!r}")
            self.report(failed.code, failed.text[:500])
            self.answer(_refused(done.command, failed))
        self.disk.remove(self.state / NOTE)

    def stop(self) -> None:
        """Cancel the measurement in progress."""
        if self._progress is not None:
            self._progress.cancelled.set()

    def _begin(self, command: str, envelope: bytes) -> Refusal | None:
        try:  # before anything runs: an agent that is killed reports it at its next start
            write_record(self.disk, self.state / NOTE, {"command": command})
        except OSError as error:
            return Refusal("no_space", f"Expected to note the measurement, got: {error}: free the disk")
        self._command, self._progress = command, FetchProgress()
        self.report(_BEGUN, f"command {command}")
        self.measurer.start(envelope, self._progress, lambda result: self.put(MeasureDone(command, result)))
        return None


def _refused(command: str, why: Refusal) -> Response:
    return Response(id=command, ok=False, code=why.code, text=why.text[:500])


def _envelope(command: Command) -> bytes | None:
    order = command.arguments.get("order")
    if not isinstance(order, Mapping):
        return None
    try:
        data = canonical_bytes(order)
    except MessageError:
        return None
    return data if len(data) <= MAX_ENVELOPE_BYTES else None
