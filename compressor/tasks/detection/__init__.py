"""Detection: each picture has any number of boxes, each of one class."""

from __future__ import annotations

from compressor.tasks import Task

_OF_CLASSES = "a recipe of classes"
_OF_NUMBERS = "a regression ([data] label = 'number')"
_ONE_ANSWER = "a recipe with one answer for each input"

TASK = Task(
    name="detection",
    folder=__name__,
    measure="F1",
    score_name="F1 at an overlap of 0.5",
    headline=("map", "detection_map_drop_upper"),
    recipes="of boxes ([data] task = 'detection')",
    device="detection",
    outputs="boxes",
    change="drop of mAP",
    decoder="centres",
    foreign={
        "[train] class_weights": _OF_CLASSES,
        "[train] loss": _OF_NUMBERS,
        "[train] mixup": _ONE_ANSWER,
        "[train] cutmix": _ONE_ANSWER,
        "[data] target_mean": _OF_NUMBERS,
        "[data] target_std": _OF_NUMBERS,
        "[data] resize = 'centre_crop'": _ONE_ANSWER,  # objects would be cut off
        "[smoothing] kind": _ONE_ANSWER,
        "[[compress]] rescue": _OF_CLASSES,
    },
    unread={
        "[train] label_smoothing": "of a detection",
        "[[compress]] distill temperature": "of a detection, whose scores have no softmax",
    },
)
