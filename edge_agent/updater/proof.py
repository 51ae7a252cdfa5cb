"""The last check before a switch: the bundle on the disk, then the probe. Runs on the worker.

Decides whether a downloaded bundle may be activated, and extracts the figures that probation needs. Imported lazily by
the first update: zipfile and the bundle reader cost the control process a megabyte that it rarely needs.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.updater.ports import Prober, Proof, Refusal, TargetInfo, disk_refusal
from edge_agent.updater.states import UpdateRecord
from wire.bundle import REFERENCE, Bundle, read_bundle
from wire.canonical import sha256_file
from wire.errors import BundleError, WireError
from wire.reference import read_reference
from wire.tuf_target import TargetCustom


def prove(path: Path, record: UpdateRecord, prober: Prober) -> Proof | Refusal:
    """Check digest, bundle and probe, in this order."""
    try:
        found = sha256_file(path)
        if found != record.desired.sha256:
            return Refusal("digest_mismatch", f"Expected SHA-256 {record.desired.sha256[:12]}…, got {found[:12]}…")
        bundle = read_bundle(path)
        shares = _class_shares(bundle)
    except OSError as error:
        return disk_refusal(error, f"Expected to read {path}, got: {error}")
    except (BundleError, WireError) as error:
        return Refusal("bundle_invalid", str(error))
    signed = TargetCustom(artifact_sha256=record.artifact_sha256, security_floor=record.security_floor)
    contradiction = _agree(bundle, TargetInfo(found, record.length_bytes, signed))
    if contradiction is not None:
        return contradiction
    result = prober.probe(path)
    if not result.ok:
        return Refusal(result.code, result.text)
    return Proof(bundle.manifest.budgets.latency_p95_ms, shares)


def _agree(bundle: Bundle, target: TargetInfo) -> Refusal | None:
    """Return why the bundle's own manifest contradicts the signed metadata, or None."""
    manifest, custom = bundle.manifest, target.custom
    told = (manifest.artifact_sha256, manifest.runtime, manifest.security_floor)
    signed = (custom.artifact_sha256 or told[0], custom.runtime or told[1], custom.security_floor)
    if told != signed:
        return Refusal("bundle_invalid", f"Expected a manifest as signed, {signed}, got {told}")
    return None


def _class_shares(bundle: Bundle) -> tuple[float, ...]:
    if REFERENCE not in bundle.files:
        return ()
    reference = read_reference(bundle.files[REFERENCE])
    width, seen = reference.confidence_bins, reference.table_seen
    total = sum(seen)
    return tuple(sum(seen[start : start + width]) / total for start in range(0, len(seen), width)) if total else ()
