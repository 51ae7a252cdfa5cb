"""The contents of a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from compressor.gates.certificate import Certificate
from compressor.measurement.noise_figures import OutputNoise
from compressor.measurement.parity import Pair
from compressor.measurement.saliency import Explained
from compressor.statistics.paired import wilson


@dataclass(frozen=True, slots=True)
class Bar:
    """One model's accuracy on one set: ``right`` of ``n``."""

    name: str
    right: int
    n: int

    @property
    def percent(self) -> float:
        """The accuracy in per cent."""
        return 100 * self.right / max(self.n, 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """The two-sided 95 % bounds in per cent. Source: Wilson 1927."""
        low, high = wilson(self.right, self.n, 0.95)
        return 100 * low, 100 * high

    @property
    def value(self) -> float:
        """The position of the bar's dot: the accuracy in per cent."""
        return self.percent

    @property
    def said(self) -> str:
        """The value as text."""
        return f"{self.percent:.2f} %"

    @property
    def told(self) -> str:
        """Value, bounds and number of samples."""
        low, high = self.bounds
        return f"{self.percent:.2f} %, {low:.2f} to {high:.2f} % ({self.right} of {self.n})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBar:
    """One model's mean absolute error on a set of ``n``, in the values' unit, with two-sided 95 % ``bounds``.

    ``what``: of a task with another score, its name.
    """

    name: str
    value: float
    bounds: tuple[float, float]
    n: int
    what: str = "mean absolute error"

    @property
    def said(self) -> str:
        """The value as text."""
        return f"{self.value:.4g}"

    @property
    def told(self) -> str:
        """Value, bounds and number of samples."""
        return f"{self.value:.4g}, {self.bounds[0]:.4g} to {self.bounds[1]:.4g} ({self.n} samples)"


Bars = Sequence[Bar | ErrorBar]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture with its title; ``wide``: it uses the page's full width."""

    title: str
    figure: go.Figure
    wide: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """One flipped input: ``image`` uint8 (H, W, 3) as recorded, ``seen`` uint8 at the size of its saliency."""

    explained: Explained
    image: NDArray[np.uint8]
    seen: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Changes:
    """Flips on the gate split for ``target``: counts of all ``n``, pictures of the first ones."""

    target: str
    n: int
    flips: int
    lost: int
    won: int
    first: Sequence[Changed] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Drawings:
    """Inputs with something drawn on them, for a task whose answers have a place in the input.

    ``text``: what changed in all; ``legend``: CSS colours by their meaning; ``pictures``: uint8 (H, W, 3) with a
    caption each, the worst first.
    """

    title: str
    text: str
    legend: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[tuple[NDArray[np.uint8], str]] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Layers:
    """The first layer at which the float and the compressed ONNX file of ``target`` diverge, as a sentence.

    ``suspicious``: the two disagree overall, so the sentence should be read first.
    """

    target: str
    text: str
    suspicious: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Cost of one step: pairs (before, after), None if not measured; ``notes``: its other notes.

    ``score``, as text: on the rows that judge the steps' own choices; ``macs`` of one inference, ``parameters``;
    ``size_bytes`` of the file; ``remark``: the meaning of these figures if it differs.
    """

    name: str
    score: tuple[str, str] | None = None
    macs: tuple[float, float] | None = None
    parameters: tuple[float, float] | None = None
    size_bytes: tuple[float, float] | None = None
    remark: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shown:
    """The contents of the report.

    ``accuracies`` in the order (release before,) float, compressed; ``drifted``: the same on drifted samples;
    ``slices``: the same per slice; ``measure``: the name of the score, such as ``accuracy``; ``answers``:
    predictions of the compressed model against the truth; ``tiles``: the most important figures, each a name, a
    value and its basis; ``headline``: the figures that compare targets; ``lineage``: digests of the inputs of the
    model; ``made``: the steps as text; ``targets``: the certificate of every target; ``pictured``: that of the
    target shown in the pictures; ``changes``: flips; ``drawings``: answers drawn on their inputs; ``layers``: where
    forms diverge; ``noise``: of each output, by target; ``steps``: the cost of each step.
    """

    certificate: Certificate
    class_names: tuple[str, ...]
    accuracies: Bars
    slices: Mapping[str, Bars]
    answers: Picture
    parity: Sequence[Pair]
    drifted: Bars = field(default_factory=tuple)
    lineage: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    targets: Sequence[Certificate] = field(default_factory=tuple)
    changes: Changes | None = None
    drawings: Drawings | None = None
    layers: Layers | None = None
    noise: Mapping[str, Sequence[OutputNoise]] = field(default_factory=dict)
    steps: Sequence[Step] = field(default_factory=tuple)
    measure: str = "accuracy"
    tiles: Sequence[tuple[str, str, str]] = field(default_factory=tuple)
    headline: Sequence[str] = field(default_factory=tuple)
    pictured: Certificate | None = None
