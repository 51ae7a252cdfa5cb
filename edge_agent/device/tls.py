"""Whom the device believes: one TLS context for enrolment, MQTT, metadata and bundles."""

from __future__ import annotations

import ssl


def client_context(ca: str = "") -> ssl.SSLContext:
    """Return a context that checks certificate and host name.

    Args:
        ca: certificates in PEM text that are trusted instead of the system's; "" for the system's.

    Raises:
        ssl.SSLError: If ``ca`` holds no certificate (it is an OSError).
    """
    return ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
