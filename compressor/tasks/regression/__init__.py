"""Regression: each input has one or more numbers, in their own unit."""

from __future__ import annotations

from compressor.tasks import Task

_OF_CLASSES = "a recipe of classes"

TASK = Task(
    name="regression",
    folder=__name__,
    measure="error",
    score_name="mean absolute error",
    headline=("mae", "error_increase_upper"),
    recipes="of numbers ([data] label = 'number')",
    device="regression",
    outputs="values",
    change="increase of the mean absolute error",
    names_are="values",
    columns=True,
    foreign={
        "[train] flips": "a detection ([data] task = 'detection')",
        "[model] labels": _OF_CLASSES,
        "[model] outputs": _OF_CLASSES,
        "[train] class_weights": _OF_CLASSES,
        "[[compress]] rescue": _OF_CLASSES,
    },
    unread={
        "[train] label_smoothing": "of a regression",
        "[[compress]] distill temperature": "of a regression, which has no softmax",
    },
)
