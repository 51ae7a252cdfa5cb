"""A measurement order signed by the release key: permits one device to measure one bundle once, never to install it.

Decides the content of an order and how it is signed: a DSSE envelope with its own payload type, so that its signature
is not valid for TUF metadata, and theirs is not valid for an order (ADR 9).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope

from compressor.release.keys import load_signer, read_root
from wire.canonical import sha256_hex
from wire.codec import encode
from wire.measurement import ORDER_TYPE, MeasureOrder, read_order


def make_order(subject: Subject, device: str, *, now_ms: int, holds_s: float) -> MeasureOrder:
    """Return an order valid for ``device`` from ``now_ms`` (UTC) on for ``holds_s`` seconds.

    Raises:
        MessageError: If bundle or rows exceed a limit.
    """
    order = MeasureOrder(
        order=secrets.token_hex(16), device=device, artifact_sha256=subject.artifact_sha256,
        bundle_sha256=sha256_hex(subject.bundle), bundle_length_bytes=len(subject.bundle),
        rows_sha256=sha256_hex(subject.rows) if subject.n else "", rows_length_bytes=len(subject.rows), rows=subject.n,
        issued_ms=now_ms, expires_ms=now_ms + int(holds_s * 1000),
    )  # fmt: skip
    return read_order(encode(order))


def sign_order(order: MeasureOrder, keys: Path) -> dict[str, Any]:
    """Return ``order`` in its envelope, signed with the release key in the folder ``keys``.

    Raises:
        TrustError: If the key is missing, readable by others, or not the one that the root names.
    """
    envelope = Envelope(encode(order), ORDER_TYPE, {})
    envelope.sign(load_signer(keys, "targets", read_root(keys)))
    return dict(envelope.to_dict())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Subject:
    """What to measure: ``bundle`` with artifact, manifest and golden vectors; ``rows``: npy of uint8 (n, H, W, C).

    The bundle is for ``hardware`` (empty: any) and ``runtime`` ("": any).
    """

    artifact_sha256: str
    bundle: bytes
    rows: bytes = b""
    n: int = 0
    hardware: tuple[str, ...] = ()
    runtime: str = ""
