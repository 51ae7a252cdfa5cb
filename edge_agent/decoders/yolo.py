"""Boxes from the outputs of YOLO exports, whose layouts differ by version.

| layout | outputs | of |
|---|---|---|
| ``scores`` | (N, 4 + C, D); or boxes (N, 4, D) and scores (N, C, D); or their transposes | v8, v9, v11, v12 |
| ``objectness`` | (N, D, 5 + C): box, that there is an object, classes given that there is one | v5, v7 |
| ``end_to_end`` | (N, D, 6): x0, y0, x1, y1, score, class, suppressed already | v10, v26, an export with nms |
| ``anchors`` | three grids of logits: (N, 3 * (5 + C), h, w), also split or with channels last | v5, v7 raw |
| ``cells`` | (N, D, 5 + C): place in its cell, logarithm of the size in cells, objectness, classes | YOLOX |

Each box has the class with its largest score. Suppression of an ``end_to_end`` file is left to the file.

Source: ultralytics/yolov5, models/yolo.py (``Detect``: boxes from logits, grid and anchors); ultralytics/ultralytics,
issues 221, 284 and 828 (v8 has no objectness, and its axes are the other way round), pull request 18484 (the six
numbers of an export that suppresses), issue 3271 (TFLite exports give ratios); Megvii-BaseDetection/YOLOX, version
0.3.0, yolox/models/yolo_head.py (``decode_outputs``, which its export leaves out unless told).
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
SCORES, OBJECTNESS, END_TO_END, ANCHORS, CELLS = "scores", "objectness", "end_to_end", "anchors", "cells"
_BOX, _LIST, _GRID, _SPLIT_GRID = 4, 3, 4, 5
_SCALES, _SHAPES = 3, 3  # grids, and anchors of each
_STRIDES = (8, 16, 32)
_NEAR_CELLS = 1.5  # from the middle of its own cell, in cells: where most boxes of a trained network are
_SIDES = 2 * _SCALES * _SHAPES
Side: TypeAlias = Annotated[float, Bound(0, 100_000, above=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What "" leaves open is read off the file. Names are only added at the end: manifests hold their places."""

    layout: Annotated[str, OneOf(("", SCORES, OBJECTNESS, END_TO_END, ANCHORS, CELLS))] = ""
    coordinates: Annotated[str, OneOf(("", lists.PIXELS, lists.RATIOS))] = ""  # of the input
    boxes: Annotated[str, OneOf(("", lists.CENTRE, lists.CORNERS))] = ""  # centre and size, or two corners
    scores: Annotated[str, OneOf(("", lists.PLAIN, lists.SIGMOID))] = ""  # sigmoid: the file gives logits
    least: Annotated[float, Bound(0.001, 0.999)] = 0.05
    overlap: Annotated[float, Bound(0, 1)] = 0.6  # above it the less sure box of a class goes
    most: Annotated[int, Bound(1, 500)] = 100
    anchors: tuple[Side, ...] = ()  # of raw grids: width and height in pixels, three for each stride from the smallest


def output_shape(classes: int) -> tuple[int, ...]:
    """Return the shape of the first output, all of it open: layouts differ."""
    del classes
    return (-1, -1, -1)


@dataclass(frozen=True, slots=True)
class Yolo:
    """Reads one of the layouts."""

    settings: Settings
    shape: ModelShape

    def boxes(self, outputs: Sequence[Array]) -> Array:
        """Return the boxes of N inputs, float32 (N, 6 * most).

        Raises:
            DecoderError: If the outputs have another shape than the layout's.
        """
        settings = self.settings
        read = _used(outputs, settings.layout)
        overlap = 1.0 if settings.layout == END_TO_END else settings.overlap
        limits, form = (settings.least, overlap, int(settings.most)), _form(settings)
        inputs = ([one[row] for one in read] for row in range(len(read[0])))
        listed = partial(_listed, settings=settings, shape=self.shape)
        decoded = settings.layout in {ANCHORS, CELLS}
        coordinates = lists.PIXELS if decoded else settings.coordinates or lists.PIXELS
        return lists.rows_of(inputs, listed, form, coordinates, self.shape, limits)


