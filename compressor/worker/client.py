"""A worker's requests to the server: jobs, samples, bundles. Sizes and digests are checked here."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from compressor.devices.connection import Connection
from compressor.errors import JobLostError, WorkerError
from wire.bundle import MAX_BUNDLE_BYTES
from wire.codec import Json, parse_json
from wire.errors import MessageError

MAX_SAMPLES_BYTES = 2 * 1024 * 1024 * 1024
_NO_CONTENT, _CONFLICT, _FIRST_ERROR = 204, 409, 400
_CHUNK_BYTES = 1 << 20
_HEX_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """One leased job. ``look``: the number that its look at the gate split has at least; 0: the server counts none."""

    id: str
    model: str
    base_release: str
    base_sha256: str
    cause: str
    labelled: int
    samples_sha256: str
    look: int = 0


class ServerClient(Connection):
    """Client of the server's API for build hosts."""

    def __init__(self, url: str, token: str, worker: str, ca: Path | None = None) -> None:
        """Connect on first use; ``worker`` is the name under which jobs are leased, ``ca`` a PEM file to trust.

        Raises:
            CompressorError: If ``ca`` is not a certificate.
        """
        super().__init__(url, token, ca)
        self._worker = worker

    def lease(self) -> WorkOrder | None:
        """Return the job leased to this worker now, None if there is none.

        Raises:
            ServerUnreachableError: If the server did not answer.
            WorkerError: If it refused, or the answer is not a job.
        """
        response = self._post("/api/jobs/lease", {})
        return None if response.status_code == _NO_CONTENT else _order(_document(response))

    def heartbeat(self, job: str) -> None:
        """Renew the lease.

        Raises:
            ServerUnreachableError: If the server did not answer.
            JobLostError: If the job was leased to another worker, or has ended.
        """
        self._post(f"/api/jobs/{job}/heartbeat", {})

    def done(self, job: str, release: str, certificate: dict[str, Json]) -> None:
        """End the job with a published release.

        Raises:
            ServerUnreachableError: If the server did not answer.
            JobLostError: If the job was leased to another worker, or has ended.
        """
        self._post(f"/api/jobs/{job}/done", {"release": release, "certificate": certificate})

    def failed(self, job: str, code: str, text: str) -> None:
        """End the job without a release; the code ``released`` returns it to the queue.

        Raises:
            ServerUnreachableError: If the server did not answer.
            JobLostError: If the job was leased to another worker, or has ended.
        """
        self._post(f"/api/jobs/{job}/failed", {"code": code, "text": text})

    def next_version(self, model: str, after: int) -> int:
        """Return a version above ``after`` that no release of ``model`` has.

        Raises:
            ServerUnreachableError: If the server did not answer.
            WorkerError: If it refused.
        """
        versions, path = [after], "/api/releases?limit=500"
        while True:
            document = _document(_check(self._send("GET", path)))
            releases, following = document.get("releases"), document.get("next")
            known = [item for item in releases if isinstance(item, dict)] if isinstance(releases, list) else []
            found = (item.get("version") for item in known if item.get("model") == model)
            versions += [version for version in found if isinstance(version, int)]
            if not isinstance(following, str):  # the end; an older server has one page
                return max(versions) + 1
            path = f"/api/releases?limit=500&cursor={quote(following, safe='')}"

    def fetch_bundle(self, sha256: str, path: Path) -> None:
        """Download a bundle to ``path`` and check its digest.

        Raises:
            ServerUnreachableError: If the server did not answer.
            WorkerError: If it refused, sent too many bytes, or other bytes.
        """
        self._fetch(f"/blobs/{sha256}", path, sha256, MAX_BUNDLE_BYTES)

    def fetch_samples(self, order: WorkOrder, path: Path) -> None:
        """Download the job's samples to ``path`` and check their digest.

        Raises:
            ServerUnreachableError: If the server did not answer.
            WorkerError: If it refused, sent too many bytes, or other bytes.
        """
        self._fetch(f"/api/jobs/{order.id}/samples.zip", path, order.samples_sha256, MAX_SAMPLES_BYTES)

    def _fetch(self, address: str, path: Path, sha256: str, limit_bytes: int) -> None:
        if path.is_file() and _digest(path) == sha256:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        try:
            with self._http.stream("GET", address) as response, aside.open("wb") as file:
                if response.status_code >= _FIRST_ERROR:
                    response.read()
                _check(response)
                received_bytes = 0
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    received_bytes += len(chunk)
                    if received_bytes > limit_bytes:
                        message = f"Expected at most {limit_bytes} bytes at {address}, got more"
                        raise WorkerError(message)
                    file.write(chunk)
            if _digest(aside) != sha256:
                message = f"Expected SHA-256 {sha256[:12]}… at {address}, got {_digest(aside)[:12]}…"
                raise WorkerError(message)
            aside.rename(path)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        finally:
            aside.unlink(missing_ok=True)

    def _post(self, address: str, body: dict[str, Json]) -> httpx.Response:
        return _check(self._send("POST", address, json={"worker": self._worker, **body}))


def _check(response: httpx.Response) -> httpx.Response:
    if response.status_code < _FIRST_ERROR:
        return response
    kind = JobLostError if response.status_code == _CONFLICT else WorkerError
    message = f"Expected {response.request.url.path} to be accepted, got HTTP {response.status_code}"
    raise kind(f"{message}: {response.text[:300]}")


def _document(response: httpx.Response) -> dict[str, Json]:
    try:
        return parse_json(response.content, limit_bytes=64 * 1024 * 1024)
    except MessageError as error:
        message = f"Expected JSON from {response.request.url.path}, got: {error}"
        raise WorkerError(message) from error


def _order(document: dict[str, Json]) -> WorkOrder:
    texts = {
        name: document.get(name) for name in ("id", "model", "base_release", "base_sha256", "cause", "samples_sha256")
    }
    labelled, look, job = document.get("labelled"), document.get("look", 0), str(texts["id"])
    said = all(isinstance(text, str) for text in texts.values())
    if not said or not isinstance(labelled, int) or not isinstance(look, int):
        message = f"Expected a job, got the keys {sorted(document)}"
        raise WorkerError(message)
    if not job.isalnum() or len(job) > _HEX_DIGITS:
        message = f"Expected a job id of letters and digits, got {job[:80]!r}"
        raise WorkerError(message)
    return WorkOrder(labelled=labelled, look=look, **{name: str(text) for name, text in texts.items()})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
