"""The device's identity: enrolment with a one-time claim, and ``identity.json`` (0600), which is stored twice.

The proof of the identity is a password in it, or a certificate for a key that was made here (``certificate``).

The password never appears in a log, a message or a ``repr``.

Before enrolment, ``check_folder`` decides whether a folder may become an agent's state directory. The agent changes the
mode of that folder, empties folders in it (``measure``, ``blobs``) and consumes the files in ``inbox``, so a folder
with anything else in it, such as a home directory, a project or ``/tmp``, is refused.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.device.certificate import keep_certificate, make_key, make_request
from edge_agent.device.disk import Disk, RealDisk, advice
from edge_agent.device.record_file import Condition, Twin, read_record, write_twice
from edge_agent.device.tls import client_context
from edge_agent.errors import CertificateError, EnrolmentError, IdentityError, NewerFormatError
from wire.canonical import canonical_bytes
from wire.codec import Json, from_document, parse_json, to_document
from wire.enrolment import IdentityProof
from wire.errors import MessageError, WireError
from wire.topics import check_name

_TRACES = frozenset({"root.json", "status.json", "spool.db", "floor.json"})
"""Files of an agent that was enrolled here before; its identity may have been removed in order to enrol again."""
ROOM = "enrol.room"
"""Reserves room while a claim is exchanged; a power cut leaves it behind."""
_PREPARED_FOLDERS = frozenset({"inbox", "lost+found"})
_PREPARED_SUFFIXES = frozenset({".toml", ".pem", ".crt", ".claim", ".log"})


def check_folder(state: Path) -> None:
    """Check that ``state`` is new, empty, prepared for an agent (``agent.toml``, certificates), or was used by one.

    Raises:
        EnrolmentError: If it contains anything else.
        OSError: If it can't be read.
    """
    if not state.exists():
        return
    found = sorted(state.iterdir())
    if any(path.name in _TRACES for path in found):
        return
    foreign = []
    for path in found:
        folder = path.is_dir() and path.name in _PREPARED_FOLDERS
        file = path.suffix in _PREPARED_SUFFIXES or path.name in {ROOM, f".{ROOM}.new"}
        if not (folder or (file and not path.is_dir())):
            foreign.append(path.name)
    if foreign:
        message = f"Expected a new or empty state directory, got {state} with {', '.join(foreign[:3])}"
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""  # noqa: PLR2004 - as many are named
        raise EnrolmentError(f"{message}{more}: the agent empties folders there; give it one of its own by --state")


_LOG = logging.getLogger(__name__)
LIMIT_S = 30.0
MAX_ANSWER_BYTES = 512 * 1024
_MAX_PORT = 65_535
_NO_SUCH_ADDRESS = (404, 405)
_ROOM_BYTES = 64 * 1024  # identity and root, twice each
IN_MEMORY = "memory"  # the broker's host if server and agents share a process; then there is no port


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The result of enrolment. ``mqtt_tls_ca``: the certificates to trust, as PEM text, for MQTT and HTTP.

    ``certified``: the device shows a certificate of its own, and has no password.
    """

    site: str = ""
    device: str = ""
    password: str = field(default="", repr=False)
    mqtt_host: str = ""
    mqtt_port: int = 0
    http_url: str = ""
    mqtt_tls_ca: str = ""
    certified: bool = False


def read_identity(state: Path) -> Identity:
    """Return the identity in ``state``.

    Raises:
        IdentityError: If there is none, or it is damaged.
    """
    path, why = state / "identity.json", "a damaged copy too"
    try:
        read_record(path)
    except NewerFormatError as error:
        raise IdentityError(str(error)) from error
    except (OSError, WireError) as error:
        why = str(error)
    kept = Twin(path, RealDisk())
    found = kept.read()
    try:
        if found.condition is not Condition.WHOLE:
            raise MessageError(why)
        identity = from_document(Identity, found.document)
        check_name(identity.site, "a site")
        check_name(identity.device, "a device")
    except WireError as error:
        message = f"Expected an identity in {path}, got: {error}: run edge-agent enrol"
        raise IdentityError(message) from error
    if found.hurt:
        _LOG.warning("identity.json and its copy differed and are one again; to change it by hand, remove its digest")
    if found.hurt or not kept.copy.exists():
        with contextlib.suppress(OSError):  # a disk that can't be written now: one copy is enough to run with
            kept.write(found.document)
    return identity


