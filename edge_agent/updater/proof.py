"""The last check before a switch: the bundle as it lies on the disk, then the probe. Runs on the worker.

Decides whether a downloaded bundle may be activated, and keeps what probation needs of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.updater.admission import agree
from edge_agent.updater.seams import Prober, Refusal, TargetInfo
from edge_agent.updater.states import UpdateRecord
from wire.bundle import REFERENCE, Bundle, read_bundle
from wire.canonical import sha256_file
from wire.errors import BundleError, WireError
from wire.reference import read_reference
from wire.target import TargetCustom


@dataclass(frozen=True, slots=True)
class Proof:
    """A bundle that was checked and probed.

    ``class_shares``: how often its reference predicts each class, ratios that sum to 1; empty when it doesn't say.
    """

    latency_budget_ms: float
    class_shares: tuple[float, ...] = ()


def prove(path: Path, record: UpdateRecord, prober: Prober) -> Proof | Refusal:
    """Check digest, bundle and probe, in this order."""
    try:
        found = sha256_file(path)
        if found != record.desired.sha256:
            return Refusal("digest_mismatch", f"Expected SHA-256 {record.desired.sha256[:12]}…, got {found[:12]}…")
        bundle = read_bundle(path)
        shares = _class_shares(bundle)
    except (OSError, BundleError, WireError) as error:
        return Refusal("bundle_invalid", str(error))
    signed = TargetCustom(artifact_sha256=record.artifact_sha256, security_floor=record.security_floor)
    contradiction = agree(bundle, TargetInfo(found, record.length_bytes, signed))
    if contradiction is not None:
        return contradiction
    result = prober.probe(path)
    if not result.ok:
        return Refusal(result.code, result.text)
    return Proof(bundle.manifest.budgets.latency_p95_ms, shares)


def _class_shares(bundle: Bundle) -> tuple[float, ...]:
    if REFERENCE not in bundle.files:
        return ()
    reference = read_reference(bundle.files[REFERENCE])
    width, seen = reference.confidence_bins, reference.table_seen
    total = sum(seen)
    return tuple(sum(seen[start : start + width]) / total for start in range(0, len(seen), width)) if total else ()
