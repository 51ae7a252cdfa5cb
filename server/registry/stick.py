"""Writes a release for devices without a network: its bundles and the signed metadata, in a folder or a zip.

The files are those that the server publishes, byte for byte; nothing is signed here. ``release.json`` is written last,
and an older one is removed first, so that half a copy never looks complete; then the bundles that only the older one
lists, of another release.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from server.errors import TrustStoreError, UnknownReleaseError
from server.registry.blobs import Blobs
from server.registry.versions import Release
from server.trust.repository import TrustRepository
from wire.codec import decode, encode
from wire.durable import replacing, write_atomically
from wire.errors import MessageError
from wire.stick import BLOBS, INDEX, MAX_INDEX_BYTES, METADATA, Stick, StickTarget

_FOR_ALL = 0o644  # the agent's user reads it, whoever wrote it; it holds no secret
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TRIES = 5  # a running server may publish in between


def write_stick(to: Path, releases: Sequence[Release], repository: TrustRepository, blobs: Blobs) -> Stick:
    """Write ``releases`` to the folder ``to``, or to a zip if its name ends in .zip; return the index.

    Raises:
        UnknownReleaseError: If there are none, or one is not in the current signed targets.
        UnknownBlobError: If a bundle is missing.
        TrustStoreError: If the metadata are damaged, or change all the time.
        OSError: If it can't be written.
    """
    metadata, expires_ms = _metadata(repository)
    signed = {target.path for target in repository.targets()}
    if not releases or any(release.path not in signed for release in releases):
        message = "Expected a release in the current signed targets, got none: publish it with compressor publish"
        raise UnknownReleaseError(message)
    index = Stick(
        expires_ms=expires_ms,
        targets=tuple(
            StickTarget(release=one.name, target=one.path, sha256=one.sha256, length_bytes=one.length_bytes)
            for one in releases
        ),
    )
    files = {f"{METADATA}/{name}": data for name, data in metadata.items()}
    bundles = {f"{BLOBS}/{release.sha256}": blobs.path(release.sha256) for release in releases}
    if to.suffix.lower() == ".zip":
        with replacing(to, mode=_FOR_ALL) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, path in bundles.items():
                archive.write(path, name)
            for name, data in [*files.items(), (INDEX, encode(index))]:
                archive.writestr(name, data)
        return index
    older = _exported(to)
    (to / INDEX).unlink(missing_ok=True)
    for sha256 in older - {release.sha256 for release in releases}:
        (to / BLOBS / sha256).unlink(missing_ok=True)
    for name, path in bundles.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(to / name, mode=_FOR_ALL) as file, path.open("rb") as blob:
            shutil.copyfileobj(blob, file)
    for name, data in files.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(to / name, data, mode=_FOR_ALL)
    write_atomically(to / INDEX, encode(index), mode=_FOR_ALL)
    return index


def _exported(folder: Path) -> set[str]:
    """Return the digests of the bundles that an earlier export to ``folder`` lists; none if its index is damaged."""
    try:
        index = decode(Stick, (folder / INDEX).read_bytes(), limit_bytes=MAX_INDEX_BYTES)
    except (FileNotFoundError, MessageError):
        return set()
    return {one.sha256 for one in index.targets if _DIGEST.fullmatch(one.sha256)}


def _metadata(repository: TrustRepository) -> tuple[dict[str, bytes], int]:
    """Return the files of one publication by name, and when the first of them expires."""
    for _ in range(_TRIES):
        before = repository.metadata_file("timestamp.json")
        expiries = repository.expiries()
        versions = {expiry.role: expiry.version for expiry in expiries}
        names = [f"{versions.get(role, 0)}.{role}.json" for role in ("snapshot", "targets")]
        names += [f"{version}.root.json" for version in range(1, versions.get("root", 0) + 1)]
        files = {name: data for name in names if (data := repository.metadata_file(name)) is not None}
        if before is not None and before == repository.metadata_file("timestamp.json"):
            return {**files, "timestamp.json": before}, min(expiry.expires_ms for expiry in expiries)
    message = "Expected published metadata that stay for a moment, got none or a new timestamp each time: publish first"
    raise TrustStoreError(message)
