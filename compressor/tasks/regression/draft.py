"""A first recipe of numbers: labels that are all numbers, and few rows of each."""

from __future__ import annotations

import math

import numpy as np

from compressor.tasks._drafting import DraftedParts, Facts, Key, WrittenLabels, network, training

RANGE_MARGIN = 0.0
CALIBRATION_SHARE = 0.0
_NUMBERS_FROM = 20
_FEW_ROWS = 10


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
    limit = float(f"{0.05 * spread:.2g}") or 0.01
    why = "a twentieth of the labels' standard deviation"
    return DraftedParts(
        network=network(facts),
        train=training(facts),
        gates=(Key(name="error_increase", value={"max": limit}, why=why),),
        hints=("mae = {max = ...}  # the error that your use allows, in the unit of the labels",),
        labels=False,
    )
