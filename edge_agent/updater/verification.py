"""Verifies that a release is signed by our build host, and current. A short-lived child, so its memory is released.

``python -m edge_agent.updater.verification --state DIR --target PATH`` prints one JSON line and exits 0
(verified) or 1 (refused). It checks, in this order:

0. The record of times and versions seen is intact (``floor_lost``), and so is the enrolment's root (``root_lost``).
1. The clock is not behind the persisted time floor (``clock_behind``): with a clock set back, expired
   metadata would look fresh. The floor rises only to moments at which unexpired metadata was seen, so a
   clock that once ran ahead can't lock the device out for longer than the metadata was valid.
2. python-tuf's client workflow from the root this device enrolled with: root, timestamp, snapshot, targets; none of
   them may have an older version than this device has seen, even if the file with that version was damaged.
3. The target exists, has a SHA-256, is not larger than any bundle may be, and its custom data decodes.

Metadata that has expired by a clock which is a day or more ahead of the server's own (HTTP ``Date``) is reported as
``clock_ahead``: still refused, because a date is not signed, but under another code.

``trust_root`` and ``refresh_judged`` are the same client without a device around it, for judges from outside
(``edge-agent tuf``). Source: tuf-conformance, client-under-test CLI (CLIENT-CLI.md).

Does not download the bundle nor judge the release (security floor, hardware): the updater does.
Runs without ``cryptography``: ed25519 is verified by securesystemslib's own pure Python.
"""

from __future__ import annotations

import argparse
import contextlib
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, BinaryIO

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
    SlowRetrievalError,
)
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edge_agent.device.disk import RealDisk, disk_code
from edge_agent.device.identity import read_identity
from edge_agent.device.record_file import beside, copy_of, make_way
from edge_agent.device.sane_clock import HINT_TOLERANCE_MS, ClockFault
from edge_agent.device.tls import client_context
from edge_agent.errors import IdentityError, SignatureRefusedError
from edge_agent.telemetry.byte_meter import AirBytes, ByteMeter
from edge_agent.updater.storage.time_floor import TimeFloor
from wire.canonical import canonical_bytes
from wire.codec import from_document, to_document
from wire.errors import MessageError
from wire.tuf_target import MAX_TARGET_BYTES, TargetCustom

SOCKET_TIMEOUT_S = 30.0
FILE_DEADLINE_S = 120.0  # per metadata file; a server that sends a few bytes at a time must not block the update
CHUNK_BYTES = 64 * 1024
LIMITS = UpdaterConfig(
    max_root_rotations=32,
    root_max_length=256 * 1024,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=64 * 1024,
    targets_max_length=4 * 1024 * 1024,
    prefix_targets_with_hash=False,
)
_HTTP_NOT_FOUND = 404
_HALF_WRITTEN = f"{tempfile.gettempprefix()}*"  # python-tuf writes these, then renames them
_ROLES = ("root", "timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetVerdict:
    """The child's output. ``code`` is empty when ``ok``; otherwise only ``code``, ``text`` and ``server_ms`` are set.

    ``server_ms``: the server's time (HTTP ``Date``), 0 if unknown. ``moved``: over the network, in any case.
    """

    ok: bool = False
    code: str = ""
    text: str = ""
    sha256: str = ""
    length_bytes: int = 0
    custom: TargetCustom = field(default_factory=TargetCustom)
    server_ms: int = 0
    moved: AirBytes = field(default_factory=AirBytes)

    def line(self) -> bytes:
        """Return the JSON line that the parent reads, without the line feed."""
        moved = {"sent_bytes": self.moved.sent, "received_bytes": self.moved.received}
        if not self.ok:
            refusal = {"code": self.code, "text": self.text, "server_ms": self.server_ms}
            return canonical_bytes({"ok": False, **refusal, **moved})
        document = {"sha256": self.sha256, "length_bytes": self.length_bytes, "custom": to_document(self.custom)}
        return canonical_bytes({"ok": True, **document, **moved})


class _CountedConnection(HTTPConnection):
    """A connection whose bytes ``meter`` counts."""

    meter: ByteMeter

    def connect(self) -> None:
        """Connect."""
        super().connect()
        self.meter.watch(self.sock)


class _CountedTlsConnection(_CountedConnection, HTTPSConnection):
    """The same with TLS."""


class _CountingHandler(urllib.request.AbstractHTTPHandler):
    """Opens http and https addresses, before urllib's own handlers."""

    handler_order = 400
    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self, meter: ByteMeter, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._meter, self._context = meter, context

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self._connection, _CountedConnection), request)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self._connection, _CountedTlsConnection), request, context=self._context)

    def _connection(
        self,
        kind: type[_CountedConnection],
        host: str,
        **arguments: Any,  # noqa: ANN401 - urllib's, handed on as they are
    ) -> HTTPConnection:
        link = kind(host, **arguments)
        link.meter = self._meter
        return link


