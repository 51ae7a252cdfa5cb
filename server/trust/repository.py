"""The published TUF metadata: accepts targets that the build host signed, signs snapshot and timestamp.

Order of a publication, each file written atomically: ``N.targets.json``, ``N.snapshot.json``, ``timestamp.json``.
The timestamp decides what is current: a crash before its rename leaves the old state intact, and the next
publication writes the same unreferenced files again. The server can't invent a release: it has no key for that.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Snapshot, T, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from server.clock import Clock, system_now_ms
from server.errors import MetadataRefusedError, TargetsVersionError, TrustStoreError
from server.trust.online_keys import load_online_key
from server.trust.roots import TUF, check_online_keys, read_root, root_bytes
from wire.codec import from_document
from wire.durable import write_atomically
from wire.errors import MessageError
from wire.tuf_target import MAX_TARGET_BYTES, TargetCustom, target_path

_LOG = logging.getLogger(__name__)
MAX_TARGETS_BYTES = 4 * 1024 * 1024
TIMESTAMP_DAYS = 7  # a device notices withheld updates after at most this long
SNAPSHOT_DAYS = 30
_MARK = "copied_ms"
_LEAST_LEAP = 1000  # versions, if by the clock no time has passed since the copy
_NAME = re.compile(r"timestamp\.json|[1-9][0-9]{0,8}\.(root|snapshot|targets)\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedTarget:
    """One signed target: TUF path, digest and length of the bundle, and the build host's custom data."""

    path: str
    sha256: str
    length_bytes: int
    custom: TargetCustom


@dataclass(frozen=True, slots=True)
class Expiry:
    """When the current metadata of a role expires."""

    role: str
    version: int
    expires_ms: int


