"""Pictures with boxes as people annotate them: VOC, COCO, YOLO, CVAT and Label Studio, read from one store to one form.

Decides which layout a store has, which picture an annotation belongs to, and which split its lists or names give. Does
not judge the boxes themselves: ``boxes`` does, alike for all of them.

Source: M. Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 88 (2010), development kit; COCO,
https://cocodataset.org/#format-data; Ultralytics, https://docs.ultralytics.com/datasets/detect/ (YOLO);
https://docs.cvat.ai/docs/manual/advanced/xml_format/; https://labelstud.io/tags/rectanglelabels (x and y in percent of
the picture, rotation about the upper left corner).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeGuard
from xml.etree import ElementTree as ET

from compressor.data._archive import Names
from compressor.data._layout import SPLIT_FOLDERS, splits_of
from compressor.data._named_files import NamedFiles
from compressor.data._table import check_label
from compressor.errors import ArchiveError, DataError, SplitError
from wire.settings import nearest

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})
BY_NAMES = "names"
"""The value of ``[data] split`` for which folders and files are named after the splits."""
_MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_JSON_BYTES = 512 * 1024 * 1024
MAX_XML_BYTES = 256 * 1024 * 1024
_COCO = {"images", "annotations", "categories"}
_PICTURES = ("image", "img", "path", "file", "url", "image_url")
"""Keys of a task of Label Studio that name its picture."""
_LOOKED_AT = 200
_CORNERS, _CENTRED, _POINTS = 4, 5, 7
_NAMES_FILES = ("classes.txt", "obj.names")


@dataclass(frozen=True, slots=True)
class Marked:
    """One box as annotated: the class by name, and x0, y0, x1, y1 in pixels or, in YOLO, as ratios."""

    name: str
    edges: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """One picture: its file in the store, what it is called in messages, and its boxes.

    ``size``: width and height to which the boxes refer, in pixels; (0, 0): those of the file. ``ratios``: edges are
    ratios of the picture's size. ``split``: ours, or empty; while the store is read, the name that it has there.
    ``left_out``: boxes that are no single object (crowds).
    """

    path: str
    where: str
    boxes: tuple[Marked, ...]
    size: tuple[float, float] = (0.0, 0.0)
    ratios: bool = False
    split: str = ""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Annotations:
    """All pictures of a store, the classes that it names, and how many pictures have no annotation."""

    pictures: Sequence[Annotated]
    class_names: tuple[str, ...]
    unmarked: int


def read(store: Names) -> Annotations:
    """Return the annotated pictures of ``store``, each with the split that its names give, as they give it.

    Raises:
        ArchiveError: If there are no annotations, or a picture that they name is missing.
        DataError: If a file can't be read, or names a class that is not declared.
    """
    names = store.names()
    images = _Images(names)
    if any(name.endswith(".xml") for name in names):
        found = Annotations(*_of_xml(store, images))
    else:
        read_documents = [(name, _document(store, name)) for name in names if name.endswith(".json")]
        documents = [(name, one) for name, one in read_documents if is_coco(one)]
        exported = [(name, one) for name, one in read_documents if has_rectangles(one)]
        if documents:
            found = Annotations(*_coco(documents, images))
        elif exported:
            found = Annotations(*_label_studio(exported, images))
        else:
            found = Annotations(*_yolo(store, images))
    if not found.pictures:
        message = f"Expected pictures with boxes (VOC, CVAT, COCO, Label Studio or YOLO), got {len(names)} files"
        raise ArchiveError(f"{message} without any: docs/how-to/find-boxes.md shows the folders")
    return found


def with_splits(found: Annotations, store: Names, split: str) -> Annotations:
    """Return ``found`` in ``store`` with the splits by ``split``: a folder of lists, or ``BY_NAMES``; "": no splits.

    Raises:
        SplitError: If there are no such lists or names, or a picture is in two.
    """
    if not split:
        return replace(found, pictures=[replace(one, split="") for one in found.pictures])
    if split != BY_NAMES:
        lists = _lists(store, split)
        stems = [PurePosixPath(one.path).stem for one in found.pictures]
        return replace(
            found,
            pictures=[replace(one, split=lists.get(stem, "")) for one, stem in zip(found.pictures, stems, strict=True)],
        )
    if not any(one.split for one in found.pictures):
        message = f"Expected folders or files named train, val and test with split = {BY_NAMES!r}, got none"
        raise SplitError(f"{message}: name the folder of the lists, such as ImageSets/Main, or leave split out")
    splits = splits_of({one.split for one in found.pictures})
    return replace(found, pictures=[replace(one, split=splits.get(one.split, "")) for one in found.pictures])


class _Images:
    """The pictures of a store, found by path or by the letters before their suffix."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
        self.paths = frozenset(self.names)
        self._by_stem: dict[str, list[str]] = {}
        for name in self.names:
            self._by_stem.setdefault(PurePosixPath(name).stem, []).append(name)

    def of(self, stem: str, stated: str, where: str) -> str:
        """Return the picture with ``stem`` or the file ``stated``.

        Raises:
            ArchiveError: If there is none, or several between which nothing decides.
        """
        own = self._by_stem.get(stem, []) or self._by_stem.get(PurePosixPath(stated).stem, [])
        ending = [name for name in own if stated and f"/{name}".endswith(f"/{stated}")]
        found = ending if len(ending) == 1 else own
        if len(found) == 1:
            return found[0]
        got = f"{len(found)} ({', '.join(found[:3])})" if found else "none"
        message = f"Expected one picture for {where}, called {stem!r} or {stated!r}, got {got}"
        raise ArchiveError(f"{message}: put it beside the annotations, or give each a name of its own")

    def ending(self, stated: str) -> str:
        """Return the picture whose path ends in ``stated``, or ""."""
        if stated in self.paths:
            return stated
        found = [
            name for name in self._by_stem.get(PurePosixPath(stated).stem, []) if f"/{name}".endswith(f"/{stated}")
        ]
        return found[0] if len(found) == 1 else ""


