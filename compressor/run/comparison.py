"""The predictions of all models of a run, each computed once, and the figures of a target.

Decides which models are compared on which samples. Does not judge.
"""

from __future__ import annotations

import csv
import io
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from compressor import formats
from compressor.data._table import Table, concatenate
from compressor.errors import DataError, MeasureError, PackageError, SplitError
from compressor.gates.certificate import read_certificate, with_comparisons
from compressor.gates.evidence import GateRecipe
from compressor.gates.looks import split_of
from compressor.gates.metrics import VALUED, WORST_SLICE
from compressor.measurement.onnx_graph import GraphFigures
from compressor.measurement.parity import Pair, find
from compressor.measurement.predictions import Candidate, Compared, Predictions, smoothed
from compressor.recipe.model import TargetRecipe
from compressor.run.stages import Form, Run, table_digest
from wire.bundle import CERTIFICATE, Bundle
from wire.codec import to_document

_PARITY_ROWS = 512
COLUMNS = ("path", "label", "slice", "source", "old", "new")
"""Of the list of rows that two models answer differently."""
DISAGREEMENTS = "disagreements.tsv"
"""The file of this list, beside the report."""
ITSELF = "itself (nothing was compressed)"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Comparison:
    """All predictions that gates, reference and golden vectors of one target need.

    ``baseline``: what the candidate is compared with, as text; ``parity_unknown``: why some forms have no parity;
    ``watched``: rows of sites that were not trained on, under the release before and the candidate.
    """

    baseline: str
    form: Form
    gate_set: Compared
    drifted: Compared | None
    parity: tuple[Pair, ...]
    calibration: Predictions
    parity_unknown: str = ""
    watched: Compared | None = None

    @classmethod
    def of(cls, run: Run, target: str, before: Comparison | None) -> Comparison:
        """Return all predictions of ``target``; ``before``: of another target, which has the same parity.

        Raises:
            MeasureError: If a model can't be run.
        """
        form = run.models.compressed[target]
        baseline = "the file as it came" if run.recipe.model.imported else "the float model"
        if run.models.baseline.data in {form.data, form.plain}:
            baseline = ITSELF
        if run.before is not None:
            baseline = run.before.manifest.release
        held = run.drifted.held if run.drifted is not None else None
        gate_set, elsewhere = _compare(run, form, run.rows("gate")), _watched(run)
        pairs, unknown = _parity(run) if before is None else (before.parity, before.parity_unknown)
        return cls(
            baseline=baseline,
            form=form,
            gate_set=gate_set,
            drifted=None if held is None else _compare(run, form, held),
            parity=pairs,
            calibration=_fitting(run, "temperature", form.candidate),
            parity_unknown=unknown,
            watched=None if not len(elsewhere) else _compare(run, form, elsewhere),
        )


def _watched(run: Run) -> Table:
    """Return the rows of sites that were not trained on: of the data set, and the held samples of a retraining.

    There are none without a release before, or for a task without classes.
    """
    rows, beside = run.rows("other"), run.material.watched
    if run.before is None or run.task.targets.classes(rows.labels) is None:
        return rows.take(np.zeros(len(rows), dtype=bool))
    if run.drifted is not None:
        rows = rows.take(~np.isin(rows.hashes, run.drifted.train.hashes))
    if beside is None:
        return rows
    rows = rows.take(~np.isin(rows.hashes, np.concatenate([beside.train.hashes, beside.held.hashes])))
    return concatenate(rows, beside.held)


def _parity(run: Run) -> tuple[tuple[Pair, ...], str]:
    """Return the parity of every pair of forms, on some rows of the gate split, and which forms failed.

    A form that can't be run, such as a float file that no device gets, is left out and named.
    """
    gate_rows = run.rows("gate")
    some = gate_rows.take(np.arange(min(len(gate_rows), _PARITY_ROWS)))
    forms = {"torch": run.torch_logits(run.models.weights, some)} if run.models.weights is not None else {}
    failed = []
    named = {formats.named(runtime).float_name: form for runtime, form in run.models.floats.items()}
    for name, form in [*named.items(), *run.models.compressed.items()]:
        try:
            forms[name] = run.predict(f"parity {name}", form.candidate, some).logits
        except MeasureError as error:
            failed.append(f"{name}: {error}")
    try:
        return run.task.judging.parity(forms), "; ".join(failed)
    except MeasureError as error:
        return (), "; ".join([*failed, str(error)])


