"""Numbers without labels: a compressed regression answers as its original does."""

from __future__ import annotations

from compressor.tasks import WITHOUT_LABELS, Task
from compressor.tasks.regression import TASK as LABELLED

TASK = Task(
    name="unlabelled_numbers",
    folder=__name__,
    measure=LABELLED.measure,
    score_name="mean absolute difference from the original",
    headline=("value_change", "value_change_upper"),
    recipes="of numbers without labels",
    device=LABELLED.device,
    outputs=LABELLED.outputs,
    change="mean absolute difference",
    names_are=LABELLED.names_are,
    foreign={place: whose for place, whose in LABELLED.foreign.items() if place != "[model] labels"},
    unread=LABELLED.unread,
    unfit=WITHOUT_LABELS,
    parts={"training": LABELLED.code("training")},
)
