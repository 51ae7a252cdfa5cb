"""A release in a folder or zip for devices without a network: what ``fleet-server releases export`` writes.

``release.json`` (``Stick``) is written last, so a folder without it is not complete. Beside it are the signed metadata
in ``tuf``, as the server publishes them, and each bundle in ``blobs/sha256/<digest>``. Like ``desired``, the index is a
pointer: nothing in it is trusted unless the signed metadata agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from wire.codec import Json

INDEX = "release.json"
METADATA, BLOBS = "tuf", "blobs/sha256"
METADATA_NAME = re.compile(r"timestamp\.json|[1-9][0-9]{0,8}\.(root|snapshot|targets)\.json")
MAX_INDEX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StickTarget:
    """One bundle: its release, its TUF target path, digest and length."""

    release: str = ""
    target: str = ""
    sha256: str = ""
    length_bytes: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stick:
    """``release.json``. ``expires_ms``: when the first of the metadata expires; devices refuse it from then on."""

    schema: int = 1
    expires_ms: int = 0
    targets: tuple[StickTarget, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)
