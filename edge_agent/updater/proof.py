"""The last check before a switch: the bundle on the disk, then the probe. Runs on the worker.

Decides whether a downloaded bundle may be activated, and extracts the figures that probation needs. Imported lazily by
the first update: zipfile and the bundle reader cost the control process a megabyte that it rarely needs.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.updater.ports import Prober, Proof, Refusal, disk_refusal
from edge_agent.updater.states import UpdateRecord
from wire.bundle import REFERENCE, read_bundle
from wire.canonical import sha256_file
from wire.errors import BundleError, WireError
from wire.reference import read_reference


def prove(path: Path, record: UpdateRecord, prober: Prober) -> Proof | Refusal:
    """Check digest, bundle and probe, in this order."""
    try:
        found = sha256_file(path)
        if found != record.desired.sha256:
            return Refusal("digest_mismatch", f"Expected SHA-256 {record.desired.sha256[:12]}…, got {found[:12]}…")
        bundle = read_bundle(path)
        reference = read_reference(bundle.files[REFERENCE]) if REFERENCE in bundle.files else None
    except OSError as error:
        return disk_refusal(error, f"Expected to read {path}, got: {error}")
    except (BundleError, WireError) as error:
        return Refusal("bundle_invalid", str(error))
    manifest = bundle.manifest
    said = (manifest.artifact_sha256, manifest.security_floor)
    signed = (record.artifact_sha256 or said[0], record.security_floor)
    if said != signed:
        return Refusal("bundle_invalid", f"Expected a manifest as signed, {signed}, got {said}")
    result = prober.probe(path)
    if not result.ok:
        return Refusal(result.code, result.text)
    shares: tuple[float, ...] = ()
    if reference is not None and (total := sum(reference.table_seen)):
        width, seen = reference.confidence_bins, reference.table_seen
        shares = tuple(sum(seen[start : start + width]) / total for start in range(0, len(seen), width))
    return Proof(manifest.budgets.latency_p95_ms, shares)
