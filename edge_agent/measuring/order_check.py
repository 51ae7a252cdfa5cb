"""Verifies that our build host signed a measurement order for this device. A short-lived child, like ``verification``.

``python -m edge_agent.measuring.order_check --state DIR --envelope PATH`` prints one JSON line and exits 0 (verified)
or 1 (refused). It checks, in this order:

1. The clock is not behind the persisted time floor (``clock_behind``): with a clock set back, an expired order would
   look fresh.
2. python-tuf's client workflow leads from the root this device enrolled with to the newest one, so that a revoked
   release key is refused. A server that has published no release yet (404) is no reason to refuse; expired or
   contradicting metadata is.
3. The envelope is small, has the payload type of orders, and is signed by the threshold of keys that the root names
   for ``targets``.
4. The order names this device, has begun and has not expired (``order_invalid``, ``order_expired``).

Does not download a bundle. Its verdict never permits an install: only the TUF workflow of ``verification`` does.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edge_agent.device.identity import Identity, read_identity
from edge_agent.device.sane_clock import TOLERANCE_MS
from edge_agent.errors import IdentityError
from edge_agent.updater.storage.time_floor import TimeFloor
from edge_agent.updater.verification import LIMITS, MetadataFetcher, trusted_root, tuf_folder
from wire.canonical import canonical_bytes
from wire.codec import Json, parse_json, to_document
from wire.errors import MessageError
from wire.measurement import ORDER_TYPE, MeasureOrder, read_order
from wire.messages import MAX_ENVELOPE_BYTES

_HTTP_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderVerdict:
    """The child's output. ``code`` is empty when ``ok``; otherwise only ``code`` and ``text`` are set."""

    ok: bool = False
    code: str = ""
    text: str = ""
    order: MeasureOrder = field(default_factory=MeasureOrder)

    def line(self) -> bytes:
        """Return the JSON line that the parent reads, without the line feed."""
        if not self.ok:
            return canonical_bytes({"ok": False, "code": self.code, "text": self.text})
        return canonical_bytes({"ok": True, "order": to_document(self.order)})


def check(  # noqa: PLR0911 - one return a rule, in order
    state: Path, envelope: bytes, *, fetcher: FetcherInterface, identity: Identity, now_ms: int
) -> OrderVerdict:
    """Return the order in ``envelope`` if this device may execute it, or why not.

    Args:
        state: the agent's state directory; reads ``root.json``, keeps ``tuf/``.
        envelope: DSSE envelope as JSON; untrusted.
        fetcher: the source of newer roots.
        identity: this device's identity, with the address of its server.
        now_ms: the device's clock, UTC.
    """
    if not TimeFloor(state / "tuf" / "time_floor.json").allows(now_ms):
        return OrderVerdict(
            code="clock_behind", text=f"Expected a later clock than {now_ms}: set the clock, then measure"
        )
    try:
        root = newest_root(state, fetcher, identity.http_url.rstrip("/") + "/tuf/")
    except (DownloadError, RepositoryError, DeserializationError, OSError) as error:
        code = "metadata_unreachable" if isinstance(error, DownloadError | OSError) else "signature_invalid"
        code = "metadata_expired" if isinstance(error, ExpiredMetadataError) else code
        return OrderVerdict(code=code, text=f"{type(error).__name__}: {error}"[:300])
    if root.expires.timestamp() * 1000 < now_ms:
        return OrderVerdict(code="metadata_expired", text=f"Expected a root that holds, got one until {root.expires}")
    try:
        order = read_order(_signed_payload(envelope, root))
    except (MessageError, VerificationError, FormatError, KeyError, ValueError, TypeError, AttributeError) as error:
        text = f"Expected a measurement order signed by our release key, got: {type(error).__name__}: {error}"
        return OrderVerdict(code="signature_invalid", text=text[:300])
    if order.device != identity.device:
        text = f"Expected an order for {identity.device}, got one for {order.device}"
        return OrderVerdict(code="order_invalid", text=text)
    if now_ms > order.expires_ms or now_ms < order.issued_ms - TOLERANCE_MS:
        text = f"Expected an order from {order.issued_ms} to {order.expires_ms}, got it at {now_ms}: order again"
        return OrderVerdict(code="order_expired", text=f"{text}, or set this device's clock")
    return OrderVerdict(ok=True, order=order)


def newest_root(state: Path, fetcher: FetcherInterface, base_url: str) -> Root:
    """Return the newest root, verified from the one of the enrolment, and store it.

    Raises:
        DownloadError: If the server can't be reached.
        RepositoryError: If the server's metadata contradicts the trusted metadata, or has expired.
        OSError: If the roots can't be read or stored.
    """
    folder, trusted = tuf_folder(state), trusted_root(state)
    if trusted is None:
        message = f"Expected the root of the enrolment in {state / 'root.json'} or its copy, got neither"
        raise FileNotFoundError(message)
    updater = Updater(str(folder), base_url, fetcher=fetcher, config=LIMITS, bootstrap=trusted)
    try:
        updater.refresh()
    except DownloadHTTPError as error:
        if error.status_code != _HTTP_NOT_FOUND or (folder / "timestamp.json").exists():
            raise  # metadata that was published once can't vanish
    root: Metadata[Root] = Metadata.from_bytes((folder / "root.json").read_bytes())
    return root.signed


def _signed_payload(data: bytes, root: Root) -> bytes:
    document: dict[str, Json] = parse_json(data, limit_bytes=MAX_ENVELOPE_BYTES)
    envelope = Envelope.from_dict(document)
    if envelope.payload_type != ORDER_TYPE:
        message = f"Expected a payload of {ORDER_TYPE}, got {envelope.payload_type[:80]!r}"
        raise MessageError(message)
    role = root.roles["targets"]
    envelope.verify([root.keys[keyid] for keyid in role.keyids], role.threshold)
    return bytes(envelope.payload)


def run(state: Path, path: Path, now_ms: int) -> OrderVerdict:
    """Return the verdict on the envelope in the file at ``path``, with roots from the enrolled server."""
    try:
        if path.stat().st_size > MAX_ENVELOPE_BYTES:
            return OrderVerdict(
                code="signature_invalid", text=f"Expected an envelope of at most {MAX_ENVELOPE_BYTES} bytes"
            )
        envelope, identity = path.read_bytes(), read_identity(state)
        fetcher = MetadataFetcher(ca=identity.mqtt_tls_ca)
    except (OSError, IdentityError) as error:
        return OrderVerdict(code="metadata_unreachable", text=str(error)[:300])
    return check(state, envelope, fetcher=fetcher, identity=identity, now_ms=now_ms)


def main(arguments: list[str] | None = None) -> int:
    """Print the verdict as one JSON line; return 0 when verified, 1 when refused."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.measuring.order_check")
    parser.add_argument("--state", type=Path, required=True, help="the agent's state directory")
    parser.add_argument("--envelope", type=Path, required=True, help="the order in its DSSE envelope")
    options = parser.parse_args(arguments)
    verdict = run(options.state, options.envelope, int(time.time() * 1000))
    sys.stdout.buffer.write(verdict.line() + b"\n")
    sys.stdout.buffer.flush()
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
