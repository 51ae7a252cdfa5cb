"""The bundles of a run that passed: golden vectors, drift reference, budgets, lineage, one bundle per target.

Decides what travels with the artifact. What a host's clock says never does, so equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from compressor import package, profile
from compressor.certificate import Certificate
from compressor.comparison import Comparison, Material, Models, runnable
from compressor.data.table import Table, concatenate
from compressor.measure import Candidate
from compressor.recipe import TargetRecipe
from compressor.workshop import Workshop, table_digest
from wire.canonical import sha256_hex
from wire.manifest import Budgets, TensorSpec
from wire.reference import Reference

MIN_LATENCY_BUDGET_MS = 50.0
"""A tighter budget would measure how busy a device is, not the model."""
LATENCY_SLACK = 4.0
_GOLDEN_TOLERANCE = 0.05  # of the largest logit: int8 kernels of other processors round differently


def make_bundles(
    workshop: Workshop,
    material: Material,
    models: Models,
    compared: Comparison,
    results: Sequence[tuple[Certificate, TargetRecipe]],
) -> dict[str, bytes]:
    """Return the bundles of ``results`` by file name.

    Raises:
        PackageError: If the parts don't fit each other.
        MeasureError: If the artifact can't be run.
    """
    artifact = models.int8_model.data
    gate_rows, predictions = material.rows("gate"), compared.gate_set.candidate
    rows = package.golden_rows(gate_rows.labels, predictions)
    golden_table = gate_rows.take(rows)
    golden = package.Golden(workshop.inputs(golden_table), predictions.logits[rows], golden_table.labels)
    reference = _reference(workshop, material, models, compared)
    made = {}
    for certificate, target in results:
        manifest = replace(
            runnable(workshop, material, artifact, target).manifest,
            outputs=(
                TensorSpec("logits", (-1, len(material.table.class_names))),
                TensorSpec("embedding", (-1, predictions.embedding.shape[1])),
            ),
            budgets=_budgets(workshop, target, certificate, golden),
            lineage=lineage_of(workshop, material, models, compared),
        )
        parts = package.Parts(
            manifest,
            artifact,
            reference,
            golden,
            certificate,
            workshop.recipe.model.network,
            workshop.recipe.data.dataset,
        )
        made[f"{manifest.release}-{target.name}.tfb"] = package.make_bundle(parts)
    return made


def _budgets(workshop: Workshop, target: TargetRecipe, certificate: Certificate, golden: package.Golden) -> Budgets:
    """Return what a device must confirm. The latency follows from the recipe, not from this host's clock."""
    limits = [
        gate.max
        for gate in workshop.recipe.gates
        if gate.name == "latency_p95_ms" and gate.max is not None and gate.on in {"", target.name}
    ]
    measured = certificate.figures.get("latency_p95_ms", 0.0)
    wanted = LATENCY_SLACK * (min(limits) if limits else measured)
    doubled = MIN_LATENCY_BUDGET_MS  # powers of two above: a little noise does not change the bundle's bytes
    while doubled < wanted:
        doubled *= 2
    tolerance = float(np.float32(_GOLDEN_TOLERANCE * np.abs(golden.logits).max()))
    return Budgets(latency_p95_ms=doubled, golden_max_abs=max(1e-3, tolerance))


def lineage_of(workshop: Workshop, material: Material, models: Models, compared: Comparison) -> dict[str, str]:
    """Return what a release was made from: digests of recipe, data and models, and what it was compared with."""
    lineage = {
        "recipe": sha256_hex(repr(replace(workshop.recipe, folder=Path())).encode()),
        "data": table_digest(material.table),
        "float_weights": models.weights.digest,
        "float_model": models.float_model.digest,
        "baseline": compared.baseline,
    }
    if material.drifted is not None:
        lineage["drifted_train"] = table_digest(material.drifted.train)
        lineage["drifted_held"] = table_digest(material.drifted.held)
    return lineage


def _reference(workshop: Workshop, material: Material, models: Models, compared: Comparison) -> Reference:
    candidate = runnable(workshop, material, models.int8_model.data)
    train = material.rows("train")
    contexts = [_seen(workshop, candidate, material.rows("reference"), "default")]
    if material.drifted is not None:
        drifted = concatenate(material.drifted.train, material.drifted.held)
        train = concatenate(train, material.drifted.train)
        contexts.append(_seen(workshop, candidate, drifted, "retrained"))
    labels = material.rows("calibration").labels
    temperature = profile.fit_temperature(compared.calibration.logits, labels)
    seen = _seen(workshop, candidate, train, "train")
    return profile.make_reference(models.int8_model.digest, seen, contexts, temperature)


def _seen(workshop: Workshop, candidate: Candidate, table: Table, name: str) -> profile.Seen:
    predictions = workshop.predict(f"profile {name}", candidate, table)
    effective = len(np.unique(table.sources))
    return profile.Seen(workshop.pixels(table), table.labels, predictions, effective, name)
