"""A first recipe of boxes; the layout of the files tells the task."""

from __future__ import annotations

import numpy as np

from compressor.tasks._drafting import UNSHOWN, DraftedParts, Facts, Key, WrittenLabels, training

RANGE_MARGIN = 0.0
CALIBRATION_SHARE = 0.0
_MANY, _FEW = 300, 50
_SMALL_SET = 1_000


def keys(seen: WrittenLabels) -> tuple[Key, ...]:
    """Return nothing: rows with one label have no boxes."""
    del seen
    return ()


def parts(facts: Facts) -> DraftedParts:
    """Return the parts of a recipe for the pictures of ``facts``."""
    small = facts.train < _SMALL_SET
    batch, rate = (8, 0.002) if small else (32, 0.005)
    kinds = facts.table.labels[..., 0]
    rarest = min(int((kinds == kind).any(axis=1).sum()) for kind in np.arange(len(facts.table.class_names)))
    margin = 0.02 if facts.gate >= _MANY else 0.05
    enough = f"{facts.gate} pictures judge"
    enough += f": below {_FEW} {UNSHOWN}" if facts.gate < _FEW else ", by a bootstrap over them"
    boxes = int((kinds >= 0).sum())
    return DraftedParts(
        network=(
            Key(name="network", value="centre_net", why="centre points, 279 thousand parameters"),
            Key(
                name="network_options", value={"filters": 16}, why="8 quarters the size, and loses small objects first"
            ),
        ),
        train=(
            *training(facts, batch=batch, learning_rate=rate),
            Key(name="schedule", value="cosine", why="as the recipe models/cells"),
            Key(name="flips", value="none", why='"horizontal" or "both" where a mirrored object is still one'),
        ),
        gates=(
            Key(name="detection_map_drop", value={"max": margin}, why=f"against the float model; {enough}"),
            Key(name="detection_f1_drop", value={"max": margin}, why="the same, at the threshold of the answer"),
        ),
        hints=("map = {min = 0.75}  # what your use needs: a person knows it, the data do not",),
        notes=(f"{boxes} boxes; the rarest class is in {rarest} pictures.",),
    )
