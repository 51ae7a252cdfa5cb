"""A first recipe of classes: whatever no other task claims."""

from __future__ import annotations

from compressor.tasks._drafting import (
    DraftedParts,
    Facts,
    Key,
    WrittenLabels,
    margin_for,
    network,
    normal_names,
    training,
)

RANGE_MARGIN = 0.0
CALIBRATION_SHARE = 0.0


def keys(seen: WrittenLabels) -> tuple[Key, ...]:
    """Return nothing: rows are of classes if no other task claims them."""
    del seen
    return ()


def _notes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return what else the data may be: rows of which some are normal."""
    usual = normal_names(names)
    if not usual or len(usual) == len(names):
        return ()
    listed = ", ".join(f'"{name}"' for name in usual)
    return (
        f'Possible too: [data] task = "anomaly", normal = [{listed}], with network = "auto_encoder", augment = 0.0,',
        "[alarm] and its gates (docs/how-to/find-anomalies.md), without labels. A classifier tells the kinds that it",
        "has learnt, and there are enough rows of them; an anomaly score also tells what nobody has shown it.",
    )


def parts(facts: Facts) -> DraftedParts:
    """Return the parts of a recipe for the rows of ``facts``."""
    margin, why = margin_for(facts.gate)
    gates = [
        Key(name="accuracy_drop", value={"max": margin, "confidence": 0.95}, why=f"against the float model; {why}")
    ]
    if facts.sliced:
        by_slice, why = margin_for(facts.smallest)
        gates.append(
            Key(name="worst_slice_drop", value={"max": by_slice}, why=f"the slice with the fewest rows: {why}")
        )
    return DraftedParts(
        network=network(facts),
        train=training(facts),
        gates=tuple(gates),
        notes=_notes(facts.table.class_names),
        hints=("accuracy = {min = 0.9}  # what your use needs: a person knows it, the data do not",),
    )
