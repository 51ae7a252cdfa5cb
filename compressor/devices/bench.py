"""Measures a candidate on a device through its agent: what is sent, how long to wait, which report is accepted.

Decides which report is accepted: one from the device that was ordered, for this order, artifact and rows, with finite
logits, and signed by the device's key if this host has noted it. Anything else is a ``DeviceMeasureError`` with its
reason, and the gate then fails without a measurement.

An order is signed by the release key: it permits one device to measure one bundle once, never to install it. It is a
DSSE envelope with its own payload type, so that its signature is not valid for TUF metadata, and theirs is not valid
for an order (ADR 9).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from securesystemslib.dsse import Envelope

from compressor.devices import WAIT_S
from compressor.devices.client import DeviceClient, Known, Standing
from compressor.devices.pins import check_signed, read_pins
from compressor.errors import DeviceMeasureError, ServerUnreachableError
from compressor.progress import Progress, Silent
from compressor.release.keys import load_signer, read_root
from wire.canonical import sha256_hex
from wire.codec import encode
from wire.errors import MessageError
from wire.measurement import MAX_ORDER_MS, ORDER_TYPE, MeasureOrder, MeasureReport, answers, decode_report, read_order

T = TypeVar("T")
_POLL_S = 0.5
_NOT_A_NUMBER = 1e29


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Subject:
    """What to measure: ``bundle`` with artifact, manifest and golden vectors; ``rows``: npy of uint8 (n, H, W, C).

    The bundle is for ``hardware`` (empty: any) and ``runtime`` ("": any).
    """

    artifact_sha256: str
    bundle: bytes
    rows: bytes = b""
    n: int = 0
    hardware: tuple[str, ...] = ()
    runtime: str = ""


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
        load_signer(self.keys, "targets", read_root(self.keys))
        with DeviceClient(self.url, self.token, self.ca) as client:
            client.known(device)

    def measure(self, subject: Subject, device: str, progress: Progress | None = None) -> DeviceAnswer:
        """Return the measurement of ``subject`` on ``device``.

        Raises:
            DeviceMeasureError: If it does not answer in time, refuses, or its report is not accepted.
            ServerUnreachableError: If the server did not answer.
            TrustError: If the release key is missing, or the notes of devices' keys are damaged.
        """
        progress, pin = progress or Silent(), read_pins(self.keys).get(device, "")
        if not pin:
            progress.say(f"{device}: its key is not noted here, so its figures are the server's word (keys pin)")
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
                envelope = sign_order(order, self.keys)
                try:
                    client.order(envelope)
                except ServerUnreachableError:  # if only its answer was lost, the order is not submitted twice
                    if not self._patiently(lambda: client.has(order.order), deadline_s, progress):
                        client.order(envelope)
                self._await(client, order, progress, deadline_s)
                report = self._patiently(lambda: client.report(order.order), deadline_s, progress)
                if pin:
                    signature = self._patiently(lambda: client.signature(order.order), deadline_s, progress)
                    check_signed(order, report, signature, pin)
                return believed(order, report)
            finally:
                with contextlib.suppress(ServerUnreachableError):  # the server itself ends an order that has expired
                    client.drop(order.order)

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


def make_order(subject: Subject, device: str, *, now_ms: int, holds_s: float) -> MeasureOrder:
    """Return an order valid for ``device`` from ``now_ms`` (UTC) on for ``holds_s`` seconds.

    Raises:
        MessageError: If bundle or rows exceed a limit.
    """
    order = MeasureOrder(
        order=secrets.token_hex(16), device=device, artifact_sha256=subject.artifact_sha256,
        bundle_sha256=sha256_hex(subject.bundle), bundle_length_bytes=len(subject.bundle),
        rows_sha256=sha256_hex(subject.rows) if subject.n else "", rows_length_bytes=len(subject.rows), rows=subject.n,
        issued_ms=now_ms, expires_ms=now_ms + int(holds_s * 1000),
    )  # fmt: skip
    return read_order(encode(order))


def sign_order(order: MeasureOrder, keys: Path) -> dict[str, Any]:
    """Return ``order`` in its envelope, signed with the release key in the folder ``keys``.

    Raises:
        TrustError: If the key is missing, readable by others, or not the one that the root names.
    """
    envelope = Envelope(encode(order), ORDER_TYPE, {})
    envelope.sign(load_signer(keys, "targets", read_root(keys)))
    return dict(envelope.to_dict())


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
