"""A first recipe of events in streams; the lists beside the recordings tell the task."""

from __future__ import annotations

import numpy as np

from compressor.data._event_windows import EVENT, RECORDING, step_s
from compressor.statistics.stream_events import increase_upper
from compressor.tasks._drafting import (
    FIRST_CONFIDENCE,
    DraftedParts,
    Facts,
    Key,
    WrittenLabels,
    margin_for,
    network,
    training,
)

RANGE_MARGIN = 0.0
CALIBRATION_SHARE = 0.15
"""The threshold is chosen on the calibration recordings."""
_INCREASES = (15.0, 30.0, 60.0, 120.0)
_HOUR_S = 3600.0


def keys(seen: WrittenLabels) -> tuple[Key, ...]:
    """Return nothing: clips with one label have no events."""
    del seen
    return ()


def parts(facts: Facts) -> DraftedParts:
    """Return the parts of a recipe for the windows of ``facts``."""
    interval_ms = round(1000 * step_s(facts.table.labels))
    classes = ", ".join(facts.table.class_names[1:])
    share = facts.gate / max(1, len(facts.table))
    margin, why = margin_for(round(share * _events(facts)), "events")
    hours = facts.gate * step_s(facts.table.labels) / _HOUR_S
    bound = increase_upper(1, 1, hours, FIRST_CONFIDENCE) if hours else float("inf")
    increase = next((one for one in _INCREASES if one >= bound), _INCREASES[-1])
    recordings = len(set(facts.table.sources.tolist()))
    return DraftedParts(
        network=network(facts),
        train=(
            *training(facts),
            Key(name="class_weights", value="balanced", why="most windows are background"),
        ),
        tables={
            "smoothing": (
                Key(name="kind", value="events", why="windows become events with a begin and an end"),
                Key(name="interval_ms", value=interval_ms, why="stride_s; hop_s of the microphone in agent.toml"),
                Key(name="window", value=2, why="so many windows are averaged"),
                Key(name="refractory_ms", value=500, why="after an event none begins for so long"),
                Key(name="false_accepts_per_hour", value=0, why="0: the threshold with the highest F1; or your limit"),
            )
        },
        gates=(
            Key(name="event_recall_drop", value={"max": margin}, why=f"against the float model, event by event; {why}"),
            Key(
                name="false_accepts_increase",
                value={"max": increase},
                why=f"an hour: one new and one gone in about {hours:.2g} hours have a bound of {bound:.2g}; record "
                "more for a narrower one",
            ),
        ),
        hints=(
            "event_recall = {min = 0.9}  # what your use needs, and",
            "false_accepts_per_hour = {max = 2.0}  # how many false events it bears",
        ),
        notes=(f"{recordings} recordings with events: {classes[:80]}.",),
        labels=False,
    )


def _events(facts: Facts) -> int:
    """Return the labelled events of all recordings."""
    labels = facts.table.labels
    return len(np.unique(labels[labels[:, EVENT] >= 0][:, [RECORDING, EVENT]], axis=0))
