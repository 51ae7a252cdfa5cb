"""Resumable download of one bundle into ``<sha256>.part``, then ``<sha256>``: HTTP ranges, or chunks over MQTT.

1. Never more than the signed length is read; the digest is computed while writing.
2. An existing ``.part`` is resumed, also after a kill. If the whole then has another digest, it is fetched
   once more from the start; if that differs again, it is refused.
3. 4xx is final, 5xx and stalls are retried with full-jitter back-off; progress resets the count of failures.
4. A full or failing disk ends the download and leaves the part, for the next attempt or ``reclaim``.
5. An existing bundle counts only if its digest is right; a damaged one is fetched again.
6. A carrier that can't reach the server is followed by the next (``carriers``), which goes on with the same part: it
   is always the beginning of the bundle, and its length is all that there is to know. ADR 44.
7. The rate limit holds over connections and carriers (``transfer.rate_limit``). With one, the socket buffers no more
   than a share of a second: otherwise the kernel would fetch megabytes at once.
No redirects are followed: they would carry the password elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
import random
import socket
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from io import FileIO
from pathlib import Path

from edge_agent.config import HTTP
from edge_agent.device.disk import Disk
from edge_agent.device.record_file import Condition, condition, make_way
from edge_agent.device.tls import OwnCertificate, http_connection
from edge_agent.telemetry.byte_meter import ByteMeter
from edge_agent.updater.ports import SUPERSEDED, FetchOrder, FetchProgress, Refusal, disk_refusal, part_of
from edge_agent.updater.transfer.chunk_pull import ChunkLink, ChunkPull
from edge_agent.updater.transfer.rate_limit import RateLimit

CHUNK_BYTES = 64 * 1024
_LOG = logging.getLogger(__name__)
_MIN_BUFFER_BYTES = 16 * 1024
_OK, _PARTIAL, _RANGE_BAD = 200, 206, 416
CLIENT_ERRORS = range(300, 500)
TRY_AGAIN = frozenset({408, 425, 429})
"""Those that may pass by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """The server's address, credentials and time limits. ``tls_ca``: certificates in PEM text, "" for the system's.

    ``own``: the device's certificate, instead of a password. ``meter`` counts the bytes of the connections.
    """

    base_url: str
    username: str
    password: str = field(repr=False)
    tls_ca: str = ""
    own: OwnCertificate | None = None
    stall_s: float = 30.0
    attempts: int = 8
    retry_min_s: float = 1.0
    retry_max_s: float = 60.0
    meter: ByteMeter = field(default_factory=ByteMeter, repr=False, compare=False)

    @property
    def authorization(self) -> dict[str, str]:
        """The header ``Authorization`` with the device's name and password; none for a device with a certificate."""
        if self.own is not None:
            return {}
        return {"Authorization": f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"}

    def path(self, address: str) -> str:
        """Return the path to request for ``address``, which begins with a slash, below the server's URL."""
        return urllib.parse.urlsplit(self.base_url).path.rstrip("/") + address


class _DiskError(Exception):
    """Writing to the disk failed, not the network."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _StopError(Exception):
    """The download must not be retried."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class HttpFetcher:
    """The fetcher of a device; ``folder`` is ``blobs/sha256``, ``chunks`` the link for the carrier ``mqtt``."""

    settings: FetchSettings
    folder: Path
    disk: Disk
    _: KW_ONLY
    chunks: ChunkLink | None = None
    carriers: tuple[str, ...] = (HTTP,)

    def fetch(self, order: FetchOrder, progress: FetchProgress) -> Refusal | None:
        """Download the bundle into the blob folder and check its digest; return None, or why it failed."""
        target = self.folder / order.sha256
        try:
            if condition(target, order.sha256) is Condition.WHOLE:
                progress.done_bytes = order.length_bytes
                return None
            make_way(target)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = part_of(target)
            self._fetch_right(_Transfer(self.settings, order, progress, part))
            self.disk.move(part, target)
        except _StopError as stop:
            return stop.refusal
        except OSError as error:
            return disk_refusal(error, f"Expected to write {target}, got: {error}")
        except _DiskError as failed:
            return disk_refusal(failed.error, f"Expected to write {target}, got: {failed}")
        return None

    def _fetch_right(self, transfer: _Transfer) -> None:
        resumed = transfer.begin() > 0
        self._bring(transfer)
        if transfer.right():
            return
        transfer.part.unlink()
        if resumed:
            transfer.begin()
            self._bring(transfer)
            if transfer.right():
                return
            transfer.part.unlink()
        text = f"Expected SHA-256 {transfer.order.sha256[:12]}…, got other bytes: publish the bundle again"
        raise _StopError(Refusal("digest_mismatch", text))

    def _bring(self, transfer: _Transfer) -> None:
        """Fetch the missing bytes by the first carrier that can."""
        carriers = [name for name in self.carriers if name == HTTP or self.chunks is not None] or [HTTP]
        for number, carrier in enumerate(carriers, start=1):
            last = number == len(carriers)
            try:
                if carrier == HTTP or self.chunks is None:
                    transfer.run(self.settings.attempts if last else max(1, self.settings.attempts // 2))
                else:
                    transfer.pull(self.chunks)
            except _StopError as stop:
                if last or stop.refusal.code != "download_failed":
                    raise
                _LOG.warning("carrier failed, the next one goes on carrier=%s reason=%s", carrier, stop.refusal.text)
                transfer.progress.how = f"fetched over {carriers[number]}, {carrier} failed: {stop.refusal.text}"[:300]
            else:
                return


class _Transfer:
    """One download with its digest so far."""

    def __init__(self, settings: FetchSettings, order: FetchOrder, progress: FetchProgress, part: Path) -> None:
        self.settings, self.order, self.progress, self.part = settings, order, progress, part
        self._digest = hashlib.sha256()
        self._chance = random.Random()  # noqa: S311 - jitter is no secret
        self._pace = RateLimit(order.max_bytes_per_s, progress.cancelled.wait)

    def begin(self) -> int:
        """Read the part that exists already; return its length in bytes."""
        self._digest = hashlib.sha256()
        self.progress.done_bytes = 0
        held_bytes = self.part.stat().st_size if self.part.exists() else 0
        if held_bytes > self.order.length_bytes:
            self.part.unlink()
            return 0
        if held_bytes:
            with self.part.open("rb") as file:
                while chunk := file.read(min(CHUNK_BYTES, held_bytes - self.progress.done_bytes)):
                    self._digest.update(chunk)
                    self.progress.done_bytes += len(chunk)
        return self.progress.done_bytes

    def right(self) -> bool:
        """Return whether the digest is the expected one."""
        return self._digest.hexdigest() == self.order.sha256

    def pull(self, chunks: ChunkLink) -> None:
        """Fetch the missing bytes in chunks over MQTT.

        Raises:
            _StopError: If it was cancelled, refused, or nothing came for too long.
        """
        with _opened(self.part) as file:
            refusal = ChunkPull(
                link=chunks,
                order=self.order,
                progress=self.progress,
                append=lambda data: self._write(file, data),
                pace=self._pace,
                silent_s=self.settings.stall_s * self.settings.attempts / 2,
            ).run()
        if refusal is not None:
            raise _StopError(refusal)

    def run(self, attempts: int) -> None:
        """Fetch the missing bytes over HTTP, over as many connections as needed.

        Raises:
            _StopError: If it was cancelled, or too many connections in a row made no progress.
        """
        failures, reason = 0, ""
        while self.progress.done_bytes < self.order.length_bytes:
            if self.progress.cancelled.is_set():
                raise _StopError(SUPERSEDED)
            if failures >= attempts:
                text = f"Expected {self.order.length_bytes} bytes, got {self.progress.done_bytes}: {reason}"
                raise _StopError(Refusal("download_failed", text))
            before = self.progress.done_bytes
            try:
                self._connect_once()
                reason = "the server closed the connection early"
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}"
            failures = 0 if self.progress.done_bytes > before else failures + 1
            if self.progress.done_bytes < self.order.length_bytes:
                self._pause(failures)
        if not self.part.exists():
            self.part.touch()

    def _pause(self, failures: int) -> None:
        """Wait with full jitter, longer after each failure in a row."""
        ceiling_s = min(self.settings.retry_max_s, self.settings.retry_min_s * 2.0 ** min(failures, 30))
        self.progress.cancelled.wait(self._chance.uniform(0.0, ceiling_s))

    def _connect_once(self) -> None:
        headers = {**self.settings.authorization, "Accept-Encoding": "identity"}
        if self.progress.done_bytes:
            headers["Range"] = f"bytes={self.progress.done_bytes}-"
        with connection(self.settings) as link:
            if self._pace.bytes_per_s:
                buffer_bytes = max(_MIN_BUFFER_BYTES, self._pace.piece(CHUNK_BYTES))
                link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            link.request("GET", self.settings.path(f"/blobs/{self.order.sha256}"), headers=headers)
            self._take(link.getresponse())

    def _take(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if status == _RANGE_BAD or (status == _OK and self.progress.done_bytes):
            self.part.unlink(missing_ok=True)
            self.begin()
        if status == _RANGE_BAD or status in TRY_AGAIN:
            return
        if status in CLIENT_ERRORS:
            raise _StopError(Refusal(f"http_{status}", f"Expected the bundle, got HTTP {status} {response.reason}"))
        expected = _OK if not self.progress.done_bytes else _PARTIAL
        given = response.headers.get("Content-Range", "")
        range_fits = status == _OK or given.startswith(f"bytes {self.progress.done_bytes}-")
        if status != expected or not range_fits:
            message = f"Expected HTTP {expected} from byte {self.progress.done_bytes}, got {status}"
            raise http.client.HTTPException(message)
        if (response.length or 0) > self.order.length_bytes - self.progress.done_bytes:
            self._refuse_length()
        self._read(response)

    def _refuse_length(self) -> None:
        text = f"Expected {self.order.length_bytes} signed bytes, got more: publish the bundle again"
        raise _StopError(Refusal("too_large", text))

    def _read(self, response: http.client.HTTPResponse) -> None:
        with _opened(self.part) as file:
            while chunk := response.read1(self._pace.piece(CHUNK_BYTES)):
                self.progress.fetched_bytes += len(chunk)
                if self.progress.cancelled.is_set():
                    raise _StopError(SUPERSEDED)
                if self.progress.done_bytes + len(chunk) > self.order.length_bytes:
                    self._refuse_length()
                self._write(file, chunk)
                self._pace.spend(len(chunk))

    def _write(self, file: FileIO, chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:  # unbuffered: a full disk shows here, not when the file is closed
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise _DiskError(error) from error
        self._digest.update(chunk)
        self.progress.done_bytes += len(chunk)


def _opened(part: Path) -> FileIO:
    try:
        return FileIO(part, "ab")
    except OSError as error:
        raise _DiskError(error) from error


@contextmanager
def connection(settings: FetchSettings) -> Iterator[http.client.HTTPConnection]:
    """Yield an open connection to the server of ``settings``, counted by its meter; it follows no redirects.

    Raises:
        OSError: If there is none.
    """
    link, watched = http_connection(settings.base_url, settings.tls_ca, settings.stall_s, settings.own), -1
    try:
        link.connect()
        watched = settings.meter.watch(link.sock)
        yield link
    finally:
        link.close()
        settings.meter.settle(watched)
