"""Boxes from detectors that give boxes and scores apart, as SSD, RetinaNet and their kin do.

| layout | outputs | of |
|---|---|---|
| ``scores`` | boxes (N, D, 4), scores (N, D, C) or, with a background, (N, D, C + 1) | no suppression |
| ``suppressed`` | boxes (N, D, 4), classes (N, D), scores (N, D), count (N,) | ``TFLite_Detection_PostProcess`` |
| ``listed`` | boxes (D, 4), scores (D,), classes (D,) of one input | torchvision's SSD, SSDlite, RetinaNet |

The last two have suppressed already. Their outputs come in any order: boxes are known by their shape, the number by
having one value, classes by being whole numbers. Raw offsets to anchors are not decoded.

Source: TensorFlow, lite/kernels/detection_postprocess.cc (y0, x0, y1, x1 in ratios; classes begin after the
background); torchvision, models/detection (``boxes``, ``scores``, ``labels``; x0, y0, x1, y1 in pixels; label 0 is the
background).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.decoders import _lists as lists
from edge_agent.decoders._lists import BoxList
from edge_agent.errors import DecoderError
from wire.settings import Bound, OneOf, numbers_of

if TYPE_CHECKING:
    from edge_agent.decoders import ModelShape, OutputReading
    from wire.manifest import TensorSpec

Array: TypeAlias = "NDArray[Any]"
SCORES, SUPPRESSED, LISTED = "scores", "suppressed", "listed"
NONE, FIRST, LAST = "none", "first", "last"
_BOX = 4
_RANKS = {SCORES: (3, 3), SUPPRESSED: (3, 2, 2), LISTED: (2, 1, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What "" leaves open is read off the file. Names are only added at the end: manifests hold their places."""

    layout: Annotated[str, OneOf(("", SCORES, SUPPRESSED, LISTED))] = ""
    coordinates: Annotated[str, OneOf(("", lists.PIXELS, lists.RATIOS))] = ""  # of the input
    boxes: Annotated[str, OneOf(("", lists.CENTRE, lists.CORNERS, lists.SWAPPED))] = ""  # corners_yx: y0, x0, y1, x1
    scores: Annotated[str, OneOf(("", lists.PLAIN, lists.SIGMOID, lists.SOFTMAX))] = ""  # the others: of logits
    background: Annotated[str, OneOf(("", NONE, FIRST, LAST))] = ""  # where the class that is no object is counted
    least: Annotated[float, Bound(0.001, 0.999)] = 0.05
    overlap: Annotated[float, Bound(0, 1)] = 0.6  # above it the less sure box of a class goes
    most: Annotated[int, Bound(1, 500)] = 100


def output_shape(classes: int) -> tuple[int, ...]:
    """Return the shape of the first output, the boxes; a list of one input has no first axis."""
    del classes
    return (-1, -1, _BOX)


@dataclass(frozen=True, slots=True)
class Ssd:
    """Reads one of the layouts."""

    settings: Settings
    shape: ModelShape

    def boxes(self, outputs: Sequence[Array]) -> Array:
        """Return the boxes of N inputs, float32 (N, 6 * most); of a list they are those of one input.

        Raises:
            DecoderError: If the outputs have another shape than the layout's.
        """
        settings, most = self.settings, int(self.settings.most)
        overlap = settings.overlap if settings.layout == SCORES else 1.0
        limits, form = (settings.least, overlap, most), settings.boxes or lists.CORNERS
        listed = partial(_listed, settings=settings, classes=self.shape.classes)
        coordinates = settings.coordinates or lists.PIXELS
        return lists.rows_of(_inputs(outputs, settings.layout), listed, form, coordinates, self.shape, limits)


def _inputs(outputs: Sequence[Array], layout: str) -> list[list[Array]]:
    """Return the parts of each input: boxes and scores, and classes and their number if the file gives them."""
    ranks = _RANKS.get(layout, ())
    arrays = [np.asarray(one, np.float32) for one in outputs]
    if not ranks or len(arrays) < len(ranks) or tuple(one.ndim for one in arrays[: len(ranks)]) != ranks:
        got = ", ".join(str(one.shape) for one in arrays)
        raise DecoderError(
            f"Expected outputs of layout {layout!r}, of {len(ranks)} tensors, got {got}: rebuild the bundle"
        )
    if layout == LISTED:
        return [arrays[: len(ranks)]]
    counts = arrays[len(ranks)].reshape(-1) if layout == SUPPRESSED and len(arrays) > len(ranks) else None
    found = []
    for row in range(len(arrays[0])):
        parts = [one[row] for one in arrays[: len(ranks)]]
        if counts is not None and len(counts) == len(arrays[0]) and np.isfinite(counts[row]):
            parts = [one[: int(np.clip(np.rint(counts[row]), 0, len(one)))] for one in parts]
        found.append(parts)
    return found