def _form(settings: Settings) -> str:
    return settings.boxes or (lists.CORNERS if settings.layout == END_TO_END else lists.CENTRE)


def _used(outputs: Sequence[Array], layout: str) -> list[Array]:
    """Return the outputs that ``layout`` needs, as float32."""
    apart = layout == SCORES and len(outputs) > 1 and np.ndim(outputs[1]) == _LIST  # beside an embedding they are not
    count = _SCALES if layout == ANCHORS else 2 if apart else 1
    return [np.asarray(one, np.float32) for one in outputs[:count]]


def _listed(parts: Sequence[Array], settings: Settings, shape: ModelShape) -> BoxList:
    """Return all boxes of one input from its ``parts``: those of the outputs without their first axis."""
    classes, layout = shape.classes, settings.layout
    if layout == ANCHORS:
        return _of_grids(parts, settings, shape)
    if layout == END_TO_END:
        table = _table(parts[0], _BOX + 2, layout, tall=True)
        scores = lists.activated(table[:, _BOX], settings.scores)
        return BoxList(kinds=lists.whole(table[:, _BOX + 1]), scores=scores, places=table[:, :_BOX])
    if layout in {OBJECTNESS, CELLS}:
        table = _table(parts[0], _BOX + 1 + classes, layout, tall=True)
        places = _of_cells(table[:, :_BOX], shape) if layout == CELLS else table[:, :_BOX]
        told = lists.activated(table[:, _BOX:], settings.scores)
        with np.errstate(over="ignore"):  # of a broken model
            return lists.best(told[:, :1] * told[:, 1:], places)
    if layout != SCORES:
        raise DecoderError(f"Expected a layout, got {layout!r}: rebuild the bundle")
    if len(parts) > 1:
        places, scores = _table(parts[0], _BOX, layout), _table(parts[1], classes, layout)
        if len(places) != len(scores):
            raise DecoderError(
                f"Expected as many boxes as scores, got {len(places)} and {len(scores)}: rebuild the bundle"
            )
        return lists.best(lists.activated(scores, settings.scores), places)
    table = _table(parts[0], _BOX + classes, layout)
    return lists.best(lists.activated(table[:, _BOX:], settings.scores), table[:, :_BOX])


def _table(part: Array, columns: int, layout: str, *, tall: bool = False) -> Array:
    """Return ``part`` as a row for each box; if both axes have ``columns``, ``tall`` says that it is one already."""
    if part.ndim == _LIST - 1 and columns in part.shape:
        upright = part.shape[1] == columns and (tall or part.shape[0] != columns)
        return part if upright else part.T
    message = f"Expected an output of layout {layout!r} with {columns} numbers a box, got {part.shape}"
    raise DecoderError(f"{message}: rebuild the bundle")


