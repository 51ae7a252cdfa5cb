"""Sends a notice as an HTTP POST of JSON with a signature over the time and the body.

The signature is HMAC-SHA256 (RFC 2104) over ``TIMESTAMP.BODY`` with the secret of the route, so a receiver can tell
that the body is ours and that it is fresh. Only a status from 200 to 299 accepts. A redirect is not followed: it would
send the fleet's names to an address that nobody configured.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from server.alerts.config import AlertRoute, check_url
from server.alerts.receivers.message import NoticeMessage, line_of, secret_in
from server.errors import ConfigError, DeliveryError
from wire import __version__
from wire.errors import SettingsError

_LEAST_SECRET = 16
_MAX_ANSWER_BYTES = 2_048
_ALL_TOGETHER = 3  # times the timeout: a receiver that trickles its answer is cut off then
TIMESTAMP, SIGNATURE, IDEMPOTENCY = "Tinyfleet-Timestamp", "Tinyfleet-Signature", "Idempotency-Key"


def signature_of(secret: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of the signature's header: ``v1=`` and HMAC-SHA256 in hexadecimal."""
    return "v1=" + hmac.new(secret.encode(), f"{timestamp_s}.".encode() + body, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver at a URL."""

    route: AlertRoute

    def check(self) -> None:
        """Check secret, URL and authority.

        Raises:
            ConfigError: If one can't be used.
        """
        secret_in(self.route.secret_file, _LEAST_SECRET)
        self._url()
        self._context()

    def send(self, message: NoticeMessage) -> str:
        """Post the notice; return status and answer.

        Raises:
            DeliveryError: If the receiver can't be reached, is too slow, or answers another status than 2xx.
            ConfigError: If secret, URL or authority can't be used.
        """
        url, secret = self._url(), secret_in(self.route.secret_file, _LEAST_SECRET)
        headers = {
            "Content-Type": "application/json", "User-Agent": f"tinyfleet/{__version__}",
            TIMESTAMP: str(message.sent_s), SIGNATURE: signature_of(secret, message.sent_s, message.body),
            IDEMPOTENCY: message.key, "Tinyfleet-Event": message.event,
        }  # fmt: skip
        client = httpx.Client(
            timeout=self.route.timeout_s,
            follow_redirects=False,
            trust_env=False,
            verify=self._context() if url.startswith("https:") else False,
        )
        guard = threading.Timer(_ALL_TOGETHER * self.route.timeout_s, client.close)
        guard.daemon = True
        guard.start()
        try:
            with client, client.stream("POST", url, content=message.body, headers=headers) as answer:
                status, text = answer.status_code, _beginning(answer, 2 * self.route.timeout_s)
        except (httpx.HTTPError, httpx.StreamError, OSError, RuntimeError) as error:  # the last: closed by the guard
            name = type(error).__name__
            message_ = f"Expected {urlsplit(url).hostname} to answer within {self.route.timeout_s:g} s, got {name}"
            raise DeliveryError(message_) from error
        finally:
            guard.cancel()
        if not httpx.codes.is_success(status):
            advice = ": redirects are not followed, set the new url" if httpx.codes.is_redirect(status) else ""
            raise DeliveryError(f"Expected a status of 200 to 299, got {status}{advice}: {line_of(text)}".rstrip(": "))
        return line_of(f"{status} {text}")

    def _url(self) -> str:
        url = self.route.url or secret_in(self.route.url_file)
        try:
            check_url(url)
        except SettingsError as error:
            message = f"{self.route.url_file or 'url'}: {error}"
            raise ConfigError(message) from error
        return url

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.route.ca or None)
        except (OSError, ssl.SSLError) as error:
            message = f"Expected a PEM file of an authority at {self.route.ca}, got: {error}"
            raise ConfigError(message) from error


def _beginning(answer: httpx.Response, within_s: float) -> str:
    """Return the beginning of the body; what comes late, or can't be read, is left out: the status decides."""
    read, until_s = b"", time.monotonic() + within_s
    with contextlib.suppress(httpx.HTTPError):
        for piece in answer.iter_bytes(256):
            read += piece
            if len(read) >= _MAX_ANSWER_BYTES or time.monotonic() > until_s:
                break
    return read[:_MAX_ANSWER_BYTES].decode(errors="replace")
