"""Multi-label: each input has several labels of a list, or none."""

from __future__ import annotations

from compressor.tasks import Task

_OF_CLASSES = "a recipe of classes"
_OF_NUMBERS = "a regression ([data] label = 'number')"
_OF_BOXES = "a detection ([data] task = 'detection')"
_ONE_ANSWER = "a recipe with one answer for each input"

TASK = Task(
    name="multi_label",
    folder=__name__,
    measure="F1",
    score_name="mean F1 of the rows",
    headline=("f1", "label_f1_drop_upper"),
    recipes="of several labels ([data] task = 'multi_label')",
    device="multi_label",
    outputs="label scores",
    change="drop of F1",
    several=True,
    own=("[data] separator", "[data] label_columns"),
    probability="sigmoid",
    foreign={
        "[train] loss": _OF_NUMBERS,
        "[train] mixup": _ONE_ANSWER,
        "[train] cutmix": _ONE_ANSWER,
        "[train] flips": _OF_BOXES,
        "[data] target_mean": _OF_NUMBERS,
        "[data] target_std": _OF_NUMBERS,
        "[smoothing] kind": _ONE_ANSWER,
        "[[compress]] rescue": _OF_CLASSES,
    },
)
