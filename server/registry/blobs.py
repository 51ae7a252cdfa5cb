"""Bundles on disk, named by their SHA-256; a partly written file never has such a name.

Written to ``<hex>.<random>.new``, synced, renamed, directory synced. Source: Pillai et al., All File
Systems Are Not Created Equal, OSDI 2014, section 4.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from server.errors import BlobOversizeError, BlobRefusedError, UnknownBlobError
from wire.bundle import MAX_BUNDLE_BYTES
from wire.durable import sync_folder

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blobs:
    """The folder ``blobs/sha256``."""

    folder: Path

    def path(self, sha256: str) -> Path:
        """Return the path of the blob.

        Raises:
            UnknownBlobError: If it is not there.
        """
        path = self.folder / sha256
        if not _HEX.fullmatch(sha256) or not path.is_file():
            message = f"Expected the SHA-256 of a stored blob, got {sha256[:80]!r}: upload it first, or restore blobs/"
            raise UnknownBlobError(message)
        return path

    def has(self, sha256: str) -> bool:
        """Return whether the blob is there."""
        return bool(_HEX.fullmatch(sha256)) and (self.folder / sha256).is_file()

    def read(self, sha256: str) -> bytes:
        """Return the blob's bytes.

        Raises:
            UnknownBlobError: If it is not there.
        """
        return self.path(sha256).read_bytes()

    def upload(self, sha256: str, *, limit_bytes: int = MAX_BUNDLE_BYTES) -> Upload:
        """Return an open upload of the blob ``sha256``.

        Raises:
            BlobRefusedError: If that is not 64 lower-case hex digits.
        """
        if not _HEX.fullmatch(sha256):
            message = f"Expected 64 lower-case hex digits, got {sha256[:80]!r}"
            raise BlobRefusedError(message)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{sha256}.{secrets.token_hex(4)}.new"
        return Upload(folder=self.folder, sha256=sha256, limit_bytes=limit_bytes, part=part, file=part.open("wb"))

    def put(self, sha256: str, chunks: Iterable[bytes], *, limit_bytes: int = MAX_BUNDLE_BYTES) -> int:
        """Store a blob from ``chunks``; return its length in bytes.

        Raises:
            BlobRefusedError: If its digest or size differs from the announced one; no partial file is left.
        """
        upload = self.upload(sha256, limit_bytes=limit_bytes)
        try:
            for chunk in chunks:
                upload.write(chunk)
            return upload.commit()
        finally:
            upload.close()

    def sweep(self) -> None:
        """Delete the partial uploads of a killed server."""
        for path in self.folder.glob("*.new"):
            path.unlink(missing_ok=True)


@dataclass(slots=True, kw_only=True)
class Upload:
    """One upload: ``write`` chunks, then ``commit``; always ``close``."""

    folder: Path
    sha256: str
    limit_bytes: int
    part: Path
    file: BinaryIO
    length_bytes: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``.

        Raises:
            BlobOversizeError: If the blob exceeds the limit.
        """
        self.length_bytes += len(chunk)
        if self.length_bytes > self.limit_bytes:
            message = f"Expected a blob of at most {self.limit_bytes} bytes, got more"
            raise BlobOversizeError(message)
        self.digest.update(chunk)
        self.file.write(chunk)

    def commit(self) -> int:
        """Check the digest and give the blob its name; return its length in bytes.

        Raises:
            BlobRefusedError: If the digest is not the announced one.
        """
        if self.digest.hexdigest() != self.sha256:
            message = f"Expected SHA-256 {self.sha256[:12]}…, got {self.digest.hexdigest()[:12]}…: upload it again"
            raise BlobRefusedError(message)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.part.rename(self.folder / self.sha256)
        sync_folder(self.folder)
        return self.length_bytes

    def close(self) -> None:
        """End the upload; without ``commit`` the partial file is deleted."""
        try:
            self.file.close()  # on a full disk, flushing the buffer fails
        finally:
            self.part.unlink(missing_ok=True)