def _listed(parts: Sequence[Array], settings: Settings, classes: int) -> BoxList:
    """Return all boxes of one input: ``parts`` are boxes and scores, and classes if the file gives them."""
    places, scores = parts[:2]
    if places.shape[1:] != (_BOX,) or any(len(one) != len(places) for one in parts):
        got = ", ".join(str(one.shape) for one in parts)
        raise DecoderError(f"Expected boxes (D, {_BOX}) and as many scores, got {got}: rebuild the bundle")
    if settings.layout != SCORES:
        kinds = lists.whole(parts[2]) - (settings.background == FIRST)
        return BoxList(kinds=kinds, scores=lists.activated(scores[:, None], settings.scores)[:, 0], places=places)
    with_background = classes + (settings.background in {FIRST, LAST})
    if scores.shape[1] != with_background:
        message = f"Expected {with_background} scores a box, got {scores.shape}"
        raise DecoderError(f"{message}: check [model] labels, or rebuild the bundle")
    told = lists.activated(scores, settings.scores)
    return lists.best(told[:, 1:] if settings.background == FIRST else told[:, :classes], places)


def parts(settings: Settings, shape: ModelShape, outputs: Sequence[Array]) -> dict[str, Array] | None:
    """Return nothing: boxes and scores are outputs of their own; None of a file that sorts its boxes itself."""
    del shape, outputs
    return {} if settings.layout == SCORES else None


def make(settings: Settings, shape: object) -> Ssd:
    """Return the decoder for a model of ``shape``, a ``ModelShape``."""
    return Ssd(settings, shape)  # type: ignore[arg-type]


def read(settings: Settings, shape: ModelShape, outputs: Sequence[TensorSpec]) -> OutputReading:
    """Return the layout of a file with these ``outputs``, and where its boxes, scores and classes are.

    Raises:
        DecoderError: If they have no layout for the classes of the recipe.
    """
    from edge_agent.decoders import OutputReading  # noqa: PLC0415 - the package imports this file

    layouts = [settings.layout] if settings.layout else list(_RANKS)
    for layout in layouts:
        if places := _places(outputs, layout, shape.classes):
            break
    else:
        asked = f" of layout {settings.layout!r}" if settings.layout else ""
        message = f"Expected boxes (N, D, {_BOX}) with scores (N, D, {shape.classes}) or (N, D, {shape.classes + 1})"
        message = f"{message}, or boxes, classes and scores of what is left after suppression{asked}"
        raise DecoderError(
            f"{message}, got {lists.shapes_text(outputs)}: check [model] labels, or name another decoder"
        )
    settled, remarks = replace(settings, layout=layout), []
    if not settings.layout:
        remarks.append(f"layout = {layout!r}: boxes in {', '.join(outputs[place].name for place in places)}")
    if layout == SCORES and not settings.background:
        width = outputs[places[1]].shape[2]
        settled = replace(settled, background=FIRST if width == shape.classes + 1 else NONE)
        remarks.append(f"background = {settled.background!r}: {width} scores for {shape.classes} classes")
    if layout == SUPPRESSED:
        settled = replace(
            settled, boxes=settings.boxes or lists.SWAPPED, coordinates=settings.coordinates or lists.RATIOS
        )
    settled = replace(settled, boxes=settled.boxes or lists.CORNERS)
    return OutputReading(options=numbers_of(settled), places=places, remarks=tuple(remarks))


def _places(outputs: Sequence[TensorSpec], layout: str, classes: int) -> tuple[int, ...]:
    """Return the outputs of ``layout``: boxes, scores, classes, and their number if there is one; none if it is not."""
    ranks = _RANKS[layout]
    boxes = [at for at, one in enumerate(outputs) if len(one.shape) == ranks[0] and one.shape[-1] == _BOX]
    alike = boxes[:1] if layout != SCORES else []  # scores of four classes look like boxes
    others = [at for at, one in enumerate(outputs) if len(one.shape) == ranks[1] and at not in alike]
    if layout == SCORES:
        fitting = [at for at in others if outputs[at].shape[2] in {classes, classes + 1, -1}]
        pairs = [(box, at) for box in boxes for at in fitting if box != at and _same(outputs[box], outputs[at])]
        named = [pair for pair in pairs if "box" in outputs[pair[0]].name.lower()]  # of four or three classes
        return next(iter([*named, *pairs]), ())
    rest = [at for at in others if _same(outputs[boxes[0]], outputs[at], of_count=layout == LISTED)] if boxes else []
    if len(rest) < 2:  # noqa: PLR2004 - scores and classes
        return ()
    kinds = next((at for at in rest if _is_kinds(outputs[at])), None)
    if kinds is None:  # the order of TFLite_Detection_PostProcess; ``tried`` looks at the values
        kinds = rest[0] if layout == SUPPRESSED else rest[-1]
    scores = next(at for at in rest if at != kinds)
    count = [at for at, one in enumerate(outputs) if at not in {boxes[0], kinds, scores} and _is_count(one)]
    return (boxes[0], scores, kinds, *(count[:1] if layout == SUPPRESSED else ()))


