"""The report of a classifier without labels: agreement with the original, and what its answers became."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compressor.measurement.predictions import Compared
from compressor.measurement.saliency import Flip
from compressor.report import phrases
from compressor.report.contents import Picture
from compressor.tasks.classification.evidence import confusion
from compressor.tasks.classification.report import WIDE_FROM, bar, confusion_picture, goodness, purpose

__all__ = ["answers", "bar", "flips", "goodness", "purpose", "tiles"]


def answers(gate_set: Compared, names: tuple[str, ...]) -> Picture:
    """Return the answers of the compressed model against those of the original as a picture."""
    counts = confusion(gate_set.candidate, gate_set.float_model.classes, len(names))
    picture = confusion_picture(counts, names)
    picture.update_xaxes(title="compressed")
    picture.update_yaxes(title="original")
    return Picture("What the original's answers became (gate split)", picture, wide=len(names) >= WIDE_FROM)


def flips(gate_set: Compared) -> tuple[Flip, ...] | None:
    """Return None: without labels no change is one to the better or the worse; ``disagreements.tsv`` lists them."""
    del gate_set
    return None


def tiles(figures: Mapping[str, float]) -> Sequence[tuple[str, str, str]]:
    """Return the agreement, and the upper bound of the share of changed answers."""
    bounds = f"{100 * figures.get('agreement_low', 0):.1f} to {100 * figures.get('agreement_high', 1):.1f} %"
    return [
        ("answers as the original", phrases.percent(figures.get("agreement")),
         f"{bounds}; nothing says which is right"),
        ("other answers at most (95 %)", phrases.percent(figures.get("flip_ratio_upper")),
         f"measured {phrases.percent(figures.get('flip_ratio'))}"),
    ]  # fmt: skip
