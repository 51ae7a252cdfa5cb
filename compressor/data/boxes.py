"""A zip or folder of pictures with boxes around objects: Pascal VOC, COCO, YOLO, exports of CVAT and Label Studio.

Decides what becomes of boxes that can't be learned as they are, the same for all forms, and says how many there
were: a box that reaches outside its picture is cut at the edge; one without area, or wholly outside, is left out; of
two of one class that are nearly the same one is left out; crowds (COCO) are left out. A picture without an annotation
is left out, one whose annotation is empty stays as a picture without objects. With lists of splits each picture is a
source of its own, as who made the lists saw it: near copies in two lists are not sought.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.data import _annotations
from compressor.data._annotations import Annotated, Annotations
from compressor.data._archive import Names, opened
from compressor.data._front_end import check_corrupt, preprocessing_of
from compressor.data._split import told_groups
from compressor.data._stored_images import kept
from compressor.data._table import BOX, Table, check_label, make_box_table
from compressor.data.labelled_images import MAX_SET_BYTES
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe
from edge_agent.errors import ImageError
from edge_agent.inference.preprocess import MAX_IMAGE_BYTES, decode_image, upright_size
from wire.manifest import Preprocessing

READS = frozenset({"path", "split", "allow_corrupt", "orientation", "decode", "bits"})
MAX_BOXES = 500
"""Of one picture: all pictures hold as many as the fullest."""
_SAME = 0.95
"""The overlap from which two boxes of one class are the same object, marked twice."""
_ASPECT = 0.02
Boxes = npt.NDArray[np.float32]


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the annotated pictures in ``data.path``, a zip or a folder.

    ``data.split``: the folder of lists ``train.txt``, ``val.txt`` and ``test.txt`` in the store, or ``names``: folders
    or files are named so. ``val`` are the calibration rows, ``test`` the gate rows.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, no annotations, or lacks a picture.
        CorruptImageError: If more pictures than ``data.allow_corrupt`` are broken or of another shape than annotated.
        DataError: If an annotation can't be read, or names a class that is not declared.
        SplitError: If ``data.split`` names no lists, or a picture is in two.
    """
    path = (root or Path()) / data.path
    with opened(path) as store:
        found = _annotations.with_splits(_annotations.read(store), store, data.split)
        for name in found.class_names:
            check_label(name, str(path))
        read = _Read()
        images = kept(_decoded(store, found, preprocessing_of(data), read))  # one by one: they need not fit the memory
    check_corrupt(read.corrupt, data, path, "corrupt pictures")
    if not found.class_names:
        raise DataError(f"Expected boxes of at least one class in {path}, got none: check the annotations")
    table = make_box_table(
        images, read.boxes, found.class_names, slices=["all"] * len(read.boxes),
        sources=[one.path if data.split else "" for one in read.kept],
        corrupt=tuple(text.split(": ", 1)[0] for text in read.corrupt),
    )  # fmt: skip
    names = [one.path for one in read.kept]
    table = replace(table, names=np.array(names, dtype=np.str_), remarks=_remarks(found, read))
    if data.split:
        table = replace(table, told=np.array([one.split for one in read.kept], dtype=np.str_))
        told_groups(table, names=names)
    return table


@dataclass(slots=True, kw_only=True)
class _Read:
    """The pictures that could be read, and what was done to their boxes."""

    boxes: list[Boxes] = field(default_factory=list)
    kept: list[Annotated] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)


def _decoded(store: Names, found: Annotations, pre: Preprocessing, read: _Read) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the pictures that can be read; ``read`` is complete after the last."""
    total_bytes = 0
    for one in found.pictures:
        data = store.read(one.path, MAX_IMAGE_BYTES)
        try:
            size = upright_size(data, pre)
            image = decode_image(data, pre)
        except ImageError as error:
            read.corrupt.append(f"{one.path}: {error}")
            continue
        if problem := _shape_problem(one, size):
            read.corrupt.append(f"{one.path}: {problem}")
            continue
        read.boxes.append(_ratios(one, size, found.class_names, read.mended))
        read.kept.append(one)
        total_bytes += image.nbytes
        if total_bytes > MAX_SET_BYTES:
            message = f"Expected pictures of at most {MAX_SET_BYTES} bytes of pixels in all, got more at {one.path!r}"
            raise ArchiveError(
                f"{message}: make them smaller, or let decode = 'reduced' scale them down, as the device does"
            )
        yield image


def _shape_problem(one: Annotated, size: tuple[int, int]) -> str:
    """Return why the boxes can't refer to a picture of ``size``, width and height; "" if they can."""
    width, height = one.size
    if width <= 0 or height <= 0 or abs(width * size[1] / (height * size[0]) - 1) <= _ASPECT:
        return ""
    got = f"{size[0]}x{size[1]}"
    return f"Expected a picture of the shape {width:g}x{height:g} of {one.where}, got {got}: check its orientation"


def _ratios(one: Annotated, size: tuple[int, int], class_names: tuple[str, ...], mended: Counter[str]) -> Boxes:
    """Return the boxes of a picture as ratios of its size, float32 (n, 5); ``mended`` counts what was done to some.

    Raises:
        DataError: If there are more than ``MAX_BOXES``.
    """
    whole = one.size if min(one.size) > 0 else size
    scale = np.array([1.0, 1.0] if one.ratios else whole)
    kept = np.zeros((0, BOX), np.float32)
    mended["crowd"] += one.left_out
    for marked in one.boxes:
        edges = (np.array(marked.edges).reshape(2, 2) / scale).ravel()
        cut = np.clip(edges, 0, 1).astype(np.float32)
        if edges[2] <= edges[0] or edges[3] <= edges[1]:
            mended["empty"] += 1
        elif cut[2] <= cut[0] or cut[3] <= cut[1]:
            mended["outside"] += 1
        else:
            mended["cut"] += int(np.abs(cut - edges).max() > 1 / max(*whole, 2))
            box = np.array([class_names.index(marked.name), *cut], np.float32)
            if _overlap(box, kept) >= _SAME:
                mended["twice"] += 1
            else:
                kept = np.concatenate([kept, box[None]])
    if len(kept) > MAX_BOXES:
        message = f"Expected at most {MAX_BOXES} boxes in {one.where}, got {len(kept)}"
        raise DataError(f"{message}: cut the picture into parts")
    return kept


def _overlap(box: Boxes, others: Boxes) -> float:
    """Return the largest intersection over union of ``box`` with ``others`` of its class."""
    same = others[others[:, 0] == box[0], 1:]
    low, high = np.maximum(same[:, :2], box[1:3]), np.minimum(same[:, 2:], box[3:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (same[:, 2:] - same[:, :2]).prod(axis=1) + (box[3:] - box[1:3]).prod() - shared
    return float((shared / np.maximum(areas, 1e-12)).max(initial=0))


_MENDS = {
    "cut": "cut {} at the edge of their pictures",
    "outside": "left out {} wholly outside their pictures",
    "empty": "left out {} without area",
    "twice": "left out {} that repeat another of their class",
    "crowd": "left out {} around crowds",
}


def _remarks(found: Annotations, read: _Read) -> tuple[str, ...]:
    said = [
        text.format(f"{read.mended[kind]} box{'' if read.mended[kind] == 1 else 'es'}")
        for kind, text in _MENDS.items()
        if read.mended[kind]
    ]
    if found.unmarked:
        said.append(
            f"left out {found.unmarked} pictures without an annotation: an empty one (YOLO: an empty .txt, Pascal VOC: "
            "an .xml without object) keeps a picture as one without objects"
        )
    return tuple(said)