def check_comparable(bundle: Bundle, run: Run) -> None:
    """Check that ``bundle`` answers the same question as the recipe of ``run``, from the same inputs.

    Its classes are checked with the data. Another kind of runtime or processor is no obstacle.

    Raises:
        PackageError: If it is of another model, task or preprocessing.
    """
    manifest, recipe = bundle.manifest, run.recipe
    if manifest.model != recipe.model.name:
        message = f"Expected a release of {recipe.model.name}, got {manifest.release}"
        raise PackageError(f"{message}: give the bundle of this model that devices run, or its own recipe")
    kind = manifest.task or ("regression" if manifest.values else "classification")
    if kind != run.task.device:
        message = f"Expected a release {run.task.recipes}, got {manifest.release}, a model of {kind}"
        raise PackageError(f"{message}: what one answers is not what the other answers; compare each with its own kind")
    own, other = (to_document(replace(one, layout="")) for one in (run.preprocessing, manifest.preprocessing))
    if not (own.get("front_end_columns") and other.get("front_end_columns")):  # a release of before names none
        own.pop("front_end_columns", None)
        other.pop("front_end_columns", None)
    differs = sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name))
    if differs:
        name = differs[0]
        message = (
            f"Expected {manifest.release} with the recipe's preprocessing, got {name} {other.get(name, 'unset')!r} "
            f"instead of {own.get(name, 'unset')!r}"
        )
        raise PackageError(
            f"{message}: it would be given inputs that it does not know; give a recipe whose [data] is that of both"
        )


def check_draw(run: Run, bundle: Bundle) -> None:
    """Check that ``bundle``, if made from the data of ``run``, was judged on the same rows: it learnt from the others.

    Raises:
        SplitError: If its certificate names another gate split of the same data.
    """
    if bundle.manifest.lineage.get("data") != table_digest(run.table) or CERTIFICATE not in bundle.files:
        return
    judged_on = read_certificate(bundle.files[CERTIFICATE]).gate_split
    if judged_on in {"", split_of(run.rows("gate").hashes.tolist())}:
        return
    message = f"Expected the gate split that {bundle.manifest.release} was judged on, got other rows of the same data"
    raise SplitError(
        f"{message}: it may have been trained on some of them; give a recipe with its [train] seed and [data] split, "
        "shares and train_slices"
    )


def check_compares(rules: Sequence[GateRecipe], run: Run) -> None:
    """Check that at least one of ``rules``, or of those that apply by default, compares with the release before.

    Raises:
        PackageError: If none does: the margin of a regression's error has its unit, so none applies by default.
    """
    if not run.recipe.data.labelled:
        message = f"Expected labelled rows to judge {run.recipe.model.name} against a release, got a recipe"
        raise PackageError(f"{message} {run.task.recipes}: give one with labels, or leave the release out")
    if not with_comparisons((), run.task.gates) and {*VALUED, WORST_SLICE}.isdisjoint(rule.name for rule in rules):
        message = f"Expected a gate on the increase of the error to judge {run.recipe.model.name} against a release"
        raise PackageError(f"{message}, got none: write error_increase = {{max = …}} into [gates]")


def answers(run: Run, name: str, model: Candidate, rows: Table) -> Predictions:
    """Return the answers of ``model`` for ``rows`` as a device gives them, smoothed; ``name`` is shown as progress.

    Raises:
        MeasureError: If it can't be run.
    """
    return smoothed(run.predict(name, model, rows), model.manifest, rows.sources, run.recipe.smoothing.interval_ms)


def _fitted(run: Run, name: str, model: Candidate, rows: Table) -> Predictions:
    """Return the answers of ``model`` for ``rows``, with its own thresholds where the task has some.

    Those of a finished release are in its manifest.
    """
    said, known = answers(run, name, model, rows), model.manifest.thresholds
    several = getattr(run.task.judging, "thresholds", None)
    if known:
        return replace(said, thresholds=known)
    if not (run.task.decoder or run.task.smoother or several):
        return said
    calibration, fitted_on = run.rows("calibration"), _fitting(run, f"threshold {name}", model)
    if several:
        return replace(said, thresholds=several(fitted_on.logits, calibration.labels))
    return replace(said, fitted=fitted_number(run, fitted_on, calibration))


def _fitting(run: Run, name: str, model: Candidate) -> Predictions:
    """Return what the task's number of ``model`` is fitted on: its outputs for calibration rows, or its answers."""
    rows = run.rows("calibration")
    return answers(run, name, model, rows) if run.task.smoother else run.predict(name, model, rows)


def fitted_number(run: Run, said: Predictions, rows: Table) -> float:
    """Return the task's number, such as a temperature or a threshold, fitted on the answers to calibration ``rows``."""
    by_rate = getattr(run.task.judging, "threshold", None)  # of a task with false alarms
    if by_rate is not None:
        return float(by_rate(said, rows.sources, run.recipe.alarm))
    by_events = getattr(run.task.judging, "event_threshold", None)  # of a task whose answers are smoothed first
    if by_events is not None:
        return float(by_events(said, rows.labels))
    return run.task.judging.temperature(said.logits, rows.labels)


def _compare(run: Run, form: Form, rows: Table) -> Compared:
    float_model = _fitted(run, "float", run.models.baseline.candidate, rows)
    candidate = _fitted(run, form.candidate.manifest.target, form.candidate, rows)
    if run.task.smoother:  # two choices on the same few hours would differ by more than the models do
        candidate = replace(candidate, fitted=float_model.fitted)
    baseline = float_model
    if run.before is not None:
        baseline = _fitted(run, "release before", Candidate(run.before.manifest, run.before.artifact), rows)
    return Compared(
        labels=rows.labels,
        slices=rows.slices,
        baseline=baseline,
        float_model=float_model,
        candidate=candidate,
        sources=rows.sources,
        interval_s=run.recipe.alarm.interval_s,
        gap_s=run.recipe.alarm.gap_s,
    )


