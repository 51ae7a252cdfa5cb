"""One measurement from its envelope to the report on the server. Blocks; runs on a thread of the control process.

Steps: verify the order (a child), check the disk, fetch bundle and rows, measure (a child), submit the report. All
files are in the folder ``measure`` of the state directory, which is emptied at the end and at every start of the
agent: nothing of a measurement reaches slots or ``blobs``. The report is submitted by one PUT with the device's own
password or certificate, retried while the server is unreachable; with a certificate, the device's key signs it (a
child). Does not decide whether to measure: ``coordinator`` does.
"""

from __future__ import annotations

import base64
import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.device.certificate import signature
from edge_agent.device.disk import Disk
from edge_agent.errors import CertificateError
from edge_agent.measuring.coordinator import FOLDER, SubmittedReport, sweep
from edge_agent.updater.children import NoAnswer, run_child
from edge_agent.updater.download import CLIENT_ERRORS, TRY_AGAIN, FetchSettings, HttpFetcher, connection
from edge_agent.updater.ports import FetchOrder, FetchProgress, Refusal, outcome
from wire.canonical import sha256_file
from wire.codec import Json, encode, from_document, parse_json
from wire.errors import MessageError
from wire.measurement import (
    MAX_REPORT_HEAD_BYTES,
    SIGNATURE_HEADER,
    MeasureOrder,
    ReportStatement,
    SignedStatement,
    answers,
    encode_statement,
    report_head,
    signed_bytes,
)

ENVELOPE, ORDER, REPORT, LOG = "envelope.json", "order.json", "report.tfm", "child.log"
_POLL_S = 0.2
_TAIL, _TAIL_BYTES = 300, 8192
_OK = range(200, 300)
_ANSWER_BYTES = 4096
_CANCELLED = Refusal("cancelled", "Expected to finish, got an update to install first: order it again later")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """``max_bytes``: bundle and rows together; ``limit_s``: for the child; ``reserve_bytes`` stays free on the disk."""

    max_bytes: int
    limit_s: float
    reserve_bytes: int
    max_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMeasurer:
    """The measurer of a real device: child processes, HTTP and the disk. ``energy``: a file that counts microjoules."""

    state: Path
    settings: FetchSettings
    disk: Disk
    limits: JobLimits
    energy: Path | None = None
    clock_s: Callable[[], float] = time.monotonic

    @property
    def folder(self) -> Path:
        """The folder with all files of a measurement."""
        return self.state / FOLDER

    def start(self, envelope: bytes, progress: FetchProgress, done: Callable[[object], None]) -> None:
        """Run it on a thread of its own; ``done`` gets a ``SubmittedReport``, a ``Refusal`` or an exception."""
        job = lambda: done(outcome(lambda: self.run(envelope, progress)))  # noqa: E731 - one frame of the thread
        threading.Thread(target=job, name="measurement", daemon=True).start()

    def run(self, envelope: bytes, progress: FetchProgress) -> SubmittedReport | Refusal:
        """Return the report that the server has stored, or why there is none; the folder is emptied in any case."""
        try:
            self.disk.write(self.folder / ENVELOPE, envelope)
            order = self._verified()
            if isinstance(order, Refusal):
                return order
            refusal = self._no_room(order) or self._fetched(order, progress)
            if refusal is not None:
                return refusal
            self.disk.write(self.folder / ORDER, encode(order))
            return self._measured(order, progress) or self._submitted(order, progress)
        except OSError as error:
            return Refusal("no_space", f"Expected to write below {self.folder}, got: {error}: free the disk")
        finally:
            sweep(self.state)

    def _verified(self) -> MeasureOrder | Refusal:
        module = "edge_agent.measuring.order_check"
        arguments = ["--state", str(self.state), "--envelope", str(self.folder / ENVELOPE)]
        answer = run_child([module, *arguments], self.limits.limit_s)
        if isinstance(answer, NoAnswer):
            return Refusal("order_unchecked", f"Expected a verdict on the order, got: {answer.text}")
        order = answer.get("order")
        if answer.get("ok") is not True or not isinstance(order, dict):
            return Refusal(str(answer.get("code") or "signature_invalid"), str(answer.get("text", "")))
        return from_document(MeasureOrder, order)

    def _no_room(self, order: MeasureOrder) -> Refusal | None:
        wanted = order.bundle_length_bytes + order.rows_length_bytes
        if wanted > self.limits.max_bytes:
            text = f"Expected at most {self.limits.max_bytes} bytes of bundle and rows, got {wanted}: order fewer rows"
            return Refusal("too_large", f"{text}, or raise [measure] max_bytes in agent.toml")
        free = self.disk.free_bytes(self.folder)
        if wanted + self.limits.reserve_bytes > free:
            return Refusal("no_space", f"Expected {wanted} bytes and the reserve on disk, got {free}: free the disk")
        return None

    def _fetched(self, order: MeasureOrder, progress: FetchProgress) -> Refusal | None:
        address = f"{self.settings.base_url.rstrip('/')}/api/measurements/{order.order}"
        fetcher = HttpFetcher(replace(self.settings, base_url=address), self.folder, self.disk)
        wanted = [(order.bundle_sha256, order.bundle_length_bytes)]
        wanted += [(order.rows_sha256, order.rows_length_bytes)] if order.rows else []
        for sha256, length_bytes in wanted:
            refusal = fetcher.fetch(FetchOrder(sha256, length_bytes, self.limits.max_bytes_per_s), progress)
            if refusal is not None:
                return _CANCELLED if progress.cancelled.is_set() else refusal
        return None

    def _measured(self, order: MeasureOrder, progress: FetchProgress) -> Refusal | None:
        folder = self.folder
        command = [sys.executable, "-m", "edge_agent.measuring.child", "--order", str(folder / ORDER)]
        command += ["--bundle", str(folder / order.bundle_sha256), "--out", str(folder / REPORT)]
        command += ["--rows", str(folder / order.rows_sha256)] if order.rows else []
        command += ["--energy", str(self.energy)] if self.energy else []
        log = folder / LOG
        with log.open("wb") as output:  # its stdin: the pipe's end tells the child that its parent is gone
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        with child:
            try:
                deadline_s = self.clock_s() + self.limits.limit_s
                while child.poll() is None:
                    if progress.cancelled.wait(_POLL_S):
                        return _CANCELLED
                    if self.clock_s() > deadline_s:
                        text = f"Expected a measurement within {self.limits.limit_s:.0f} s, got none: order fewer rows"
                        return Refusal("measure_timeout", f"{text}, or raise [measure] limit_s in agent.toml")
                return _verdict(child.returncode, log)
            finally:
                child.kill()

    def _submitted(self, order: MeasureOrder, progress: FetchProgress) -> SubmittedReport | Refusal:
        """Check the report's head and stream the file: the control process never holds all of it in memory."""
        path = self.folder / REPORT
        with path.open("rb") as file:
            head = file.read(MAX_REPORT_HEAD_BYTES)
        try:
            problem = answers(order, report_head(head, path.stat().st_size)[0])
        except MessageError as error:
            problem = str(error)
        if problem:
            return Refusal("report_invalid", problem)
        digest, own, headers = sha256_file(path), self.settings.own, {}
        if own is not None:
            statement = ReportStatement(order=order.order, device=order.device, report_sha256=digest)
            try:
                proof = signature(own, signed_bytes(statement))
            except CertificateError as error:
                return Refusal("report_unsigned", str(error))
            envelope = encode_statement(SignedStatement(statement, proof, own.certificate.read_text()))
            headers[SIGNATURE_HEADER] = base64.b64encode(envelope).decode()
        refusal = submit(self.settings, f"/api/measurements/{order.order}/report", path, progress, headers)
        return refusal or SubmittedReport(order.order, digest)