def _cells(shape: ModelShape) -> Array:
    """Return column, row and stride of each cell of the three grids, row by row, the finest first: (D, 3)."""
    found = []
    for stride in _STRIDES:
        columns, rows = np.meshgrid(np.arange(shape.width // stride), np.arange(shape.height // stride))
        found.append(np.stack([columns, rows, np.full_like(rows, stride)], axis=-1).reshape(-1, 3))
    return np.concatenate(found).astype(np.float32)


def _of_cells(places: Array, shape: ModelShape) -> Array:
    """Return centre and size in pixels, (D, 4), of ``places`` in their cells.

    Raises:
        DecoderError: If there are not as many boxes as cells.
    """
    cells = _cells(shape)
    if len(cells) != len(places):
        message = f"Expected a box for each of {len(cells)} cells of {shape.width} x {shape.height} pixels"
        raise DecoderError(f"{message}, got {len(places)}: set [data] width and height as in the export")
    sizes = np.exp(np.clip(places[:, 2:], -80, 80))
    return np.concatenate([places[:, :2] + cells[:, :2], sizes], axis=1) * cells[:, 2:]


def _are_in_cells(found: Sequence[BoxList], shape: ModelShape) -> bool:
    """Return whether centres are given in their cells instead of in the picture: most are then near 0.5."""
    cells = _cells(shape)
    if not found or any(len(one.places) != len(cells) for one in found):
        return False
    from_cell = np.concatenate([np.abs(one.places[:, :2] - 0.5) for one in found]).max(axis=1)
    middles = (cells[:, :2] + 0.5) * cells[:, 2:]
    of_picture = np.concatenate([np.abs(one.places[:, :2] - middles) / cells[:, 2:] for one in found]).max(axis=1)
    return bool(np.median(from_cell) <= _NEAR_CELLS < np.median(of_picture))


def _of_grids(parts: Sequence[Array], settings: Settings, shape: ModelShape) -> BoxList:
    """Return the boxes of raw grids, in pixels: centre and size from cell, stride and anchor."""
    if len(settings.anchors) != _SIDES or len(parts) < _SCALES:
        message = f"Expected {_SCALES} grids and {_SIDES} numbers of anchors, got {len(parts)} and"
        raise DecoderError(f"{message} {len(settings.anchors)}: set [decoder] anchors, as the network was trained with")
    grids = sorted((_grid(part, shape.classes) for part in parts), key=lambda one: -one.shape[1])
    anchors = np.array(settings.anchors, np.float32).reshape(_SCALES, _SHAPES, 1, 1, 2)
    found = []
    for grid, sides in zip(grids, anchors, strict=True):
        told = lists.activated(grid, lists.SIGMOID)
        rows, columns = grid.shape[1:3]
        cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
        strides = np.array([shape.width / columns, shape.height / rows])
        middle = (told[..., :2] * 2 - 0.5 + cells) * strides
        size = (told[..., 2:4] * 2) ** 2 * sides
        scores = told[..., 4:5] * told[..., 5:]
        found.append(np.concatenate([middle, size, scores], axis=-1).reshape(-1, _BOX + shape.classes))
    table = np.concatenate(found).astype(np.float32)
    return lists.best(table[:, _BOX:], table[:, :_BOX])


def _grid(part: Array, classes: int) -> Array:
    """Return one raw grid as (3, h, w, 5 + C).

    Raises:
        DecoderError: If it is none.
    """
    columns = _BOX + 1 + classes
    if part.ndim == _SPLIT_GRID - 1 and (part.shape[0], part.shape[-1]) == (_SHAPES, columns):
        return part
    if part.ndim == _GRID - 1 and part.shape[0] == _SHAPES * columns:
        return part.reshape(_SHAPES, columns, *part.shape[1:]).transpose(0, 2, 3, 1)
    if part.ndim == _GRID - 1 and part.shape[-1] == _SHAPES * columns:
        return part.reshape(*part.shape[:2], _SHAPES, columns).transpose(2, 0, 1, 3)
    message = f"Expected a grid of {_SHAPES} x {columns} numbers a cell, got {part.shape}"
    raise DecoderError(f"{message}: check [model] labels, or rebuild the bundle")


def parts(settings: Settings, shape: ModelShape, outputs: Sequence[Array]) -> dict[str, Array] | None:
    """Return boxes and scores where one output joins them; None of a file that sorts its boxes itself."""
    layout, used = settings.layout, _used(outputs, settings.layout)
    if layout == END_TO_END:
        return None
    if layout == ANCHORS or len(used) > 1:
        return {}
    tall = layout in {OBJECTNESS, CELLS}
    columns = _BOX + shape.classes + tall
    table = np.stack([_table(row, columns, layout, tall=tall) for row in used[0]])
    return {"boxes": table[..., :_BOX], "scores": lists.activated(table[..., _BOX:], settings.scores)}


def make(settings: Settings, shape: object) -> Yolo:
    """Return the decoder for a model of ``shape``, a ``ModelShape``."""
    return Yolo(settings, shape)  # type: ignore[arg-type]


def read(settings: Settings, shape: ModelShape, outputs: Sequence[TensorSpec]) -> OutputReading:
    """Return the layout of a file with these ``outputs``, and which of them it has.

    Raises:
        DecoderError: If they have no layout for the classes of the recipe.
    """
    from edge_agent.decoders import OutputReading  # noqa: PLC0415 - the package imports this file

    layout, places, why = _recognised(settings, shape, outputs)
    if layout == ANCHORS and len(settings.anchors) != _SIDES:
        message = f"Expected in [decoder] {_SIDES} numbers as anchors for raw grids, got {len(settings.anchors)}"
        raise DecoderError(
            f"{message}: give width and height of the nine in pixels, the smallest first; or export with boxes decoded"
        )
    remarks = (f"layout = {layout!r}: {why}",) if not settings.layout else ()
    return OutputReading(options=numbers_of(replace(settings, layout=layout)), places=places, remarks=remarks)


def _recognised(
    settings: Settings, shape: ModelShape, outputs: Sequence[TensorSpec]
) -> tuple[str, tuple[int, ...], str]:
    """Return the layout, the outputs of it, and why."""
    asked = settings.layout
    grids = [place for place, one in enumerate(outputs) if len(one.shape) in {_GRID, _SPLIT_GRID}]
    tables = [place for place, one in enumerate(outputs) if len(one.shape) == _LIST]
    if (asked == ANCHORS or (not asked and not tables)) and len(grids) == _SCALES:
        _check_grids([outputs[place] for place in grids], shape.classes)
        return ANCHORS, tuple(grids), f"{_SCALES} grids"
    if asked in {"", SCORES} and (pair := _pair(outputs, tables, shape.classes)):
        return SCORES, pair, "boxes and scores are outputs of their own"
    if not tables:
        message = "Expected from a YOLO a list of boxes, or three raw grids"
        raise DecoderError(f"{message}, got {lists.shapes_text(outputs)}: export the detection head, too")
    for place in tables:
        layout, why = _of_table(outputs[place].shape[1:], asked, shape)
        if layout:
            return layout, (place,), why
    raise DecoderError(_no_layout(outputs[tables[0]], asked, shape.classes))


def _check_grids(grids: Sequence[TensorSpec], classes: int) -> None:
    columns = _BOX + 1 + classes
    for one in grids:
        sizes = {one.shape[-1]} if len(one.shape) == _SPLIT_GRID else {one.shape[1], one.shape[-1]}
        wanted = columns if len(one.shape) == _SPLIT_GRID else _SHAPES * columns
        if not sizes & {wanted, -1}:
            message = f"Expected grids of {wanted} numbers a cell for {classes} classes, got {one.name} {one.shape}"
            raise DecoderError(f"{message}: check [model] labels")


def _pair(outputs: Sequence[TensorSpec], tables: Sequence[int], classes: int) -> tuple[int, ...]:
    """Return the places of boxes and of scores, of one length, if these are outputs of their own; else none."""
    boxes = [(place, _length(outputs[place].shape[1:], _BOX)) for place in tables]
    scores = [(place, _length(outputs[place].shape[1:], classes)) for place in tables]
    for place, length in boxes:
        for other, count in scores:
            if place != other and length and length == count:
                named = classes == _BOX and "box" in outputs[other].name.lower()
                return (other, place) if named else (place, other)
    return ()


def _length(sizes: Sequence[int], columns: int) -> int:
    """Return how many boxes ``sizes`` are if one of the two is ``columns``; 0 if none is."""
    return next((sizes[1 - axis] for axis in (0, 1) if sizes[axis] == columns), 0)


def _of_table(sizes: tuple[int, ...], asked: str, shape: ModelShape) -> tuple[str, str]:
    """Return the layout of a list with these ``sizes``, and why; "" if it has none, or none that is certain."""
    classes, (rows, columns) = shape.classes, sizes
    numbers = {SCORES: _BOX + classes, OBJECTNESS: _BOX + 1 + classes, END_TO_END: _BOX + 2}
    numbers[CELLS] = numbers[OBJECTNESS]
    if asked:
        return (asked if numbers.get(asked) in sizes or -1 in sizes else ""), ""
    cells = sum((shape.width // stride) * (shape.height // stride) for stride in _STRIDES)
    told = f"({rows}, {columns}): {{}} numbers for each of {{}} boxes, {{}}".format
    if columns == numbers[OBJECTNESS] and (rows == _SHAPES * cells or columns != numbers[END_TO_END]):
        return OBJECTNESS, told(columns, rows, f"a box, objectness and {classes} classes")
    if rows == numbers[SCORES] and columns != numbers[END_TO_END]:
        return SCORES, told(rows, columns, f"a box and {classes} classes")
    if columns == numbers[END_TO_END] and (rows != cells or columns not in {numbers[SCORES], numbers[OBJECTNESS]}):
        return END_TO_END, told(columns, rows, "two corners, score and class")
    if columns == numbers[SCORES] and rows == cells:
        return SCORES, told(columns, rows, f"a box and {classes} classes, one box a cell")
    return "", ""


def _no_layout(one: TensorSpec, asked: str, classes: int) -> str:
    """Return what is wrong with an output that has no layout for so many ``classes``."""
    rows, columns = one.shape[1:]
    message = (
        f"Expected from a YOLO of {classes} classes (N, {_BOX + classes}, boxes), (N, boxes, {_BOX + 1 + classes})"
    )
    message = f"{message} or (N, boxes, 6){f', of layout {asked!r}' if asked else ''}, got {one.name} {one.shape}"
    if rows == _BOX + 1 + classes:
        return f"{message}: v8 and later with {classes + 1} classes? Check [model] labels; or set [decoder] layout"
    if columns == _BOX + classes:
        return (
            f"{message}: set [decoder] layout = {SCORES!r} if it is the transpose of a v8's, or [model] labels to "
            f"{classes - 1} if it is a v5's"
        )
    fewer = min(rows, columns) if min(rows, columns) > 0 else max(rows, columns)
    of = [
        f"{count} with layout {name!r}"
        for name, count in ((SCORES, fewer - _BOX), (OBJECTNESS, fewer - _BOX - 1))
        if count > 0
    ]
    return (
        f"{message}: its classes are {' or '.join(of)}; check [model] labels" if of else f"{message}: check the export"
    )


def tried(settings: Settings, shape: ModelShape, outputs: Sequence[Array]) -> OutputReading:
    """Return what scores and coordinates of ``outputs`` are, those of some inputs.

    Raises:
        DecoderError: If they are no boxes and scores.
    """
    from edge_agent.decoders import OutputReading  # noqa: PLC0415 - the package imports this file

    rows = [parts for parts in zip(*_used(outputs, settings.layout), strict=True) if lists.finite(parts)]
    found = [_listed(parts, settings, shape) for parts in rows]
    if settings.layout == ANCHORS:
        return OutputReading(options=numbers_of(settings))
    if settings.layout == END_TO_END:
        lists.check_kinds(found, shape.classes)
    why_layout = ""
    if settings.layout == OBJECTNESS and _are_in_cells(found, shape):
        settings = replace(settings, layout=CELLS)
        why_layout = f"centres are near 0.5 for every box, so they count from its cell: layout = {CELLS!r}"
    raw = np.concatenate([one.scores for one in found]) if found else np.zeros(0)
    scores, why_scores = lists.meant_scores(raw, settings.scores, lists.SIGMOID)
    settled = replace(settings, scores=scores)
    found = [_listed(parts, settled, shape) for parts in rows]
    asked = lists.PIXELS if settings.layout == CELLS else settings.coordinates
    coordinates, why = lists.meant_coordinates(found, _form(settings), asked, shape)
    settled = replace(settled, coordinates=coordinates, boxes=_form(settings))
    remarks = tuple(filter(None, (why_layout, why_scores, why)))
    if settings.layout == END_TO_END:
        remarks += lists.left_out(found, settings.least)
    return OutputReading(options=numbers_of(settled), remarks=remarks)
