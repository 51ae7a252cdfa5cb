"""Device passwords and their hashes, in the format of mosquitto's password file.

The server generates passwords of 256 random bits, so a slow hash would add nothing; PBKDF2 with mosquitto's own
101 iterations gives one hash for broker and HTTP. Source: mosquitto 2.0, ``mosquitto_passwd``, hash ``$7$``.
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
    """Return 256 random bits as text that is safe in URLs and headers."""
    return secrets.token_urlsafe(32)


def hash_password(password: str, *, salt: bytes | None = None) -> str:
    """Return ``$7$<iterations>$<salt>$<hash>`` (PBKDF2-HMAC-SHA512, base64)."""
    salt = salt or secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_password(password: str, stored: str) -> bool:
    """Return whether ``password`` matches the hash ``stored``, compared in constant time."""
    parts = stored.split("$")
    if len(parts) != _PARTS:
        return False
    expected = hash_password(password, salt=base64.b64decode(parts[3]))
    return hmac.compare_digest(expected.encode(), stored.encode())
