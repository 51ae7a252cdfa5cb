"""From a recipe to bundles: data, train, export, quantize, measure, gate, package.

Decides the order, what is compared with what, and what is written. A normal run compares the int8 artifact with the
float model it came from. A retraining (``base`` and ``extra``) compares it with the artifact of the release before:
not worse on the gate split, slice by slice, and better on the held-out part of the drifted samples.
Only what passed becomes a bundle; a bundle of this name from an earlier run is taken away when the gates fail.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compressor import certificate as certificates
from compressor import evaluation, package, parity, profile, report
from compressor.certificate import Certificate
from compressor.data.split import Splits, split
from compressor.data.table import Table, align, concatenate
from compressor.data_step import load_kept
from compressor.drifted import Drifted, part, repeats
from compressor.errors import DataError, PackageError
from compressor.evaluation import Compared
from compressor.gates import Verdict
from compressor.measure import Candidate, Predictions
from compressor.progress import Progress, Silent
from compressor.recipe import Recipe, TargetRecipe
from compressor.statistics import drop_upper, wilson
from compressor.step import Cache, Result, code_digests, write_atomically
from compressor.workshop import Workshop, table_digest
from wire.bundle import Bundle, read_bundle
from wire.canonical import sha256_hex
from wire.errors import WireError
from wire.manifest import Budgets, Manifest, TensorSpec

MIN_LATENCY_BUDGET_MS = 50.0
"""A tighter budget would measure how busy a device is, not the model."""
LATENCY_SLACK = 4.0
_PARITY_ROWS = 512
_GOLDEN_TOLERANCE = 0.05  # of the largest logit: int8 kernels of other processors round differently
_QUICK_EPOCHS = 2
_OPSET = 17


@dataclass(frozen=True, slots=True)
class BasePoint:
    """Where a retraining starts: the bundle of the release before, and its float weights where this host has them."""

    bundle: Path
    checkpoint: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. ``certificate`` covers all targets; ``bundles`` is empty unless it says ``pass``.

    ``ran`` and ``found`` name the steps that were made and that the cache had.
    """

    verdict: Verdict
    bundles: tuple[Path, ...]
    certificate: Certificate
    report: Path
    checkpoint: Path
    ran: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Material:
    """The data of a run: the table and its splits, and the drifted samples of a retraining."""

    table: Table
    splits: Splits
    drifted: Drifted | None

    def rows(self, name: str) -> Table:
        return self.table.take(getattr(self.splits, name))


@dataclass(frozen=True, slots=True, eq=False)
class _Models:
    """The models of a run: weights, float ONNX and int8 ONNX."""

    weights: Result
    float_model: Result
    int8_model: Result


def run_recipe(  # noqa: PLR0913 - the seam that worker and command line share
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    out: Path,
    version: int | None = None,
    base: BasePoint | None = None,
    extra: Table | None = None,
    progress: Progress | None = None,
    quick: bool = False,
) -> Outcome:
    """Run ``recipe`` to its verdict; write bundles, report, certificate and float weights below ``out``.

    ``data_root`` is where relative data paths start (default: the recipe's folder). ``quick`` trains two epochs.

    Raises:
        CompressorError: If anything can't be done; the subclass and its ``code`` say what.
    """
    recipe = _adjusted(recipe, version, quick=quick)
    workshop = Workshop(recipe, Cache(out / "cache"), progress or Silent())
    before = _read_base(base)
    material = _material(workshop, data_root, before, extra)
    models = _models(workshop, material, base)
    compared = _Compared.of(workshop, material, models, before)
    results = [_judge(workshop, target, material, models, compared) for target in recipe.targets]
    combined = certificates.combine([result for result, _ in results])
    bundles = _bundles(workshop, material, models, compared, results) if combined.verdict == Verdict.PASS else {}
    return _write(workshop, out, combined, bundles, models, _shown(combined, material, compared))


