"""Enrolment over HTTP, as far as both sides know it: where, and which proof of identity a server gives.

``GET /api/enrol`` names the proof; a server before 0.3 has no such address (404 or 405) and gives passwords.
"""

from __future__ import annotations

from enum import StrEnum

MAX_REQUEST_BYTES = 8 * 1024
"""Longest certificate request in PEM; one for a P-256 key has about 400 bytes."""


class IdentityProof(StrEnum):
    """How devices prove their identity to a server."""

    PASSWORD = "password"  # noqa: S105 - the name of a kind
    EITHER = "either"
    CERTIFICATE = "certificate"
