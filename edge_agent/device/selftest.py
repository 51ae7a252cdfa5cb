"""Checks whether this device is fit to run; each check reports what it examined and the result.

The server's state is reported apart from the device's own: a device is fit even if the server is full or starting.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.device.certificate import fingerprint, own_certificate, validity
from edge_agent.device.disk import RealDisk, advice
from edge_agent.device.identity import read_identity
from edge_agent.device.tls import OwnCertificate, http_connection
from edge_agent.errors import IdentityError
from edge_agent.updater.children import ChildProber
from edge_agent.updater.download import FetchSettings, connection
from edge_agent.updater.storage.slots import Slots
from wire.codec import parse_json
from wire.errors import MessageError
from wire.installation import install_name

LIMIT_S = 5.0
PAUSES_S = (1.0, 2.0, 3.0)
SERVER = "server"
_OK, _UNAUTHORIZED = 200, 401
_MAX_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One result. ``own``: it concerns this device; otherwise the server or the connection to it."""

    name: str
    ok: bool
    text: str
    own: bool = True


def checks(state: Path, runtimes: tuple[str, ...], pause: Callable[[float], None] = time.sleep) -> Iterator[Check]:
    """Yield the results, the device's own first; ``pause`` waits for a server that is not healthy yet."""
    try:
        identity = read_identity(state)
        own = own_certificate(state) if identity.certified else None
        key = f", key {fingerprint(own)}" if own is not None else ""
        yield Check(name="identity", ok=True, text=f"{identity.device} at {identity.site}{key}")
        if own is not None:
            yield certificate_check(own, time.time())
    except IdentityError as error:
        yield Check(name="identity", ok=False, text=str(error))
        return
    yield Check(
        name="runtime", ok=bool(runtimes), text=", ".join(runtimes) or f"none: pip install {install_name()}[onnx]"
    )
    yield _disk(state)
    yield _release(state)
    settings = FetchSettings(
        base_url=identity.http_url, username=identity.device, password=identity.password,
        tls_ca=identity.mqtt_tls_ca, own=own, stall_s=LIMIT_S,
    )  # fmt: skip
    server = _server(settings, pause)
    yield server
    if server.ok:
        yield _access(settings)


def certificate_check(own: OwnCertificate, now_s: float) -> Check:
    """Check that the device's certificate is valid at ``now_s``, UTC.

    Raises:
        CertificateError: If it can't be read.
    """
    since, until = (datetime.fromtimestamp(at_ms / 1000, UTC) for at_ms in validity(own))
    if since.timestamp() <= now_s < until.timestamp():
        return Check(name="certificate", ok=True, text=f"valid until {until:%Y-%m-%d %H:%M} UTC")
    shown = [f"{at:%Y-%m-%d %H:%M}" for at in (datetime.fromtimestamp(now_s, UTC), since, until)]
    text = f"Expected one that is valid at {shown[0]} UTC, got {shown[1]} to {shown[2]}"
    advice = "set the clock if it is wrong; else get a new claim (fleet-server claim), remove identity.json, and enrol"
    return Check(name="certificate", ok=False, text=f"{text}: {advice}")


def _disk(state: Path) -> Check:
    disk, path = RealDisk(), state / ".selftest"
    try:
        disk.write(path, b"x")
        disk.remove(path)
        return Check(name="disk", ok=True, text=f"{disk.free_bytes(state) // 1_000_000} MB free")
    except OSError as error:
        return Check(name="disk", ok=False, text=f"Expected a writable {state}, got: {error}: {advice(state, error)}")


def _server(settings: FetchSettings, pause: Callable[[float], None]) -> Check:
    """Check the server's health; if it is starting, or full for a moment, retry for a few seconds."""
    found = _server_health(settings)
    for pause_s in PAUSES_S:
        if found.ok or found.own:
            break
        pause(pause_s)
        found = _server_health(settings)
    return found


def _server_health(settings: FetchSettings) -> Check:
    link = http_connection(settings.base_url, settings.tls_ca, LIMIT_S)  # without the device's certificate
    try:
        link.request("GET", settings.path("/api/health"))
        answer = link.getresponse()
        text = "" if answer.status == _OK else _words(answer.read(_MAX_ANSWER_BYTES))
        return Check(
            name=SERVER, ok=answer.status == _OK, text=f"{settings.base_url} answers {answer.status}{text}", own=False
        )
    except ssl.SSLError as error:  # the trust store belongs to the device
        return Check(name=SERVER, ok=False, text=f"Expected a server that the identity's CA vouches for, got: {error}")
    except (OSError, http.client.HTTPException) as error:
        text = f"Expected an answer from {settings.base_url}, got: {error}: is the server up, and the network?"
        return Check(name=SERVER, ok=False, text=text, own=False)
    finally:
        link.close()


def _access(settings: FetchSettings) -> Check:
    """Check that the server takes the device for a member, by asking for a bundle that there is none of."""
    proof = "password" if settings.own is None else "certificate"
    try:
        with connection(settings) as link:
            link.request("HEAD", settings.path(f"/blobs/{'0' * 64}"), headers=settings.authorization)
            status = link.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        text = (
            f"Expected an answer from {settings.base_url} to this device's {proof}, got: {error}: is it the device's?"
        )
        return Check(name="access", ok=False, text=text)
    if status != _UNAUTHORIZED:
        return Check(name="access", ok=True, text=f"the server knows {settings.username} by its {proof}")
    text = f"Expected a server that takes this device's {proof}, got {status}: the device was revoked or removed"
    return Check(name="access", ok=False, text=f"{text}; get a new claim (fleet-server claim) and enrol again")


def _words(body: bytes) -> str:
    """Return the text in the server's health answer, after a colon; "" if it can't be parsed."""
    try:
        text = parse_json(body).get("text")
    except MessageError:
        return ""
    return f": {text}" if isinstance(text, str) and text else ""


def _release(state: Path) -> Check:
    slots = Slots(state, RealDisk())
    current = slots.current()
    if current is None:
        return Check(name="release", ok=True, text="none installed yet")
    result = ChildProber().probe(slots.bundle(current.sha256))
    text = f"{current.release}: p95 {result.latency_p95_ms:.2f} ms" if result.ok else f"[{result.code}] {result.text}"
    return Check(name="release", ok=result.ok, text=text)