def _adjusted(recipe: Recipe, version: int | None, *, quick: bool) -> Recipe:
    if version is not None:
        recipe = replace(recipe, model=replace(recipe.model, version=version))
    if quick:
        train = replace(recipe.train, epochs=_QUICK_EPOCHS, fine_tune_epochs=_QUICK_EPOCHS)
        recipe = replace(recipe, train=train)
    return recipe


def _read_base(base: BasePoint | None) -> Bundle | None:
    if base is None:
        return None
    try:
        return read_bundle(base.bundle)
    except (OSError, WireError) as error:
        message = f"Expected the bundle of the release before at {base.bundle}, got: {error}"
        raise PackageError(message) from error


def _material(workshop: Workshop, data_root: Path | None, before: Bundle | None, extra: Table | None) -> _Material:
    recipe = workshop.recipe
    with workshop.progress.stage("data", 1, "set") as stage:
        table = load_kept(workshop.cache, recipe.data, data_root or recipe.folder)
        stage.advance()
    if recipe.model.labels:
        table = align(table, recipe.model.labels)
    if before is not None and before.manifest.labels != table.class_names:
        message = f"Expected the labels of {before.manifest.release}, got {', '.join(table.class_names)}"
        raise DataError(message)
    splits = split(table, recipe.train.seed, slices=recipe.data.train_slices)
    return _Material(table, splits, part(extra, table) if extra is not None else None)


def _models(workshop: Workshop, material: _Material, base: BasePoint | None) -> _Models:
    recipe, train = workshop.recipe, material.rows("train")
    start = _checkpoint(base)
    settings = recipe.train.for_fine_tuning() if start is not None else recipe.train
    learnt, calibrated = [train], [material.rows("calibration")]
    if material.drifted is not None:
        learnt += [material.drifted.train] * repeats(len(train), len(material.drifted.train))
        calibrated.append(material.drifted.train)
    weights = workshop.train(learnt, settings, start)
    float_model = workshop.export(weights, len(material.table.class_names))
    int8_model = float_model
    for step in recipe.compress:
        int8_model = workshop.quantize(int8_model, calibrated, step)
    return _Models(weights, float_model, int8_model)


def _checkpoint(base: BasePoint | None) -> bytes | None:
    if base is None or base.checkpoint is None:
        return None
    try:
        return base.checkpoint.read_bytes()
    except OSError as error:
        message = f"Expected the weights of the release before at {base.checkpoint}, got: {error.strerror}"
        raise DataError(message) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """All predictions that gates, reference and golden vectors need."""

    baseline: str
    gate_set: Compared
    drifted: Compared | None
    parity: tuple[parity.Pair, ...]
    calibration: Predictions

    @classmethod
    def of(cls, workshop: Workshop, material: _Material, models: _Models, before: Bundle | None) -> _Compared:
        gate_rows = material.rows("gate")
        some = gate_rows.take(np.arange(min(len(gate_rows), _PARITY_ROWS)))
        forms = {"torch": workshop.torch_logits(models.weights, some)}
        forms |= {
            name: workshop.predict(f"parity {name}", _candidate(workshop, material, data), some).logits
            for name, data in (("float", models.float_model.data), ("int8", models.int8_model.data))
        }
        held = material.drifted.held if material.drifted is not None else None
        return cls(
            baseline=before.manifest.release if before is not None else "the float model",
            gate_set=_compare(workshop, material, models, before, gate_rows),
            drifted=None if held is None else _compare(workshop, material, models, before, held),
            parity=parity.matrix(forms),
            calibration=workshop.predict(
                "temperature", _candidate(workshop, material, models.int8_model.data), material.rows("calibration")
            ),
        )


def _compare(workshop: Workshop, material: _Material, models: _Models, before: Bundle | None, rows: Table) -> Compared:
    float_model = workshop.predict("float", _candidate(workshop, material, models.float_model.data), rows)
    candidate = workshop.predict("int8", _candidate(workshop, material, models.int8_model.data), rows)
    baseline = float_model
    if before is not None:
        baseline = workshop.predict("release before", Candidate(before.manifest, before.artifact), rows)
    return Compared(rows.labels, rows.slices, baseline, float_model, candidate)


