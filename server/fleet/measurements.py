"""Measurements that a build host orders from a device: the order, the bytes it needs, and the device's report.

Each has a folder ``measurements/<order>``. Bundles and rows are in ``measurements/sha256``; they are not releases, and
only the named device may fetch them. Decides who may read and write, and the phase of a measurement. The device
verifies the order's signature; the check here only rejects early an order that every device would refuse.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from server.clock import Clock
from server.errors import (
    MeasurementRefusedError,
    NotTheDeviceError,
    UnknownBlobError,
    UnknownDeviceError,
    UnknownMeasurementError,
)
from server.fleet.fleet import Fleet
from server.fleet.identity.certificates import Certificates
from server.people import By
from server.registry.blobs import Blobs
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import Json
from wire.durable import write_atomically
from wire.errors import MessageError
from wire.measurement import (
    MeasureOrder,
    ReportStatement,
    answers,
    decode_report,
    decode_statement,
    unverified_order,
)
from wire.messages import MEASURE_VERB

KEEP_MS = 24 * 3_600_000
"""How long order, report and bytes are kept: rows are training data, which a server should not keep."""
_EVERY_MS = 600_000
_REPORT, _SIGNATURE, _ENVELOPE, _COMMAND = "report.tfm", "signature.json", "envelope.json", "command"
_ASKED = "asked"
_ID_LENGTH = 32


class MeasurementPhase(StrEnum):
    """The phase of a measurement; only ``done`` has a report."""

    SENT = "sent"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


class OrderCheck(Protocol):
    """Verifies the signature of an order."""

    def __call__(self, envelope: Mapping[str, Json]) -> None:
        """Check that the release key signed ``envelope``; raise ``MetadataRefusedError`` otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measurement; ``code`` and ``text`` give the cause of a failure, ``report_sha256`` is "" without a report."""

    order: MeasureOrder
    phase: MeasurementPhase
    code: str
    text: str
    report_sha256: str


@dataclass(slots=True, kw_only=True)
class Measurements:
    """All measurements of one server. Safe to share between threads."""

    folder: Path
    fleet: Fleet
    clock: Clock
    check: OrderCheck
    certificates: Certificates
    _next_ms: int = 0
    blobs: Blobs = field(init=False)

    def __post_init__(self) -> None:
        """Delete the partial uploads of a killed server."""
        self.blobs = Blobs(self.folder / "sha256")
        self.blobs.sweep()

    def order(self, envelope: Mapping[str, Json], *, by: By = "") -> Measurement:
        """Send an order, which ``by`` gives, to the device that it names.

        Raises:
            MeasurementRefusedError: If it is not an order, has expired, was ordered before, or its bytes are missing.
            MetadataRefusedError: If the release key did not sign it.
            UnknownDeviceError: If there is no such device.
        """
        order = _parsed(envelope)
        now_ms = self.clock()
        self.check(envelope)
        self.fleet.device(order.device)
        if order.expires_ms <= now_ms:
            message = f"Expected an order that holds, got one until {order.expires_ms} at {now_ms}: order again"
            raise MeasurementRefusedError(message)
        for sha256, length_bytes in _needed(order):
            if not self.blobs.has(sha256) or self.blobs.path(sha256).stat().st_size != length_bytes:
                message = f"Expected {length_bytes} bytes of {sha256[:12]}… here, got others or none: upload them first"
                raise MeasurementRefusedError(message)
        ttl_s = (order.expires_ms - now_ms) / 1000
        folder = self.folder / order.order
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            message = f"Expected an order with an id of its own, got {order.order} again: make a new one"
            raise MeasurementRefusedError(message) from error
        write_atomically(folder / _ENVELOPE, canonical_bytes(envelope))
        command = self.fleet.send_command(order.device, MEASURE_VERB, {"order": dict(envelope)}, ttl_s, by=by)
        write_atomically(folder / _COMMAND, command.encode())
        return self.get(order.order)

    def get(self, order: str) -> Measurement:
        """Return one measurement.

        Raises:
            UnknownMeasurementError: If there is none of that id.
        """
        folder = self._folder(order)
        parsed = self._read(folder)
        report = folder / _REPORT
        if report.is_file():
            return Measurement(
                order=parsed,
                phase=MeasurementPhase.DONE,
                code="",
                text="",
                report_sha256=sha256_hex(report.read_bytes()),
            )
        try:
            sent = self.fleet.command((folder / _COMMAND).read_text())
        except (OSError, UnknownDeviceError):  # a restored database may be older than this folder
            sent = None
        if sent is not None and sent.answered_ms and not sent.ok:
            return Measurement(
                order=parsed, phase=MeasurementPhase.FAILED, code=sent.code, text=sent.text, report_sha256=""
            )
        if self.clock() > parsed.expires_ms:
            return Measurement(
                order=parsed,
                phase=MeasurementPhase.EXPIRED,
                code="no_answer",
                text="Expected an answer in time, got none",
                report_sha256="",
            )
        return Measurement(
            order=parsed,
            phase=MeasurementPhase.RUNNING if (folder / _ASKED).exists() else MeasurementPhase.SENT,
            code="",
            text="",
            report_sha256="",
        )

    def newest(self, limit: int) -> tuple[Measurement, ...]:
        """Return the measurements that were ordered last, the newest first; one that can't be read is left out."""
        dated = []
        for folder in self._folders():
            with contextlib.suppress(OSError):  # deleted meanwhile
                dated.append(((folder / _ENVELOPE).stat().st_mtime, folder.name))
        found = []
        for _, order in sorted(dated, reverse=True)[:limit]:
            with contextlib.suppress(UnknownMeasurementError):
                found.append(self.get(order))
        return tuple(found)

    def bytes_for(self, order: str, sha256: str, device: str) -> Path:
        """Return the path of the bytes that ``device`` needs; the measurement then counts as begun.

        Raises:
            UnknownMeasurementError: If there is no such measurement.
            NotTheDeviceError: If it belongs to another device.
            UnknownBlobError: If the order does not name these bytes, or they are deleted.
        """
        folder = self._folder(order)
        parsed = self._of(folder, device)
        if sha256 not in {name for name, _ in _needed(parsed)}:
            message = f"Expected bytes that order {order} names, got {sha256[:80]!r}"
            raise UnknownBlobError(message)
        (folder / _ASKED).touch(mode=0o600)
        return self.blobs.path(sha256)

    def take(self, order: str, device: str, data: bytes, signature: bytes = b"") -> None:
        """Store the report of ``device``; the same bytes again change nothing.

        ``signature``: the envelope in which a device with a certificate signed it, stored for the build host.

        Raises:
            UnknownMeasurementError: If there is no such measurement.
            NotTheDeviceError: If it belongs to another device.
            MeasurementRefusedError: If it is not a report, answers another order, or there is a different report.
        """
        folder = self._folder(order)
        parsed = self._of(folder, device)
        try:
            problem = answers(parsed, decode_report(data)[0]) or self._unsigned(parsed, data, signature)
        except MessageError as error:
            problem = str(error)
        path = folder / _REPORT
        if not problem and path.is_file() and path.read_bytes() != data:
            problem = "Expected the report that is here already, got another: a report is never replaced"
        if problem:
            raise MeasurementRefusedError(problem)
        if signature:
            write_atomically(folder / _SIGNATURE, signature)
        write_atomically(path, data)

    def _unsigned(self, order: MeasureOrder, data: bytes, signature: bytes) -> str:
        """Return why the report of a device with a certificate is not signed by its key, or ""."""
        if not self.certificates.certified(order.device):
            return ""
        if not signature:
            return f"Expected a report signed by the key of {order.device}, got no signature: update its agent"
        signed, sha256 = decode_statement(signature), sha256_hex(data)
        said = ReportStatement(order=order.order, device=order.device, report_sha256=sha256)
        if signed.statement != said or not self.certificates.signed_by(order.device, signed):
            return f"Expected a report signed by the key of {order.device}, got another signature"
        return ""

    def signature(self, order: str) -> Path:
        """Return the path of the report's signature.

        Raises:
            UnknownMeasurementError: If there is none, or no such measurement.
        """
        path = self._folder(order) / _SIGNATURE
        if not path.is_file():
            message = (
                f"Expected a signed report of {order}, got none: its device has no certificate, or not measured yet"
            )
            raise UnknownMeasurementError(message)
        return path

    def report(self, order: str) -> Path:
        """Return the path of the report.

        Raises:
            UnknownMeasurementError: If there is no report yet, or no such measurement.
        """
        path = self._folder(order) / _REPORT
        if not path.is_file():
            message = f"Expected a report of {order}, got none yet: ask for the measurement first"
            raise UnknownMeasurementError(message)
        return path

    def drop(self, order: str) -> None:
        """Delete a measurement and the bytes that no other measurement needs.

        Raises:
            UnknownMeasurementError: If there is none of that id.
        """
        folder = self._folder(order)
        dropped = {sha256 for sha256, _ in _needed(self._read(folder))}
        shutil.rmtree(folder, ignore_errors=True)
        for sha256 in dropped - self._needed_by_all():
            (self.blobs.folder / sha256).unlink(missing_ok=True)

    def turn(self, now_ms: int) -> None:
        """Delete old measurements."""
        if now_ms >= self._next_ms:
            self._next_ms = now_ms + _EVERY_MS
            for folder in self._folders():
                try:
                    old = self._read(folder).expires_ms + KEEP_MS < now_ms
                except UnknownMeasurementError:
                    old = folder.stat().st_mtime * 1000 + KEEP_MS < now_ms
                if old:
                    shutil.rmtree(folder, ignore_errors=True)
            needed = self._needed_by_all()
            for path in self.blobs.folder.glob("?" * 64):
                if path.name not in needed and path.stat().st_mtime * 1000 + KEEP_MS < now_ms:
                    path.unlink(missing_ok=True)

    def _folders(self) -> list[Path]:
        return list(self.folder.glob("?" * _ID_LENGTH))

    def _needed_by_all(self) -> set[str]:
        needed: set[str] = set()
        for folder in self._folders():
            with contextlib.suppress(UnknownMeasurementError):
                needed |= {sha256 for sha256, _ in _needed(self._read(folder))}
        return needed

    def _folder(self, order: str) -> Path:
        folder = self.folder / order
        if len(order) != _ID_LENGTH or not order.isalnum() or not folder.is_dir():
            message = f"Expected the id of a measurement, got {order[:80]!r}"
            raise UnknownMeasurementError(message)
        return folder

    def _of(self, folder: Path, device: str) -> MeasureOrder:
        order = self._read(folder)
        if order.device != device:
            message = f"Expected {order.device}, which the order names, got {device!r}"
            raise NotTheDeviceError(message)
        return order

    def _read(self, folder: Path) -> MeasureOrder:
        try:
            return unverified_order(json.loads((folder / _ENVELOPE).read_bytes()))
        except (OSError, ValueError, MessageError) as error:
            message = f"Expected an order in {folder.name}, got: {error}"
            raise UnknownMeasurementError(message) from error


def _parsed(envelope: Mapping[str, Json]) -> MeasureOrder:
    try:
        return unverified_order(envelope)
    except MessageError as error:
        message = f"Expected a signed measurement order, got: {error}"
        raise MeasurementRefusedError(message) from error


def _needed(order: MeasureOrder) -> list[tuple[str, int]]:
    rows = [(order.rows_sha256, order.rows_length_bytes)] if order.rows else []
    return [(order.bundle_sha256, order.bundle_length_bytes), *rows] if order.bundle_sha256 else []
