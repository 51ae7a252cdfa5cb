"""What a run works on: its data, its models, and all their predictions, taken once.

Decides who is compared on which samples. Does not judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor import parity
from compressor.data.split import Splits
from compressor.data.table import Table
from compressor.drifted import Drifted
from compressor.evaluation import Compared
from compressor.measure import Candidate, Predictions
from compressor.recipe import TargetRecipe
from compressor.step import Result
from compressor.workshop import Workshop
from wire.bundle import Bundle
from wire.manifest import Manifest, TensorSpec

_PARITY_ROWS = 512
_OPSET = 17


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
class Models:
    """The models of a run: weights, float ONNX and int8 ONNX."""

    weights: Result
    float_model: Result
    int8_model: Result


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All predictions that gates, reference and golden vectors need."""

    baseline: str
    gate_set: Compared
    drifted: Compared | None
    parity: tuple[parity.Pair, ...]
    calibration: Predictions

    @classmethod
    def of(cls, workshop: Workshop, material: Material, models: Models, before: Bundle | None) -> Comparison:
        """Return all predictions of a run; ``before`` is the bundle of the release before, if there is one.

        Raises:
            MeasureError: If a model can't be run.
        """
        gate_rows = material.rows("gate")
        some = gate_rows.take(np.arange(min(len(gate_rows), _PARITY_ROWS)))
        forms = {"torch": workshop.torch_logits(models.weights, some)}
        forms |= {
            name: workshop.predict(f"parity {name}", runnable(workshop, material, data), some).logits
            for name, data in (("float", models.float_model.data), ("int8", models.int8_model.data))
        }
        held = material.drifted.held if material.drifted is not None else None
        return cls(
            baseline=before.manifest.release if before is not None else "the float model",
            gate_set=_compare(workshop, material, models, before, gate_rows),
            drifted=None if held is None else _compare(workshop, material, models, before, held),
            parity=parity.matrix(forms),
            calibration=workshop.predict(
                "temperature", runnable(workshop, material, models.int8_model.data), material.rows("calibration")
            ),
        )


def _compare(workshop: Workshop, material: Material, models: Models, before: Bundle | None, rows: Table) -> Compared:
    float_model = workshop.predict("float", runnable(workshop, material, models.float_model.data), rows)
    candidate = workshop.predict("int8", runnable(workshop, material, models.int8_model.data), rows)
    baseline = float_model
    if before is not None:
        baseline = workshop.predict("release before", Candidate(before.manifest, before.artifact), rows)
    return Compared(rows.labels, rows.slices, baseline, float_model, candidate)


def runnable(workshop: Workshop, material: Material, artifact: bytes, target: TargetRecipe | None = None) -> Candidate:
    """Return ``artifact`` with the least manifest that runs it (the embedding's width is left open)."""
    data = workshop.recipe.data
    classes = material.table.class_names
    target = target or workshop.recipe.targets[0]
    manifest = Manifest(
        model=workshop.recipe.model.name,
        version=workshop.recipe.model.version,
        security_floor=workshop.recipe.model.security_floor,
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
