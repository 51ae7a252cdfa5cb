"""Classes without labels: a compressed classifier answers as its original does.

A run gives the rows the original's answers as labels. Nothing here says whether these are right.
"""

from __future__ import annotations

from compressor.tasks import WITHOUT_LABELS, Task
from compressor.tasks.classification import TASK as LABELLED

TASK = Task(
    name="unlabelled_classes",
    folder=__name__,
    measure="agreement",
    score_name="agreement with the original",
    headline=("agreement", "flip_ratio_upper"),
    recipes="of classes without labels",
    device=LABELLED.device,
    outputs=LABELLED.outputs,
    change="share of changed answers",
    foreign=LABELLED.foreign,
    unfit=WITHOUT_LABELS,
    parts={"training": LABELLED.code("training")},
)
