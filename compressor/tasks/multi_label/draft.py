"""A first recipe of several labels: texts whose parts, between separators, come again in other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from compressor.gates.metrics import MIN_PICTURES
from compressor.statistics.bootstrap import Draws, label_f1_drop, label_precision_drop
from compressor.statistics.bounds import MetricEvidence
from compressor.tasks._drafting import (
    INT8_NOISE,
    DraftedParts,
    Facts,
    Key,
    WrittenLabels,
    margin_of_metric,
    network,
    planned,
    training,
)

RANGE_MARGIN = 0.0
CALIBRATION_SHARE = 0.1
"""The thresholds of the labels are chosen on the calibration rows."""
_SEPARATORS = ("|", ";", ",", "+")
_LEAST_DROP = 0.02
_APART = 3.0
"""Standard deviations between the scores of rows with and without a label: a mean average precision of about .9."""


def keys(seen: WrittenLabels) -> tuple[Key, ...]:
    """Return the task and its separator, if classes are texts of several labels that also come in other texts."""
    for separator in _SEPARATORS:
        joined = [name.split(separator) for name in seen.names if separator in name]
        if joined and _parts_repeat(seen.names, joined, separator):
            example = separator.join(joined[0])
            why = f"labels such as {example[:60]!r}: several, parted by {separator!r}, whose parts come in other rows"
            return (
                Key(name="task", value="multi_label", why=why),
                Key(name="separator", value=separator, why="between the labels of a row"),
            )
    return ()


def _parts_repeat(names: tuple[str, ...], joined: list[list[str]], separator: str) -> bool:
    """Return whether half of the labels are in more than one text, and none is empty or has blanks around it."""
    parts = [part for own in joined for part in own]
    if any(part != part.strip() or not part for part in parts) or any(len(set(own)) < len(own) for own in joined):
        return False
    if set(parts) <= {"0", "1"} or (separator == "," and all(part.lstrip("+-").isdigit() for part in parts)):
        return False  # flags, and numbers with a decimal comma
    often = Counter(part for name in names for part in name.split(separator))
    return 2 * sum(often[part] > 1 for part in set(parts)) >= len(set(parts))


def parts(facts: Facts) -> DraftedParts:
    """Return the parts of a recipe for the rows of ``facts``."""
    ranking, answers = _map_drop(facts), _f1_drop(facts)
    rarest = int(facts.table.labels.sum(axis=0).min())
    return DraftedParts(
        network=network(facts),
        train=(
            *training(facts, learning_rate=0.005),
            Key(name="class_weights", value="balanced", why=f"the rarest label has {rarest} rows"),
        ),
        gates=(
            Key(name="label_map_drop", value={"max": ranking[0]}, why=f"against the float model; {ranking[1]}"),
            Key(name="label_f1_drop", value={"max": answers[0]}, why=f"at the thresholds of the answer; {answers[1]}"),
        ),
        hints=(
            "map = {min = 0.8}  # what your use needs: a person knows it, the data do not",
            "worst_class_drop = {max = 0.1}  # of each label's recall: needs many gate rows of the rarest",
        ),
    )


def _map_drop(facts: Facts) -> tuple[float, str]:
    return _margin(facts, label_precision_drop)


def _f1_drop(facts: Facts) -> tuple[float, str]:
    middle = _APART / 2
    return _margin(
        facts, lambda labels, before, after, draws: label_f1_drop(labels, before > middle, after > middle, draws)
    )


def _margin(facts: Facts, drop: Callable[..., MetricEvidence]) -> tuple[float, str]:
    """Return the margin of the metric ``drop`` that rows with the labels of these show, and why."""
    rows = planned(facts.gate, MIN_PICTURES)

    def measured(rng: np.random.Generator, draws: Draws) -> MetricEvidence:
        labels = facts.table.labels[rng.integers(0, len(facts.table), rows)]
        before = rng.standard_normal(labels.shape) + _APART * labels
        return drop(labels, before, before + INT8_NOISE * rng.standard_normal(labels.shape), draws)

    name = f"{max(facts.gate, rows)} sources with labels as often as here"
    return margin_of_metric(measured, _LEAST_DROP, name, times=facts.gate / rows)
