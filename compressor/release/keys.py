"""The two keys of the build host and the root of trust: created once, never overwritten, never sent.

Decides who may sign what: root (offline), targets (this host, after the gates), snapshot and timestamp (the
server, by the public keys in ``online.pub.json``). Threshold 1 each, ed25519, so that devices verify without
``cryptography``. Signing a release is ``publish``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, T, Targets
from tuf.api.serialization import DeserializationError

from compressor.devices.pins import note_pin
from compressor.errors import KeysExistError, TrustError
from wire.durable import move, sync_folder, write_atomically

ROOT_DAYS = 540  # between one and two years: rotated with the hardware's support, not with each release
TARGETS_DAYS = 365
ROOT_KEY = "root.key"
TARGETS_KEY = "targets.key"
METADATA = "metadata"
ONLINE_ROLES = ("snapshot", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One role in the output of ``keys show``."""

    role: str
    key_id: str
    here: bool
    expires: str


def init_keys(folder: Path, online: Path, *, now: datetime | None = None) -> Path:
    """Create root and release keys, the first root and empty targets in ``folder``; return the root's path.

    All files appear at once (one rename) or not at all.

    Raises:
        KeysExistError: If ``folder`` already contains something.
        TrustError: If ``online`` does not hold the server's two public keys.
    """
    if folder.exists() and any(folder.iterdir()):
        message = f"Expected a new or empty folder, got {folder} with files in it: keys are never overwritten"
        raise KeysExistError(message)
    public = read_online_keys(online)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))  # 0700
    try:
        _fill(draft, public, now or datetime.now(UTC))
        sync_folder(draft)
        move(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder / METADATA / "1.root.json"


def _fill(folder: Path, online: Mapping[str, SSlibKey], now: datetime) -> None:
    root_signer, targets_signer = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    root = Root(consistent_snapshot=True, expires=_days_after(now, ROOT_DAYS))
    root.add_key(root_signer.public_key, "root")
    root.add_key(targets_signer.public_key, "targets")
    for role, key in online.items():
        root.add_key(key, role)
    targets = Targets(expires=_days_after(now, TARGETS_DAYS))
    write_atomically(folder / ROOT_KEY, root_signer.private_bytes)
    write_atomically(folder / TARGETS_KEY, targets_signer.private_bytes)
    (folder / METADATA).mkdir(mode=0o700)
    write_atomically(folder / METADATA / "1.root.json", signed_bytes(root, root_signer), mode=0o644)
    write_atomically(folder / METADATA / "targets.json", signed_bytes(targets, targets_signer), mode=0o644)


def _days_after(now: datetime, days: int) -> datetime:
    return (now + timedelta(days=days)).replace(microsecond=0)


def signed_bytes(signed: T, signer: CryptoSigner) -> bytes:
    """Return ``signed`` as metadata with one signature."""
    metadata = Metadata(signed)
    metadata.sign(signer)
    return metadata.to_bytes()


def read_online_keys(path: Path) -> dict[str, SSlibKey]:
    """Return the server's public keys by role, from the ``online.pub.json`` of ``fleet-server init``.

    Raises:
        TrustError: If the file can't be read or lacks one of the two.
    """
    try:
        document = json.loads(path.read_bytes())
        pairs = {role: dict(document[role]) for role in ONLINE_ROLES}
        return {role: SSlibKey.from_dict(value.pop("keyid"), value) for role, value in pairs.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = (
            f"Expected the server's snapshot and timestamp keys in {path}, got: {error!r}: "
            "copy online.pub.json from the state directory of `fleet-server init`"
        )
        raise TrustError(message) from error


def read_root(folder: Path) -> Root:
    """Return the newest root in ``folder``, verified by its own keys.

    Raises:
        TrustError: If there is none, or its signature does not verify.
    """
    paths = sorted((folder / METADATA).glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))
    if not paths:
        message = f"Expected {METADATA}/1.root.json in {folder}, got none: run `compressor keys init {folder}`"
        raise TrustError(message)
    metadata = read_metadata(Root, paths[-1].read_bytes(), str(paths[-1]))
    verify(metadata.signed, metadata, "root")
    return metadata.signed


def read_metadata(kind: type[T], data: bytes, source: str) -> Metadata[T]:
    """Return the metadata in ``data``, not yet verified; ``source`` names it in errors.

    Raises:
        TrustError: If it does not parse, or is of another kind.
    """
    try:
        metadata: Metadata[T] = Metadata.from_bytes(data)
    except DeserializationError as error:
        message = f"Expected TUF metadata in {source}, got: {error}"
        raise TrustError(message) from error
    if not isinstance(metadata.signed, kind):
        message = f"Expected {kind.__name__} metadata in {source}, got {metadata.signed.type}"
        raise TrustError(message)
    return metadata


def verify(root: Root, metadata: Metadata[T], role: str) -> None:
    """Check the signature of ``metadata`` against the keys that ``root`` names for ``role``.

    Raises:
        TrustError: If it does not verify.
    """
    try:
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        message = f"Expected {role} metadata signed by the key our root names, got: {error}"
        raise TrustError(message) from error


def load_signer(folder: Path, role: str, root: Root) -> CryptoSigner:
    """Return the signer of ``role`` (``root`` or ``targets``) from its key file.

    Raises:
        TrustError: If the file is missing, readable by others, not a key, or not the key that ``root`` names.
    """
    path = folder / f"{role}.key"
    try:
        if path.stat().st_mode & 0o077:
            message = f"Expected {path} readable by its owner only: run chmod 600 {path}"
            raise TrustError(message)
        signer = CryptoSigner(load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError, TypeError) as error:
        message = f"Expected a private key in {path}, got: {error}"
        raise TrustError(message) from error
    if signer.public_key.keyid not in root.roles[role].keyids:
        message = f"Expected in {path} the key that the root names for {role}, got {signer.public_key.keyid[:12]}…"
        raise TrustError(message)
    return signer


def show_keys(folder: Path) -> list[KeyRow]:
    """Return one row per role: its key id, whether the private key is here, and when its metadata expires.

    Raises:
        TrustError: If ``folder`` holds no valid root.
    """
    root = read_root(folder)
    targets = read_metadata(Targets, (folder / METADATA / "targets.json").read_bytes(), "targets.json")
    expires = {"root": f"{root.expires:%Y-%m-%d}", "targets": f"{targets.signed.expires:%Y-%m-%d}"}
    return [
        KeyRow(role=role, key_id=keyid, here=(folder / f"{role}.key").exists(), expires=expires.get(role, ""))
        for role in ("root", "targets", *ONLINE_ROLES)
        for keyid in root.roles[role].keyids
    ]


@click.group()
def keys() -> None:
    """Make and show the keys that sign releases.

    The root key says which keys devices believe and stays offline; the release key signs what passed its gates, on the
    build host; the server has keys of its own for what changes every minute.

    \b
    Examples:
      compressor keys init keys --online state/online.pub.json
      compressor keys show keys
      compressor keys pin keys cam-1 FINGERPRINT
    """  # noqa: D301 - \b is click's: keep the lines


@keys.command("init")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--online",
    required=True,
    type=click.Path(path_type=Path),
    help="online.pub.json of the server's state directory (`fleet-server init`).",
)
def init_command(folder: Path, online: Path) -> None:
    """Make root and release keys in FOLDER; nothing is ever overwritten.

    \b
    Example, and what comes after it:
      compressor keys init keys --online state/online.pub.json
      fleet-server trust state --root keys/metadata/1.root.json
      compressor run models/digits/recipe.toml --keys keys
    """  # noqa: D301 - \b is click's: keep the lines
    root = init_keys(folder, online)
    click.echo(f"Keys in {folder}. Give the server the root: fleet-server trust STATE --root {root}")
    click.echo(f"Keep {folder / ROOT_KEY} offline: whoever has it decides what devices believe.")


@keys.command("show")
@click.argument("folder", type=click.Path(path_type=Path))
def show_command(folder: Path) -> None:
    """Show which key signs what, whether it is in FOLDER, and when its trust expires.

    \b
    Example:
      compressor keys show keys
    """  # noqa: D301 - \b is click's: keep the lines
    for row in show_keys(folder):
        where = "here" if row.here else "elsewhere"
        click.echo(f"{row.role:10} {row.key_id[:16]}  {where:9}  {row.expires}")


@keys.command("pin")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("device")
@click.argument("fingerprint")
def pin_command(folder: Path, device: str, fingerprint: str) -> None:
    """Note in FOLDER that DEVICE has the key with FINGERPRINT: only what it signs counts as measured there.

    The device prints the fingerprint (`edge-agent selftest`). From then on no server can invent its measurements. Note
    it again when the device was enrolled again.

    \b
    Example:
      compressor keys pin keys cam-1 4f7c2c6c0a9f4f6c5a3d5b4e1d0c9b8a7f6e5d4c3b2a19081726354fa0b1c2d3
    """  # noqa: D301 - \b is click's: keep the lines
    note_pin(folder, device, fingerprint)
    click.echo(f"{device} answers with the key {fingerprint[:16]}… from now on")
