"""What a task is: everything that depends on what a model predicts, in one object.

A task is a folder with the modules ``targets``, ``training``, ``evidence`` and ``report``, each of which offers the
functions of one protocol below. They are loaded when they are asked for: only ``training`` needs torch, only ``report``
plotly. Its device half, in ``edge_agent/tasks``, makes the answer of the outputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from compressor.data._table import Table
    from compressor.gates import Evidence
    from compressor.gates.constant import Reordered
    from compressor.gates.rule import GateRecipe
    from compressor.measurement.parity import Pair
    from compressor.measurement.predictions import Predictions
    from compressor.measurement.saliency import Flip
    from compressor.recipe.model import DataRecipe, Recipe, TrainRecipe
    from compressor.report.contents import Bar, ErrorBar, Picture
    from compressor.tasks._compared import Compared
    from compressor.tasks._loss import TaskLoss
    from wire.manifest import Manifest

_UNFIT = {
    "search": "forms are compared by accuracy; write the steps and use `compressor run`",
    "retraining": "people label classes; add the new samples to the data set and run it",
}
"""What only a task of classes is fit for."""
Labels = NDArray[Any]
Floats = NDArray[np.float32]


class Targets(Protocol):
    """How targets are read, split and chosen for calibration."""

    def read(self, table: Table, data: DataRecipe) -> Table:
        """Return ``table``, as a data set gave it, with the targets of this task.

        Raises:
            DataError: If its labels can't be such targets.
        """

    def fitted(self, recipe: Recipe, table: Table, train: Table) -> Table:
        """Return ``table`` with what only the ``train`` rows may decide, such as the unit of its values.

        Raises:
            DataError: If these rows can't decide it.
        """

    def classes(self, labels: Labels) -> NDArray[np.int64] | None:
        """Return the class of each row, int64 (N,); None where a row has no single class."""

    def grouped(self, table: Table) -> tuple[Table, str]:
        """Return ``table`` with labels that are classes, for people to look at, and a note on how; "" for none."""

    def calibration(self, rows: Table, train: Table) -> list[Table]:
        """Return what ranges are learnt from: the calibration split, and what of ``train`` it needs beside it."""

    def check_calibration(self, tables: Sequence[Table]) -> None:
        """Check that the rows of ``tables`` can show the ranges of a model.

        Raises:
            DataError: If they can't.
        """


class Training(Protocol):
    """Losses and scores, on tensors."""

    def check(self, labels: Labels, outputs: int, what: str) -> None:
        """Check ``labels``, as ``Table.lessons``, against a network of so many ``outputs``; ``what`` names the rows.

        Raises:
            TrainError: If one can't be learnt.
        """

    def check_learnable(self, y: torch.Tensor) -> None:
        """Check that the labels ``y`` differ, so that there is something to learn.

        Raises:
            TrainError: If they don't.
        """

    def loss(self, settings: TrainRecipe, y: torch.Tensor, outputs: int) -> TaskLoss:
        """Return the loss that ``settings`` ask for, of labels ``y`` and a network of so many ``outputs``."""

    def goodness(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return the sum over rows of how good ``outputs`` are: of right answers, or of errors with a minus."""

    def loss_sum(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum over rows of the plain loss, by which equal goodness is told apart and gradients are taken."""

    def agreement(self, outputs: torch.Tensor, wanted: torch.Tensor) -> Mapping[str, float]:
        """Return the sums over rows of how near ``outputs`` are to a teacher's, by note; ``{}`` in it: when."""


class Judging(Protocol):
    """From predictions to figures and evidence. Pure; numpy."""

    def evidence(
        self, gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None,
        rules: Sequence[GateRecipe],
    ) -> Evidence:  # fmt: skip
        """Return the evidence of a gate set, and of a drifted set where there is one; ``rules`` say what is wanted."""

    def figures(self, gate_set: Compared, drifted: Compared | None) -> dict[str, float]:
        """Return the task's own figures, by the names of gates and certificate."""

    def device_figures(self, gate_set: Compared) -> dict[str, float]:
        """Return those of them that a device's answers are judged by."""

    def compared_figures(self, evidence: Evidence) -> dict[str, float]:
        """Return the figures that follow from the evidence: how much worse the candidate is, and its bound."""

    def differs(self, one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
        """Return which rows have another answer, bool (N,)."""

    def score(self, said: Predictions, labels: Labels) -> float:
        """Return how good ``said`` is, as ``Training.goodness``, a row."""

    def order(
        self, fitted: tuple[Predictions, Labels], judged: tuple[Predictions, Labels], names: tuple[str, ...]
    ) -> Reordered:
        """Return what another order of the outputs would give: found on ``fitted``, judged on ``judged``."""

    def parity(self, forms: Mapping[str, Floats]) -> tuple[Pair, ...]:
        """Return how far each two forms of one model are apart; each gave float32 (N, D) of the same inputs.

        Raises:
            MeasureError: If two forms differ in shape or there are no inputs.
        """

    def meaning(self, said: Floats, slack: float) -> str:
        """Return what an imported model's first output means where it is not what it seems: ``probability``, or ""."""

    def golden_rows(self, labels: Labels, said: Predictions, most: int) -> NDArray[np.int64]:
        """Return the rows, at most ``most``, whose answers a device must repeat."""

    def golden_reach(self, said: Floats) -> tuple[float, int]:
        """Return how far apart the outputs are that a tolerance is a share of, and how many flips show nothing."""

    def temperature(self, said: Floats, labels: Labels) -> float:
        """Return the temperature of the confidence that a device reports; 1 where there is none."""


class Reporting(Protocol):
    """What a report and a card show of the task alone."""

    def bar(self, name: str, said: Predictions, labels: Labels) -> Bar | ErrorBar:
        """Return how good one model is on one set, with bounds."""

    def answers(self, gate_set: Compared, names: tuple[str, ...]) -> Picture:
        """Return the picture of what the compressed model says against what is true."""

    def flips(self, gate_set: Compared) -> tuple[Flip, ...] | None:
        """Return the rows whose class compression changed; None of a task whose answers don't flip."""

    def tiles(self, figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
        """Return the figures that people ask for first: name, value, what is behind it."""

    def goodness(self, value: float) -> str:
        """Return what a step noted as its score, in words."""

    def purpose(self, manifest: Manifest, sense: str) -> str:
        """Return what a model does, as the end of "A network that"; ``sense``: what it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a model predicts, and all that follows from it.

    ``name``: as ``compressor.tasks.named`` finds it. ``folder``: the package with its four modules; ``parts``: modules
    in the place of some of them, by ``targets``, ``training``, ``evidence`` and ``report``.
    ``measure``: what its score is called in a word, ``score_name`` in full. ``headline``: the figures that compare two
    targets, the score first. ``recipes``: how messages call a recipe of it. ``outputs``, ``change``: the words of card
    and bill for what it gives, and for what a slice may lose. ``names_are``: the field of the manifest that has the
    names of its outputs, ``labels`` or ``values``. ``columns``: whether a sensor's table has its targets in columns of
    numbers.

    ``foreign``: keys of a recipe that are of other tasks, and whose they are; ``unread``: keys that nothing reads, and
    why (both as ``[table] key``). ``unfit``: what can't be done with it, by what is asked for, and what to do instead.

    ``device``: its half on a device, as ``edge_agent.tasks`` finds it. ``gates_of``: tasks whose gates it has as well.
    """

    name: str
    folder: str
    measure: str
    score_name: str
    headline: tuple[str, ...]
    recipes: str
    outputs: str
    change: str
    device: str
    names_are: str = "labels"
    columns: bool = False
    foreign: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=lambda: _UNFIT)
    gates_of: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def gates(self) -> tuple[str, ...]:
        """The tasks whose gates it has, as the rows of ``gates.kinds`` name them."""
        return (self.name, *self.gates_of)

    @property
    def targets(self) -> Targets:
        """How targets are read."""
        return cast("Targets", self._part("targets"))

    @property
    def training(self) -> Training:
        """Losses and scores; loads torch."""
        return cast("Training", self._part("training"))

    @property
    def judging(self) -> Judging:
        """Figures and evidence."""
        return cast("Judging", self._part("evidence"))

    @property
    def reporting(self) -> Reporting:
        """Pictures and words; loads plotly."""
        return cast("Reporting", self._part("report"))

    def code(self, part: str) -> str:
        """Return the module of ``part``, for the code that a stage depends on."""
        return self.parts.get(part, f"{self.folder}.{part}")

    def _part(self, part: str) -> object:
        return importlib.import_module(self.code(part))
