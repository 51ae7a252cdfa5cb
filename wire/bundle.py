"""A bundle: a deterministic, stored zip with known entries. Same inputs, same bytes.

Checked before any content is trusted, in this order: size of the file; number and names of entries; stored, not
compressed; size of each entry; the manifest; the set of files it lists; each digest; the reference's artifact digest;
finally, that these bytes are what ``build_bundle`` would write, so that nothing is hidden before, between or after the
entries. Entries are never extracted by name.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wire.canonical import sha256_hex
from wire.codec import encode
from wire.errors import BundleDigestError, BundleEntryError, BundleError, BundleOversizeError
from wire.manifest import MAX_MANIFEST_BYTES, Manifest, read_manifest
from wire.reference import read_reference

MANIFEST = "manifest.json"
REFERENCE = "reference.bin"
GOLDEN = "golden.npz"
CERTIFICATE = "gate.json"
BILL_OF_MATERIALS = "mlbom.cdx.json"
CARD = "card.md"
ENTRIES = frozenset({MANIFEST, REFERENCE, GOLDEN, CERTIFICATE, BILL_OF_MATERIALS, CARD})
"""All entries except the model, whose name is ``model.`` and the extension of its runtime's format."""
_ARTIFACT = re.compile(r"model\.[a-z0-9]{1,16}")
MAX_BUNDLE_BYTES = 256 * 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory: the manifest, and all other entries by name."""

    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def artifact(self) -> bytes:
        """The model's bytes."""
        return self.files[self.manifest.artifact]


def build_bundle(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a bundle; ``manifest.files`` and ``artifact_sha256`` are filled in here.

    Raises:
        BundleError: If an entry is unknown, or the result would be rejected when read.
    """
    digests = {name: sha256_hex(data) for name, data in sorted(files.items())}
    complete = replace(manifest, files=digests, artifact_sha256=digests.get(manifest.artifact, ""))
    data = _pack({MANIFEST: encode(complete), **files})
    parse_bundle(data)
    return data


def _pack(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr, entry.create_system = _MODE, 3
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def read_bundle(path: Path, *, limit_bytes: int = MAX_BUNDLE_BYTES) -> Bundle:
    """Return the checked bundle at ``path``.

    Raises:
        BundleError: If it is rejected; the subclass and its ``code`` give the reason.
    """
    try:
        length_bytes = path.stat().st_size
    except OSError as error:
        message = f"Expected a bundle at {path}, got: {error}"
        raise BundleError(message) from error
    if length_bytes > limit_bytes:
        message = f"Expected a bundle of at most {limit_bytes} bytes, got {length_bytes}"
        raise BundleOversizeError(message)
    return parse_bundle(path.read_bytes(), limit_bytes=limit_bytes)


def parse_bundle(data: bytes, *, limit_bytes: int = MAX_BUNDLE_BYTES) -> Bundle:
    """Return the checked bundle in ``data``.

    Raises:
        BundleError: If it is rejected; the subclass and its ``code`` give the reason.
    """
    if len(data) > limit_bytes:
        message = f"Expected a bundle of at most {limit_bytes} bytes, got {len(data)}"
        raise BundleOversizeError(message)
    entries = _entries(data)
    files = {name: content for name, content in entries.items() if name != MANIFEST}
    manifest = read_manifest(entries[MANIFEST])
    if set(manifest.files) != set(files):
        message = f"Expected the entries {sorted(manifest.files)}, got {sorted(files)}"
        raise BundleEntryError(message)
    for name, expected in manifest.files.items():
        if sha256_hex(files[name]) != expected:
            message = f"Expected {name} with SHA-256 {expected[:12]}…, got {sha256_hex(files[name])[:12]}…"
            raise BundleDigestError(message)
    if REFERENCE in files:
        read_reference(files[REFERENCE]).check_artifact(manifest.artifact_sha256)
    if _pack(entries) != data:
        raise BundleDigestError("Expected the canonical bytes of a bundle, got others around the same entries")
    return Bundle(manifest, files)


def _entries(data: bytes) -> dict[str, bytes]:
    """Return the entries of the zip in ``data`` by name; names and sizes are checked before one is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            others = set(names) - ENTRIES
            known = all(_ARTIFACT.fullmatch(name) for name in others)
            if len(names) != len(set(names)) or len(others) > 1 or not known or MANIFEST not in names:
                wanted = f"{MANIFEST}, one model.FORMAT and others of {sorted(ENTRIES)}"
                message = f"Expected {wanted}, each once, got {sorted(names)[:20]}"
                raise BundleEntryError(message)
            for info in infos:
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    message = f"Expected {info.filename} stored, got compression {info.compress_type}"
                    raise BundleEntryError(message)
                limit = MAX_MANIFEST_BYTES if info.filename == MANIFEST else len(data)
                if info.file_size > limit:
                    message = f"Expected {info.filename} of at most {limit} bytes, got {info.file_size}"
                    raise BundleOversizeError(message)
            return {info.filename: _content(archive, info) for info in infos}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        message = f"Expected an intact zip, got: {error}"
        raise BundleError(message) from error


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, EOFError) as error:  # the zip's checksum detects the change before ours
        message = f"Expected {info.filename} to match its directory entry, got: {error}"
        raise BundleDigestError(message) from error
