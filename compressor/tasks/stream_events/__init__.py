"""Events in streams: long recordings in which some kinds of event happen, such as keywords or sounds.

A network tells for each window whether it holds an event; a smoother makes events of the windows; events are judged.
"""

from __future__ import annotations

from compressor.tasks import Task

_OF_CLASSES = "a recipe of classes"
_OF_NUMBERS = "a regression ([data] label = 'number')"

TASK = Task(
    name="stream_events",
    folder=__name__,
    measure="recall",
    score_name="recall of events",
    headline=("event_recall", "event_recall_drop_upper"),
    recipes="of events in streams ([data] task = 'stream_events')",
    device="stream_events",
    outputs="events",
    change="drop of recall",
    smoother="events",
    whole_sources=True,
    foreign={
        "[train] loss": _OF_NUMBERS,
        "[train] mixup": _OF_CLASSES,
        "[train] cutmix": _OF_CLASSES,
        "[data] target_mean": _OF_NUMBERS,
        "[data] target_std": _OF_NUMBERS,
        "[[compress]] rescue": _OF_CLASSES,
    },
)
