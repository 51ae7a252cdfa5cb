"""What a run works on: its data, and the predictions of all its models, taken once.

Decides who is compared on which samples. Does not judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor.data._drifted import Drifted
from compressor.data.split import Splits
from compressor.data.table import Table
from compressor.errors import MeasureError
from compressor.measurement import parity
from compressor.measurement.predictions import Candidate, Predictions
from compressor.run.model_files import FLOAT_NAMES, Form, Models
from compressor.run.stages import Workshop
from compressor.tasks.compared import Compared
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
    """All predictions that the gates, reference and golden vectors of one target need.

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
        """Return all predictions of ``target``; ``before`` is the bundle of the release before, if there is one.

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
    """Return what a first release is compared with, in words: an imported file need not be float."""
    if models.baseline.data in {form.data, form.onnx}:
        return ITSELF
    return "the float model" if models.trained is not None else "the file as it came"


def parity_of(workshop: Workshop, material: Material, models: Models) -> tuple[tuple[parity.Pair, ...], str]:
    """Return every form of the model against every other, on some rows of the gate split, and which forms failed.

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
        return parity.matrix(forms, numeric=material.table.numeric), "; ".join(failed)
    except MeasureError as error:
        return (), "; ".join([*failed, str(error)])


def _compare(workshop: Workshop, models: Models, form: Form, before: Bundle | None, rows: Table) -> Compared:
    float_model = workshop.predict("float", models.baseline.candidate, rows)
    candidate = workshop.predict(form.candidate.manifest.target, form.candidate, rows)
    baseline = float_model
    if before is not None:
        baseline = workshop.predict("release before", Candidate(before.manifest, before.artifact), rows)
    return Compared(rows.labels, rows.slices, baseline, float_model, candidate)
