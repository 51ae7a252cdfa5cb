"""Verification of a bundle: digests, golden vectors, certificate and signature, all recomputed here.

Decides what a complete bundle contains, and whether a certificate's verdict follows from its own numbers. Does not
measure (``regate`` does) and does not trust what the bundle claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import PackageError, TrustError
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate, read_certificate
from compressor.gates.kinds import is_timed
from compressor.release.package import derived_digests, missing_entries
from compressor.release.regate import check_golden, open_bundle
from wire.bundle import CERTIFICATE, GOLDEN, REFERENCE, Bundle
from wire.canonical import sha256_file
from wire.reference import read_reference
from wire.tuf_target import target_path

LINEAGE = ("recipe", "data", "float_weights", "float_model", "baseline")


@dataclass(frozen=True, slots=True)
class Signature:
    """The signed list of releases that names the bundle: its version and its expiry date."""

    targets_version: int
    expires: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Result of ``verify``. ``complete``: nothing is missing; ``signature`` is None if it was not checked."""

    release: str
    target: str
    security_floor: int
    verdict: str
    digests: Mapping[str, str]
    lineage: Mapping[str, str]
    missing: tuple[str, ...]
    signature: Signature | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def verify_bundle(path: Path, keys: Path | None = None) -> Verified:
    """Return the contents of the bundle at ``path``; ``keys`` is a folder with the root and the signed targets.

    Raises:
        PackageError: If it can't be read, a digest is wrong, golden vectors differ, or the verdict does not follow.
        MeasureError: If the artifact does not run, or differs from its manifest.
        TrustError: If a signature does not verify, or another bundle of this name is signed.
    """
    bundle = open_bundle(path)
    manifest, missing = bundle.manifest, [*missing_entries(bundle)]
    missing += [f"lineage: {name}" for name in LINEAGE if not manifest.lineage.get(name)]
    verdict = "unknown"
    if CERTIFICATE in bundle.files:
        verdict = _certificate(bundle).verdict
    if REFERENCE in bundle.files:
        read_reference(bundle.files[REFERENCE]).check_artifact(manifest.artifact_sha256)
    if GOLDEN in bundle.files:
        check_golden(bundle)
    signature = _signature(path, bundle, keys) if keys is not None else None
    if keys is not None and signature is None:
        missing.append(f"signature: {target_path(manifest.model, manifest.version, manifest.target)}")
    return Verified(
        release=manifest.release,
        target=manifest.target,
        security_floor=manifest.security_floor,
        verdict=verdict,
        digests=derived_digests(bundle),
        lineage=dict(sorted(manifest.lineage.items())),
        missing=tuple(missing),
        signature=signature,
    )


def _certificate(bundle: Bundle) -> Certificate:
    """Return the bundle's certificate if its verdict follows from its own counts, figures and rules."""
    read, manifest = read_certificate(bundle.files[CERTIFICATE]), bundle.manifest
    if (read.model, read.version, read.target) != (manifest.model, manifest.version, manifest.target):
        got = f"{read.model}-{read.version} for {read.target!r}"
        message = f"Expected a certificate of {manifest.release} for {manifest.target!r}, got one of {got}"
        raise PackageError(message)
    judged = certificates.lines(certificates.judge(read.rules, certificates.evidence_of(read), read.seen))
    derived = {(line.name, line.on): line.verdict for line in judged if not is_timed(line.name)}
    stated = {(line.name, line.on): line.verdict for line in read.gates}
    wrong = [name for name, verdict in derived.items() if stated.get(name) != verdict]
    if wrong or (read.verdict == "pass" and set(stated.values()) != {"pass"}):
        key = wrong[0] if wrong else ("the verdict", "")
        name = f"{key[0]} on {key[1]}" if key[1] else key[0]
        got = f"{stated.get(key, read.verdict)!r} where its numbers say {derived.get(key, 'otherwise')!r}"
        raise PackageError(f"Expected {CERTIFICATE} to follow from its own numbers, got for {name} {got}")
    return read


def _signature(path: Path, bundle: Bundle, keys: Path) -> Signature | None:
    from compressor.release.keys import read_root  # noqa: PLC0415 - cryptography only where keys are used
    from compressor.release.signing import read_targets  # noqa: PLC0415 - cryptography only where keys are used

    manifest = bundle.manifest
    targets = read_targets(keys, read_root(keys))
    name = target_path(manifest.model, manifest.version, manifest.target)
    signed = targets.targets.get(name)
    if signed is None:
        return None
    if signed.hashes.get("sha256") != sha256_file(path) or signed.length != path.stat().st_size:
        message = f"Expected the bytes that were signed as {name}, got others in {path}: this is not that release"
        raise TrustError(message)
    return Signature(targets.version, f"{targets.expires:%Y-%m-%d}", name)
