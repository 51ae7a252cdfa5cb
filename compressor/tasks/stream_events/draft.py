"""A first recipe of events in streams; the lists beside the recordings tell the task."""

from __future__ import annotations

from compressor.data._event_windows import step_s
from compressor.tasks._drafting import DraftedParts, Facts, Key, WrittenLabels, network, training

RANGE_MARGIN = 0.0
CALIBRATION_SHARE = 0.15
"""The threshold is chosen on the calibration recordings."""


def keys(seen: WrittenLabels) -> tuple[Key, ...]:
    """Return nothing: clips with one label have no events."""
    del seen
    return ()


def parts(facts: Facts) -> DraftedParts:
    """Return the parts of a recipe for the windows of ``facts``."""
    interval_ms = round(1000 * step_s(facts.table.labels))
    classes = ", ".join(facts.table.class_names[1:])
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
            Key(name="event_recall_drop", value={"max": 0.05}, why="against the float model, event by event"),
            Key(
                name="false_accepts_increase", value={"max": 15.0}, why="an hour; record more hours for a narrower one"
            ),
        ),
        hints=(
            "event_recall = {min = 0.9}  # what your use needs, and",
            "false_accepts_per_hour = {max = 2.0}  # how many false events it bears",
        ),
        notes=(f"{recordings} recordings with events: {classes[:80]}.",),
        labels=False,
    )
