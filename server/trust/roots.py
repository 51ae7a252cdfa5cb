"""The TUF root that devices get at enrolment: installed once, then replaced by versions signed by the one before.

Its key for targets also signs measurement orders: they are verified here early; the device verifies them again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError

from server.errors import MetadataRefusedError, RootMissingError, TrustStoreError
from server.trust.online_keys import ROLES, load_online_key
from wire.codec import Json
from wire.durable import write_atomically

MAX_ROOT_BYTES = 256 * 1024
TUF = "tuf"


def install_root(state_dir: Path, root_file: Path) -> int:
    """Install the root in ``root_file`` and return its version; the same one again changes nothing.

    The first root is trusted because an operator installs it; later ones only as the next version, signed by
    the one before. A root that names other snapshot or timestamp keys than ours is refused.

    Raises:
        MetadataRefusedError: If it can't be read, lacks a required signature, or does not name our keys.
    """
    try:
        data = root_file.read_bytes()[: MAX_ROOT_BYTES + 1]
    except OSError as error:
        message = f"Expected a root metadata file, got: {error}"
        raise MetadataRefusedError(message) from error
    metadata = _parse(data, str(root_file))
    newest = newest_version(state_dir)
    version = metadata.signed.version
    if newest and (_path(state_dir, newest).read_bytes() == data):
        return newest
    previous = read_root(state_dir) if newest else None
    if previous is not None and version != newest + 1:
        message = f"Expected root version {newest + 1}, got {version}: a root is never replaced, only followed"
        raise MetadataRefusedError(message)
    try:
        for signer in (metadata.signed, *([previous] if previous else [])):
            signer.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        message = f"Expected a root signed by its own and the previous root's keys, got: {error}"
        raise MetadataRefusedError(message) from error
    for role, ours, _ in _unnamed_keys(state_dir, metadata.signed):
        message = (
            f"Expected a root that names our {role} key {ours[:12]}…, got another: "
            "make it with `compressor keys init DIR --online` and the online.pub.json of this state directory"
        )
        raise MetadataRefusedError(message)
    (state_dir / TUF).mkdir(mode=0o700, exist_ok=True)
    write_atomically(_path(state_dir, version), data, mode=0o644)
    return version


def _parse(data: bytes, source: str) -> Metadata[Root]:
    try:
        if len(data) > MAX_ROOT_BYTES:
            message = f"Expected a root of at most {MAX_ROOT_BYTES} bytes, got more in {source}"
            raise MetadataRefusedError(message)
        metadata: Metadata[Root] = Metadata.from_bytes(data)
    except DeserializationError as error:
        message = f"Expected root metadata in {source}, got: {error}"
        raise MetadataRefusedError(message) from error
    if metadata.signed.type != Root.type:
        message = f"Expected root metadata in {source}, got {metadata.signed.type}"
        raise MetadataRefusedError(message)
    return metadata


def check_online_keys(state_dir: Path, root: Root) -> None:
    """Check that the online keys are those that the installed ``root`` names: devices accept no others.

    Raises:
        TrustStoreError: If a key is missing, damaged or belongs to another server.
    """
    for role, ours, named in _unnamed_keys(state_dir, root):
        theirs = ", ".join(f"{key[:12]}…" for key in named)
        message = (
            f"Expected the {role} key {theirs} that the installed root names in {state_dir / 'keys' / role}.key, "
            f"got {ours[:12]}…, another server's: restore keys/ from the backup of this state directory; if the "
            "keys were changed on purpose, bring the next root that names them: fleet-server trust DIR --root FILE"
        )
        raise TrustStoreError(message)


def _unnamed_keys(state_dir: Path, root: Root) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Yield (role, id of our key, ids in ``root``) for each role whose online key ``root`` does not name."""
    for role in ROLES:
        ours, named = load_online_key(state_dir, role).public_key.keyid, root.roles[role].keyids
        if ours not in named:
            yield role, ours, named


def newest_version(state_dir: Path) -> int:
    """Return the version of the newest installed root, 0 for none."""
    names = [path.name.split(".")[0] for path in (state_dir / TUF).glob("*.root.json")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def root_bytes(state_dir: Path) -> bytes | None:
    """Return the newest root as devices get it at enrolment, None while there is none."""
    version = newest_version(state_dir)
    return _path(state_dir, version).read_bytes() if version else None


def read_root(state_dir: Path) -> Root:
    """Return the newest root.

    Raises:
        RootMissingError: If none was installed.
        MetadataRefusedError: If it is damaged.
    """
    data = root_bytes(state_dir)
    if data is None:
        message = "Expected a root of trust, got none: run fleet-server trust DIR --root FILE"
        raise RootMissingError(message)
    return _parse(data, f"{_path(state_dir, newest_version(state_dir))}: restore it from the backup").signed


def _path(state_dir: Path, version: int) -> Path:
    return state_dir / TUF / f"{version}.root.json"


@dataclass(frozen=True, slots=True)
class SignedOrders:
    """Verifies orders against the installed root of ``state_dir``."""

    state_dir: Path

    def __call__(self, envelope: Mapping[str, Json]) -> None:
        """Check that the key that the root names for targets signed ``envelope``.

        Raises:
            RootMissingError: If no root is installed.
            MetadataRefusedError: If the signature is missing or wrong.
        """
        root = read_root(self.state_dir)
        role = root.roles["targets"]
        try:
            signed = Envelope.from_dict(copy.deepcopy(cast("dict[str, Any]", dict(envelope))))
            signed.verify([root.keys[keyid] for keyid in role.keyids], role.threshold)
        except (VerificationError, FormatError, KeyError, ValueError, TypeError, AttributeError) as error:
            message = f"Expected a measurement order signed by the release key, got: {error}: sign it with our keys"
            raise MetadataRefusedError(message) from error
