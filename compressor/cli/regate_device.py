"""A bundle judged again on a device: latency, peak memory and golden vectors there, beside those of this machine.

Decides which rules hold on the device: those of the certificate on latency and memory, and that it agrees with this
machine. The labelled rows don't travel with a bundle: what its certificate says of them stays as it was.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor.devices.bench import DeviceAnswer, DeviceBench
from compressor.errors import DeviceMeasureError, PackageError, PublishError
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate, DeviceRecord
from compressor.gates.device import MAX_DISAGREEMENT, TIMED_ON_DEVICE
from compressor.gates.evidence import AGREEMENT
from compressor.gates.rule import Rule
from compressor.progress import Progress
from compressor.release.regate import gate_again, open_bundle
from compressor.run.device_evidence import figures_from, make_subject
from wire.bundle import CERTIFICATE, GOLDEN, Bundle
from wire.manifest import Budgets


def gate_on(path: Path, device: str, bench: DeviceBench, progress: Progress) -> Certificate:
    """Return the certificate of the bundle at ``path`` after judging it again here and on ``device``.

    Raises:
        PackageError: If there is no bundle, or no certificate or golden vectors in it.
        MeasureError: If the artifact can't be run here.
        TrustError: If the release key is missing.
    """
    if path.is_dir():
        message = f"Expected a bundle to measure on {device}, got the folder {path}: give its .tfb file"
        raise PackageError(message)
    here, bundle = gate_again(path), open_bundle(path)
    if not {CERTIFICATE, GOLDEN} <= bundle.files.keys():
        message = f"Expected {CERTIFICATE} and {GOLDEN} in {path}, got {sorted(bundle.files)}: build the bundle again"
        raise PackageError(message)
    before = next((item for item in here.devices if item.device == device), DeviceRecord(device))
    record = _record(bundle, before, bench, progress)
    others = tuple(item for item in here.devices if item.device != device)
    rules = tuple(rule for rule in here.rules if rule.on != device) + rules_on(here, device)
    measured = replace(here, rules=rules, devices=(*others, record))
    judged = certificates.lines(certificates.judge(rules, certificates.evidence_of(measured)))
    gates = [line for line in here.gates if line.on != device] + [line for line in judged if line.on == device]
    return replace(measured, gates=tuple(gates), verdict=certificates.worst(line.verdict for line in gates))


def rules_on(certificate: Certificate, device: str) -> tuple[Rule, ...]:
    """Return the rules that hold on ``device``: its own, else the host's on latency and memory; and agreement."""
    own = tuple(rule for rule in certificate.rules if rule.on == device)
    timed = {rule.name for rule in own}
    added = tuple(
        replace(rule, on=device)
        for rule in certificate.rules
        if not rule.on and rule.name in TIMED_ON_DEVICE and rule.name not in timed
    )
    agreeing = () if AGREEMENT in timed else (Rule(AGREEMENT, MAX_DISAGREEMENT, on=device),)
    return (*added, *own, *agreeing)


def _record(bundle: Bundle, before: DeviceRecord, bench: DeviceBench, progress: Progress) -> DeviceRecord:
    subject = make_subject(bundle.manifest, bundle.artifact, bundle.files[GOLDEN], None)
    try:
        return merged(before, bench.measure(subject, before.device, progress), bundle.manifest.budgets)
    except (DeviceMeasureError, PublishError) as error:
        return DeviceRecord(before.device, problem=str(error))


def merged(before: DeviceRecord, answer: DeviceAnswer, allowed: Budgets) -> DeviceRecord:
    """Return ``before`` with what was measured again; agreement on golden vectors where there was none on rows."""
    report = answer.report
    rows, flips = float(report.golden_rows), float(max(0, report.golden_flips - allowed.golden_max_flips))
    compared = {"device_rows": rows, "device_flips": flips, AGREEMENT: flips / max(rows, 1.0)}
    kept = before.figures if AGREEMENT in before.figures else compared
    figures = {**kept, **figures_from(report, allowed)}
    return replace(before, figures=figures, facts=dict(report.facts), order=report.order, problem="")
