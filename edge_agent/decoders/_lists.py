"""Lists of boxes and scores, as imported detectors give them: scores, coordinates, and what they mean. numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.decoders._suppression import LISTED, chosen, unknown
from edge_agent.errors import DecoderError

if TYPE_CHECKING:
    from edge_agent.decoders import ModelShape
    from wire.manifest import TensorSpec

Array: TypeAlias = "NDArray[Any]"
PIXELS, RATIOS = "pixels", "ratios"
CENTRE, CORNERS, SWAPPED = "centre", "corners", "corners_yx"
PLAIN, SIGMOID, SOFTMAX = "plain", "sigmoid", "softmax"
_OUTSIDE, _MOST_OUTSIDE = 0.25, 0.1  # of the input, and of the boxes: some objects reach beyond the edge
_MOST_NEGATIVE = 0.2  # of the numbers of boxes: some reach beyond the left or upper edge
_SURE_BOXES = 50  # of each input, to see what the coordinates are
_RATIO_MOST = 2.0  # no edge of a ratio is beyond; in pixels it would be a box of two pixels in the corner
_MOST_CLASSES = 100_000
_FEW, _BAKED = 10, 2.0  # boxes that say something, and how far above the least score theirs must be
_SLACK = 0.02  # of a score: int8 outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxList:
    """The boxes of one input: ``kinds`` (D,), ``scores`` (D,), ``places`` (D, 4) as the file has them."""

    kinds: Array
    scores: Array
    places: Array


def activated(values: Array, how: str) -> Array:
    """Return scores of 0 to 1 from ``values``, (..., C): as they are, or after a sigmoid or softmax."""
    if how == SIGMOID:
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))))
    if how == SOFTMAX:
        grown = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=-1, keepdims=True))
    return values


def best(scores: Array, places: Array) -> BoxList:
    """Return the class with the largest of ``scores``, (D, C), for each of D boxes."""
    kinds = scores.argmax(axis=1)
    return BoxList(kinds=kinds, scores=scores[np.arange(len(scores)), kinds], places=places)


def whole(values: Array) -> Array:
    """Return class numbers as integers; what is far beyond any class is -1."""
    return np.where(np.abs(values) < _MOST_CLASSES, np.rint(np.clip(values, -1, _MOST_CLASSES)), -1).astype(np.int64)


def check_kinds(found: Sequence[BoxList], classes: int) -> None:
    """Check that the boxes with a score have whole numbers below ``classes`` as class.

    Raises:
        DecoderError: If not.
    """
    kinds = np.concatenate([one.kinds[one.scores > 0] for one in found]) if found else np.zeros(0)
    if len(kinds) and (kinds.min() < 0 or kinds.max() >= classes):
        message = f"Expected boxes of class 0 to {classes - 1}, got {kinds.min():g} to {kinds.max():g}"
        raise DecoderError(f"{message}: check [model] labels, and whether the file's classes begin with a background")


def corners(places: Array, form: str, coordinates: str, shape: ModelShape) -> Array:
    """Return ``places``, (D, 4), as x0, y0, x1, y1 in ratios of the input.

    ``form``: ``centre`` (x, y, width, height), ``corners`` or ``corners_yx`` (y0, x0, y1, x1).
    """
    wide = np.asarray(places, np.float32)
    if form == SWAPPED:
        wide = wide[:, [1, 0, 3, 2]]
    if form == CENTRE:
        half = wide[:, 2:] / 2
        wide = np.concatenate([wide[:, :2] - half, wide[:, :2] + half], axis=1)
    if coordinates == RATIOS:
        return wide
    return wide / np.array([shape.width, shape.height] * 2, np.float32)


def row_of(found: BoxList, form: str, coordinates: str, shape: ModelShape, limits: tuple[float, float, int]) -> Array:
    """Return the boxes of one input, float32 (6 * most,); a row of NaN if one of its numbers is none.

    ``limits``: the least score, the overlap above which the less sure box goes, and how many boxes remain at most.
    """
    least, overlap, most = limits
    kept = (found.scores >= least) & (found.kinds >= 0) & (found.kinds < shape.classes)
    kinds, scores = found.kinds[kept], np.minimum(found.scores[kept], 1).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a broken model may give sizes beyond float32
        edges = corners(found.places[kept], form, coordinates, shape)
    if not np.isfinite(edges).all():
        return unknown(most)
    return chosen(kinds, scores, edges, overlap=overlap, most=most, candidates=LISTED)


def rows_of(
    inputs: Iterable[Sequence[Array]], listed: Callable[[Sequence[Array]], BoxList], form: str, coordinates: str,
    shape: ModelShape, limits: tuple[float, float, int],
) -> Array:  # fmt: skip
    """Return the boxes of N inputs, float32 (N, 6 * most), from the parts of each; of one with NaN a row of NaN.

    ``listed`` makes the boxes of an input's parts; the rest as of ``row_of``.
    """
    return np.stack(
        [
            row_of(listed(parts), form, coordinates, shape, limits) if finite(parts) else unknown(limits[2])
            for parts in inputs
        ]
    )


def finite(outputs: Sequence[Array]) -> bool:
    """Return whether all of ``outputs`` are numbers."""
    return all(bool(np.isfinite(one).all()) for one in outputs)


def shapes_text(outputs: Sequence[TensorSpec]) -> str:
    """Return the outputs of a file, as text."""
    return ", ".join(f"{one.name} {one.shape}" for one in outputs) or "none"


def meant_scores(scores: Array, asked: str, logits: str) -> tuple[str, str]:
    """Return what makes scores of 0 to 1 of the values ``scores``, and why, if it was not ``asked``.

    ``logits``: what would, if they are logits.

    Raises:
        DecoderError: If they are none, although the recipe says that they are.
    """
    low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
    within = low >= -_SLACK and high <= 1 + _SLACK
    if asked == PLAIN and not within:
        message = f"Expected scores of 0 to 1, as scores = {PLAIN!r} says, got {low:.3g} to {high:.3g}"
        raise DecoderError(f"{message}: set [decoder] scores = {logits!r} if these are logits")
    if asked:
        return asked, ""
    if within:
        return PLAIN, ""
    return logits, f"scores of {low:.3g} to {high:.3g} are logits: scores = {logits!r}"


def left_out(found: Sequence[BoxList], least: float) -> tuple[str, ...]:
    """Return a line if a file that suppresses leaves out boxes whose scores are well above ``least``; else nothing.

    Inputs with many boxes don't count: there the number of boxes may be what limits them.
    """
    given = [one.scores[one.scores > 0] for one in found]
    scores = np.concatenate([one for one in given if len(one) < _SURE_BOXES] or [np.zeros(0)])
    low = float(scores.min(initial=1))
    if len(scores) < _FEW or low < _BAKED * least:
        return ()
    said = f"no score is below {low:.2g}, so the file leaves out less sure boxes: export with a threshold of {least:g}"
    return (f"{said} (of ultralytics conf), so that the gates see whole curves",)


def meant_coordinates(found: Sequence[BoxList], form: str, asked: str, shape: ModelShape) -> tuple[str, str]:
    """Return whether the boxes of some inputs are in pixels or ratios, and why, if it was not ``asked``.

    Of each input the surest boxes are looked at.

    Raises:
        DecoderError: If they lie outside the input, or are no boxes.
    """
    sure = [one.places[np.argsort(-one.scores, kind="stable")[:_SURE_BOXES]] for one in found]
    places = np.concatenate(sure) if sure else np.zeros((0, 4))
    places = places[np.abs(places).max(axis=1) > 0] if len(places) else places  # empty places of a fixed list
    if not len(places):
        return asked or PIXELS, "" if asked else f"no box to see it by: coordinates = {PIXELS!r}"
    high = float(np.quantile(np.abs(places).max(axis=1), 0.9))
    coordinates = asked or (RATIOS if high <= _RATIO_MOST else PIXELS)
    edges = corners(places, form, coordinates, shape)
    offsets = ""
    if float((places < 0).mean()) > _MOST_NEGATIVE:
        offsets = ", unless these are offsets to anchors: then export with boxes decoded"
    turned = float((edges[:, :2] > edges[:, 2:]).any(axis=1).mean())
    if turned > _MOST_OUTSIDE:
        other = "corners" if form == CENTRE else "centre"
        message = f"Expected boxes as {form!r}, got {turned:.0%} of the surest whose second edge is before the first"
        raise DecoderError(
            f"{message}: set [decoder] boxes = {other!r}, or check the order of the file's outputs{offsets}"
        )
    middle = (edges[:, :2] + edges[:, 2:]) / 2
    outside = float(((middle < -_OUTSIDE) | (middle > 1 + _OUTSIDE)).any(axis=1).mean())
    if outside > _MOST_OUTSIDE:
        sides = f"{shape.width} x {shape.height} pixels" if coordinates == PIXELS else "ratios of 0 to 1"
        message = (
            f"Expected boxes inside the input ({sides}), got {outside:.0%} of the surest outside, up to {high:.4g}"
        )
        raise DecoderError(
            f"{message}: set [decoder] coordinates or boxes, or the [data] width and height of the export{offsets}"
        )
    if asked:
        return asked, ""
    said = "beyond 2" if coordinates == PIXELS else "at most 2"
    return coordinates, f"coordinates up to {high:.4g} ({said}): coordinates = {coordinates!r}"
