"""The device's trust store: one TLS context for enrolment, MQTT, metadata and bundles; and its HTTP connections."""

from __future__ import annotations

import http.client
import ssl
import urllib.parse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The files of the device's own certificate (PEM, with those up to the authority) and of its private key."""

    certificate: Path
    key: Path

    def show(self, context: ssl.SSLContext) -> None:
        """Make connections of ``context`` show the certificate that the file holds now.

        Raises:
            OSError: If a file can't be read, or certificate and key don't belong together (an ``ssl.SSLError``).
        """
        context.load_cert_chain(self.certificate, self.key)


def client_context(ca: str = "", own: OwnCertificate | None = None) -> ssl.SSLContext:
    """Return a context that checks certificate and host name.

    Args:
        ca: certificates in PEM text that are trusted instead of the system's; "" for the system's.
        own: the device's own certificate, if it shows one.

    Raises:
        OSError: If ``ca`` holds no certificate (an ``ssl.SSLError``), or the device's own can't be read.
    """
    context = ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
    if own is not None:
        own.show(context)
    return context


def http_connection(
    url: str, ca: str, timeout_s: float, own: OwnCertificate | None = None
) -> http.client.HTTPConnection:
    """Return a connection to the server at ``url``, not opened yet; it follows no redirects.

    Args:
        url: http://… or https://….
        ca: as of ``client_context``.
        timeout_s: limit for connecting, and between two pieces of an answer.
        own: the device's own certificate, if it shows one.

    Raises:
        OSError: As ``client_context``.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=client_context(ca, own))
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
