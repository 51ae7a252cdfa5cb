"""A first recipe of numbers: labels that are all numbers, and few rows of each."""

from __future__ import annotations

import math

import numpy as np

from compressor.gates.metrics import MIN_SAMPLES
from compressor.statistics.bootstrap import Draws, error_increase
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
CALIBRATION_SHARE = 0.0
_NUMBERS_FROM = 20
_FEW_ROWS = 10
_LEAST_INCREASE = 0.05
_ERROR = 0.3
"""Mean absolute error of the float model, in standard deviations of the labels: with tails (Laplace)."""


def keys(seen: WrittenLabels) -> tuple[Key, ...]:
    """Return that labels are numbers to predict, if there are many different ones and few rows of each."""
    if len(seen.names) <= max(_NUMBERS_FROM, len(seen.texts) // _FEW_ROWS):
        return ()
    try:
        numbers = all(math.isfinite(float(name)) for name in seen.names)
    except ValueError:
        return ()
    count = f"{len(seen.names)} different ones in {len(seen.texts)} rows"
    return (Key(name="label", value="number", why=f"the labels are numbers, {count}: they are predicted"),) * numbers


def parts(facts: Facts) -> DraftedParts:
    """Return the parts of a recipe for the rows of ``facts``."""
    spread = float(np.std(facts.table.labels, axis=0).mean())
    share, why = _increase(facts)
    limit = float(f"{share * spread:.2g}") or 0.01
    return DraftedParts(
        network=network(facts),
        train=training(facts),
        gates=(
            Key(name="error_increase", value={"max": limit}, why=f"{share:g} of the labels' standard deviation; {why}"),
        ),
        hints=("mae = {max = ...}  # the error that your use allows, in the unit of the labels",),
        labels=False,
    )


def _increase(facts: Facts) -> tuple[float, str]:
    """Return the increase of the error that so many sources show, in standard deviations of the labels, and why."""
    rows = planned(facts.gate, MIN_SAMPLES)

    def measured(rng: np.random.Generator, draws: Draws) -> MetricEvidence:
        before = rng.laplace(scale=_ERROR, size=rows)
        return error_increase(np.zeros(rows), before, before + INT8_NOISE * rng.standard_normal(rows), draws)

    name = f"{max(facts.gate, rows)} sources, an error of {_ERROR:g}"
    return margin_of_metric(measured, _LEAST_INCREASE, name, times=facts.gate / rows)