def _candidate(
    workshop: Workshop, material: _Material, artifact: bytes, target: TargetRecipe | None = None
) -> Candidate:
    """Return ``artifact`` with the least manifest that runs it (the embedding's width is left open)."""
    data = workshop.recipe.data
    classes = material.table.class_names
    target = target or workshop.recipe.targets[0]
    manifest = Manifest(
        model=workshop.recipe.model.name,
        version=workshop.recipe.model.version,
        target=target.name,
        runtime=target.runtime,
        opset=_OPSET,
        threads=target.threads,
        inputs=(TensorSpec("input", (-1, data.channels, data.height, data.width), "float32", "NCHW"),),
        outputs=(TensorSpec("logits", (-1, len(classes))), TensorSpec("embedding", (-1, -1))),
        preprocessing=workshop.preprocessing,
        labels=classes,
        hardware=(target.cpu,),
    )
    return Candidate(manifest, artifact)


Result_ = tuple[Certificate, TargetRecipe]


def _judge(
    workshop: Workshop, target: TargetRecipe, material: _Material, models: _Models, compared: _Compared
) -> Result_:
    recipe = workshop.recipe
    figures = _figures(workshop, target, material, models, compared)
    evidence = evaluation.evidence(compared.gate_set, material.table.class_names, figures, compared.drifted)
    rules = certificates.rules_for(recipe.gates, target.name, retrained=compared.drifted is not None)
    judgement = certificates.judge(rules, evidence)
    drop = evidence.accuracy
    if drop is not None:
        figures |= {"drop": drop.drop, "drop_upper": drop_upper(drop, 0.95)}
    certificate = Certificate(
        verdict=judgement.verdict.value,
        model=recipe.model.name,
        version=recipe.model.version,
        target=target.name,
        baseline=compared.baseline,
        gates=certificates.lines(judgement),
        figures=figures,
        rules=rules,
        counts=certificates.counts_of(evidence),
        code_digests=code_digests(("compressor", "edge_agent.runtimes", "edge_agent.preprocess", "edge_agent.monitor")),
    )
    return certificate, target


def _figures(
    workshop: Workshop, target: TargetRecipe, material: _Material, models: _Models, compared: _Compared
) -> dict[str, float]:
    candidates = {
        "float": _candidate(workshop, material, models.float_model.data, target),
        "int8": _candidate(workshop, material, models.int8_model.data, target),
    }
    inspected = workshop.graph(candidates["int8"])
    figures = _accuracy_figures(compared)
    figures |= {
        "size_bytes": float(len(models.int8_model.data)),
        "float_size_bytes": float(len(models.float_model.data)),
        "size_ratio": len(models.int8_model.data) / len(models.float_model.data),
        "macs": float(inspected.macs),
        "int8_macs_ratio": inspected.int8_macs_ratio,
        "converting_nodes": float(inspected.converting),
    }
    exported, quantized = (parity.find(compared.parity, "float", name) for name in ("torch", "int8"))
    if exported and quantized:
        figures |= {
            "parity_max_abs": exported.max_abs,
            "parity_cosine": quantized.cosine,
            "parity_flip_ratio": quantized.flip_ratio,
        }
    if target.cpu == platform.machine():  # this host says nothing about another processor: the gate then fails
        timed = workshop.timings(candidates, material.rows("gate").take(np.arange(64)))
        figures |= timed | {
            "latency_ratio": timed["latency_p50_ms"] / timed["float_latency_p50_ms"],
            "speed_up_ratio": timed["float_latency_p50_ms"] / timed["latency_p50_ms"],
        }
    return figures


