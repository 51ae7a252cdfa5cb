"""The device's trust store: one TLS context for enrolment, MQTT, metadata and bundles; and its HTTP connections."""

from __future__ import annotations

import ssl
import urllib.parse
from http.client import HTTPConnection, HTTPSConnection


def client_context(ca: str = "") -> ssl.SSLContext:
    """Return a context that checks certificate and host name.

    Args:
        ca: certificates in PEM text that are trusted instead of the system's; "" for the system's.

    Raises:
        ssl.SSLError: If ``ca`` holds no certificate (it is an OSError).
    """
    return ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()


def http_connection(url: str, ca: str, timeout_s: float) -> HTTPConnection:
    """Return a connection to the server at ``url``, not opened yet; it follows no redirects.

    Args:
        url: http://… or https://….
        ca: as of ``client_context``.
        timeout_s: limit for connecting, and between two pieces of an answer.

    Raises:
        ssl.SSLError: If ``ca`` holds no certificate (it is an OSError).
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return HTTPSConnection(host, parts.port, timeout=timeout_s, context=client_context(ca))
    return HTTPConnection(host, parts.port, timeout=timeout_s)
