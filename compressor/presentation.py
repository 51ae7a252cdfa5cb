"""What the report of a run shows, gathered from the run. Decides nothing and measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from compressor import evaluation, report
from compressor.bundling import Judged, lineage_of
from compressor.certificate import Certificate
from compressor.comparison import Comparison, Material
from compressor.evaluation import Compared
from compressor.forms import Models
from compressor.measure import Predictions
from compressor.recipe import Recipe
from compressor.steps import Settings
from compressor.workshop import Workshop
from wire.canonical import canonical_bytes, sha256_hex

_RANK = {"fail": 0, "inconclusive": 1, "pass": 2}


def shown(
    certificate: Certificate, workshop: Workshop, material: Material, models: Models, results: Sequence[Judged]
) -> report.Shown:
    """Return what the report of a run shows; pictures are of the target that did worst."""
    compared = min(results, key=lambda judged: _RANK[judged.certificate.verdict]).compared
    gate_set = compared.gate_set
    everything = np.ones(len(gate_set.labels), dtype=bool)
    slices = {name: _bars(gate_set, gate_set.slices == name, compared) for name in np.unique(gate_set.slices).tolist()}
    drifted = compared.drifted
    return report.Shown(
        certificate=certificate,
        class_names=material.table.class_names,
        accuracies=_bars(gate_set, everything, compared),
        slices=slices,
        confusion=evaluation.confusion(gate_set.candidate, gate_set.labels, len(material.table.class_names)),
        parity=compared.parity,
        drifted=_bars(drifted, np.ones(len(drifted.labels), dtype=bool), compared) if drifted else (),
        lineage={
            **lineage_of(workshop, material, models, compared),
            **{f"artifact_{name}": form.digest for name, form in models.compressed.items()},
            "judging_code": sha256_hex(canonical_bytes(dict(certificate.code_digests))),
        },
        made=_made(workshop.recipe, material, models),
        targets=tuple(judged.certificate for judged in results),
    )  # fmt: skip


def _made(recipe: Recipe, material: Material, models: Models) -> dict[str, str]:
    parts = {name: material.rows(name) for name in ("train", "calibration", "gate", "reference")}
    rows = {
        f"{name} split": f"{len(part):,} rows of {len(np.unique(part.sources)):,} sources"
        for name, part in parts.items()
    }
    drifted = material.drifted
    if drifted is not None:
        rows["drifted samples"] = f"{len(drifted.train):,} learnt from, {len(drifted.held):,} held out to judge"
    left_out = {"left out": f"{len(material.table.corrupt)} corrupt images"} if material.table.corrupt else {}
    options = ", ".join(f"{name} = {value:g}" for name, value in recipe.model.network_options.items())
    train = recipe.train if drifted is None else recipe.train.for_fine_tuning()
    return {
        "network": f"{recipe.model.network}{f' ({options})' if options else ''}",
        "data set": recipe.data.dataset, **rows, **left_out,
        "training": f"{train.epochs} epochs, {train.optimizer}, seed {train.seed}",
        "compression": "; ".join(_step(step) for step in recipe.compress) or "none",
        **{f"step {name}": _noted(notes) for name, notes in models.notes},
    }  # fmt: skip


def _step(step: Settings) -> str:
    """Return a step and what the recipe set otherwise than the default."""
    own = {field.name: getattr(step, field.name) for field in fields(step) if field.name != "step"}  # type: ignore[arg-type]
    usual = {field.name: field.default for field in fields(step)}  # type: ignore[arg-type]
    changed = ", ".join(f"{name} = {value}" for name, value in own.items() if value != usual[name] or name == "scheme")
    return f"{step.step} ({changed})" if changed else step.step


def _noted(notes: Mapping[str, object]) -> str:
    return "; ".join(
        f"{name.replace('_', ' ')} {value:,.6g}"
        if isinstance(value, int | float)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in notes.items()
    )


def _bars(compared: Compared, rows: np.ndarray[tuple[int], np.dtype[np.bool_]], run: Comparison) -> list[report.Bar]:
    models: dict[str, Predictions] = {"float": compared.float_model, "compressed": compared.candidate}
    if compared.baseline is not compared.float_model:
        models = {run.baseline: compared.baseline, **models}
    right = {name: int((item.classes == compared.labels)[rows].sum()) for name, item in models.items()}
    return [report.Bar(name, count, int(rows.sum())) for name, count in right.items()]
