"""What a report shows of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from compressor.gates.certificate import Certificate
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
        """Where the bar's dot is: the accuracy in per cent."""
        return self.percent

    @property
    def said(self) -> str:
        """The value in words."""
        return f"{self.percent:.2f} %"

    @property
    def told(self) -> str:
        """Value, bounds and what is behind them."""
        low, high = self.bounds
        return f"{self.percent:.2f} %, {low:.2f} to {high:.2f} % ({self.right} of {self.n})"


@dataclass(frozen=True, slots=True)
class ErrorBar:
    """One regression's mean absolute error on a set of ``n``, in the values' unit, with two-sided 95 % ``bounds``."""

    name: str
    value: float
    bounds: tuple[float, float]
    n: int

    @property
    def said(self) -> str:
        """The value in words."""
        return f"{self.value:.4g}"

    @property
    def told(self) -> str:
        """Value, bounds and what is behind them."""
        return f"{self.value:.4g}, {self.bounds[0]:.4g} to {self.bounds[1]:.4g} ({self.n} samples)"


Bars = Sequence[Bar | ErrorBar]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture with its title; ``wide``: it takes the page's full width."""

    title: str
    figure: go.Figure
    wide: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """One flipped input: ``image`` uint8 (H, W, 3) as recorded, ``seen`` uint8 at the size of its saliency."""

    explained: Explained
    image: NDArray[np.uint8]
    seen: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What compression flipped on the gate split for ``target``: counts of all ``n``, pictures of the first ones."""

    target: str
    n: int
    flips: int
    lost: int
    won: int
    first: Sequence[Changed] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Layers:
    """Where the float and the compressed ONNX file of ``target`` part, in a sentence.

    ``suspicious``: the two disagree as a whole, so that the sentence is worth reading first.
    """

    target: str
    text: str
    suspicious: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What one step cost: pairs (before, after), None where it did not measure; ``notes``: the rest of what it noted.

    ``score``, in words: on the rows that judge the steps' own choices; ``macs`` of one inference, ``parameters``;
    ``size_bytes`` of the file; ``remark``: what these are when they are something else.
    """

    name: str
    score: tuple[str, str] | None = None
    macs: tuple[float, float] | None = None
    parameters: tuple[float, float] | None = None
    size_bytes: tuple[float, float] | None = None
    remark: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """All that is shown.

    ``accuracies`` in the order (release before,) float, compressed; ``drifted``: the same on drifted samples;
    ``slices``: the same per slice; ``measure``: what they are of, ``accuracy`` or another; ``answers``: what the
    compressed model says against what is true; ``tiles``: the figures that people ask for first, each a name, a value
    and what is behind it; ``headline``: the figures that compare targets; ``lineage``: digests of what
    the model was made from; ``made``: what was done, in words;
    ``targets``: the certificate of every target; ``pictured``: the one of the target that the pictures are of;
    ``changes``: what flipped; ``layers``: where forms part; ``steps``: what each step cost.
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
    layers: Layers | None = None
    steps: Sequence[Step] = field(default_factory=tuple)
    measure: str = "accuracy"
    tiles: Sequence[tuple[str, str, str]] = field(default_factory=tuple)
    headline: Sequence[str] = field(default_factory=tuple)
    pictured: Certificate | None = None