class MetadataFetcher(FetcherInterface):
    """Metadata over HTTP with the standard library; python-tuf limits the sizes while it reads."""

    def __init__(self, ca: str = "") -> None:
        """Trust ``ca`` (PEM text), or the system's certificates when it is empty.

        Raises:
            OSError: If ``ca`` is not a certificate.
        """
        # without ``ca`` no context: loading the system's certificates costs megabytes, and plain HTTP needs none
        self.meter = ByteMeter()
        self._opener = urllib.request.build_opener(_CountingHandler(self.meter, client_context(ca) if ca else None))
        self.server_ms = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise DownloadError(f"Expected an http or https address, got {url[:80]!r}")
        try:
            response = self._opener.open(url, timeout=SOCKET_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            self.server_ms = _date_ms(error.headers.get("Date")) or self.server_ms
            raise DownloadHTTPError(f"Expected {url}, got HTTP {error.code}", error.code) from error
        except (OSError, HTTPException) as error:
            raise DownloadError(f"Expected an answer from {url}, got: {error}") from error
        self.server_ms = _date_ms(response.headers.get("Date")) or self.server_ms
        return _chunks(response, url)


class DirectoryFetcher(FetcherInterface):
    """Metadata from a folder (USB stick, air gap): the same files by name, the same checks."""

    def __init__(self, folder: Path) -> None:
        """Read from ``folder``."""
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / Path(urllib.parse.urlsplit(url).path).name
        try:
            file = path.open("rb")
        except FileNotFoundError as error:
            raise DownloadHTTPError(f"Expected {path}, got no such file", _HTTP_NOT_FOUND) from error
        return _pieces(file)


def _date_ms(text: str | None) -> int:
    """Return the time of an HTTP date in UTC milliseconds, 0 if there is none."""
    try:
        return round(parsedate_to_datetime(text).timestamp() * 1000) if text else 0
    except (ValueError, OverflowError):
        return 0


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _chunks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    deadline = time.monotonic() + FILE_DEADLINE_S
    with response:
        while True:
            try:
                chunk = response.read1(CHUNK_BYTES)
            except (OSError, HTTPException) as error:
                raise DownloadError(f"Expected all of {url}, got: {error}") from error
            if not chunk:
                if response.length:  # ``read1`` takes an early end for the end; half a file would be no valid metadata
                    raise DownloadError(f"Expected all of {url}, got {response.length} bytes fewer")
                return
            if time.monotonic() > deadline:
                raise SlowRetrievalError(f"Expected {url} within {FILE_DEADLINE_S:.0f} s")
            yield chunk


def verify(state: Path, target: str, *, fetcher: FetcherInterface, base_url: str, now_ms: int) -> TargetVerdict:
    """Return the signed information about ``target``, or why it is refused.

    Args:
        state: the agent's state directory; reads ``root.json``, keeps ``tuf/``.
        target: TUF target path, as ``desired`` names it; untrusted, only looked up.
        fetcher: the source of metadata.
        base_url: address below which ``timestamp.json`` and the other files are.
        now_ms: the device's clock, UTC.
    """
    floor = TimeFloor(state / "tuf" / "time_floor.json")
    seen, root = floor.read(), trusted_root(state)
    if seen is None:
        text = f"Expected {floor.path} or its copy, got two damaged files: an older release would look like a newer one"
        return TargetVerdict(code="floor_lost", text=f"{text}; enrol this device again in a new --state")
    if root is None:
        text = f"Expected the root of the enrolment in {state / 'root.json'} or its copy, got neither"
        return TargetVerdict(code="root_lost", text=f"{text}: enrol this device again in a new --state")
    if not floor.allows(now_ms):
        text = f"Expected a clock at or after {floor.read_ms()}, got {now_ms}: set the clock, then install"
        return TargetVerdict(code="clock_behind", text=text)
    try:
        updater = Updater(str(tuf_folder(state)), base_url, fetcher=fetcher, config=LIMITS, bootstrap=root)
        updater.refresh()
        stored = {role: (state / "tuf" / f"{role}.json").read_bytes() for role in _ROLES}  # ``refresh`` verified them
        versions = {role: Metadata.from_bytes(data).signed.version for role, data in stored.items()}
        older = seen.behind(versions)
        if older:
            text = f"Expected {older} of version {seen.versions[older]} or newer, got {versions.get(older, 0)}"
            return TargetVerdict(code="metadata_rollback", text=f"{text}: {_PUBLISH_AGAIN}")
        found = updater.get_targetinfo(target)
        floor.raise_to(now_ms, versions)
    except (DownloadError, RepositoryError, OSError) as error:
        code, text = _code(error), f"{type(error).__name__}: {error}"[:300]
        if code == "metadata_rollback":
            text = f"{text}: {_PUBLISH_AGAIN}"
        server_ms = fetcher.server_ms if isinstance(fetcher, MetadataFetcher) else 0
        if code == "metadata_expired" and 0 < server_ms < now_ms - HINT_TOLERANCE_MS:
            code = ClockFault.AHEAD.value
            text = f"Expected a clock near the server's {server_ms}, got {now_ms}, by which metadata has expired"
        return TargetVerdict(code=code, text=text, server_ms=server_ms)
    return _judge(found, target)


_PUBLISH_AGAIN = "this device has seen newer metadata: publish again from the build host, or export again to the stick"


def trusted_root(state: Path) -> bytes | None:
    """Return the root that this device enrolled with, or a later one; None if no copy is intact.

    A damaged copy of ``root.json`` is restored from an intact one.
    """
    path = state / "root.json"
    kept = sorted((state / "tuf" / "root_history").glob("*.root.json"))
    for one in (path, copy_of(path), *kept):
        try:
            data = one.read_bytes()
            root: Metadata[Root] = Metadata.from_bytes(data)
            root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        except (OSError, RepositoryError, ValueError, AttributeError):
            continue
        if one in kept and int(one.name.partition(".")[0]) != root.signed.version:
            continue
        for lost in (copy_of(path), path):
            if not lost.is_file() or lost.read_bytes() != data:
                with contextlib.suppress(OSError):  # it is tried again the next time
                    make_way(lost)
                    RealDisk().write(lost, data)
        return data
    return None


def tuf_folder(state: Path) -> Path:
    """Return python-tuf's folder; first move away folders where it writes files, and the other way round.

    Half-written files of a verification that was killed are removed: python-tuf never reads or removes them.

    Raises:
        OSError: If one can't be moved or removed.
    """
    folder = state / "tuf"
    for path in (folder, folder / "root_history"):
        if path.is_file():
            path.rename(beside(path, "damaged"))
        path.mkdir(mode=0o700, exist_ok=True)
    for path in [*(folder / f"{role}.json" for role in _ROLES), *(folder / "root_history").iterdir()]:
        make_way(path)
    for path in [*folder.glob(_HALF_WRITTEN), *(folder / "root_history").glob(_HALF_WRITTEN)]:
        path.unlink(missing_ok=True)
    return folder


def _code(error: Exception) -> str:
    if isinstance(error, DownloadLengthMismatchError):
        return "too_large"
    if isinstance(error, ExpiredMetadataError):
        return "metadata_expired"
    if isinstance(error, BadVersionNumberError):
        return "metadata_rollback"
    if isinstance(error, RepositoryError):
        return "signature_invalid"
    if isinstance(error, OSError):
        return disk_code(error)
    return "metadata_unreachable"


def _judge(found: TargetFile | None, target: str) -> TargetVerdict:
    sha256 = found.hashes.get("sha256", "") if found else ""
    if found is None or not sha256:
        text = f"Expected a target that the build host signed, got {target[:120]!r}: publish it first"
        return TargetVerdict(code="unknown_target", text=text)
    if found.length > MAX_TARGET_BYTES:
        text = f"Expected a bundle of at most {MAX_TARGET_BYTES} bytes, got {found.length}"
        return TargetVerdict(code="too_large", text=text)
    try:
        custom = from_document(TargetCustom, found.custom or {})
    except MessageError as error:
        return TargetVerdict(code="bundle_invalid", text=f"Expected custom data of {target[:120]}, got: {error}")
    return TargetVerdict(ok=True, sha256=sha256, length_bytes=found.length, custom=custom)


def run(state: Path, target: str, metadata_dir: Path | None, now_ms: int) -> TargetVerdict:
    """Return the verdict on ``target``, with metadata from ``metadata_dir`` or from the enrolled server."""
    if metadata_dir is not None:
        base_url = metadata_dir.resolve().as_uri()
        return verify(state, target, fetcher=DirectoryFetcher(metadata_dir), base_url=base_url, now_ms=now_ms)
    try:
        identity = read_identity(state)
        fetcher = MetadataFetcher(ca=identity.mqtt_tls_ca)
    except (OSError, IdentityError) as error:
        text = f"Expected an enrolled device in {state}, got: {error}: run edge-agent enrol"
        return TargetVerdict(code="metadata_unreachable", text=text)
    base_url = identity.http_url.rstrip("/") + "/tuf/"
    verdict = verify(state, target, fetcher=fetcher, base_url=base_url, now_ms=now_ms)
    return replace(verdict, moved=fetcher.meter.read())


@dataclass(frozen=True, slots=True)
class JudgedTarget:
    """A target to download: its path, the address below which targets are, and the folder that it is stored in."""

    name: str
    base_url: str
    folder: Path


def trust_root(folder: Path, root: Path) -> None:
    """Trust the root metadata in the file ``root`` from now on; ``folder`` keeps what is trusted.

    Raises:
        SignatureRefusedError: If a file can't be read or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "root.json").write_bytes(root.read_bytes())
    except OSError as error:
        raise SignatureRefusedError("disk_failed", f"Expected to copy {root} to {folder}, got: {error}") from error


def refresh_judged(folder: Path, url: str, target: JudgedTarget | None = None) -> None:
    """Bring the trusted metadata in ``folder`` up to date from ``url``; with ``target``, download that, too.

    Raises:
        SignatureRefusedError: If metadata or target is refused, or can't be read, fetched or stored.
    """
    try:
        updater = Updater(
            str(folder),
            url,
            None if target is None else str(target.folder),
            None if target is None else target.base_url,
            fetcher=MetadataFetcher(),
            config=replace(LIMITS, prefix_targets_with_hash=True),  # as any repository but ours has them
            bootstrap=None,
        )
        updater.refresh()
        if target is None:
            return
        target.folder.mkdir(parents=True, exist_ok=True)
        found = updater.get_targetinfo(target.name)
        if found is None:
            raise SignatureRefusedError("unknown_target", f"Expected a signed target {target.name!r}, got none")
        if updater.find_cached_target(found) is None:
            updater.download_target(found)
    except (DownloadError, RepositoryError, OSError, ValueError) as error:
        text = f"Expected what {url} offers to be signed and current, got {type(error).__name__}: {error}"
        raise SignatureRefusedError("signature_invalid", text[:500]) from error


def main(arguments: list[str] | None = None) -> int:
    """Print the verdict as one JSON line; return 0 when verified, 1 when refused."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.updater.verification")
    parser.add_argument("--state", type=Path, required=True, help="the agent's state directory")
    parser.add_argument("--target", required=True, help="TUF target path, <release>/<target>.tfb")
    parser.add_argument("--metadata-dir", type=Path, help="read metadata from this folder instead of the server")
    options = parser.parse_args(arguments)
    verdict = run(options.state, options.target, options.metadata_dir, int(time.time() * 1000))
    sys.stdout.buffer.write(verdict.line() + b"\n")
    sys.stdout.buffer.flush()
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
