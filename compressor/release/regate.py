"""Re-evaluates the gates of a bundle, or of a finished run, on this machine.

Decides what is measured again (size, graph, latency, golden vectors) and what is taken from the certificate (the paired
counts, because the labelled samples are not in a bundle).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from compressor import formats
from compressor.errors import PackageError
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate, read_certificate
from compressor.gates.evidence import worst
from compressor.gates.kinds import KINDS, Place, is_timed
from compressor.measurement import first_run, predictions
from compressor.measurement.predictions import Candidate
from compressor.release.package import Golden, read_golden
from edge_agent import tasks as device_tasks
from edge_agent.errors import TaskMissingError
from wire.bundle import CERTIFICATE, GOLDEN, Bundle, read_bundle
from wire.errors import WireError
from wire.manifest import Budgets


def check_golden(bundle: Bundle) -> Golden:
    """Return the bundle's golden vectors after checking that the artifact reproduces them here.

    Raises:
        PackageError: If there are none, or the artifact's outputs differ from those on the build host.
    """
    if GOLDEN not in bundle.files:
        message = f"Expected {GOLDEN} in {bundle.manifest.release}, got none: build the bundle again"
        raise PackageError(message)
    golden = read_golden(bundle.files[GOLDEN])
    first_run.check(
        bundle.manifest.runtime, bundle.artifact, golden.inputs, f"the artifact of {bundle.manifest.release}"
    )
    said = predictions.predict(Candidate(bundle.manifest, bundle.artifact), golden.inputs).logits
    budgets = bundle.manifest.budgets
    same = said.shape == golden.logits.shape
    difference = float(np.abs(said - golden.logits).max()) if same else float("inf")
    try:
        flips = device_tasks.of_manifest(bundle.manifest).flips(said, golden.logits) if same else len(said)
    except TaskMissingError as error:
        raise PackageError(str(error)) from error
    if not agrees(difference, flips, budgets):
        message = (
            f"Expected golden vectors within {budgets.golden_max_abs:g} and {budgets.golden_max_flips} flips, "
            f"got {difference:g} and {flips}: this runtime computes something else"
        )
        raise PackageError(message)
    return golden


def agrees(difference: float, flips: int, budgets: Budgets) -> bool:
    """Return whether golden vectors agree; a difference of NaN never does."""
    return difference <= budgets.golden_max_abs and flips <= budgets.golden_max_flips


def gate_again(path: Path) -> Certificate:
    """Return the certificate of the bundle, or of the run's folder, at ``path`` after evaluating its gates again.

    Raises:
        PackageError: If there is no bundle or certificate, or it can't be read.
        MeasureError: If the artifact can't be run here.
    """
    if path.is_dir():
        try:
            read = read_certificate((path / "gate.json").read_bytes())
        except OSError as error:
            message = f"Expected gate.json in {path}, got: {error.strerror}: run `compressor run` first"
            raise PackageError(message) from error
        if read.targets:  # the verdict of every target's rules on its recorded numbers
            combined = certificates.combine([judged_again(item, {}) for item in read.targets])
            return replace(combined, code_digests=read.code_digests)
        if len({line.target for line in read.gates}) > 1:
            message = "Expected the numbers of every target in gate.json, got those of one"
            raise PackageError(f"{message}: it is from an older version; run `compressor run` again")
        return judged_again(read, {})
    bundle = open_bundle(path)
    return judged_again(certificate_in(bundle, path), measured_here(bundle))


def certificate_in(bundle: Bundle, path: Path) -> Certificate:
    """Return the certificate in the ``bundle`` at ``path``.

    Raises:
        PackageError: If it has none, or it can't be read.
    """
    if CERTIFICATE not in bundle.files:
        message = f"Expected {CERTIFICATE} in {path}, got none: build the bundle again"
        raise PackageError(message)
    return read_certificate(bundle.files[CERTIFICATE])


def measured_here(bundle: Bundle) -> dict[str, float]:
    """Return the figures of the bundle's artifact on this host: size, graph, and latency and memory if it can run it.

    Raises:
        PackageError: If golden vectors are missing, or the artifact does not reproduce them.
        MeasureError: If the artifact can't be run here.
    """
    candidate = Candidate(bundle.manifest, bundle.artifact)
    golden = check_golden(bundle)
    figures = {"size_bytes": float(len(bundle.artifact))} | _graph_figures(bundle)
    if platform.machine() in bundle.manifest.hardware:
        taken = predictions.latency({"int8": candidate}, golden.inputs)["int8"]
        figures |= taken.figures
        figures["peak_memory_bytes"] = float(predictions.peak_memory_bytes(candidate, golden.inputs))
    return figures


def _graph_figures(bundle: Bundle) -> dict[str, float]:
    """Return the share of int8 in this host's runtime; nothing if the file's graph can't be read."""
    manifest = bundle.manifest
    file_format = formats.named(manifest.runtime)
    ratio = file_format.figures(bundle.artifact, manifest.session_options, manifest.threads).int8_macs_ratio
    return {} if ratio is None else {"int8_macs_ratio": ratio}


def judged_again(certificate: Certificate, figures: Mapping[str, float]) -> Certificate:
    """Return the verdict on ``figures``; a line that needs the float model or a device is kept as recorded.

    Not so under another limit than the recorded one: then it is not measured, and fails.
    """
    judgement = certificates.judge(certificate.rules, certificates.evidence_of(certificate, figures), certificate.seen)
    recorded = {(line.name, line.on): line for line in certificate.gates}
    lines = []
    for line in certificates.lines(judgement):
        before = recorded.get((line.name, line.on))
        compared = line.name in KINDS and KINDS[line.name].place is Place.HOST  # needs the float model: not in a bundle
        unmeasurable = is_timed(line.name) and bool(line.on or compared) and line.value is None
        same = before is not None and before.limit == line.limit
        lines.append(before if before is not None and same and unmeasurable else line)
    verdict = worst(line.verdict for line in lines).value
    return replace(certificate, gates=tuple(lines), verdict=verdict, figures={**certificate.figures, **figures})


def open_bundle(path: Path) -> Bundle:
    """Return the checked bundle at ``path``.

    Raises:
        PackageError: If it can't be read; the message has the code of the reason.
    """
    try:
        return read_bundle(path)
    except (OSError, WireError) as error:
        code = getattr(error, "code", "io")
        message = f"Expected a valid bundle at {path}, got [{code}] {error}"
        raise PackageError(message) from error
