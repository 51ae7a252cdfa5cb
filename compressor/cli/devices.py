"""Builds the device bench from ``--server``, ``--token-file`` and ``--keys``.

Decides what must exist before anything is trained: server, token, release key, and every device that a gate names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor.cli.device_options import Reach
from compressor.devices.bench import DeviceAnswer, DeviceBench, ServerBench
from compressor.errors import DeviceMeasureError, PackageError, PublishError
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate, DeviceRecord
from compressor.gates.evidence import AGREEMENT, GateRecipe, device_in, worst
from compressor.gates.kinds import KINDS, Place
from compressor.progress import Progress
from compressor.recipe.model import Recipe
from compressor.release.regate import gate_again, open_bundle
from compressor.run.device_evidence import figures_from, make_subject
from wire.bundle import CERTIFICATE, GOLDEN
from wire.manifest import Budgets


def bench_of(reach: Reach, keys: Path | None) -> ServerBench | None:
    """Return the device bench, None if no server was given.

    Raises:
        DeviceMeasureError: If a server was given without token or keys, or the token can't be read.
    """
    if reach.server is None:
        return None
    if reach.token_file is None or keys is None:
        message = "Expected --token-file and --keys with --server, got none: a device obeys only what our release key"
        raise DeviceMeasureError(f"{message} signed; give the server's builder token and the folder of our keys")
    try:
        token = reach.token_file.read_text().strip()
    except OSError as error:
        message = f"Expected the builder token in {reach.token_file}, got: {error.strerror}"
        raise DeviceMeasureError(message) from error
    return ServerBench(url=reach.server.rstrip("/"), token=token, keys=keys, ca=reach.ca, wait_s=reach.device_wait_s)


def devices_named(recipe: Recipe) -> tuple[str, ...]:
    """Return the devices that gates of ``recipe`` name, without duplicates."""
    return tuple(dict.fromkeys(device for gate in recipe.gates if (device := device_in(gate.on)[0])))


def bench_for(recipe: Recipe, reach: Reach, keys: Path | None) -> ServerBench | None:
    """Return the bench for the devices that ``recipe`` names, after checking that they are known; None without any.

    Raises:
        DeviceMeasureError: If no server was given, or a device is unknown.
        ServerUnreachableError: If the server did not answer.
        TrustError: If the release key is missing.
    """
    devices = devices_named(recipe)
    bench = bench_of(reach, keys)
    if not devices:
        return bench
    if bench is None:
        message = f"Expected --server, --token-file and --keys, got none: [gates] measure on {', '.join(devices)}"
        raise DeviceMeasureError(f"{message}; give them, or take the device gates out of the recipe")
    for device in devices:
        bench.check(device)
    return bench


def gate_bundle(path: Path, on: str, reach: Reach, keys: Path | None, progress: Progress) -> Certificate:
    """Return the certificate of the bundle or folder at ``path``, re-evaluated here and, with ``on``, on a device.

    Raises:
        DeviceMeasureError: If ``on`` is not ``device:ID``, or the device can't be reached.
        ServerUnreachableError: If the server did not answer.
        PackageError: If there is no bundle or certificate, or it can't be read.
        MeasureError: If the artifact can't be run here.
        TrustError: If the release key is missing.
    """
    from compressor.release.regate import gate_again  # noqa: PLC0415 - runtimes only if something is measured

    if not on:
        return gate_again(path)
    device, target = device_in(on)
    bench = bench_of(reach, keys)
    if not device or target or bench is None:
        message = f"Expected --on device:ID with --server, --token-file and --keys, got --on {on!r}"
        raise DeviceMeasureError(f"{message} and {'a' if bench else 'no'} server")
    bench.check(device)
    return gate_on(path, device, bench, progress)


def gate_on(path: Path, device: str, bench: DeviceBench, progress: Progress) -> Certificate:
    """Return the certificate of the bundle at ``path`` after evaluating its gates here and on ``device``.

    Raises:
        PackageError: If there is no bundle, or it has no certificate or golden vectors.
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
    before = next((item for item in here.devices if item.device == device), DeviceRecord(device=device))
    subject = make_subject(bundle.manifest, bundle.artifact, bundle.files[GOLDEN], None)
    try:
        record = merged(before, bench.measure(subject, device, progress), bundle.manifest.budgets)
    except (DeviceMeasureError, PublishError) as error:
        record = DeviceRecord(device=device, problem=str(error))
    others = tuple(item for item in here.devices if item.device != device)
    rules = tuple(rule for rule in here.rules if rule.on != device) + rules_on(here, device)
    measured = replace(here, rules=rules, devices=(*others, record))
    judged = certificates.lines(certificates.judge(rules, certificates.evidence_of(measured), measured.seen))
    gates = [line for line in here.gates if line.on != device] + [line for line in judged if line.on == device]
    return replace(measured, gates=tuple(gates), verdict=worst(line.verdict for line in gates).value)


def rules_on(certificate: Certificate, device: str) -> tuple[GateRecipe, ...]:
    """Return the rules for ``device``: its own, or else the host's on latency and memory; and agreement."""
    own = tuple(rule for rule in certificate.rules if rule.on == device)
    named = {rule.name for rule in own}
    timed = {kind.name for kind in KINDS.values() if kind.timed and kind.place is Place.BOTH}
    added = tuple(
        replace(rule, on=device)
        for rule in certificate.rules
        if not rule.on and rule.name in timed and rule.name not in named
    )
    return (*added, *own, *certificates.agreeing(own, device))


def merged(before: DeviceRecord, answer: DeviceAnswer, allowed: Budgets) -> DeviceRecord:
    """Return ``before`` with the new measurements; agreement on golden vectors if there was none on rows."""
    report = answer.report
    rows, flips = float(report.golden_rows), float(max(0, report.golden_flips - allowed.golden_max_flips))
    compared = {"device_rows": rows, "device_flips": flips, AGREEMENT: flips / max(rows, 1.0)}
    kept = before.figures if AGREEMENT in before.figures else compared
    figures = {**kept, **figures_from(report, allowed)}
    return replace(before, figures=figures, facts=dict(report.facts), order=report.order, problem="")
