"""Renews the device's certificate before it expires: when, how often it is tried, and what is reported.

Order rules:

1. A renewal is due after two thirds of the certificate's life, a little later by chance, so that devices that enrolled
   together do not ask together.
2. Nothing is due by a clock that is not trusted. One that runs ahead only asks too early, and gets the same certificate
   again.
3. The old certificate is kept until the new one is checked against the key and on the disk; a failure is tried again
   within an hour.
4. An expired certificate can't be renewed: its device needs a person with a new claim, and says so; unless the broker
   takes it, because the device's clock was wrong.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from edge_agent.device.certificate import keep_certificate, make_request, validity
from edge_agent.device.disk import Disk
from edge_agent.device.tls import OwnCertificate
from edge_agent.errors import CertificateError
from edge_agent.updater.download import FetchSettings, connection
from edge_agent.updater.ports import Worker
from wire.canonical import canonical_bytes
from wire.codec import Json, parse_json
from wire.errors import MessageError
from wire.messages import Severity

RENEWAL = -2
"""Token of the renewal's job; those of updates begin at 1, repair's is 0, the benchmark's -1."""
_DUE_RATIO, _JITTER_RATIO = 2 / 3, 1 / 12  # of the life: three quarters at the latest, then a month is left of 90 days
_RETRY_RATIO, _RETRY_MIN_S, _RETRY_MAX_S = 0.01, 1.0, 3600.0
_MAX_ANSWER_BYTES = 64 * 1024
_OK = 200


class Renewer(Protocol):
    """Looks at the certificate and renews it. Both methods block and run on a worker."""

    def validity(self) -> tuple[int, int]:
        """Return from when until when the certificate is valid, UTC milliseconds."""

    def renew(self) -> tuple[int, int]:
        """Replace the certificate by a new one and return its validity."""


@dataclass(frozen=True, slots=True)
class ServerRenewer:
    """Renews at the server that enrolled the device, authenticated by the old certificate."""

    settings: FetchSettings
    own: OwnCertificate
    disk: Disk

    def validity(self) -> tuple[int, int]:
        """Return from when until when the certificate is valid, UTC milliseconds.

        Raises:
            CertificateError: If it can't be read.
        """
        return validity(self.own)

    def renew(self) -> tuple[int, int]:
        """Replace the certificate by a new one for the same key and return its validity.

        Raises:
            CertificateError: If the server can't be reached or refuses, or its answer is not a certificate for the key.
            OSError: If the file can't be written.
        """
        body = canonical_bytes({"request": make_request(self.own.key.read_bytes())})
        path, kind = self.settings.path("/api/enrol/renew"), {"Content-Type": "application/json"}
        try:
            with connection(self.settings) as link:
                link.request("POST", path, body=body, headers=kind)
                answer = link.getresponse()
                document = parse_json(answer.read(_MAX_ANSWER_BYTES), limit_bytes=_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, MessageError) as error:
            message = f"Expected {self.settings.base_url} to renew the certificate, got: {error}"
            raise CertificateError(message) from error
        certificate = document.get("certificate")
        if answer.status != _OK or not isinstance(certificate, str):
            reason = f"HTTP {answer.status}: {document.get('text', '')}"
            raise CertificateError(f"Expected {self.settings.base_url} to renew the certificate, got {reason}")
        keep_certificate(self.own.certificate.parent, certificate, self.disk)
        return validity(self.own)


@dataclass(frozen=True, slots=True)
class RenewalNote:
    """An event about the certificate."""

    code: str
    severity: Severity
    text: str


@dataclass(slots=True, kw_only=True)
class Renewal:
    """The renewal of one device. Used by the loop's thread only. ``chance``: 0..1, drawn once."""

    renewer: Renewer
    worker: Worker
    chance: float
    _valid_ms: tuple[int, int] | None = None
    _next_s: float = float("-inf")
    _running: bool = False
    _problem: str = ""
    _expired: bool = False

    def turn(self, now_ms: int, now_s: float) -> None:
        """Begin a job if one is due; ``now_ms``: of a clock that is trusted."""
        if self._running or now_s < self._next_s or (self._valid_ms is not None and now_ms < self.due_ms):
            return
        self._running = True
        self.worker.run(RENEWAL, self.renewer.validity if self._valid_ms is None else self.renewer.renew)

    @property
    def due_ms(self) -> int:
        """When a renewal is due, UTC milliseconds; 0 before the certificate was read."""
        since_ms, until_ms = self._valid_ms or (0, 0)
        return since_ms + round((_DUE_RATIO + self.chance * _JITTER_RATIO) * (until_ms - since_ms))

    def finished(self, result: object, now_ms: int, now_s: float) -> RenewalNote | None:
        """Take a job's result; return what to report, None if nothing changed."""
        self._running, before = False, self._valid_ms
        if isinstance(result, tuple):
            self._valid_ms, self._problem = result, ""
            return (
                None if before is None else RenewalNote("certificate_renewed", Severity.INFO, f"until {self._until()}")
            )
        life_s = (self._valid_ms[1] - self._valid_ms[0]) / 1000 if self._valid_ms else 0.0
        self._next_s = now_s + min(_RETRY_MAX_S, max(_RETRY_MIN_S, _RETRY_RATIO * life_s))
        self._problem = str(result)
        self._expired = self._valid_ms is not None and now_ms >= self._valid_ms[1]
        if self._expired:
            now = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
            self._problem = (
                f"Expected a valid certificate, got one that expired {self._until()}: if it is not {now} now, set the "
                "clock; else get a new claim (fleet-server claim), remove identity.json in the state directory, and "
                "run edge-agent enrol"
            )
            return RenewalNote("certificate_expired", Severity.ERROR, self._problem)
        return RenewalNote("certificate_not_renewed", Severity.WARNING, f"{self._problem}; it is tried again")

    def accepted(self) -> None:
        """Forget that the certificate has expired: the broker has taken it, so this device's clock was wrong."""
        if self._expired:
            self._problem, self._expired = "", False

    def status(self) -> dict[str, Json]:
        """Return until when the certificate is valid and why it was not renewed, for ``edge-agent status``."""
        return {"until": self._until() if self._valid_ms else "", "problem": self._problem}

    def _until(self) -> str:
        until_ms = self._valid_ms[1] if self._valid_ms else 0
        return datetime.fromtimestamp(until_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