def enrol(server_url: str, claim: str, state: Path, disk: Disk, *, ca: str = "", password: bool = False) -> Identity:
    """Exchange a one-time claim for an identity and write it, with the trusted root, below ``state``.

    If the server signs certificates, the device makes a key of its own and gets one, unless ``password`` is asked for.
    ``ca``: CA certificates in PEM text to verify the server's certificate with, "" for the system's. Later connections
    trust those in the answer.

    Raises:
        EnrolmentError: If ``state`` has no room, or the server can't be reached, refuses, or gives an invalid answer.
            Nothing is written then.
        CertificateError: If the certificate in the answer is not one for the key.
        OSError: If the files can't be written.
    """
    _check_address(server_url)
    address, body, key = server_url.rstrip("/") + "/api/enrol", {"claim": claim}, b""
    with _room_in(state, disk):
        if not password and _proof(address, ca) is not IdentityProof.PASSWORD:
            try:
                key = make_key()
                body["request"] = make_request(key)
            except CertificateError as error:
                raise EnrolmentError(f"{error}; or enrol with --password where the server permits it") from error
        answer = _ask(address, ca, canonical_bytes(body))
    root, certificate = answer.pop("root", None), answer.pop("certificate", "")
    try:
        identity = from_document(Identity, {"http_url": server_url, **answer, "certified": bool(key)})
        check_name(identity.site, "a site")
        check_name(identity.device, "a device")
        client_context(identity.mqtt_tls_ca)
    except (WireError, ssl.SSLError) as error:
        message = f"Expected an identity from {server_url}, got: {error}"
        raise EnrolmentError(message) from error
    reachable = 0 < identity.mqtt_port <= _MAX_PORT or identity.mqtt_host == IN_MEMORY
    proof = certificate if key else identity.password
    if not isinstance(root, str) or not reachable or not isinstance(certificate, str) or not proof:
        message = f"Expected an identity with root, {'certificate' if key else 'password'} and broker from {server_url}"
        raise EnrolmentError(f"{message}, got {sorted(answer)}")
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    shutil.rmtree(state / "tuf", ignore_errors=True)  # metadata under an earlier root: trust starts anew
    write_twice(disk, state / "root.json", root.encode())
    if key:
        keep_certificate(state, certificate, disk, key)
    Twin(state / "identity.json", disk).write(to_document(identity))
    return identity


@contextlib.contextmanager
def _room_in(state: Path, disk: Disk) -> Iterator[None]:
    """Reserve the room for the files below ``state``: a claim works only once and must not be wasted.

    Raises:
        EnrolmentError: If nothing can be written there.
    """
    kept, made = state / ROOM, not state.exists()
    try:
        try:
            disk.write(kept, bytes(_ROOM_BYTES))
        except OSError as error:
            message = f"Expected {_ROOM_BYTES} bytes of room in the state directory {state}, got: {error.strerror}"
            there = next((step for step in (state, *state.parents) if step.exists()), state)
            text = f"{message}: {advice(there, error)}, or choose another --state; the claim was not used"
            raise EnrolmentError(text) from error
        yield
    finally:
        with contextlib.suppress(OSError):
            kept.unlink()
        if made:
            with contextlib.suppress(OSError):
                state.rmdir()


def _check_address(url: str) -> None:
    """Check that ``url`` is an address of a server.

    Raises:
        EnrolmentError: If its scheme is not http or https, it has no host, or its port is invalid.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        good = good and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        good = False
    if not good:
        message = f"Expected --server with an address http://… or https://…, as https://fleet.example:8443, got {url!r}"
        raise EnrolmentError(message)


def _proof(address: str, ca: str) -> IdentityProof:
    """Return how devices prove their identity to the server; an older one only knows passwords."""
    try:
        return IdentityProof(str(_ask(address, ca).get("proof")))
    except (_OlderServerError, ValueError):
        return IdentityProof.PASSWORD


class _OlderServerError(EnrolmentError):
    """The server has no such address."""


def _ask(url: str, ca: str, body: bytes | None = None) -> dict[str, Json]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - scheme checked by enrol
    try:
        context = client_context(ca) if url.startswith("https:") else None
        with urllib.request.urlopen(request, timeout=LIMIT_S, context=context) as response:  # noqa: S310 - scheme checked by enrol
            return parse_json(response.read(MAX_ANSWER_BYTES + 1), limit_bytes=MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        if body is None and error.code in _NO_SUCH_ADDRESS:
            raise _OlderServerError(f"Expected {url} to name its proof, got HTTP {error.code}") from error
        message = f"Expected {url} to accept the claim, got HTTP {error.code}: {_reason(error)}"
        raise EnrolmentError(message) from error
    except (OSError, http.client.HTTPException, MessageError) as error:
        message = f"Expected an answer from {url}, got: {error}"
        if not ca and isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            message += ": if the server has a certificate authority of its own, give its certificate by --ca FILE"
        raise EnrolmentError(message) from error


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        with error:
            document = json.loads(error.read(4096))
    except (OSError, ValueError):
        return str(error.reason)
    return f"[{document.get('code')}] {document.get('text')}" if isinstance(document, dict) else str(error.reason)
