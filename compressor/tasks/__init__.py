"""Tasks: what a model predicts, and everything that depends on it, in one object. The folder is the registry.

Decides the interface of a task, and the task of a recipe. Code outside this folder never compares with a task's name:
it uses the task's functions.

A task is a folder with a ``TASK`` and the modules ``targets``, ``training``, ``evidence``, ``report`` and, if a recipe
may name it, ``draft``, each with the functions of one protocol below. They are imported on use: only ``training`` needs
torch, only ``report`` plotly. The device half, in ``edge_agent/tasks``, computes the answer from the outputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from compressor import plugins
from compressor.errors import PluginError, RecipeError
from wire.settings import nearest

if TYPE_CHECKING:
    import torch

    from compressor.data._table import Table
    from compressor.gates import Reordered
    from compressor.gates.evidence import Evidence, GateRecipe
    from compressor.measurement.parity import Pair
    from compressor.measurement.predictions import Compared, Predictions
    from compressor.measurement.saliency import Flip
    from compressor.recipe.model import DataRecipe, Recipe, TrainRecipe
    from compressor.report.contents import Bar, ErrorBar, Picture
    from compressor.tasks._drafting import DraftedParts, Facts, Key, WrittenLabels
    from compressor.tasks._loss import TaskLoss
    from wire.manifest import Manifest

_OF_LABEL = {"number": "regression"}
"""The task of a ``[data] label``; any other is for classes."""
_OF_AXES = {1: "classification", 2: "regression", 3: "detection"}
"""The task of labels with so many axes, if none is named."""
_CLASSES = "classification"
_UNFIT = {
    "search": "forms are compared by accuracy; write the steps and use `compressor run`",
    "retraining": "people label classes; add the new samples to the data set and run it",
}
"""Operations that only a task with classes supports."""
WITHOUT_LABELS: Mapping[str, str] = {
    "search": "forms are compared by accuracy, which takes labels; write the steps and use `compressor run`",
    "retraining": "nothing is learnt without labels but the answers of the original",
}
"""The same for a task without labels."""
_UNLABELLED = {_CLASSES: "unlabelled_classes", "regression": "unlabelled_numbers"}
"""The task of the same outputs where no row has a label."""
UNLABELLED = frozenset(_UNLABELLED.values())
CAN_DO_WITHOUT = tuple(_UNLABELLED)
"""The tasks whose answers a teacher can give for inputs without labels."""
Labels = NDArray[Any]
Floats = NDArray[np.float32]


class Targets(Protocol):
    """How targets are read, split and chosen for calibration.

    A task that needs many rows for ranges also has ``few(tables) -> str``, a remark on calibration tables with fewer.
    """

    def read(self, table: Table, data: DataRecipe) -> Table:
        """Return ``table``, as loaded by a data set, with the targets of this task.

        Raises:
            DataError: If its labels can't be such targets.
        """

    def fitted(self, recipe: Recipe, table: Table, train: Table) -> Table:
        """Return ``table`` with everything that depends on the ``train`` rows only, such as the unit of its values.

        Raises:
            DataError: If these rows can't determine it.
        """

    def classes(self, labels: Labels) -> NDArray[np.int64] | None:
        """Return the class of each row, int64 (N,); None if a row has no single class."""

    def grouped(self, table: Table) -> tuple[Table, str]:
        """Return ``table`` with classes as labels, for people to look at, and a note on how; "" for none."""

    def calibration(self, rows: Table, train: Table) -> list[Table]:
        """Return the tables for calibration: the calibration split, and additional rows of ``train`` if needed."""

    def check_calibration(self, tables: Sequence[Table]) -> None:
        """Check that the rows of ``tables`` are sufficient to calibrate a model.

        Raises:
            DataError: If they are not.
        """


class Training(Protocol):
    """Losses and scores, on tensors.

    A task whose targets have a place in the input also has ``augmented(x, y, drawn, flips) -> (x, y)``, which moves
    both. One whose outputs are compared with the input itself has ``aims(x, y, outputs) -> targets``, for ``goodness``
    and ``loss_sum``.
    """

    def check(self, labels: Labels, outputs: int, what: str) -> None:
        """Check ``labels``, as in ``Table.lessons``, for a network with ``outputs`` outputs; ``what`` names the rows.

        Raises:
            TrainError: If one can't be learned.
        """

    def check_learnable(self, y: torch.Tensor) -> None:
        """Check that the labels ``y`` differ, so that there is something to learn.

        Raises:
            TrainError: If they don't.
        """

    def loss(self, settings: TrainRecipe, y: torch.Tensor, outputs: int) -> TaskLoss:
        """Return the loss of ``settings`` for labels ``y`` and a network with ``outputs`` outputs."""

    def goodness(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return the sum over rows of the score of ``outputs``: correct predictions, or negated errors."""

    def loss_sum(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum over rows of the plain loss, which breaks ties of goodness and gives gradients."""

    def agreement(self, outputs: torch.Tensor, wanted: torch.Tensor) -> Mapping[str, float]:
        """Return sums over rows of the agreement of ``outputs`` with a teacher's, by note; ``{}`` in it: when."""


class Judging(Protocol):
    """From predictions to figures and evidence. Pure; numpy.

    A task with a threshold for a stated number of false alarms also has ``threshold(said, sources, alarm) -> float``
    in the place of ``temperature``, and ``threshold_figures`` with the same arguments: what the threshold rests on.

    A task whose outputs have a threshold each also has ``thresholds(said, labels) -> tuple[float, ...]``, which fits
    them on calibration rows.
    """

    def evidence(
        self, gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None,
        rules: Sequence[GateRecipe],
    ) -> Evidence:  # fmt: skip
        """Return the evidence of a gate set, and of a drifted set if there is one; ``rules`` name what is needed."""

    def figures(self, gate_set: Compared, drifted: Compared | None) -> dict[str, float]:
        """Return the task's own figures, by the names used in gates and certificate."""

    def device_figures(self, gate_set: Compared) -> dict[str, float]:
        """Return those of them by which a device's answers are judged."""

    def compared_figures(self, evidence: Evidence) -> dict[str, float]:
        """Return the figures computed from the evidence: how much worse the candidate is, and its bound."""

    def differs(self, one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
        """Return which rows have different answers, bool (N,)."""

    def score(self, said: Predictions, labels: Labels) -> float:
        """Return the score of ``said``, as in ``Training.goodness``, per row."""

    def order(
        self, fitted: tuple[Predictions, Labels], judged: tuple[Predictions, Labels], names: tuple[str, ...]
    ) -> Reordered:
        """Return the effect of another order of the outputs: found on ``fitted``, judged on ``judged``."""

    def parity(self, forms: Mapping[str, Floats]) -> tuple[Pair, ...]:
        """Return the difference of every two forms of one model; each gave float32 (N, D) for the same inputs.

        Raises:
            MeasureError: If two forms differ in shape or there are no inputs.
        """

    def meaning(self, said: Floats, slack: float) -> str:
        """Return the meaning of an imported model's first output, as in a manifest; "" if it is the usual one."""

    def golden_rows(self, labels: Labels, said: Predictions, most: int) -> NDArray[np.int64]:
        """Return the rows, at most ``most``, whose answers a device must reproduce."""

    def golden_reach(self, said: Floats) -> tuple[float, int]:
        """Return the range of outputs to which a tolerance is relative, and how many flips are allowed."""

    def temperature(self, said: Floats, labels: Labels) -> float:
        """Return the temperature of the confidence that a device reports; 1 if there is none.

        Of a task with a decoder it is the threshold: a box with a lower score is no answer. A task whose threshold
        depends on how answers are smoothed has ``event_threshold(said, labels)`` as well, with ``said: Predictions``.
        """


class Reporting(Protocol):
    """The parts of a report and a card that depend on the task.

    A task whose answers have a place in the input also has ``drawings(gate_set, image_of, names) -> Drawings``, which
    draws them on some inputs.
    """

    def bar(self, name: str, said: Predictions, labels: Labels) -> Bar | ErrorBar:
        """Return the score of one model on one set, with bounds."""

    def answers(self, gate_set: Compared, names: tuple[str, ...]) -> Picture:
        """Return the picture of the compressed model's predictions against the truth."""

    def flips(self, gate_set: Compared) -> tuple[Flip, ...] | None:
        """Return the rows whose class compression changed; None for a task whose answers don't flip."""

    def tiles(self, figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
        """Return the most important figures: name, value, basis."""

    def goodness(self, value: float) -> str:
        """Return the score noted by a step, as text."""

    def purpose(self, manifest: Manifest, sense: str) -> str:
        """Return what a model does, as the end of "A network that"; ``sense``: its kind of input."""


class Drafting(Protocol):
    """What a first recipe says of the task (``compressor init``).

    ``CALIBRATION_SHARE``: of the sources, at least. ``RANGE_MARGIN``: by this part the ranges of numbers are wider, on
    both sides, than nearly all train rows need.
    """

    RANGE_MARGIN: float
    CALIBRATION_SHARE: float

    def keys(self, seen: WrittenLabels) -> tuple[Key, ...]:
        """Return the keys of ``[data]`` by which rows with such labels are of this task; () if they hardly are."""

    def parts(self, facts: Facts) -> DraftedParts:
        """Return the task's parts of a recipe for the rows of ``facts``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a model predicts, and everything that depends on it.

    ``name``: the name for ``compressor.tasks.named``. ``folder``: the package with its modules; ``parts``: modules that
    replace some of them, by ``targets``, ``training``, ``evidence``, ``report`` and ``draft``.
    ``measure``: its score as one word, ``score_name`` in full. ``headline``: the figures that compare two targets, the
    score first. ``recipes``: how messages call its recipes. ``outputs``, ``change``: the words of card and bill for its
    outputs, and for the loss of a slice. ``names_are``: the field of the manifest with the names of its outputs,
    ``labels`` or ``values``. ``columns``: whether a sensor's table has its targets in columns of numbers.

    ``foreign``: keys of a recipe that belong to other tasks, and to which; ``unread``: keys that are not read, and why
    (both as ``[table] key``). ``unfit``: operations that it does not support, with the alternative.

    ``device``: the name of its device half for ``edge_agent.tasks``. ``gates_of``: tasks whose gates it also has.
    ``decoder``: the file of ``edge_agent/decoders`` that makes predictions of the outputs of a network of ours; "":
    predictions are outputs. ``own``: keys of a recipe that only this task reads. ``whole_sources``: whether the gate
    split keeps all rows of a source, because their course in time is judged; otherwise one of each. ``several``:
    whether a row may have several labels or none, so that a data set passes on what its row says, ``cat|dog`` or
    nothing. ``probability``: the meaning of outputs that are probabilities, in a manifest.
    ``smoother``: the kind of ``[smoothing]`` that its answers need; "": any or none. With one, the number that
    ``temperature`` fits is a threshold of the smoothed answers, and no other task has this kind.
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
    decoder: str = ""
    own: tuple[str, ...] = ()
    whole_sources: bool = False
    several: bool = False
    probability: str = "probability"
    smoother: str = ""

    @property
    def by_columns(self) -> bool:
        """Whether the label of a row is a column each: numbers to predict, or several labels of 0 and 1."""
        return self.columns or self.several

    @property
    def scored(self) -> bool:
        """Whether its predictions are scores that a decoder makes of a network's outputs and its input."""
        from edge_agent import decoders  # noqa: PLC0415 - a task is named where no decoder is needed

        return bool(self.decoder) and self.decoder not in decoders.of_boxes()

    @property
    def gates(self) -> tuple[str, ...]:
        """The tasks whose gates it has, by their names in the rows of ``gates.kinds``."""
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
        """Pictures and texts; loads plotly."""
        return cast("Reporting", self._part("report"))

    @property
    def drafting(self) -> Drafting:
        """What a first recipe says."""
        return cast("Drafting", self._part("draft"))

    def code(self, part: str) -> str:
        """Return the module of ``part``, for the code that a stage depends on."""
        return self.parts.get(part, f"{self.folder}.{part}")

    def _part(self, part: str) -> object:
        return importlib.import_module(self.code(part))


def aims(task: Task, x: torch.Tensor, y: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Return what ``outputs`` of ``task`` for inputs ``x`` are judged against: the labels ``y``, or its own aims."""
    own = getattr(task.training, "aims", None)
    return y if own is None else cast("torch.Tensor", own(x, y, outputs))


def known() -> tuple[str, ...]:
    """Return the names of the tasks in this folder that a recipe may name; those without labels stand in for them."""
    return tuple(name for name in plugins.names(__name__) if name not in UNLABELLED)


def of(data: DataRecipe) -> Task:
    """Return the task of a recipe with this ``[data]``.

    Raises:
        PluginError: If ``[data] task`` names none.
    """
    name = data.task or _OF_LABEL.get(data.label, _CLASSES)
    return named(name if data.labelled else _UNLABELLED.get(name, name))


def check(data: DataRecipe) -> None:
    """Check that ``[data] task`` names a task, and that it allows ``[data] label``.

    Raises:
        RecipeError: If it does not; the known tasks are named.
    """
    if not data.task:
        return
    if ":" not in data.task and data.task not in known():
        message = f"Expected [data] task to be {' or '.join(known())}, or 'module:attribute', got {data.task!r}"
        raise RecipeError(message + nearest(data.task, known()))
    if not data.labelled and data.task not in _UNLABELLED:
        message = f"Expected no [data] task = {data.task!r} with inputs without labels, got it"
        raise RecipeError(f"{message}: only {' and '.join(_UNLABELLED)} can do without")
    said = _OF_LABEL.get(data.label, data.task)
    if said != data.task:
        message = f"Expected [data] label = 'exact' or 'floor' with task = {data.task!r}, got {data.label!r}"
        raise RecipeError(f"{message}, which is of {said}: leave one of the two out")
    try:
        named(data.task)
    except PluginError as error:
        message = f"[data] task: {error}"
        raise RecipeError(message) from error


def of_labels(labels: NDArray[Any], name: str = "") -> Task:
    """Return the task ``name``; without a name that of the labels' shape: class indices (N,), numbers (N, D), or boxes.

    Raises:
        PluginError: If the task is unknown.
    """
    return named(name or _OF_AXES.get(labels.ndim, _CLASSES))


class _Labelled(Protocol):
    """Rows with labels, and the name of their task, if it is not that of such labels."""

    @property
    def labels(self) -> NDArray[Any]: ...

    @property
    def task(self) -> str: ...


def of_rows(rows: _Labelled) -> Task:
    """Return the task of labelled rows.

    Raises:
        PluginError: If there is no such task.
    """
    return of_labels(rows.labels, rows.task)


def named(name: str) -> Task:
    """Return the task ``name``: a folder beside this file, or ``module:attribute`` from outside.

    Raises:
        PluginError: If the task is unknown, a package it needs is missing, or the object is not a ``Task``.
    """
    if ":" not in name and name not in {*known(), *UNLABELLED}:
        message = f"Expected a task of {', '.join(known())} or 'package.module:attribute', got {name!r}"
        raise PluginError(message + nearest(name, known()))
    found = plugins.attribute(name if ":" in name else f"{__name__}.{name}:TASK")
    if not isinstance(found, Task):
        message = f"Expected a compressor.tasks.Task as {name!r}, got {type(found).__name__}"
        raise PluginError(message)
    return found
