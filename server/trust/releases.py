"""Registers signed targets as releases that may be rolled out. Idempotent: runs after each publication and at start."""

from __future__ import annotations

from collections.abc import Iterable

from server.people import By
from server.registry.versions import Versions
from server.trust.repository import TrustedTarget


def register_releases(targets: Iterable[TrustedTarget], versions: Versions, *, now_ms: int, by: By = "") -> None:
    """Register every target as a release, which ``by`` published ("": the server finds it again).

    Raises:
        UnknownBlobError: If a bundle is not here.
    """
    for target in targets:
        versions.register(
            target.path, target.custom, sha256=target.sha256, length_bytes=target.length_bytes, now_ms=now_ms, by=by
        )