def _text(store: Names, name: str, limit_bytes: int = _MAX_TEXT_BYTES) -> str:
    try:
        return store.read(name, limit_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected {name} in UTF-8, got: {error}: save it anew") from error


def _number(text: object, what: str, where: str) -> float:
    try:
        value = float(str(text))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = f"Expected a number as {what} in {where}, got {str(text)[:50]!r}"
        raise DataError(f"{message}: mend the box or leave it out")
    return value


def _named_split(path: str) -> str:
    """Return the split's name that a folder or the file itself has, in lower case, or ""."""
    words = [word for part in reversed(PurePosixPath(path).parts) for word in re.split(r"[^a-z]+", part.lower())]
    return next((word for word in words if word in SPLIT_FOLDERS), "")


def _lists(store: Names, folder: str) -> dict[str, str]:
    """Return our split of each picture by its stem, from the lists in ``folder``."""
    inside = folder.strip("/")
    names = [name for name in store.names() if str(PurePosixPath(name).parent) == inside and name.endswith(".txt")]
    stems = {name: PurePosixPath(name).stem.lower() for name in names}
    splits = splits_of(set(stems.values()))
    lists = {name: splits[stem] for name, stem in stems.items() if stem in splits}
    if not lists:
        folders = sorted({str(PurePosixPath(name).parent) for name in store.names() if name.endswith(".txt")})
        message = f"Expected lists train.txt, val.txt and test.txt in the folder split = {folder!r}, got none"
        raise SplitError(f"{message}{nearest(inside, folders)}: name the folder that has them")
    found: dict[str, tuple[str, str]] = {}
    for name, split in lists.items():
        for line in _text(store, name).splitlines():
            stem = PurePosixPath(line.split()[0]).stem if line.split() else ""
            first, other = found.setdefault(stem, (split, name))
            if stem and first != split:
                raise SplitError(f"Expected {stem!r} in one list, got it in {other} and {name}: take it out of one")
    return {stem: split for stem, (split, _) in found.items() if stem}


# Pascal VOC and CVAT


def _of_xml(store: Names, images: _Images) -> tuple[list[Annotated], tuple[str, ...], int]:
    """Return the pictures of all XML files: one each of Pascal VOC, many of CVAT; other XML is passed over."""
    pictures: list[Annotated] = []
    for name in (one for one in store.names() if one.endswith(".xml")):
        root = _xml(store, name)
        if root.tag == "annotation":
            pictures.append(_voc_picture(root, name, images))
        elif root.tag == "annotations":
            pictures += _cvat_pictures(root, name, images)
    known = {marked.name for one in pictures for marked in one.boxes}
    return pictures, tuple(sorted(known)), len(images.names) - len({one.path for one in pictures})


def _xml(store: Names, name: str) -> ET.Element:
    text = _text(store, name, MAX_XML_BYTES)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities could grow without limit
        raise DataError(f"Expected {name} without a document type, got one: save the annotation anew")
    try:
        return ET.fromstring(text)  # noqa: S314 - entities are refused above
    except (ET.ParseError, RecursionError, ValueError) as error:
        raise DataError(f"Expected {name} as XML of Pascal VOC or CVAT, got: {error}: export it again") from error


def _voc_picture(root: ET.Element, name: str, images: _Images) -> Annotated:
    boxes = []
    for place, item in enumerate(root.findall("object")):
        where = f"{name}, object {place}"
        label = (item.findtext("name") or "").strip()
        if not label:
            raise DataError(f"Expected a name in {where}, got none: fill it in or leave the object out")
        edges = [item.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = (_number(edge, "an edge", where) for edge in edges)
        boxes.append(Marked(label, (x0, y0, x1, y1)))
    sizes = [_number(root.findtext(f"size/{side}") or 0, f"the {side}", name) for side in ("width", "height")]
    path = images.of(PurePosixPath(name).stem, (root.findtext("filename") or "").strip(), name)
    return Annotated(path=path, where=name, boxes=tuple(boxes), size=(sizes[0], sizes[1]), split=_named_split(path))


def _cvat_pictures(root: ET.Element, name: str, images: _Images) -> Iterator[Annotated]:
    """Yield the pictures of "CVAT for images 1.1"; polygons become the box around them, and so do turned boxes."""
    files = NamedFiles(images.names, "the pictures")
    for image in root.iter("image"):
        stated = (image.get("name") or "").replace("\\", "/")
        where = f"{stated[:200]} of {name}"
        subset = image.get("subset") or ""
        path = _there(files.find(f"{subset}/{stated}" if subset else stated, where), images, where)
        boxes = []
        for place, item in enumerate(item for item in image if item.tag in {"box", "polygon"}):
            label = (item.get("label") or "").strip()
            if not label:
                raise DataError(f"Expected a label in {where}, box {place}, got none: fill it in or leave the box out")
            boxes.append(Marked(label, _cvat_edges(item, f"{where}, box {place}")))
        sizes = [_number(image.get(side) or 0, f"the {side}", where) for side in ("width", "height")]
        split = _named_split(subset) or _named_split(path)
        yield Annotated(path=path, where=where, boxes=tuple(boxes), size=(sizes[0], sizes[1]), split=split)


def _cvat_edges(item: ET.Element, where: str) -> tuple[float, float, float, float]:
    if item.tag == "polygon":
        points = [point.split(",") for point in (item.get("points") or "").split(";")]
        if any(len(point) != 2 for point in points):  # noqa: PLR2004 - x and y
            raise DataError(
                f"Expected points as x,y;x,y in {where}, got {str(item.get('points'))[:60]!r}: export it again"
            )
        xs, ys = ([_number(point[axis], "a point", where) for point in points] for axis in (0, 1))
        return min(xs), min(ys), max(xs), max(ys)
    x0, y0, x1, y1 = (_number(item.get(edge), "an edge", where) for edge in ("xtl", "ytl", "xbr", "ybr"))
    turned = _number(item.get("rotation") or 0, "the rotation", where)
    return _around((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, turned)


def _around(
    x: float, y: float, width: float, height: float, degrees: float, ratio: float = 1.0
) -> tuple[float, float, float, float]:
    """Return the edges around a box turned by ``degrees`` about its centre; ``ratio``: pixels of x per pixel of y."""
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    across = width * cosine + height * sine / ratio
    down = width * sine * ratio + height * cosine
    return x - across / 2, y - down / 2, x + across / 2, y + down / 2


def _there(path: str, images: _Images, where: str) -> str:
    """Return ``path`` if it is a picture of the store.

    Raises:
        ArchiveError: If it is not.
    """
    if path not in images.paths:
        message = f"Expected the picture {path[:200]!r} of {where} in the store, got none"
        raise ArchiveError(f"{message}: put it there, or leave it out of the export")
    return path


# Label Studio


def has_rectangles(document: object) -> TypeGuard[list[object]]:
    """Return whether a JSON ``document`` is an export of Label Studio with rectangles."""
    return isinstance(document, list) and any('"rectanglelabels"' in json.dumps(one) for one in document[:_LOOKED_AT])


def _label_studio(
    documents: Sequence[tuple[str, list[object]]], images: _Images
) -> tuple[list[Annotated], tuple[str, ...], int]:
    """Return the pictures of exports of Label Studio, whole or JSON-MIN; tasks without an annotation are left out."""
    files = NamedFiles(images.names, "the pictures")
    pictures = []
    for name, document in documents:
        for place, task in enumerate(document):
            if not isinstance(task, dict):
                message = f"Expected {name} as a list of tasks, got {type(task).__name__}"
                raise DataError(f"{message}: export it from Label Studio as JSON or JSON-MIN")
            where = f"{name}, task {task.get('id', place)}"
            results = _results(task, where)
            if results is None:
                continue
            fields = task["data"] if isinstance(task.get("data"), dict) else task
            stated = next((fields[key] for key in _PICTURES if isinstance(fields.get(key), str)), "")
            path = _there(files.find(stated, where), images, where)
            found = [_rectangle(one, where) for one in results]
            boxes, sizes = tuple(box for own, _ in found for box in own), [size for _, size in found if min(size) > 0]
            size = sizes[0] if sizes else (0.0, 0.0)
            split = _named_split(path)
            pictures.append(Annotated(path=path, where=where, boxes=boxes, size=size, ratios=True, split=split))
    known = {marked.name for one in pictures for marked in one.boxes}
    return pictures, tuple(sorted(known)), len(images.names) - len({one.path for one in pictures})


def _results(task: Mapping[str, object], where: str) -> list[Mapping[str, object]] | None:
    """Return the rectangles of a task, of its ground truth if there is one; None if nobody has annotated it."""
    given = task.get("annotations")
    if not isinstance(given, list):  # JSON-MIN: a key of the task has them
        lists = [value for value in task.values() if isinstance(value, list)]
        return [one for own in lists for one in own if isinstance(one, dict) and "rectanglelabels" in one] or None
    done = [one for one in given if isinstance(one, dict) and not one.get("was_cancelled")]
    truth = [one for one in done if one.get("ground_truth")] or done
    if len(truth) > 1:
        message = f"Expected one annotation, or one ground truth, in {where}, got {len(truth)}"
        raise DataError(f"{message}: settle it in Label Studio, or leave the task out")
    if not truth:
        return None
    results = truth[0].get("result")
    found = [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []
    return [
        {**one, **value} for one in found if isinstance(value := one.get("value"), dict) and "rectanglelabels" in value
    ]


def _rectangle(one: Mapping[str, object], where: str) -> tuple[list[Marked], tuple[float, float]]:
    """Return the boxes of a rectangle, one a label, as ratios of the picture; and the picture's size, 0 if not told."""
    labels = one["rectanglelabels"]
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) and label for label in labels):
        raise DataError(
            f"Expected a label of each rectangle in {where}, got {str(labels)[:60]}: choose one, or remove it"
        )
    x, y, width, height = (_number(one.get(side), side, where) / 100 for side in ("x", "y", "width", "height"))
    across, down = (_number(one.get(f"original_{side}") or 0, f"the {side}", where) for side in ("width", "height"))
    turned = _number(one.get("rotation") or 0, "the rotation", where)
    ratio = across / down if across > 0 and down > 0 else 1.0
    cosine, sine = (
        math.cos(math.radians(turned)),
        math.sin(math.radians(turned)),
    )  # it turns about its upper left corner
    middle_x = x + (width * cosine - height / ratio * sine) / 2
    middle_y = y + (width * ratio * sine + height * cosine) / 2
    edges = _around(middle_x, middle_y, width, height, turned, ratio)
    return [Marked(label, edges) for label in labels], (across, down)


# COCO


def is_coco(document: object) -> TypeGuard[dict[str, object]]:
    """Return whether a JSON ``document`` has the parts of COCO."""
    return isinstance(document, dict) and document.keys() >= _COCO


def _document(store: Names, name: str) -> object:
    try:
        return json.loads(store.read(name, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected {name} as JSON, got: {str(error)[:120]}: export it again") from error


def _coco(
    documents: Sequence[tuple[str, dict[str, object]]], images: _Images
) -> tuple[list[Annotated], tuple[str, ...], int]:
    pictures: dict[str, Annotated] = {}
    known: dict[str, None] = {}
    for name, document in documents:
        for one in _coco_pictures(name, document, images, known):
            before = pictures.get(one.path)
            if before is not None and one.split and one.split != before.split:
                raise SplitError(f"Expected {one.path!r} in one split, got it in {before.where} and {one.where}")
            joined = (*before.boxes, *one.boxes) if before is not None else one.boxes
            pictures[one.path] = replace(one, boxes=joined)
    return list(pictures.values()), tuple(known), len(images.names) - len(pictures)


def _coco_pictures(
    name: str, document: dict[str, object], images: _Images, known: dict[str, None]
) -> Iterator[Annotated]:
    categories = {
        _field(one, "id", name): str(_field(one, "name", name)) for one in _listed(document, "categories", name)
    }
    known |= dict.fromkeys(categories.values())
    boxes: dict[object, list[Marked]] = {}
    crowds: dict[object, int] = {}
    for place, one in enumerate(_listed(document, "annotations", name)):
        where = f"{name}, annotation {place}"
        picture, category = _field(one, "image_id", where), _field(one, "category_id", where)
        if category not in categories:
            message = f"Expected a category of {name} in {where}, got {category!r}"
            raise DataError(f"{message}: add it to categories or leave the box out")
        if one.get("iscrowd"):
            crowds[picture] = crowds.get(picture, 0) + 1
            continue
        box = one.get("bbox")
        if not isinstance(box, list) or len(box) != _CORNERS:
            raise DataError(f"Expected bbox as [x, y, width, height] in {where}, got {str(box)[:60]}: export it again")
        x, y, width, height = (_number(value, "bbox", where) for value in box)
        boxes.setdefault(picture, []).append(Marked(categories[category], (x, y, x + width, y + height)))
    ids = set()
    for one in _listed(document, "images", name):
        stated, own = str(_field(one, "file_name", name)).replace("\\", "/"), _field(one, "id", name)
        ids.add(own)
        path = images.ending(stated)
        if not path:
            message = f"Expected the picture {stated[:200]!r} of {name} in the store, got none"
            raise ArchiveError(f"{message}, or several that end so: put it there, or leave it out of the file")
        sizes = [_number(one.get(side) or 0, f"the {side}", name) for side in ("width", "height")]
        yield Annotated(
            path=path, where=f"{stated} of {name}", boxes=tuple(boxes.get(own, ())), size=(sizes[0], sizes[1]),
            split=_named_split(name) or _named_split(path), left_out=crowds.get(own, 0),
        )  # fmt: skip
    lost = next((picture for picture in boxes if picture not in ids), None)
    if lost is not None:
        raise DataError(f"Expected each box of {name} with an image of it, got image_id {lost!r}: export it again")


def _listed(document: Mapping[str, object], key: str, name: str) -> list[dict[str, object]]:
    value = document[key]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise DataError(f"Expected {key!r} in {name} as a list of objects, got {type(value).__name__}: export it again")
    return value


def _field(one: Mapping[str, object], key: str, where: str) -> object:
    value = one.get(key)
    if not isinstance(value, str | int | float):
        raise DataError(f"Expected {key!r} in each entry of {where}, got {str(value)[:50]!r}: export it again")
    return value


# YOLO


def _yolo(store: Names, images: _Images) -> tuple[list[Annotated], tuple[str, ...], int]:
    texts = {name for name in store.names() if name.endswith(".txt")}
    class_names = _yolo_names(store)
    pictures, highest = [], -1
    for path in images.names:
        name = next((one for one in yolo_texts(path) if one in texts), "")
        if not name:
            continue
        found = list(_yolo_boxes(_text(store, name), name))
        highest = max([highest, *(kind for kind, _ in found)])
        if class_names and highest >= len(class_names):
            message = f"Expected classes of 0 to {len(class_names) - 1} in {name}, got {highest}"
            raise DataError(f"{message}: add its name to the file with the classes, or leave the box out")
        boxes = tuple(Marked(class_names[kind] if class_names else str(kind), edges) for kind, edges in found)
        pictures.append(Annotated(path=path, where=name, boxes=boxes, ratios=True, split=_named_split(path)))
    known = class_names or tuple(map(str, range(highest + 1)))
    return pictures, known, len(images.names) - len(pictures)


def yolo_texts(path: str) -> list[str]:
    """Return where the boxes of a picture may be: beside it, or in ``labels`` instead of ``images``."""
    beside = PurePosixPath(path).with_suffix(".txt")
    parts = list(beside.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if places:
        parts[places[-1]] = "labels"
    return [str(PurePosixPath(*parts)), str(beside)]


def _yolo_boxes(text: str, name: str) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        cells, where = line.split(), f"{name}, line {number}"
        if not cells:
            continue
        if len(cells) != _CENTRED and (len(cells) < _POINTS or not len(cells) % 2):
            message = f"Expected class, centre x and y, width and height in {where}, got {len(cells)} numbers"
            raise DataError(f"{message}: mend the line or leave it out")
        kind, *values = (_number(cell, "a value", where) for cell in cells)
        if kind != int(kind) or kind < 0:
            raise DataError(f"Expected a class number of 0 or more in {where}, got {cells[0]!r}: mend the line")
        if len(cells) == _CENTRED:
            x, y, width, height = values
            yield int(kind), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:  # a polygon: its box
            yield int(kind), (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))


def _yolo_names(store: Names) -> tuple[str, ...]:
    """Return the classes of ``data.yaml``, ``classes.txt`` or ``*.names``, in their order; () if there is none."""
    for name in store.names():
        last = PurePosixPath(name).name.lower()
        if last in _NAMES_FILES or last.endswith(".names"):
            found = [line.strip() for line in _text(store, name).splitlines() if line.strip()]
        elif last.endswith((".yaml", ".yml")):
            found = _yaml_names(_text(store, name))
        else:
            continue
        if found:
            for label in found:
                check_label(label, name)
            return tuple(found)
    return ()


def _yaml_names(text: str) -> list[str]:
    """Return the list or the numbered lines below ``names:``; no other YAML is read."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        return []
    inside = lines[start].partition(":")[2].strip()
    if inside.startswith("["):
        joined = " ".join([inside, *lines[start + 1 :]])
        return [one.strip().strip("'\"") for one in joined[1 : joined.find("]")].split(",") if one.strip()]
    found = []
    for line in lines[start + 1 :]:
        if line.strip() and not line.startswith((" ", "-", "\t")):
            break
        value = re.sub(r"^\s*(-|\d+\s*:)\s*", "", line.split(" #")[0]).strip().strip("'\"")
        found += [value] if value else []
    return found