def disagreements(rows: Table, compared: Compared, run: Run, *, labelled: bool = True) -> list[tuple[str, ...]]:
    """Return the rows that baseline and candidate answer differently, as texts of ``COLUMNS``, in the order of rows.

    A row without a name is named by its content's SHA-256. ``labelled``: False leaves the label empty.

    Raises:
        DataError: If the task has no classes: two models never give the same numbers.
    """
    names, labels = rows.class_names, run.task.targets.classes(rows.labels)
    if labels is None:
        message = f"Expected classes to list rows on which models disagree, got a recipe {run.task.recipes}"
        raise DataError(f"{message}: the report shows where the errors grew; leave --disagreements out")
    places = rows.hashes if rows.names is None else rows.names
    differ = run.task.judging.differs(compared.candidate, compared.baseline, 0.0)
    before, after = compared.baseline.classes, compared.candidate.classes
    return [
        (
            str(places[row]), names[int(labels[row])] if labelled else "", str(rows.slices[row]),
            str(rows.sources[row]), names[int(before[row])], names[int(after[row])],
        )
        for row in np.flatnonzero(differ).tolist()
    ]  # fmt: skip


def as_tsv(rows: list[tuple[str, ...]]) -> bytes:
    """Return ``rows`` under a line of ``COLUMNS``, separated by tabs; a cell with a tab or a line break is quoted."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    return text.getvalue().encode()


_TIMED_ROWS = 64


@dataclass(slots=True)
class Figures:
    """Figures by name. ``unknown``: why the others could not be measured, by their names."""

    known: dict[str, float] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def add(self, names: Sequence[str], measured: Callable[[], Mapping[str, float]]) -> None:
        """Add the result of ``measured``; if it fails, record ``names`` as unknown with the reason."""
        try:
            self.known |= measured()
        except MeasureError as error:
            self.unknown |= dict.fromkeys(names, str(error))


_LATENCY = ("latency_p50_ms", "latency_p95_ms", "latency_ratio", "speed_up_ratio")

_PARITY = ("parity_max_abs", "parity_cosine", "parity_flip_ratio")

_GRAPH = ("macs", "int8_macs_ratio", "converting_nodes")


def figures_of(run: Run, target: TargetRecipe, compared: Comparison) -> Figures:
    """Return every figure of ``target``; latency and memory only if this host has the target's processor.

    The run already has its predictions: other measurements that fail are unknown, and do not end it.
    """
    form, baseline = compared.form, run.models.baseline
    found = Figures(run.task.judging.figures(compared.gate_set, compared.drifted))
    found.known |= {
        "size_bytes": float(len(form.data)),
        "float_size_bytes": float(len(baseline.data)),
        "size_ratio": len(form.data) / len(baseline.data),
    }
    told = getattr(run.task.judging, "threshold_figures", None)  # of a task with false alarms
    if told is not None:
        calibration, tells = run.rows("calibration"), run.table.told is not None and "calibration" in run.table.told
        found.known |= told(compared.calibration, calibration.sources, run.recipe.alarm)
        if not tells:  # else no share decides it
            found.known["calibration_share"] = run.table.shares.calibration
    found.add(_GRAPH, lambda: _graph_figures(found, run.graph(form)))
    found.add(("float_macs",), lambda: _float_macs(run.graph(baseline)))
    float_name = formats.named(target.runtime).float_name
    if exported := find(compared.parity, float_name, "torch"):
        found.known["parity_max_abs"] = exported.max_abs
    if quantized := find(compared.parity, float_name, target.name):
        found.known["parity_cosine"] = quantized.cosine
        found.known |= {} if math.isnan(quantized.flip_ratio) else {"parity_flip_ratio": quantized.flip_ratio}
    found.unknown |= {name: compared.parity_unknown for name in _PARITY if compared.parity_unknown}
    if target.cpu == platform.machine():  # this host can't measure another processor: the gate then fails
        rows = run.rows("gate").take(np.arange(min(_TIMED_ROWS, len(compared.gate_set.labels))))
        both = {"float": baseline.candidate, "candidate": form.candidate}
        found.add(_LATENCY, lambda: run.timings(both, rows))
        found.add(("peak_memory_bytes",), lambda: run.memory(both, rows))
    found.unknown = {name: why for name, why in found.unknown.items() if name not in found.known}
    return found


def _graph_figures(found: Figures, inspected: GraphFigures) -> dict[str, float]:
    converting = {"converting_nodes": float(inspected.converting)}
    if inspected.macs is None or inspected.int8_macs_ratio is None:
        found.unknown |= {"macs": inspected.unknown, "int8_macs_ratio": inspected.unknown}
        return converting
    return {"macs": float(inspected.macs), "int8_macs_ratio": inspected.int8_macs_ratio, **converting}


def _float_macs(inspected: GraphFigures) -> dict[str, float]:
    if inspected.macs is None:
        raise MeasureError(inspected.unknown)
    return {"float_macs": float(inspected.macs)}
