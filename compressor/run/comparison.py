"""The data of a run, and the predictions of all its models, each computed once.

Decides which models are compared on which samples. Does not judge.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compressor.data._drifted import Drifted
from compressor.data._split import Splits
from compressor.data._table import Table
from compressor.errors import MeasureError
from compressor.measurement import parity
from compressor.measurement.onnx_graph import GraphFigures
from compressor.measurement.predictions import Candidate, Predictions
from compressor.recipe.model import TargetRecipe
from compressor.run.model_files import FLOAT_NAMES, Form, Models
from compressor.run.stages import Workshop
from compressor.tasks._compared import Compared
from wire.bundle import Bundle

_PARITY_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The data of a run: the table and its splits, and the drifted samples of a retraining."""

    table: Table
    splits: Splits
    drifted: Drifted | None

    def rows(self, name: str) -> Table:
        """Return the rows of the split ``name``."""
        return self.table.take(getattr(self.splits, name))


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All predictions that gates, reference and golden vectors of one target need.

    ``parity_unknown``: why some forms have no parity.
    """

    baseline: str
    form: Form
    gate_set: Compared
    drifted: Compared | None
    parity: tuple[parity.Pair, ...]
    calibration: Predictions
    parity_unknown: str = ""

    @classmethod
    def of(
        cls, workshop: Workshop, material: Material, models: Models, before: Bundle | None, target: str
    ) -> Comparison:
        """Return all predictions of ``target``; ``before`` is the bundle of the previous release, if there is one.

        Raises:
            MeasureError: If a model can't be run.
        """
        form = models.compressed[target]
        held = material.drifted.held if material.drifted is not None else None
        gate_set = _compare(workshop, models, form, before, material.rows("gate"))
        pairs, unknown = parity_of(workshop, material, models)
        return cls(
            baseline=before.manifest.release if before is not None else _start(models, form),
            form=form,
            gate_set=gate_set,
            drifted=None if held is None else _compare(workshop, models, form, before, held),
            parity=pairs,
            calibration=workshop.predict("temperature", form.candidate, material.rows("calibration")),
            parity_unknown=unknown,
        )


ITSELF = "itself (nothing was compressed)"


def _start(models: Models, form: Form) -> str:
    """Return the baseline of a first release, as text: an imported file need not be float."""
    if models.baseline.data in {form.data, form.onnx}:
        return ITSELF
    return "the float model" if models.trained is not None else "the file as it came"


def parity_of(workshop: Workshop, material: Material, models: Models) -> tuple[tuple[parity.Pair, ...], str]:
    """Return the parity of every pair of forms, on some rows of the gate split, and which forms failed.

    A form that can't be run, such as a float file that no device gets, is left out and named.
    """
    gate_rows = material.rows("gate")
    some = gate_rows.take(np.arange(min(len(gate_rows), _PARITY_ROWS)))
    forms = {"torch": workshop.torch_logits(models.weights, some)} if models.weights is not None else {}
    failed = []
    named = {FLOAT_NAMES[runtime]: form for runtime, form in models.floats.items()}
    for name, form in [*named.items(), *models.compressed.items()]:
        try:
            forms[name] = workshop.predict(f"parity {name}", form.candidate, some).logits
        except MeasureError as error:
            failed.append(f"{name}: {error}")
    try:
        return workshop.task.judging.parity(forms), "; ".join(failed)
    except MeasureError as error:
        return (), "; ".join([*failed, str(error)])


def _compare(workshop: Workshop, models: Models, form: Form, before: Bundle | None, rows: Table) -> Compared:
    float_model = workshop.predict("float", models.baseline.candidate, rows)
    candidate = workshop.predict(form.candidate.manifest.target, form.candidate, rows)
    baseline = float_model
    if before is not None:
        baseline = workshop.predict("release before", Candidate(before.manifest, before.artifact), rows)
    return Compared(rows.labels, rows.slices, baseline, float_model, candidate)


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


def figures_of(
    workshop: Workshop, target: TargetRecipe, material: Material, models: Models, compared: Comparison
) -> Figures:
    """Return every figure of ``target``; latency and memory only if this host has the target's processor.

    The run already has its predictions: other measurements that fail are unknown, and do not end it.
    """
    form, baseline = compared.form, models.baseline
    found = Figures(workshop.task.judging.figures(compared.gate_set, compared.drifted))
    found.known |= {
        "size_bytes": float(len(form.data)),
        "float_size_bytes": float(len(baseline.data)),
        "size_ratio": len(form.data) / len(baseline.data),
    }
    found.add(_GRAPH, lambda: _graph_figures(found, workshop.graph(form.candidate, form.onnx)))
    found.add(("float_macs",), lambda: _float_macs(workshop.graph(baseline.candidate)))
    found.known |= _parity_figures(compared, target)
    found.unknown |= {name: compared.parity_unknown for name in _PARITY if compared.parity_unknown}
    if target.cpu == platform.machine():  # this host can't measure another processor: the gate then fails
        rows = material.rows("gate").take(np.arange(min(_TIMED_ROWS, len(compared.gate_set.labels))))
        both = {"float": baseline.candidate, "candidate": form.candidate}
        found.add(_LATENCY, lambda: _with_ratios(workshop.timings(both, rows)))
        found.add(("peak_memory_bytes",), lambda: workshop.memory(both, rows))
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


def _with_ratios(timed: Mapping[str, float]) -> dict[str, float]:
    ratio = timed["latency_p50_ms"] / timed["float_latency_p50_ms"]
    return {**timed, "latency_ratio": ratio, "speed_up_ratio": 1 / ratio}


def _parity_figures(compared: Comparison, target: TargetRecipe) -> dict[str, float]:
    float_name = FLOAT_NAMES[target.runtime]
    exported = parity.find(compared.parity, float_name, "torch")
    quantized = parity.find(compared.parity, float_name, target.name)
    figures = {"parity_max_abs": exported.max_abs} if exported else {}
    if quantized is None:
        return figures
    flips = {} if math.isnan(quantized.flip_ratio) else {"parity_flip_ratio": quantized.flip_ratio}
    return figures | {"parity_cosine": quantized.cosine} | flips
