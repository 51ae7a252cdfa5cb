"""Is this device fit to run? Each check says what it looked at and what it found."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.disk import RealDisk
from edge_agent.errors import IdentityError
from edge_agent.identity import Identity, read_identity
from edge_agent.tls import client_context
from edge_agent.updater.children import ChildProber
from edge_agent.updater.slots import Slots

LIMIT_S = 5.0
_OK = 200


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    text: str


def checks(state: Path, runtimes: tuple[str, ...]) -> Iterator[Check]:
    """Yield the findings, the cheapest first."""
    try:
        identity = read_identity(state)
        yield Check("identity", ok=True, text=f"{identity.device} at {identity.site}")
    except IdentityError as error:
        yield Check("identity", ok=False, text=str(error))
        return
    yield Check("runtime", ok=bool(runtimes), text=", ".join(runtimes) or "none: pip install tinyfleet[onnx]")
    yield _disk(state)
    yield _server(identity)
    yield _release(state)


def _disk(state: Path) -> Check:
    disk, path = RealDisk(), state / ".selftest"
    try:
        disk.write(path, b"x")
        disk.remove(path)
        return Check("disk", ok=True, text=f"{disk.free_bytes(state) // 1_000_000} MB free")
    except OSError as error:
        return Check("disk", ok=False, text=f"Expected a writable {state}, got: {error}")


def _server(identity: Identity) -> Check:
    parts = urllib.parse.urlsplit(identity.http_url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = client_context(identity.mqtt_tls_ca)
        connection = http.client.HTTPSConnection(host, parts.port, timeout=LIMIT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=LIMIT_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/api/health")
        status = connection.getresponse().status
        return Check("server", status == _OK, f"{identity.http_url} answers {status}")
    except (OSError, http.client.HTTPException) as error:
        return Check("server", ok=False, text=f"Expected an answer from {identity.http_url}, got: {error}")
    finally:
        connection.close()


def _release(state: Path) -> Check:
    slots = Slots(state, RealDisk())
    current = slots.current()
    if current is None:
        return Check("release", ok=True, text="none installed yet")
    result = ChildProber().probe(slots.bundle(current.sha256))
    text = f"{current.release}: p95 {result.latency_p95_ms:.2f} ms" if result.ok else f"[{result.code}] {result.text}"
    return Check("release", result.ok, text)
