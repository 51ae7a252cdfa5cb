"""Device passwords and their hashes, in the form that mosquitto's password file takes.

A password is 256 random bits that we draw, so a slow hash would add nothing; PBKDF2 with mosquitto's own
101 iterations keeps one hash for broker and HTTP. Source: mosquitto 2.0, ``mosquitto_passwd``, hash ``$7$``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

_ITERATIONS = 101
_SALT_BYTES = 12
_PARTS = 5


def new_secret() -> str:
    """Return 256 random bits as text that fits URLs and headers."""
    return secrets.token_urlsafe(32)


def hash_password(password: str, *, salt: bytes | None = None) -> str:
    """Return ``$7$<iterations>$<salt>$<hash>`` (PBKDF2-HMAC-SHA512, base64)."""
    salt = salt or secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_password(password: str, stored: str) -> bool:
    """Return whether ``password`` has the hash ``stored``, in constant time."""
    parts = stored.split("$")
    if len(parts) != _PARTS:
        return False
    expected = hash_password(password, salt=base64.b64decode(parts[3]))
    return hmac.compare_digest(expected.encode(), stored.encode())
