"""Recognises pictures with boxes as annotation tools export them, and what their files say: splits and sizes.

Decides by the content of a few files, not by names alone: a JSON file beside pictures may be a list of choices, and a
text beside a picture may be a caption.
"""

from __future__ import annotations

import json
import statistics
from pathlib import PurePosixPath

from compressor.data._annotations import (
    BY_NAMES,
    IMAGE_SUFFIXES,
    MAX_JSON_BYTES,
    MAX_XML_BYTES,
    Annotations,
    has_rectangles,
    is_coco,
    read,
    with_splits,
    yolo_texts,
)
from compressor.data._archive import Names
from compressor.data._layout import SPLIT_FOLDERS
from compressor.errors import CompressorError
from compressor.exploration.layouts.form import spread
from compressor.tasks._drafting import Key

_TEXT_BYTES = 1024 * 1024
_LOOKED_AT = 20
_CELLS_OF_BOX = 5


def form_of(store: Names) -> str:
    """Return the form of the boxes in ``store`` in words; "" if its pictures have none."""
    names = store.names()
    return _of_xml(store, names) or _of_json(store, names) or _of_yolo(store, names)


def _of_xml(store: Names, names: list[str]) -> str:
    for name in spread([one for one in names if one.lower().endswith(".xml")])[:_LOOKED_AT]:
        content = store.read(name, MAX_XML_BYTES)
        if b"<annotations" in content:
            boxes = any(mark in content for mark in (b"<box ", b"<polygon "))
            return f"{name} is an export of CVAT with boxes" if boxes else ""
        if b"<annotation" in content and b"<bndbox" in content:
            return "a Pascal VOC annotation (.xml) for each picture"
    return ""


def _of_json(store: Names, names: list[str]) -> str:
    for name in [one for one in names if one.lower().endswith(".json")][:_LOOKED_AT]:
        try:
            document = json.loads(store.read(name, MAX_JSON_BYTES))
        except (ValueError, RecursionError):
            continue  # the data set that reads it says what is wrong
        if is_coco(document):
            found = document["annotations"]
            if isinstance(found, list) and any(isinstance(one, dict) and "bbox" in one for one in found):
                return f"{PurePosixPath(name).name} has images, annotations and categories: COCO boxes"
        if has_rectangles(document):
            return f"{PurePosixPath(name).name} is an export of Label Studio with rectangles"
    return ""


def _of_yolo(store: Names, names: list[str]) -> str:
    texts = {name for name in names if name.endswith(".txt")}
    images = [name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    beside = [text for name in images if (text := next((one for one in yolo_texts(name) if one in texts), ""))]
    for name in spread(beside)[:_LOOKED_AT]:
        lines = [line.split() for line in store.read(name, _TEXT_BYTES).decode(errors="replace").splitlines()]
        filled = [line for line in lines if line]
        if filled:
            boxes = all(len(line) >= _CELLS_OF_BOX and all(map(_is_number, line)) for line in filled)
            return "a text with a line a box beside each picture or under labels/: YOLO" if boxes else ""
    return ""


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def told(store: Names) -> tuple[list[Key], float, list[str]]:
    """Return the key ``split``, if the files tell splits; the ratio of the median box's shorter side; the pictures.

    Raises:
        ArchiveError: If there are no annotations, or a picture that they name is missing.
        DataError: If a file can't be read.
    """
    found = read(store)
    images = [one.path for one in found.pictures]
    sides = []
    for one in found.pictures:
        width, height = (1.0, 1.0) if one.ratios else one.size
        if min(width, height) > 0:
            sides += [min((box.edges[2] - box.edges[0]) / width, (box.edges[3] - box.edges[1]) / height)
                      for box in one.boxes]  # fmt: skip
    side = statistics.median(sides) if sides else 1.0
    for folder in _folders_of_lists(store):
        if _judges(found, store, folder):
            return [Key(name="split", value=folder, why="the folder with train.txt and the other lists")], side, images
    if _judges(found, store, BY_NAMES):
        why = "folders or files named train, val, test: val calibrates, test judges (val, if there is no test)"
        return [Key(name="split", value=BY_NAMES, why=why)], side, images
    return [], side, images


def _folders_of_lists(store: Names) -> list[str]:
    """Return the folders with a list of training pictures, ImageSets/Main first."""
    lists = [PurePosixPath(name) for name in store.names() if name.endswith(".txt")]
    folders = {str(one.parent) for one in lists if SPLIT_FOLDERS.get(one.stem.lower()) == "train"}
    return sorted(folders, key=lambda folder: (not folder.endswith("Main"), folder))


def _judges(found: Annotations, store: Names, split: str) -> bool:
    """Return whether ``split`` gives pictures to learn from and pictures to judge by."""
    try:
        pictures = with_splits(found, store, split).pictures
    except CompressorError:
        return False
    return {"train", "gate"} <= {one.split for one in pictures}
