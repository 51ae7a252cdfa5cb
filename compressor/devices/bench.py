"""Measures a candidate on a device through its agent: what is sent, how long to wait, which report is accepted.

Decides which report is accepted: one from the device that was ordered, for this order, artifact and rows, with finite
logits. Anything else is a ``DeviceMeasureError`` with its reason, and the gate then fails without a measurement.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from compressor.devices import WAIT_S
from compressor.devices.client import DeviceClient, Known, Standing
from compressor.devices.orders import Subject
from compressor.errors import DeviceMeasureError, ServerUnreachableError
from compressor.progress import Progress, Silent
from wire.errors import MessageError
from wire.measurement import MAX_ORDER_MS, MeasureOrder, MeasureReport, answers, decode_report

T = TypeVar("T")
_POLL_S = 0.5
_NOT_A_NUMBER = 1e29


@dataclass(frozen=True, slots=True, eq=False)
class DeviceAnswer:
    """An accepted report and its logits, float32 (n, classes)."""

    report: MeasureReport
    logits: NDArray[np.float32]


class DeviceBench(Protocol):
    """Runs measurements on devices."""

    def check(self, device: str) -> None:
        """Raise ``DeviceMeasureError`` if ``device`` can't be reached at all; called before anything is trained."""

    def measure(self, subject: Subject, device: str, progress: Progress) -> DeviceAnswer:
        """Return the measurement of ``subject`` on ``device``, or raise ``DeviceMeasureError``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBench:
    """Devices of a server. ``keys``: folder of the release key; ``wait_s``: time limit for a measurement."""

    url: str
    token: str = field(repr=False)
    keys: Path
    ca: Path | None = None
    wait_s: float = WAIT_S
    poll_s: float = _POLL_S
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)

    def check(self, device: str) -> None:
        """Check that the server answers and knows ``device``, and that the release key exists.

        Raises:
            TrustError: If the release key is missing.
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If the device is unknown.
        """
        from compressor.release.keys import load_signer, read_root  # noqa: PLC0415 - cryptography only where keys are used

        load_signer(self.keys, "targets", read_root(self.keys))
        with DeviceClient(self.url, self.token, self.ca) as client:
            client.known(device)

    def measure(self, subject: Subject, device: str, progress: Progress | None = None) -> DeviceAnswer:
        """Return the measurement of ``subject`` on ``device``.

        Raises:
            DeviceMeasureError: If it does not answer in time, refuses, or its report is not accepted.
            ServerUnreachableError: If the server did not answer.
            TrustError: If the release key is missing.
        """
        from compressor.devices.orders import make_order, sign_order  # noqa: PLC0415 - cryptography only where keys are used

        progress = progress or Silent()
        holds_s = min(self.wait_s, MAX_ORDER_MS / 1000)
        try:
            order = make_order(subject, device, now_ms=self.now_ms(), holds_s=holds_s)
        except MessageError as error:
            message = f"Expected a measurement within the limits of devices, got: {error}: a smaller gate split does"
            raise DeviceMeasureError(message) from error
        with DeviceClient(self.url, self.token, self.ca) as client:
            misfit = _misfit(subject, device, client.known(device))
            if misfit:
                raise DeviceMeasureError(misfit)
            with progress.stage(f"upload for {device}", 2, "file") as stage:
                for data in (subject.bundle, subject.rows):
                    if data:
                        client.upload(data)
                    stage.advance()
            deadline_s = time.monotonic() + self.wait_s
            try:
                self._pass_on(client, sign_order(order, self.keys), order.order, deadline_s, progress)
                self._await(client, order, progress, deadline_s)
                return believed(order, self._patiently(lambda: client.report(order.order), deadline_s, progress))
            finally:
                with contextlib.suppress(ServerUnreachableError):  # the server itself ends an order that has expired
                    client.drop(order.order)

    def _pass_on(
        self, client: DeviceClient, envelope: Mapping[str, Any], order: str, deadline_s: float, progress: Progress
    ) -> None:
        """Submit the order; if only the server's answer was lost, it is not submitted twice."""
        try:
            client.order(envelope)
        except ServerUnreachableError:
            if not self._patiently(lambda: client.has(order), deadline_s, progress):
                client.order(envelope)

    def _patiently(self, ask: Callable[[], T], deadline_s: float, progress: Progress) -> T:
        """Return the result of ``ask``; while the server is away, report that once and retry until the deadline."""
        away = False
        while True:
            try:
                return ask()
            except ServerUnreachableError:
                if time.monotonic() > deadline_s:
                    raise
                if not away:
                    progress.say("server away: it is asked again")
                away = True
                time.sleep(self.poll_s)

    def _await(self, client: DeviceClient, order: MeasureOrder, progress: Progress, deadline_s: float) -> None:
        said = ""
        while True:
            standing = self._patiently(lambda: client.standing(order.order), deadline_s, progress)
            if standing.phase == "done":
                return
            if standing.phase != said:
                said = standing.phase
                progress.say(f"{order.device}: measurement {said} (device {standing.device_state or 'unknown'})")
            if standing.phase in {"failed", "expired"} or time.monotonic() > deadline_s:
                raise DeviceMeasureError(silence(order.device, standing, self.wait_s))
            time.sleep(self.poll_s)


