"""The bundles of a passed run: golden vectors, drift reference, budgets, lineage, one bundle per target.

Decides what is shipped with the artifact. Timings of a host are never shipped, so equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compressor.data._inputs import MonitoredPixels
from compressor.data._table import Table, concatenate
from compressor.gates.certificate import Certificate
from compressor.gates.evidence import device_for
from compressor.measurement.predictions import Candidate, Predictions
from compressor.recipe.model import AcceptanceRecipe, AlarmRecipe, Recipe, TargetRecipe
from compressor.release import drift_reference, package
from compressor.run.comparison import Comparison, fitted_number
from compressor.run.compression import Floats
from compressor.run.stages import Run, table_digest
from compressor.tasks import Task
from edge_agent import tasks as device_tasks
from wire.bundle import GOLDEN
from wire.canonical import sha256_hex
from wire.manifest import Budgets, TensorSpec
from wire.reference import Reference

_ROUNDED = 16  # steps within the tolerance of golden vectors


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One target: the comparison, and the resulting certificate."""

    target: TargetRecipe
    compared: Comparison
    certificate: Certificate


def make_bundles(run: Run, results: Sequence[Judged]) -> dict[str, bytes]:
    """Return the bundles of ``results`` by file name.

    Raises:
        PackageError: If the parts are inconsistent.
        MeasureError: If the artifact can't be run.
    """
    made, recipe, first = {}, run.recipe, None
    elsewhere = bool(recipe.model.imported or (recipe.model.checkpoint and run.drifted is None))
    for judged in results:
        compared, certificate, candidate = judged.compared, judged.certificate, judged.compared.form.candidate
        golden, width = golden_of(run, compared, first), compared.gate_set.candidate.embedding.shape[1]
        first = first or (golden.inputs, candidate.manifest.preprocessing.layout)
        manifest = replace(
            candidate.manifest,
            outputs=sized(candidate.manifest.outputs, width),
            budgets=_budgets(run, judged.target, certificate, golden),
            lineage=lineage_of(run, compared),
            thresholds=compared.gate_set.candidate.thresholds,
            preprocessing=replace(candidate.manifest.preprocessing, front_end_columns=run.table.columns),
        )
        parts = package.Parts(
            manifest=manifest,
            artifact=candidate.artifact,
            reference=_reference(run, compared),
            golden=golden,
            certificate=certificate,
            network=recipe.model.architecture,
            dataset=recipe.data.dataset,
            task=run.task,
            elsewhere=elsewhere,
        )
        made[f"{certificate.model}-{certificate.version}-{judged.target.name}.tfb"] = package.make_bundle(parts)
    return made


def golden_of(run: Run, compared: Comparison, first: tuple[Floats, str] | None = None) -> package.Golden:
    """Return the golden vectors of a comparison: some rows of the gate split and the artifact's outputs here.

    ``first``: golden inputs and layout of the run's first target. Those of the release before are kept, of whichever of
    its targets it is; without one those of the first target are taken: then all targets keep theirs at a retraining.
    """
    gate_rows, candidate = run.rows("gate"), compared.form.candidate
    predictions = compared.gate_set.candidate
    if candidate.manifest.smoothing:  # a device reproduces the outputs of single inputs
        predictions = replace(predictions, logits=run.predict("golden", candidate, gate_rows).logits)
    layout = candidate.manifest.preprocessing.layout
    rows = run.task.judging.golden_rows(gate_rows.labels, predictions, package.GOLDEN_MAX)
    if run.before is not None and GOLDEN in run.before.files:
        first = package.read_golden(run.before.files[GOLDEN]).inputs, run.before.manifest.preprocessing.layout
    if first is not None:
        kept, kept_layout = first
        wanted = [row.tobytes() for row in kept]
        searched = set(wanted)
        every = (row.tobytes() for batch in run.batches([gate_rows], kept_layout) for row in batch)
        known = {content: at for at, content in enumerate(every) if content in searched}
        found = [known[content] for content in wanted if content in known]
        same = replace(predictions, logits=predictions.logits[found], embedding=predictions.embedding[found])
        right = run.before is not None and run.task.judging.score(same, gate_rows.labels[found]) == 1
        if found and len(found) == len(kept) and (right or _is_firm(run, same)):
            rows = np.array(found, np.int64)  # the same inputs: most of a bundle of a small model is these
    table = gate_rows.take(rows)
    inputs = run.inputs(table, layout)
    logits = predictions.logits[rows]
    if run.before is not None and run.recipe.train.keeps_body:  # a patch has little else to carry than such numbers
        reach, _ = run.task.judging.golden_reach(logits)
        step = np.exp2(np.floor(np.log2(max(1e-6, run.recipe.acceptance.golden_tolerance * reach / _ROUNDED))))
        logits = (np.round(logits / step) * step).astype(np.float32)
    return package.Golden(inputs, logits, table.labels)


def _is_firm(run: Run, said: Predictions) -> bool:
    """Return whether no outputs within the tolerance of golden vectors change more answers than a device may.

    In turn, each output is raised by the tolerance while the others are lowered. An answer may be wrong: a device must
    reproduce it all the same.
    """
    logits = said.logits
    reach, most = run.task.judging.golden_reach(logits)
    count = logits.shape[1]
    device = device_tasks.make(run.task.device, count, said.thresholds)
    turns = _allowed_abs(reach, run.recipe.acceptance) * (2 * np.eye(count, dtype=np.float32) - 1)
    return all(device.flips(logits + turn, logits) <= most for turn in turns)


def _allowed_abs(reach: float, acceptance: AcceptanceRecipe) -> float:
    """Return by how much an output of another processor may differ from the golden one."""
    return max(1e-3, float(np.float32(acceptance.golden_tolerance * reach)))