@dataclass(eq=False, slots=True)
class TrustRepository:
    """The folder ``tuf`` of a state directory. Safe to share between threads."""

    state_dir: Path
    clock: Clock = system_now_ms
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def refuse_losses(self, *, published: bool) -> None:
        """Check that the keys and metadata that devices know are still there, since they can't be made anew.

        ``published``: whether there are releases, and so must be signed metadata. Passes if no root was installed yet.

        Raises:
            TrustStoreError: If the root, an online key or the current metadata is lost or damaged, or a key is not
                the one that the root names; the text names the file.
        """
        if not published and self.root() is None:
            return
        if self.root() is None:
            self._file("1.root.json")
        check_online_keys(self.state_dir, read_root(self.state_dir))
        if published and self.current_targets() is None:
            self._file("timestamp.json")

    def root(self) -> bytes | None:
        """Return the newest root as devices get it at enrolment, None while there is none."""
        return root_bytes(self.state_dir)

    def metadata_file(self, name: str) -> bytes | None:
        """Return a published file by its name, None if there is none."""
        if not _NAME.fullmatch(name):
            return None
        try:
            return (self.state_dir / TUF / name).read_bytes()
        except FileNotFoundError:
            return None

    def current_targets(self) -> bytes | None:
        """Return the current signed targets, None before the first publication."""
        with self._lock:
            snapshot = self._snapshot()
            return None if snapshot is None else self._file(f"{snapshot.meta['targets.json'].version}.targets.json")

    def targets(self) -> tuple[TrustedTarget, ...]:
        """Return every target of the current metadata."""
        data = self.current_targets()
        return () if data is None else _trusted(_parse(data, Targets))

    def expiries(self) -> tuple[Expiry, ...]:
        """Return when the current metadata of each role expires; roles without any are left out.

        Raises:
            TrustStoreError: If the installed root, or our own metadata, is damaged.
        """
        with self._lock:
            targets = self.current_targets()
            signed = {
                "root": read_root(self.state_dir) if self.root() else None,
                "targets": _parse(targets, Targets).signed if targets else None,
                "snapshot": self._snapshot(), "timestamp": self._timestamp(),
            }  # fmt: skip
        return tuple(
            Expiry(role, one.version, round(one.expires.timestamp() * 1000)) for role, one in signed.items() if one
        )

    def publish_targets(
        self, data: bytes, blob_exists: Callable[[str], bool], *, base: int | None = None
    ) -> tuple[TrustedTarget, ...]:
        """Publish ``data`` as the next targets; return the targets in it. The same bytes again change nothing.

        Args:
            data: targets metadata, signed on a build host.
            blob_exists: returns whether the blob of a SHA-256 is here.
            base: version on which the build host based it (0: none); None means the one below its own.

        Raises:
            RootMissingError: If no root was installed.
            MetadataRefusedError: If it is not signed by the release key, expired, or lists a bundle that is not here.
            TargetsVersionError: If the current version is not the one it was based on.
            TrustStoreError: If our own metadata or keys are damaged.
        """
        with self._lock:
            if data == self.current_targets():
                return self.targets()
            metadata = self._verified(data)
            self._check_version(metadata.signed.version, base)
            trusted = _trusted(metadata)
            _check_targets(trusted, self.targets(), blob_exists)
            self._write(f"{metadata.signed.version}.targets.json", data)
            self._sign_snapshot(metadata.signed.version, data, self.clock())
            return trusted

    def turn(self, now_ms: int) -> None:
        """Sign snapshot and timestamp again when half their lifetime is over.

        Raises:
            TrustStoreError: If our own metadata or keys are damaged.
        """
        with self._lock:
            timestamp, snapshot = self._timestamp(), self._snapshot()
            if timestamp is None or snapshot is None:
                return
            now = _utc(now_ms)
            if snapshot.expires - now < timedelta(days=SNAPSHOT_DAYS / 2):
                version = snapshot.meta["targets.json"].version
                self._sign_snapshot(version, self._file(f"{version}.targets.json"), now_ms)
            elif timestamp.expires - now < timedelta(days=TIMESTAMP_DAYS / 2):
                self._sign_timestamp(timestamp.snapshot_meta, now_ms)

    def leap(self, now_ms: int) -> bool:
        """In a restored copy, sign with versions above all that devices may have seen; return False if it is no copy.

        A restored server has older metadata than devices saw, which they refuse as a rollback. At most one version per
        second was signed since the copy was made, so the versions are raised by the seconds passed.

        Raises:
            TrustStoreError: If our own metadata, keys or the mark are damaged.
        """
        with self._lock:
            mark = self.state_dir / TUF / _MARK
            if not mark.exists():
                return False
            try:
                copied_ms = int(mark.read_text(encoding="ascii"))
            except (OSError, ValueError) as error:
                message = f"Expected the time of a copy, UTC ms, in {mark}, got: {error}: remove it if this is no copy"
                raise TrustStoreError(message) from error
            snapshot = self._snapshot()
            if snapshot is not None:
                above = max(now_ms - copied_ms, 0) // 1000 + _LEAST_LEAP
                version = snapshot.meta["targets.json"].version
                self._sign_snapshot(version, self._file(f"{version}.targets.json"), now_ms, above=above)
            mark.unlink()
            return True

    def _verified(self, data: bytes) -> Metadata[Targets]:
        if len(data) > MAX_TARGETS_BYTES:
            message = f"Expected targets metadata of at most {MAX_TARGETS_BYTES} bytes, got {len(data)}"
            raise MetadataRefusedError(message)
        root = read_root(self.state_dir)
        try:
            metadata = _parse(data, Targets)
            root.verify_delegate("targets", metadata.signed_bytes, metadata.signatures)
        except (TrustStoreError, RepositoryError, ValueError) as error:
            message = f"Expected targets metadata signed by the release key that our root names, got: {error}"
            raise MetadataRefusedError(message) from error
        if metadata.signed.is_expired(_utc(self.clock())):
            message = f"Expected targets metadata that is valid now, got one that expired {metadata.signed.expires}"
            raise MetadataRefusedError(message)
        return metadata

    def _check_version(self, version: int, base: int | None) -> None:
        snapshot = self._snapshot()
        if snapshot is None:
            return
        current = snapshot.meta["targets.json"].version
        if version <= current or (version - 1 if base is None else base) != current:
            message = f"Expected targets based on version {current}, got version {version}: publish again"
            raise TargetsVersionError(message)

    def _sign_snapshot(self, targets_version: int, targets: bytes, now_ms: int, *, above: int = 0) -> None:
        timestamp = self._timestamp()
        version = 1 + above + (timestamp.snapshot_meta.version if timestamp else 0)
        meta = {"targets.json": MetaFile.from_data(targets_version, targets, ["sha256"])}
        snapshot = Snapshot(version=version, expires=_utc(now_ms, SNAPSHOT_DAYS), meta=meta)
        data = self._signed(snapshot, "snapshot")
        self._write(f"{version}.snapshot.json", data)
        self._sign_timestamp(MetaFile.from_data(version, data, ["sha256"]), now_ms, above=above)

    def _sign_timestamp(self, snapshot: MetaFile, now_ms: int, *, above: int = 0) -> None:
        older = self._timestamp()
        version = 1 + above + (older.version if older else 0)
        timestamp = Timestamp(version=version, expires=_utc(now_ms, TIMESTAMP_DAYS), snapshot_meta=snapshot)
        self._write("timestamp.json", self._signed(timestamp, "timestamp"))
        _LOG.info("Signed the timestamp. version=%d snapshot=%d", version, snapshot.version)

    def _signed(self, signed: T, role: str) -> bytes:
        metadata = Metadata(signed)
        metadata.sign(load_online_key(self.state_dir, role))
        return metadata.to_bytes()

    def _timestamp(self) -> Timestamp | None:
        data = self.metadata_file("timestamp.json")
        return None if data is None else _parse(data, Timestamp).signed

    def _snapshot(self) -> Snapshot | None:
        timestamp = self._timestamp()
        if timestamp is None:
            # Refuse to start again at version 1: devices that saw later versions would refuse it as a rollback. A first
            # snapshot without a timestamp is allowed: a crash during the first publication leaves it.
            names = [path.name for path in (self.state_dir / TUF).glob("*.snapshot.json")]
            if any(name != "1.snapshot.json" for name in names):
                self._file("timestamp.json")
            return None
        return _parse(self._file(f"{timestamp.snapshot_meta.version}.snapshot.json"), Snapshot).signed

    def _file(self, name: str) -> bytes:
        data = self.metadata_file(name)
        if data is None:
            message = f"Expected {name} in {self.state_dir / TUF}, got no such file: restore it from the backup"
            raise TrustStoreError(message)
        return data

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self.state_dir / TUF / name, data, mode=0o644)