def _verdict(exit_code: int, log: Path) -> Refusal | None:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        output = file.read(_TAIL_BYTES)
    lines = output.splitlines()
    try:
        answer: dict[str, Json] = parse_json(lines[-1]) if lines else {}
    except MessageError:
        answer = {}
    if answer.get("ok") is True and exit_code == 0:
        return None
    if answer.get("ok") is False:
        return Refusal(str(answer.get("code", "measure_failed")), str(answer.get("text", "")))
    if exit_code == -signal.SIGKILL:
        text = "Expected a measurement, got a child that was killed: there is no memory for a second model"
        return Refusal("child_crashed", f"{text}; measure on a larger device, or stop what else runs")
    tail = output.decode(errors="replace").strip()[-_TAIL:]
    return Refusal("child_crashed", f"Expected a measurement, got exit {exit_code}: {tail}")


def submit(
    settings: FetchSettings, address: str, report: Path, progress: FetchProgress, headers: Mapping[str, str]
) -> Refusal | None:
    """Send the file ``report`` to ``address`` below the server's URL; return None, or why it was refused."""
    reason, headers = "", {**settings.authorization, **headers, "Content-Length": str(report.stat().st_size)}
    for attempt in range(settings.attempts):
        if progress.cancelled.is_set():
            break
        try:
            status, said = _put(settings, address, report, headers)
            if status in _OK:
                return None
            reason = f"HTTP {status}: {said}"
            if status in CLIENT_ERRORS and status not in TRY_AGAIN:
                return Refusal(f"http_{status}", f"Expected the server to take the report, got {reason}")
        except (OSError, http.client.HTTPException) as error:
            reason = f"{type(error).__name__}: {error}"
        progress.cancelled.wait(min(settings.retry_max_s, settings.retry_min_s * 2.0**attempt))
    return Refusal("report_undelivered", f"Expected the server to take the report, got {reason}")


def _put(settings: FetchSettings, address: str, report: Path, headers: Mapping[str, str]) -> tuple[int, str]:
    with connection(settings) as link:
        with report.open("rb") as body:
            link.request("PUT", settings.path(address), body=body, headers=headers)
        answer: http.client.HTTPResponse = link.getresponse()
        return answer.status, answer.read(_ANSWER_BYTES).decode(errors="replace")[:200]
