"""Evidence from the devices that a recipe names: one measurement of a candidate on each, beside this host's.

Decides what a device gets (a bundle of artifact, manifest and golden vectors; every row of the gate split, as pixels at
the model's size) and how its report becomes evidence. A failure gives no evidence but a reason, and the gates fail.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from compressor.data._table import Table
from compressor.devices.bench import DeviceAnswer, DeviceBench, Subject
from compressor.errors import DeviceMeasureError, PublishError
from compressor.gates.evidence import AGREEMENT, DeviceEvidence, GateRecipe
from compressor.gates.kinds import measured
from compressor.measurement.predictions import Compared, Predictions, repeated, smoothed
from compressor.release import package
from compressor.run.bundles import golden_budget, golden_of, sized
from compressor.run.comparison import Comparison
from compressor.run.stages import Run
from compressor.tasks import Task
from edge_agent.inference import preprocess
from wire.bundle import GOLDEN, build_bundle
from wire.canonical import sha256_hex
from wire.manifest import Budgets, Manifest
from wire.measurement import MAX_ROWS, MAX_ROWS_BYTES, MeasureReport

_HEADER_BYTES = 256  # of an npy file, at most


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Asked:
    """One target's candidate, ready to be measured; ``allowed``: the tolerance of its golden vectors."""

    task: Task
    subject: Subject
    gate_set: Compared
    class_names: tuple[str, ...]
    rules: Sequence[GateRecipe]
    allowed: Budgets
    smoothed: Callable[[Predictions], Predictions] = lambda raw: raw
    """Makes the answers for streams of the gate set's outputs, as in ``gate_set``."""


def said_by_devices(run: Run, compared: Comparison, rules: Sequence[GateRecipe]) -> dict[str, DeviceEvidence]:
    """Return the evidence of each device that ``rules`` name, by device.

    Raises:
        BundleError: If artifact and manifest don't form a bundle.
    """
    devices = list(dict.fromkeys(rule.on for rule in rules if rule.on))
    if not devices:
        return {}
    if run.devices is None:
        problem = "Expected a way to devices, got none: give --server, --token-file and --keys"
        return dict.fromkeys(devices, DeviceEvidence(problem=problem))
    candidate, gate_set, rows = compared.form.candidate, compared.gate_set, run.rows("gate")
    golden = golden_of(run, compared)
    budgets = golden_budget(golden, run.task, run.recipe.acceptance)
    outputs = sized(candidate.manifest.outputs, gate_set.candidate.embedding.shape[1])
    manifest = replace(candidate.manifest, outputs=outputs, budgets=budgets)
    try:
        subject = make_subject(manifest, candidate.artifact, package.write_golden(golden), rows)
    except DeviceMeasureError as error:
        return dict.fromkeys(devices, DeviceEvidence(problem=str(error)))
    asked = Asked(
        task=run.task,
        subject=subject,
        gate_set=gate_set,
        class_names=run.table.class_names,
        rules=rules,
        allowed=budgets,
        smoothed=partial(
            smoothed, manifest=manifest, sources=rows.sources, interval_ms=run.recipe.smoothing.interval_ms
        ),
    )
    return {device: _one(run, run.devices, device, asked) for device in devices}


def make_subject(manifest: Manifest, artifact: bytes, golden: bytes, rows: Table | None) -> Subject:
    """Return the subject of a measurement; without ``rows`` only the golden vectors are measured.

    Raises:
        BundleError: If the parts don't form a bundle.
        DeviceMeasureError: If there are more rows than a device is sent.
    """
    pixels = b"" if rows is None else _npy(rows, manifest)
    return Subject(
        artifact_sha256=sha256_hex(artifact),
        bundle=build_bundle(manifest, {manifest.artifact: artifact, GOLDEN: golden}),
        rows=pixels,
        n=0 if rows is None else len(rows),
        hardware=manifest.hardware,
        runtime=manifest.runtime,
    )


def _npy(rows: Table, manifest: Manifest) -> bytes:
    """Return the pixels of ``rows`` as npy, written image by image: they are in memory once."""
    pre = manifest.preprocessing
    shape = (len(rows), pre.height, pre.width, 2 if pre.deep else pre.channels)
    if len(rows) > MAX_ROWS or math.prod(shape) + _HEADER_BYTES > MAX_ROWS_BYTES:
        most = min(MAX_ROWS, (MAX_ROWS_BYTES - _HEADER_BYTES) // math.prod(shape[1:]))
        message = f"Expected at most {most} rows of {pre.height} x {pre.width} pixels for a device, got {len(rows)}"
        raise DeviceMeasureError(f"{message}: a smaller gate split does")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for image in pixels_of(rows, manifest):
        buffer.write(image.data)
    return buffer.getvalue()


def pixels_of(table: Table, manifest: Manifest) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of ``table`` as the model gets them before scaling: uint8 (H, W, 1 to 3).

    The device only scales and normalises them.
    """
    for image in table.images:
        yield np.ascontiguousarray(preprocess.fitted(image, manifest.preprocessing))


def _one(run: Run, bench: DeviceBench, device: str, asked: Asked) -> DeviceEvidence:
    try:
        answer = bench.measure(asked.subject, device, run.progress)
        return evidence_from(answer, asked)
    except (DeviceMeasureError, PublishError) as error:  # PublishError covers ServerUnreachableError
        return DeviceEvidence(problem=str(error))


def evidence_from(answer: DeviceAnswer, asked: Asked) -> DeviceEvidence:
    """Return the evidence in a device's answer.

    Raises:
        DeviceMeasureError: If it has another number of classes than the model.
    """
    here, logits = asked.gate_set.candidate, answer.logits
    if logits.shape != here.logits.shape:
        message = f"Expected logits of shape {here.logits.shape} from {answer.report.device}, got {logits.shape}"
        raise DeviceMeasureError(f"{message}: its runtime runs something else")
    there = replace(asked.gate_set, candidate=asked.smoothed(replace(here, logits=logits)))
    other = asked.task.judging.differs(there.candidate, here, asked.allowed.golden_max_abs)
    n, flips = len(there.labels), int(np.count_nonzero(other))
    figures = {
        **figures_from(answer.report, asked.allowed), **asked.task.judging.device_figures(there),
        "device_rows": float(n), "device_flips": float(flips), AGREEMENT: flips / n,
    }  # fmt: skip
    rules = [rule for rule in asked.rules if rule.on == answer.report.device]
    evidence = asked.task.judging.evidence(there, asked.class_names, figures, None, rules)
    evidence = evidence.beside(measured(rules, there))
    return DeviceEvidence(problem="", evidence=evidence, facts=dict(answer.report.facts), order=answer.report.order)


def figures_from(report: MeasureReport, allowed: Budgets) -> dict[str, float]:
    """Return latency, memory and golden vectors by the names used in gates and certificate."""
    return {
        **repeated("latency_p50_ms", report.latency_p50_ms, report.latency_p50_repeats_ms),
        **repeated("latency_p95_ms", report.latency_p95_ms, report.latency_p95_repeats_ms),
        "peak_memory_bytes": float(report.peak_memory_bytes), "golden_max_abs": report.golden_max_abs,
        "golden_flips": float(report.golden_flips), "golden_allowed_abs": allowed.golden_max_abs,
        "golden_allowed_flips": float(allowed.golden_max_flips),
    }  # fmt: skip
