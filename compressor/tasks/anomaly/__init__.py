"""Anomaly: how unlike the normal rows an input is, learned from normal rows alone, with a threshold for alarms."""

from __future__ import annotations

from compressor.tasks import Task

_OF_CLASSES = "a recipe of classes"
_OF_NUMBERS = "a regression ([data] label = 'number')"
_NO_END = "a recipe of another task (for anomalies give an ONNX file: it may need another end)"
_OF_LABELS = "a recipe whose rows have labels to learn"

TASK = Task(
    name="anomaly",
    folder=__name__,
    measure="residual",
    score_name="root mean squared residual",
    headline=("auc", "auc_drop_upper"),
    recipes="of anomalies ([data] task = 'anomaly')",
    device="anomaly",
    outputs="scores",
    change="drop of the AUC",
    decoder="residual",
    own=("[data] normal", "[alarm] false_alarms_per_day", "[alarm] interval_s", "[alarm] gap_s", "[alarm] confidence"),
    whole_sources=True,
    foreign={
        "[model] tflite": _NO_END,
        "[model] labels": _OF_CLASSES,
        "[train] flips": "a detection ([data] task = 'detection')",
        "[train] class_weights": _OF_CLASSES,
        "[train] loss": _OF_NUMBERS,
        "[train] mixup": _OF_LABELS,
        "[train] cutmix": _OF_LABELS,
        "[data] target_mean": _OF_NUMBERS,
        "[data] target_std": _OF_NUMBERS,
        "[smoothing] kind": "a recipe whose answers may wait for further inputs",
        "[[compress]] rescue": _OF_CLASSES,
    },
    unread={
        "[train] label_smoothing": "of a recipe of anomalies",
        "[[compress]] distill temperature": "of a recipe of anomalies, whose outputs have no softmax",
    },
)
