"""Classification: each input has one class of several."""

from __future__ import annotations

from compressor.tasks import Task

_OF_BOXES = "a detection ([data] task = 'detection')"
_OWN = "a regression ([data] label = 'number')"

TASK = Task(
    name="classification",
    folder=__name__,
    measure="accuracy",
    score_name="accuracy",
    headline=("accuracy", "drop_upper"),
    recipes="of classes",
    device="classification",
    outputs="class scores",
    change="drop in accuracy",
    unfit={},
    foreign={"[train] flips": _OF_BOXES, "[train] loss": _OWN, "[data] target_mean": _OWN, "[data] target_std": _OWN},
)
