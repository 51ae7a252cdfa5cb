"""The signed statement about a release, and which bundles may be signed.

Decides: only bundles that can be read, and whose own ``gate.json`` says ``pass``; a release once signed never changes
its bytes. Numbers of the certificate are stored as text: TUF's canonical JSON has no floats.
Source: OLPC canonical JSON, as TUF specification 1.0.33, section 4.2.1 uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from compressor.errors import GateNotPassedError, PackageError, ReleaseExistsError
from compressor.gates.certificate import STAND_IN
from compressor.release.keys import (
    METADATA,
    TARGETS_DAYS,
    load_signer,
    read_metadata,
    read_root,
    signed_bytes,
    verify,
)
from compressor.release.patches import make_patch
from wire.bundle import CERTIFICATE, MAX_BUNDLE_BYTES, REFERENCE, Bundle, parse_bundle
from wire.canonical import sha256_hex
from wire.codec import Json, parse_json, to_document
from wire.durable import write_atomically
from wire.errors import WireError
from wire.tuf_target import Delta, TargetCustom, target_path

MAX_CERTIFICATE_BYTES = 4 * 1024 * 1024
TARGETS_FILE = "targets.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signable:
    """A bundle that may be signed: its digest, the content of the signed target, and the patches that it names."""

    source: Path
    path: str
    sha256: str
    length_bytes: int
    custom: TargetCustom
    patches: tuple[bytes, ...] = ()


def read_signable(source: Path, bases: Sequence[Path] = ()) -> Signable:
    """Return the bundle at ``source`` if it may be signed, with a patch from each of ``bases`` of its model and target.

    A patch that is not smaller than the bundle is left out.

    Raises:
        PackageError: If it or one of ``bases`` can't be read or is not a valid bundle.
        GateNotPassedError: If its certificate is missing or does not say ``pass``.
    """
    data, bundle = _read(source)
    manifest, figures = bundle.manifest, _certificate(source, bundle).get("figures")
    patches, deltas = [], []
    for earlier in bases:
        base, before = _read(earlier)
        same = (before.manifest.model, before.manifest.target) == (manifest.model, manifest.target)
        patch = make_patch(base, data) if same and base != data else data
        if len(patch) < len(data):
            patches.append(patch)
            deltas.append(Delta(base_sha256=sha256_hex(base), sha256=sha256_hex(patch), length_bytes=len(patch)))
    custom = TargetCustom(
        model=manifest.model,
        version=manifest.version,
        target=manifest.target,
        runtime=manifest.runtime,
        opset=manifest.opset,
        hardware=manifest.hardware,
        security_floor=manifest.security_floor,
        artifact_sha256=manifest.artifact_sha256,
        ref_id=manifest.files.get(REFERENCE, ""),
        certificate={"verdict": "pass", **(figures if isinstance(figures, dict) else {})},
        deltas=tuple(deltas),
    )
    path = target_path(manifest.model, manifest.version, manifest.target)
    return Signable(
        source=source, path=path, sha256=sha256_hex(data), length_bytes=len(data), custom=custom, patches=tuple(patches)
    )


def _read(source: Path) -> tuple[bytes, Bundle]:
    try:
        if source.stat().st_size > MAX_BUNDLE_BYTES:
            message = f"Expected a bundle of at most {MAX_BUNDLE_BYTES} bytes, got {source} of more"
            raise PackageError(message)
        data = source.read_bytes()
        return data, parse_bundle(data)
    except (OSError, WireError) as error:
        message = f"Expected a valid bundle at {source}, got: {error}: make it with `compressor run`"
        raise PackageError(message) from error


def _certificate(source: Path, bundle: Bundle) -> Mapping[str, Json]:
    try:
        certificate = parse_json(bundle.files.get(CERTIFICATE, b""), limit_bytes=MAX_CERTIFICATE_BYTES)
    except WireError as error:
        message = f"Expected {CERTIFICATE} in {source}, got: {error}: nothing is signed without a certificate"
        raise GateNotPassedError(message) from error
    if certificate.get("verdict") != "pass":
        message = (
            f'Expected the verdict "pass" in {CERTIFICATE} of {source}, got {certificate.get("verdict")!r}: '
            "only what passed its gates is signed"
        )
        raise GateNotPassedError(message)
    remarks = certificate.get("remarks")
    if isinstance(remarks, list) and STAND_IN in remarks:
        message = f"Expected a release of the recipe's own data, got {source} from its stand-in (--quick)"
        raise GateNotPassedError(f"{message}: run it with --data, then sign that")
    return certificate


def _without_floats(value: Json) -> Json:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: _without_floats(item) for key, item in value.items()}
    return [_without_floats(item) for item in value] if isinstance(value, list) else value


def read_targets(keys: Path, root: Root) -> Targets:
    """Return our own signed targets, verified.

    Raises:
        TrustError: If they are missing, damaged, or not signed by our release key.
    """
    source = keys / METADATA / TARGETS_FILE
    data = source.read_bytes() if source.exists() else b""
    return verified_targets(data, root, str(source)).signed


def verified_targets(data: bytes, root: Root, source: str) -> Metadata[Targets]:
    """Return the targets metadata in ``data`` if it is signed by the release key that ``root`` names.

    Raises:
        TrustError: If it does not parse or verify.
    """
    metadata = read_metadata(Targets, data, source)
    verify(root, metadata, "targets")
    return metadata


def add_targets(targets: Targets, signables: Iterable[Signable]) -> bool:
    """Add each bundle to ``targets``, in place; return whether any was new.

    Raises:
        ReleaseExistsError: If a release of that name exists with other bytes.
    """
    changed = False
    for signable in signables:
        known = targets.targets.get(signable.path)
        if known is not None and known.hashes.get("sha256") != signable.sha256:
            message = (
                f"Expected new bytes under a new version, got other bytes for {signable.path}, which is signed "
                "already: raise the version (`compressor run --version N`)"
            )
            raise ReleaseExistsError(message)
        if known is None:
            custom = {"custom": _without_floats(to_document(signable.custom))}
            hashes = {"sha256": signable.sha256}
            targets.targets[signable.path] = TargetFile(signable.length_bytes, hashes, signable.path, custom)
            changed = True
    return changed


def sign_targets(targets: Targets, version: int, keys: Path, root: Root, expires_days: int) -> bytes:
    """Return ``targets`` as signed metadata of ``version``, valid for ``expires_days``.

    Raises:
        TrustError: If the release key is missing or not the one that ``root`` names.
    """
    targets.version = version
    targets.expires = (datetime.now(UTC) + timedelta(days=expires_days)).replace(microsecond=0)
    return signed_bytes(targets, load_signer(keys, "targets", root))


def sign_bundles(bundles: list[Path], keys: Path, *, expires_days: int = TARGETS_DAYS) -> Path:
    """Sign ``bundles`` into our targets metadata with the next version; return its path. Nothing is sent.

    Raises:
        PackageError: If a bundle can't be read.
        GateNotPassedError: If a bundle's certificate does not say ``pass``.
        ReleaseExistsError: If a release is already signed with other bytes.
        TrustError: If keys or metadata are missing or damaged.
    """
    signables = [read_signable(path) for path in bundles]
    root = read_root(keys)
    targets = read_targets(keys, root)
    path = keys / METADATA / TARGETS_FILE
    if add_targets(targets, signables):
        write_atomically(path, sign_targets(targets, targets.version + 1, keys, root, expires_days), mode=0o644)
    return path