def golden_budget(golden: package.Golden, task: Task, acceptance: AcceptanceRecipe) -> Budgets:
    """Return the allowed difference of another processor's answers to ``golden``, as budgets without other limits."""
    reach, flips = task.judging.golden_reach(golden.logits)
    return Budgets(golden_max_abs=_allowed_abs(reach, acceptance), golden_max_flips=flips)


def sized(outputs: Sequence[TensorSpec], width: int) -> tuple[TensorSpec, ...]:
    """Return ``outputs`` with the actual width of the embedding; removed if the model has none."""
    kept = (replace(spec, shape=(-1, width)) if spec.name == "embedding" else spec for spec in outputs)
    return tuple(spec for spec in kept if spec.name != "embedding" or width)


def _budgets(run: Run, target: TargetRecipe, certificate: Certificate, golden: package.Golden) -> Budgets:
    """Return the limits that a device must confirm. The latency follows from the recipe, not from this host's clock."""
    limits = [
        gate.max
        for gate in run.recipe.gates
        if gate.name == "latency_p95_ms"
        and gate.max is not None
        and (gate.on in {"", target.name} or device_for(gate.on, target.name))
    ]
    measured, acceptance = certificate.figures.get("latency_p95_ms", 0.0), run.recipe.acceptance
    wanted = acceptance.latency_slack * (min(limits) if limits else measured)
    doubled = acceptance.min_latency_budget_ms  # a power of two: a little noise does not change the bundle's bytes
    while doubled < wanted:
        doubled *= 2
    return replace(golden_budget(golden, run.task, acceptance), latency_p95_ms=float(doubled))


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of all that ``recipe`` states, wherever its file is."""
    beside = [str(recipe.acceptance)] if recipe.acceptance != AcceptanceRecipe() else []
    beside += [recipe.data.task] if recipe.data.task else []
    beside += [f"unlabelled {recipe.data.unlabelled}"] if recipe.data.unlabelled else []
    beside += [f"columns {sorted(recipe.data.columns.items())}"] if recipe.data.columns else []
    beside += [str(recipe.smoothing)] if recipe.smoothing.kind else []
    beside += [str(recipe.alarm)] if recipe.alarm != AlarmRecipe() else []
    beside += [str(recipe.decoder)] if recipe.decoder.kind else []
    beside += [recipe.train.fine_tune_layers] if recipe.train.keeps_body else []
    beside += [f"flips {recipe.train.flips}"] if recipe.train.flips != "none" else []
    beside += [f"teacher {recipe.model.teacher}"] if recipe.model.teacher else []
    beside += [str(sorted(recipe.model.constants.items()))] if recipe.model.constants else []
    beside += [f"outputs {recipe.model.outputs}"] if recipe.model.outputs else []
    return sha256_hex(" ".join([repr(replace(recipe, folder=Path())), *beside]).encode())


def lineage_of(run: Run, compared: Comparison) -> dict[str, str]:
    """Return the inputs of a release: digests of recipe, data and models, and its baseline."""
    lineage = {
        "recipe": recipe_digest(run.recipe),
        "data": table_digest(run.table),
        "float_weights": run.models.trained.digest if run.models.trained else run.models.baseline.digest,
        "float_model": run.models.baseline.digest,
        "baseline": compared.baseline,
    }
    if (given := run.material.calibration) is not None:
        lineage["calibration"] = given.digest
    if (beside := run.material.unlabelled) is not None:
        lineage["unlabelled"] = table_digest(beside)
    if run.models.baseline.mends:
        lineage["clean"] = "; ".join(run.models.baseline.mends)
    if run.models.weights is not None and run.models.weights is not run.models.trained:
        lineage["compressed_weights"] = run.models.weights.digest
    if run.models.teacher is not None:
        lineage["teacher"] = sha256_hex(run.models.teacher.data)
    if run.drifted is not None:
        lineage["drifted_train"] = table_digest(run.drifted.train)
        lineage["drifted_held"] = table_digest(run.drifted.held)
    return lineage


def _reference(run: Run, compared: Comparison) -> Reference:
    """Return the drift reference, with the contexts of ``_seen``."""
    candidate = compared.form.candidate
    train = run.rows("train" if len(run.material.splits.train) else "calibration")
    parts = [_seen(run, candidate, run.rows("reference"), "default")]
    if run.drifted is not None:
        drifted = concatenate(run.drifted.train, run.drifted.held)
        if not run.recipe.train.keeps_body:  # else edges and projection of what the body gives stay as they are
            train = concatenate(train, run.drifted.train)
        parts.append(_seen(run, candidate, drifted, "retrained"))
    temperature = compared.gate_set.candidate.fitted
    if not run.task.smoother:
        temperature = fitted_number(run, compared.calibration, run.rows("calibration"))
    seen = _seen(run, candidate, train, "train")
    said = compared.gate_set.candidate
    task = device_tasks.make(run.task.device, said.logits.shape[1], said.thresholds)
    return drift_reference.make_reference(compared.form.digest, task, seen, parts, temperature)


def _seen(run: Run, candidate: Candidate, table: Table, name: str) -> drift_reference.DeviceSamples:
    """Return ``table`` as a device sees it: a context for each slice that the recipe names, else the one ``name``.

    A lens or a recording that a built-in data set calls a slice is no place: only the recipe can say so.
    """
    by_slice = run.recipe.data.slices or run.recipe.data.train_slices
    predictions = run.predict(f"profile {name}", candidate, table)
    return drift_reference.DeviceSamples(
        pixels=MonitoredPixels(table.images, run.preprocessing),
        labels=table.labels if run.recipe.data.labelled else None,
        predictions=predictions,
        sources=table.sources,
        contexts=table.slices if by_slice else np.full(len(table), name),
    )
