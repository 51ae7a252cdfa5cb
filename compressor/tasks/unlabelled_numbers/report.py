"""The report of a regression without labels: its values against those of the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compressor.gates.agreement import CHANGE
from compressor.measurement.predictions import Compared
from compressor.report import phrases
from compressor.report.contents import Picture
from compressor.tasks.regression import report as labelled
from compressor.tasks.regression.report import bar, flips, goodness, purpose

__all__ = ["answers", "bar", "flips", "goodness", "purpose", "tiles"]


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return the values of the compressed model against those of the original: on the diagonal they are equal."""
    drawn = labelled.answers(replace(gate_set, labels=gate_set.float_model.logits), names)
    drawn.figure.update_xaxes(title="original")
    drawn.figure.update_yaxes(title="compressed")
    return replace(drawn, title="Compressed against original (gate split)")


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return the difference from the original and its upper bound."""
    said = [phrases.figure(name, figures.get(name)) for name in (CHANGE, f"{CHANGE}_upper", f"{CHANGE}_max")]
    mean, upper, largest = said
    return [
        ("mean difference from the original", mean, f"largest {largest}; nothing says which is right"),
        ("difference at most (95 %)", upper, f"measured {mean}"),
    ]
