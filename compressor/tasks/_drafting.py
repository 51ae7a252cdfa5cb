"""What the tasks share when they draft a first recipe: keys with reasons, facts about the data, margins, networks.

Decides which margin so many independent rows can show, and which network suits which kind of input. Every value has a
reason, which becomes a comment of the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compressor.data._table import Table, Texts, sort_classes
from compressor.statistics.bootstrap import Draws
from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.power import POWER, samples_for

MARGINS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2)
"""Drops in accuracy that a gate may allow: the smallest that the rows can show is taken, the last if they show none."""
DISCORDANCE = 0.04
"""Share of rows that exactly one of the float and the int8 model gets right, measured on meter digits: 3.8 %."""
FIRST_LOOK = 0.9
"""Part of the risk that the first look at a gate split has (``gates.looks``)."""
FIRST_CONFIDENCE = 1 - 0.05 * FIRST_LOOK
INT8_NOISE = 0.1
"""What int8 adds to a score, in its standard deviations: 20 dB, as a file that is not noisy has."""
_TRIALS, _REPLICATES = 10, 500
BATCHES = 3_000
"""Of a training: enough for the recipes under ``models/``."""
SMALL = 2_000
_NORMAL = frozenset({"good", "ok", "okay", "normal", "nominal", "healthy", "intact", "pass", "passed", "io", "fine"})
_SIDE_OF_SMALL_NETWORK = 64
_STEM_STRIDE_FROM = 32
_LONGEST = 120
UNSHOWN = "expect INCONCLUSIVE, label more"
"""Part of the reason of a gate whose margin the rows at hand are too few to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a recipe with its value and the reason for it."""

    name: str
    value: object
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WrittenLabels:
    """The labels of N rows as they are written, before anybody has said which task they are of.

    ``texts``: str (N,), empty where a row has none. ``sources``: str (N,). ``told``: the split that the data set gives,
    str (N,), or None.
    """

    texts: Texts
    sources: Texts
    told: Texts | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The different texts, in the order of classes."""
        return sort_classes(set(self.texts.tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the data are: the table as the task reads it, the kind of input, and how many judge.

    ``kind``: ``image``, ``sound``, ``window``, ``stroke`` or ``row`` (of features). ``train``: rows to learn from.
    ``gate``: independent samples in the gate split; ``smallest``: in the gate split of the slice with the fewest.
    ``sliced``: whether the recipe names slices. ``options``: of ``[data]``. ``calibration``: rows in its split.
    ``interval_s``: seconds from one row to the next of its source, 0 if the data don't say them.
    """

    table: Table
    kind: str
    width: int
    height: int
    train: int
    gate: int
    smallest: int
    sliced: bool = False
    options: Mapping[str, float] = field(default_factory=dict)
    calibration: int = 0
    interval_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftedParts:
    """The parts of a recipe that a task drafts: keys of ``[model]``, ``[train]`` and ``[gates]``, and whole tables.

    ``hints``: lines of a comment in ``[gates]`` about what only a person knows. ``notes``: lines of a comment at the
    top, such as what else the data may be. ``labels``: whether ``[model] labels`` names the classes. ``remarks``: what
    a person should know before the recipe is run.
    """

    network: tuple[Key, ...]
    train: tuple[Key, ...]
    gates: tuple[Key, ...]
    hints: tuple[str, ...] = ()
    tables: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    labels: bool = True
    remarks: tuple[str, ...] = ()


def normal_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the classes ``names`` whose words say that nothing is wrong, as inspections call them."""
    return tuple(name for name in names if name.strip().casefold() in _NORMAL)


def margin_for(count: int, of: str = "sources") -> tuple[float, str]:
    """Return the smallest margin that ``count`` independent pairs can show, and why; ``of``: what they are.

    If they can show none of ``MARGINS``, it is the largest, and the reason has ``UNSHOWN``.
    """
    confidence = FIRST_CONFIDENCE
    needed = {margin: samples_for(margin, DISCORDANCE, confidence=confidence) for margin in MARGINS}
    margin = next((one for one in MARGINS if needed[one] <= count), MARGINS[-1])
    equal = f"at {100 * DISCORDANCE:g} % discordance an equal model passes with {100 * POWER:.0f} % power"
    if needed[margin] > count:
        return margin, f"{count} {of} judge, {needed[margin]} would show this: {UNSHOWN}"
    below = [one for one in MARGINS if one < margin]
    more = f"; {100 * below[-1]:g} points need {needed[below[-1]]}" if below else ""
    return margin, f"{count} {of} judge: {equal}{more}"


def margin_of_metric(
    measured: Callable[[np.random.Generator, Draws], MetricEvidence], least: float, name: str, *, times: float = 1.0
) -> tuple[float, str]:  # fmt: skip
    """Return the smallest margin that the gate shows of a file without loss, by the gate's own bound, and why.

    Args:
        measured: Draws a gate split of ``planned`` rows with an equal model and the noise of int8; its evidence.
        least: The smallest margin that is drafted.
        name: What the rows are, in the reason.
        times: So many times as many rows there are as ``measured`` draws; a bound falls with the root of it at least.
    """
    draws = Draws(FIRST_CONFIDENCE, _REPLICATES)
    bounds = sorted(measured(np.random.default_rng(seed), draws).upper for seed in range(_TRIALS))
    bound = bounds[math.ceil(POWER * _TRIALS) - 1] / math.sqrt(max(1.0, times))
    margin = next((one for one in MARGINS if one >= max(least, bound)), MARGINS[-1])
    shown = f"{name}: the bound of an int8 file without loss is, in {100 * POWER:.0f} % of drawn splits like this,"
    if bound > MARGINS[-1]:
        return margin, f"{shown} {bound:.2g}, above every sensible margin: {UNSHOWN}"
    return margin, f"{shown} {bound:.2g} at most"


def planned(rows: int, least: int, most: int = 400) -> int:
    """Return for how many rows a margin is computed: those at hand, from the ``least`` of the gate to ``most``."""
    return min(max(rows, least), most)


def network(facts: Facts) -> tuple[Key, ...]:
    """Return the network that answers once for an input of the kind of ``facts``."""
    if facts.kind == "row":
        return (Key(name="network", value="mlp", why="features of a row have no order: each has weights of its own"),)
    if facts.kind == "sound":
        return (
            Key(name="network", value="ds_cnn", why="made for spectrograms (MLPerf Tiny, keyword spotting)"),
            Key(name="network_options", value={"filters": 32}, why="half the width of the original"),
        )
    if facts.kind == "window":
        why = "keeps the place in the window, which a mean over it would lose"
        return (Key(name="network", value="window_cnn", why=why),)
    side = min(facts.width, facts.height)
    if side > _SIDE_OF_SMALL_NETWORK:
        why = f"for more than {_SIDE_OF_SMALL_NETWORK} pixels a side"
        return (
            Key(name="network", value="mobilenet_v2", why=why),
            Key(name="network_options", value={"width_mult": 0.35}, why="the narrowest of the usual ones"),
        )
    why = f"up to {_SIDE_OF_SMALL_NETWORK} pixels a side (MLPerf Tiny, image classification)"
    options = {"filters": 16, "stem_stride": 2 if side >= _STEM_STRIDE_FROM else 1}
    return (
        Key(name="network", value="resnet8", why=why),
        Key(name="network_options", value=options, why="a stride of 2 in front quarters the work"),
    )


def training(facts: Facts, *, batch: int = 0, learning_rate: float = 0.0) -> tuple[Key, ...]:
    """Return the keys of a training; ``batch``: rows in each, 0: by their number; ``learning_rate``, 0: by the kind."""
    size = batch or (64 if facts.train >= SMALL else 32)
    fits = "as the recipe under models/" if batch else f"{'more' if size > 32 else 'fewer'} than {SMALL} train rows"  # noqa: PLR2004 - the smaller one
    epochs = min(_LONGEST if batch else 60, max(10, round(BATCHES * size / max(1, facts.train))))
    augment = {"image": 1.0, "sound": 0.5, "stroke": 1.0}.get(facts.kind, 0.0)
    peak = learning_rate or (0.005 if facts.kind == "row" else 0.01)
    why = "mild geometry and light" if augment else "numbers shifted or dimmed would be others"
    return (
        Key(name="epochs", value=epochs, why=f"about {BATCHES} batches of {facts.train} train rows"),
        Key(name="batch", value=size, why=fits),
        Key(name="learning_rate", value=peak, why="peak of one cycle; a tenth if the loss jumps"),
        Key(name="augment", value=augment, why=why),
    )
