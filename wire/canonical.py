"""Canonical JSON: equal values have equal bytes, for hashing and signing.

Canonical form: JSON, UTF-8, keys sorted, no white space, no NaN or infinity. Source: RFC 8785 in
spirit; floats are written by ``repr``, which round-trips on every supported Python.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from wire.errors import MessageError

_CHUNK_BYTES = 1 << 20
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_bytes(value: object) -> bytes:
    """Return the canonical JSON bytes of ``value`` (mappings, sequences, str, int, float, bool, None).

    Raises:
        MessageError: If ``value`` has NaN, infinity, a lone surrogate or something JSON can't represent.
    """
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        message = f"Expected a value that JSON can carry, got {type(value).__name__}: {error}"
        raise MessageError(message) from error


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file at ``path``, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
