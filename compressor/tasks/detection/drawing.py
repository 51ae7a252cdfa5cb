"""Which boxes compression lost and won on each picture, and the pictures with these boxes drawn. numpy and Pillow.

A box is lost if the model before found it and the compressed one does not, each at its own threshold; it is won the
other way round. A false box is an answer where no box of its class is. Decides which pictures are shown, and colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from compressor.measurement.predictions import Compared, Predictions
from compressor.statistics import detections
from compressor.tasks.detection.evidence import boxes_of, threshold_of

SHOWN = 6
LOST, WON, FALSE, TRUTH = "#e5352b", "#2f81f7", "#f2a900", "#ffffff"
_LONGEST_PX = 400
_WIDTH, _DASH = 3, 6
_OVERLAP = 0.5
Boxes = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Difference:
    """What two models answer differently on picture ``row``; boxes float32 (n, 5): class and edges, 0..1.

    ``truth``: all boxes. ``lost`` and ``won``: of these. ``false``: answers of the compressed model alone where nothing
    is; ``gone``: how many of the model before it does not repeat.
    """

    row: int
    truth: Boxes
    lost: Boxes
    won: Boxes
    false: Boxes
    gone: int

    @property
    def badness(self) -> tuple[int, int]:
        """How much worse the compressed model is here, then how much changed at all."""
        worse, better = len(self.lost) + len(self.false), len(self.won) + self.gone
        return worse - better, worse + better


def differences(gate_set: Compared) -> list[Difference]:
    """Return the pictures on which the answers differ, the worst first."""
    made = []
    for row, labels in enumerate(gate_set.labels):
        truth = labels[labels[:, 0] >= 0]
        before, after = (_answered(said, row) for said in (gate_set.baseline, gate_set.candidate))
        found = [_found(said, truth) for said in (before, after)]
        lost, won = truth[found[0][0] & ~found[1][0]], truth[found[1][0] & ~found[0][0]]
        wrong = [said[~right] for said, (_, right) in zip((before, after), found, strict=True)]
        false, gone = _alone(wrong[1], wrong[0]), len(_alone(wrong[0], wrong[1]))
        if len(lost) or len(won) or len(false) or gone:
            made.append(Difference(row=row, truth=truth, lost=lost, won=won, false=false, gone=gone))
    return sorted(made, key=lambda one: one.badness, reverse=True)


def _answered(said: Predictions, row: int) -> Boxes:
    """Return the answers of ``said`` for picture ``row``, the surest first, as class and edges, (n, 5)."""
    boxes = boxes_of(said.logits[row : row + 1])[0]
    kept = boxes[(boxes[:, 0] >= 0) & (boxes[:, 1] >= threshold_of(said))]
    return np.delete(kept[np.argsort(-kept[:, 1], kind="stable")], 1, axis=1)


def _overlaps(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Return the overlaps of boxes (D, 5) and (G, 5), 0 between classes."""
    return np.where(one[:, None, 0] == other[None, :, 0], detections.overlaps(one[:, 1:], other[:, 1:]), 0.0)


def _found(said: Boxes, truth: Boxes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of ``truth`` are found, and which of ``said`` find one: each box once, by the surest."""
    found, right = np.zeros(len(truth), bool), np.zeros(len(said), bool)
    for place, shared in enumerate(_overlaps(said, truth)):
        open_to = np.where(found, 0.0, shared)
        if len(truth) and open_to.max() >= _OVERLAP:
            found[open_to.argmax()] = right[place] = True
    return found, right


def _alone(one: Boxes, other: Boxes) -> Boxes:
    """Return the boxes of ``one`` without a counterpart in ``other``."""
    return one[~(_overlaps(one, other) >= _OVERLAP).any(axis=1)]


def summary(found: Sequence[Difference], gate_set: Compared) -> str:
    """Return how many boxes were lost and won, and from which scores on each model answers."""
    boxes = int((gate_set.labels[..., 0] >= 0).sum())
    lost, won, false = (sum(len(getattr(one, name)) for one in found) for name in ("lost", "won", "false"))
    before, after = (threshold_of(said) for said in (gate_set.baseline, gate_set.candidate))
    return (
        f"Of {boxes:,} boxes the compressed model lost {lost:,} and won {won:,}, on {len(found):,} pictures. False "
        f"boxes: {false:,} new, {sum(one.gone for one in found):,} gone. It answers with scores from {after:.2f} on, "
        f"the model before from {before:.2f} on."
    )


def caption(one: Difference, names: Sequence[str]) -> str:
    """Return what changed on a picture, by class."""
    said = [f"row {one.row}"]
    for word, boxes in (("lost", one.lost), ("won", one.won), ("false", one.false)):
        counts = Counter(names[int(kind)] for kind in boxes[:, 0])
        said += [f"{word} {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}"] * bool(counts)
    return "; ".join(said)


def drawn(image: Pixels, one: Difference) -> Pixels:
    """Return ``image``, uint8 (H, W, 3), at most 400 pixels long, with the boxes of ``one`` on it."""
    factor = _LONGEST_PX / max(image.shape[:2])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    picture = Image.fromarray(image).resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)
    pen = ImageDraw.Draw(picture)
    for boxes, colour, width in ((one.truth, TRUTH, 1), (one.won, WON, _WIDTH), (one.lost, LOST, _WIDTH)):
        for edges in boxes[:, 1:] * np.tile(np.array(size) - 1, 2):
            pen.rectangle(edges.tolist(), outline=colour, width=width)
    for edges in one.false[:, 1:] * np.tile(np.array(size) - 1, 2):
        _dashed(pen, edges.tolist())
    return np.asarray(picture)


def _dashed(pen: ImageDraw.ImageDraw, edges: Sequence[float]) -> None:
    x0, y0, x1, y1 = edges
    for x in np.arange(x0, x1, 2 * _DASH):
        for y in (y0, y1):
            pen.line([(x, y), (min(x + _DASH, x1), y)], fill=FALSE, width=2)
    for y in np.arange(y0, y1, 2 * _DASH):
        for x in (x0, x1):
            pen.line([(x, y), (x, min(y + _DASH, y1))], fill=FALSE, width=2)