def _accuracy_figures(compared: _Compared) -> dict[str, float]:
    from compressor.measure import calibration_error  # noqa: PLC0415 - only here

    gate_set = compared.gate_set
    right = int((gate_set.candidate.classes == gate_set.labels).sum())
    low, high = wilson(right, len(gate_set.labels), 0.95)
    figures = {
        "n_gate": float(len(gate_set.labels)),
        "accuracy": right / len(gate_set.labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "float_accuracy": evaluation.accuracy(gate_set.float_model, gate_set.labels),
        "baseline_accuracy": evaluation.accuracy(gate_set.baseline, gate_set.labels),
        "calibration_error": calibration_error(gate_set.candidate.logits, gate_set.labels),
    }
    if compared.drifted is not None:
        drifted = compared.drifted
        figures |= {
            "n_drifted": float(len(drifted.labels)),
            "drifted_accuracy_before": evaluation.accuracy(drifted.baseline, drifted.labels),
            "drifted_accuracy": evaluation.accuracy(drifted.candidate, drifted.labels),
        }
    return figures


def _bundles(
    workshop: Workshop, material: _Material, models: _Models, compared: _Compared, results: list[Result_]
) -> dict[str, bytes]:
    artifact = models.int8_model.data
    gate_rows, predictions = material.rows("gate"), compared.gate_set.candidate
    rows = package.golden_rows(gate_rows.labels, predictions)
    golden_table = gate_rows.take(rows)
    golden = package.Golden(workshop.inputs(golden_table), predictions.logits[rows], golden_table.labels)
    reference = _reference(workshop, material, models, compared)
    made = {}
    for certificate, target in results:
        manifest = replace(
            _candidate(workshop, material, artifact, target).manifest,
            outputs=(
                TensorSpec("logits", (-1, len(material.table.class_names))),
                TensorSpec("embedding", (-1, predictions.embedding.shape[1])),
            ),
            budgets=_budgets(workshop, target, certificate, golden),
            lineage=_lineage(workshop, material, models, compared),
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


def _lineage(workshop: Workshop, material: _Material, models: _Models, compared: _Compared) -> dict[str, str]:
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


def _reference(workshop: Workshop, material: _Material, models: _Models, compared: _Compared) -> profile.Reference:
    candidate = _candidate(workshop, material, models.int8_model.data)
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


def _shown(certificate: Certificate, material: _Material, compared: _Compared) -> report.Shown:
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
    )


def _bars(compared: Compared, rows: np.ndarray[tuple[int], np.dtype[np.bool_]], run: _Compared) -> list[report.Bar]:
    models: dict[str, Predictions] = {"float": compared.float_model, "int8": compared.candidate}
    if compared.baseline is not compared.float_model:
        models = {run.baseline: compared.baseline, **models}
    right = {name: int((item.classes == compared.labels)[rows].sum()) for name, item in models.items()}
    return [report.Bar(name, count, int(rows.sum())) for name, count in right.items()]


def _write(  # noqa: PLR0913 - everything a run leaves behind
    workshop: Workshop, out: Path, certificate: Certificate, bundles: Mapping[str, bytes], models: _Models,
    shown: report.Shown,
) -> Outcome:  # fmt: skip
    model, paths = workshop.recipe.model, []
    with workshop.progress.stage("write", len(bundles) + 3, "file") as stage:
        for target in workshop.recipe.targets:
            path = out / f"{model.name}-{model.version}-{target.name}.tfb"
            if path.name in bundles:
                write_atomically(path, bundles[path.name])
                paths.append(path)
            else:
                path.unlink(missing_ok=True)
            stage.advance()
        write_atomically(out / "float.pt", models.weights.data)
        write_atomically(out / "report.html", report.render(shown).encode())
        write_atomically(out / "gate.json", certificates.write_certificate(certificate))
        stage.advance(3)
    cache = workshop.cache
    return Outcome(
        Verdict(certificate.verdict), tuple(paths), certificate, out / "report.html", out / "float.pt",
        tuple(cache.ran), tuple(cache.found),
    )  # fmt: skip
