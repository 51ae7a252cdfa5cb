"""Which streams carry the evidence, which way they moved, and how to say that to a person.

Decides words, never alarms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.drift.reference import SHAPES, THETAS, Floats

_WORDS: tuple[tuple[str, str, str], ...] = (
    ("luma_mean", "brighter", "darker"),
    ("luma_sd", "more contrast", "less contrast"),
    ("dark", "more dark areas", "fewer dark areas"),
    ("clip", "more clipped areas", "fewer clipped areas"),
    ("laplacian", "sharper", "blurrier"),
    ("sharp", "sharper", "blurrier"),
    ("noise", "more noise", "less noise"),
    ("gradient", "more edges", "fewer edges"),
    ("red", "redder", "less red"),
    ("blue", "bluer", "less blue"),
    ("green", "greener", "less green"),
    ("confidence", "more confident", "less confident"),
    ("entropy", "less sure between classes", "surer between classes"),
    ("residual", "unlike anything in training", "closer to training"),
    ("projection", "other content", "other content"),
    ("margin", "more decisive", "less decisive"),
    ("predicted", "other classes", "other classes"),
)
_SHAPE_WORDS = {
    "spread": "{name} more spread", "narrow": "{name} less spread", "low_end": "{name} at its low end",
    "high_end": "{name} at its high end",
}  # fmt: skip
_UP, _DOWN = {"up", "tail_up", "high_end"}, {"down", "tail_down", "low_end"}
_MENTIONED = 3
_WORTH_SAYING = 0.1


@dataclass(frozen=True, slots=True)
class Share:
    """One stream's share of the evidence (0..1), the shape of its change, and that in words."""

    stream: str
    kind: str
    shape: str
    share_ratio: float
    words: str


def words(stream: str, shape: str) -> str:
    """Return how a change of ``shape`` in ``stream`` is said: "darker", "blurrier", "luma_sd more spread"."""
    for part, up, down in _WORDS:
        if part in stream and shape in _UP | _DOWN:
            return up if shape in _UP else down
    name = stream.replace("_", " ")
    template = _SHAPE_WORDS.get(shape, "{name} higher" if shape in _UP else "{name} lower")
    return template.format(name=name)


def shares(recent: Floats, streams: Sequence[tuple[str, str]]) -> tuple[Share, ...]:
    """Return the streams' shares of the evidence, largest first; streams without any are left out.

    ``recent`` (S, 24) is what ``evidence.fade`` keeps; ``streams`` are (name, kind). A stream counts with its
    best tilt, so that no stream wins by having many related tilts.
    """
    best = recent.max(axis=1)
    total = float(best.sum())
    if total <= 0:
        return ()
    tilt = recent.argmax(axis=1) // len(THETAS)
    order = [int(i) for i in np.argsort(-best, kind="stable") if best[i] > 0]
    return tuple(_share(streams[i], SHAPES[int(tilt[i])], float(best[i]) / total) for i in order)


def _share(stream: tuple[str, str], shape: str, share_ratio: float) -> Share:
    return Share(stream[0], stream[1], shape, share_ratio, words(stream[0], shape))


def sentence(found: Sequence[Share]) -> str:
    """Return the cause in words: the two or three largest shares, each said once."""
    said: list[str] = []
    for share in found:
        if share.words not in said and (not said or share.share_ratio >= _WORTH_SAYING):
            said.append(share.words)
    return ", ".join(said[:_MENTIONED]) or "no single cause"


def kind_of_change(found: Sequence[Share]) -> str:
    """Return ``label shift`` (only outputs moved), ``inputs only``, or ``inputs and outputs``."""
    kinds = {share.kind for share in found if share.share_ratio >= _WORTH_SAYING / 2}
    if kinds and kinds <= {"output"}:
        return "label shift"
    return "inputs only" if kinds and kinds <= {"input"} else "inputs and outputs"