def mark_copy(state_dir: Path, now_ms: int) -> None:
    """Mark ``state_dir`` as a copy made at ``now_ms``, UTC, for the server that starts on it."""
    write_atomically(state_dir / TUF / _MARK, f"{now_ms}\n".encode(), mode=0o644)


def _parse(data: bytes, kind: type[T]) -> Metadata[T]:
    try:
        metadata: Metadata[T] = Metadata.from_bytes(data)
    except DeserializationError as error:
        message = f"Expected {kind.type} metadata, got: {error}"
        raise TrustStoreError(message) from error
    if not isinstance(metadata.signed, kind):
        message = f"Expected {kind.type} metadata, got {metadata.signed.type}"
        raise TrustStoreError(message)
    return metadata


def _trusted(metadata: Metadata[Targets]) -> tuple[TrustedTarget, ...]:
    found = []
    for path, file in sorted(metadata.signed.targets.items()):
        try:
            custom = from_document(TargetCustom, file.custom or {})
        except MessageError as error:
            message = f"Expected custom data of {path}, got: {error}"
            raise MetadataRefusedError(message) from error
        sha256 = file.hashes.get("sha256", "")
        found.append(TrustedTarget(path=path, sha256=sha256, length_bytes=file.length, custom=custom))
    return tuple(found)


def _check_targets(
    targets: tuple[TrustedTarget, ...], before: tuple[TrustedTarget, ...], blob_exists: Callable[[str], bool]
) -> None:
    known = {target.path: target.sha256 for target in before}
    for target in targets:
        custom = target.custom
        if target.path != target_path(custom.model, custom.version, custom.target):
            message = f"Expected a target path that follows its custom data, got {target.path!r}"
            raise MetadataRefusedError(message)
        if target.length_bytes > MAX_TARGET_BYTES or not blob_exists(target.sha256):
            message = f"Expected the bundle of {target.path} here, got no blob {target.sha256[:12]}…: upload it first"
            raise MetadataRefusedError(message)
        absent = [delta.sha256 for delta in custom.deltas if not blob_exists(delta.sha256)]
        if absent:
            message = f"Expected the patches of {target.path} here, got no blob {absent[0][:12]}…: upload it first"
            raise MetadataRefusedError(message)
        if known.get(target.path, target.sha256) != target.sha256:
            message = f"Expected the bytes of {target.path} to stay, got others: raise the version"
            raise MetadataRefusedError(message)


def _utc(now_ms: int, days: float = 0) -> datetime:
    return (datetime.fromtimestamp(now_ms / 1000, UTC) + timedelta(days=days)).replace(microsecond=0)