def _misfit(subject: Subject, device: str, known: Known) -> str:
    """Return why the bundle does not fit this device, or ""; a device that has not reported its hardware is tried."""
    if known.hardware and subject.hardware and known.hardware not in subject.hardware:
        message = f"Expected a device of {' or '.join(subject.hardware)}, got {device}, which is {known.hardware}"
        return f'{message}: its figures would be of another target; write on = "TARGET@device:ID"'
    if known.runtimes and subject.runtime and subject.runtime not in known.runtimes:
        message = f"Expected a device with runtime {subject.runtime}, got {device} with {', '.join(known.runtimes)}"
        return f"{message}: install it there (pip install tinyfleet[{subject.runtime}])"
    return ""


def silence(device: str, standing: Standing, wait_s: float) -> str:
    """Return why there is no measurement, and the next step."""
    if standing.phase == "failed":
        return f"Expected a measurement of {device}, got [{standing.code}] {standing.text}"
    if standing.phase == "running":
        message = f"Expected a measurement of {device} within {wait_s:g} s, got none: it has begun and not ended"
        return f"{message}; give --device-wait-s more, or the gate split fewer rows"
    state = standing.device_state or "unknown"
    seen = f", last heard {time.strftime('%H:%M:%S UTC', time.gmtime(standing.last_seen_ms / 1000))}"
    message = f"Expected a measurement of {device} within {wait_s:g} s, got none: the device is {state}"
    message += seen if standing.last_seen_ms else ", never heard"
    return f"{message}; start its agent (edge-agent run), or give --device-wait-s more"


def believed(order: MeasureOrder, data: bytes) -> DeviceAnswer:
    """Return the answer in ``data`` if it belongs to ``order``.

    Raises:
        DeviceMeasureError: If it is from another device, order, artifact or rows, or its logits are not finite.
    """
    try:
        report, raw = decode_report(data)
    except MessageError as error:
        message = f"Expected a report of {order.device}, got: {error}"
        raise DeviceMeasureError(message) from error
    problem = answers(order, report)
    if problem:
        raise DeviceMeasureError(f"{problem}: it is not believed, measure again")
    if report.rows and report.classes < 1:
        raise DeviceMeasureError(f"Expected logits of {report.rows} rows from {order.device}, got none")
    logits = np.frombuffer(raw, "<f4").astype(np.float32).reshape(report.rows, report.classes)
    if not np.isfinite(logits).all() or report.golden_max_abs > _NOT_A_NUMBER:
        raise DeviceMeasureError(
            f"Expected finite logits from {order.device}, got NaN or infinity: its runtime differs"
        )
    return DeviceAnswer(report, logits)