def _same(one: TensorSpec, other: TensorSpec, *, of_count: bool = False) -> bool:
    """Return whether both may have equally many boxes."""
    axis = 0 if of_count else 1
    return len({one.shape[axis], other.shape[axis]} - {-1}) <= 1


def _is_kinds(one: TensorSpec) -> bool:
    return (one.dtype.startswith(("int", "uint")) and not one.scale) or any(
        word in one.name.lower() for word in ("label", "class")
    )


def _is_count(one: TensorSpec) -> bool:
    return len(one.shape) == 1 or (len(one.shape) == 2 and one.shape[1] == 1)  # noqa: PLR2004 - a number for each input


def tried(settings: Settings, shape: ModelShape, outputs: Sequence[Array]) -> OutputReading:
    """Return what scores, classes and coordinates of ``outputs`` are, those of some inputs.

    Raises:
        DecoderError: If they are no boxes and scores.
    """
    alike = settings.layout == SCORES and outputs[0].shape == outputs[1].shape
    try:
        return _tried(settings, shape, outputs)
    except DecoderError as error:
        if not alike:
            raise
        try:
            read_ = _tried(settings, shape, (outputs[1], outputs[0]))
        except DecoderError:
            raise error from None  # about the outputs as they came
        said = "the second output has the boxes, both have four numbers"
        return replace(read_, places=(1, 0), remarks=(*read_.remarks, said))


def _tried(settings: Settings, shape: ModelShape, outputs: Sequence[Array]) -> OutputReading:
    from edge_agent.decoders import OutputReading  # noqa: PLC0415 - the package imports this file

    places: tuple[int, ...] = tuple(range(len(outputs)))
    arrays, remarks = list(outputs), []
    if settings.layout != SCORES and _looks_like_kinds(arrays[1]) and not _looks_like_kinds(arrays[2]):
        places = (places[0], 2, 1, *places[3:])
        arrays = [arrays[place] for place in places]
        remarks.append("the second output has whole numbers: these are the classes")
    rows = [parts for parts in _inputs(arrays, settings.layout) if lists.finite(parts)]
    raw = np.concatenate([parts[1].reshape(-1) for parts in rows]) if rows else np.zeros(0)
    logits = lists.SOFTMAX if settings.background in {FIRST, LAST} else lists.SIGMOID
    scores, why = lists.meant_scores(raw, settings.scores, logits)
    settled = replace(settings, scores=scores)
    remarks.append(why)
    if settings.layout != SCORES:
        background, why = _first_kind(rows, settings, shape.classes)
        settled = replace(settled, background=background)
        remarks.append(why)
    found = [_listed(parts, settled, shape.classes) for parts in rows]
    if settings.layout != SCORES:
        lists.check_kinds([_objects(one) if settled.background == FIRST else one for one in found], shape.classes)
        remarks += lists.left_out(found, settings.least)
    coordinates, why = lists.meant_coordinates(found, settled.boxes, settings.coordinates, shape)
    remarks.append(why)
    settled = replace(settled, coordinates=coordinates)
    return OutputReading(options=numbers_of(settled), places=places, remarks=tuple(filter(None, remarks)))


def _objects(found: BoxList) -> BoxList:
    """Return ``found`` without the boxes of a background that the recipe says comes first."""
    kept = found.kinds >= 0
    return BoxList(kinds=found.kinds[kept], scores=found.scores[kept], places=found.places[kept])


def _looks_like_kinds(values: Array) -> bool:
    """Return whether ``values`` are whole numbers, and not only zeros."""
    wide = np.asarray(values, np.float64)
    return bool(wide.size and np.isfinite(wide).all() and (wide == np.rint(wide)).all() and wide.max() >= 1)


def _first_kind(rows: Sequence[Sequence[Array]], settings: Settings, classes: int) -> tuple[str, str]:
    """Return whether the class numbers begin with a background, and why, if it was not told."""
    if settings.background:
        return settings.background, ""
    kinds = np.concatenate([parts[2][parts[1] > 0] for parts in rows]) if rows else np.zeros(0)
    if settings.layout == LISTED and len(kinds) and kinds.min() < 1 and kinds.max() >= classes:
        return (
            FIRST,
            f"background = {FIRST!r}: classes are {kinds.min():g} to {kinds.max():g}, one more than [model] has",
        )
    if len(kinds) and kinds.min() >= 1 and (settings.layout == LISTED or kinds.max() >= classes):
        return FIRST, f"background = {FIRST!r}: classes are {kinds.min():g} to {kinds.max():g}"
    usual = FIRST if settings.layout == LISTED and not (len(kinds) and kinds.min() < 1) else NONE
    return usual, f"background = {usual!r}: " + ("the least class is 0" if len(kinds) else "the layout's usual")
