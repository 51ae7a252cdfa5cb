"""Pictures with boxes: the layouts, what is mended and said, and what is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor import data as data_sets
from compressor.data import boxes, scenes
from compressor.data._table import Table, align, check_sound, concatenate, make_box_table
from compressor.errors import ArchiveError, CompressorError, CorruptImageError, DataError, SplitError
from compressor.recipe.model import DataRecipe

WIDTH, HEIGHT = 80, 60
CELL, DOT = ("cell", 10, 20, 40, 50), ("dot", 40, 30, 48, 36)
Box = tuple[str, float, float, float, float]


def picture(shade: int = 0) -> bytes:
    """Return a PNG of 80 x 60 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (shade, 90, 120)).save(buffer, "PNG")
    return buffer.getvalue()


def voc(*marked: Box, size: tuple[int, int] = (WIDTH, HEIGHT), name: str = "x.png") -> bytes:
    """Return an annotation of Pascal VOC."""
    objects = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for kind, x0, y0, x1, y1 in marked
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation><filename>{name}</filename>{sides}{objects}</annotation>".encode()


def coco(**changes: object) -> bytes:
    """Return two pictures with three boxes as COCO JSON."""
    document: dict[str, object] = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "cell"}, {"id": 9, "name": "dot"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 30]},
            {"image_id": 1, "category_id": 9, "bbox": [40, 30, 8, 6]},
            {"image_id": 2, "category_id": 7, "bbox": [10, 20, 30, 30]},
        ],
    }
    return json.dumps(document | changes).encode()


VOC = {
    "JPEGImages/a.png": picture(0), "Annotations/a.xml": voc(CELL, DOT),
    "JPEGImages/b.png": picture(1), "Annotations/b.xml": voc(CELL),
}  # fmt: skip
COCO = {"images/a.png": picture(0), "images/b.png": picture(1), "instances.json": coco()}
YOLO = {
    "images/a.png": picture(0), "labels/a.txt": b"0 0.3125 0.5833333 0.375 0.5\n1 0.55 0.55 0.1 0.1\n",
    "images/b.png": picture(1), "labels/b.txt": b"0 0.3125 0.5833333 0.375 0.5\n",
    "data.yaml": b"path: .\nnames:\n  0: cell\n  1: dot\n",
}  # fmt: skip
CVAT = {
    "annotations.xml": (
        f'<annotations><image name="a.png" width="{WIDTH}" height="{HEIGHT}">'
        '<box label="cell" xtl="10" ytl="20" xbr="40" ybr="50"/><polygon label="dot" points="40,30;48,33;44,36"/>'
        '</image><image name="b.png"><box label="cell" xtl="10" ytl="20" xbr="40" ybr="50"/></image></annotations>'
    ).encode(), "images/a.png": picture(0), "images/b.png": picture(1),
}  # fmt: skip


def rectangle(kind: str, x0: float, y0: float, x1: float, y1: float, **more: object) -> dict[str, object]:
    """Return a rectangle of Label Studio, in percent."""
    sides = {"x": x0 / WIDTH, "y": y0 / HEIGHT, "width": (x1 - x0) / WIDTH, "height": (y1 - y0) / HEIGHT}
    value = {side: 100 * ratio for side, ratio in sides.items()} | {"rectanglelabels": [kind]} | more
    return {"original_width": WIDTH, "original_height": HEIGHT, "type": "rectanglelabels", "value": value}


def studio(*tasks: tuple[str, list[dict[str, object]]]) -> bytes:
    """Return an export of Label Studio."""
    return json.dumps([
        {"id": place, "data": {"image": f"/data/upload/1/{name}"}, "annotations": [{"result": found}]}
        for place, (name, found) in enumerate(tasks)
    ]).encode()  # fmt: skip


STUDIO = {
    "export.json": studio(("a.png", [rectangle(*CELL), rectangle(*DOT)]), ("b.png", [rectangle(*CELL)])),
    "images/a.png": picture(0), "images/b.png": picture(1),
}  # fmt: skip
LAYOUTS = {"voc": VOC, "coco": COCO, "yolo": YOLO, "cvat": CVAT, "studio": STUDIO}


def load(folder: Path, files: Mapping[str, bytes], **given: object) -> Table:
    """Return the table of a zip with ``files``."""
    path = folder / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return boxes.load(DataRecipe(dataset="boxes", path=str(path), **given))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_boxes_in_each_layout(tmp_path: Path, layout: str) -> None:
    """Class and edges as ratios of the picture, in their order; a picture with fewer has empty places."""
    table = load(tmp_path, LAYOUTS[layout])
    check_sound(table, "boxes")
    assert table.class_names == ("cell", "dot")
    assert table.labels.shape == (2, 2, 5)
    assert table.labels[0] == pytest.approx(
        np.array([[0, 10 / 80, 20 / 60, 40 / 80, 50 / 60], [1, 40 / 80, 30 / 60, 48 / 80, 36 / 60]]), abs=1e-5
    )
    assert table.labels[1, :, 0].tolist() == [0, -1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_read_as_a_zip_is(tmp_path: Path, layout: str) -> None:
    """The same table."""
    for name, data in LAYOUTS[layout].items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    folder = boxes.load(DataRecipe(dataset="boxes", path=str(tmp_path / "folder")))
    zipped = load(tmp_path, LAYOUTS[layout])
    assert np.array_equal(folder.labels, zipped.labels)
    assert folder.hashes.tolist() == zipped.hashes.tolist()


MENDED = [
    ((CELL, ("cell", 60, 50, 100, 70)), 2, "cut 1 box at the edge"),
    ((CELL, ("cell", 90, 10, 120, 20)), 1, "left out 1 box wholly outside"),
    ((CELL, ("dot", 30, 30, 30, 40)), 1, "left out 1 box without area"),
    ((CELL, ("dot", 40, 40, 30, 30), ("dot", 9, 9, 9, 9)), 1, "left out 2 boxes without area"),
    ((CELL, ("cell", 10, 20, 40, 49.5)), 1, "left out 1 box that repeat"),
    ((CELL, ("dot", 10, 20, 40, 50)), 2, ""),
    ((CELL, ("cell", 10, 20, 40, 47)), 2, ""),
]


@pytest.mark.parametrize(("marked", "kept", "said"), MENDED)
def test_boxes_that_cannot_be_learnt_are_mended_or_left_out_and_counted(
    tmp_path: Path, marked: tuple[Box, ...], kept: int, said: str
) -> None:
    """Outside, without area, or marked twice; another class on the same place is another object."""
    table = load(tmp_path, {"a.png": picture(), "a.xml": voc(*marked)})
    check_sound(table, "boxes")
    assert int((table.labels[0, :, 0] >= 0).sum()) == kept
    assert len(table.remarks) == bool(said)
    assert said in "".join(table.remarks)


def test_a_picture_without_objects_stays_one_without_annotation_goes(tmp_path: Path) -> None:
    """An empty annotation says that there is nothing; none says nothing."""
    table = load(tmp_path, VOC | {"c.png": picture(2), "c.xml": voc(), "d.png": picture(3)})
    assert len(table) == 3
    assert table.labels[2, :, 0].tolist() == [-1, -1]
    assert len(table.remarks) == 1
    assert table.remarks[0].startswith("left out 1 pictures without an annotation: an empty one (YOLO: an empty .txt")


def test_crowds_of_coco_are_left_out_and_counted(tmp_path: Path) -> None:
    """They are no single object."""
    crowd = {"image_id": 2, "category_id": 7, "bbox": [0, 0, 30, 30], "iscrowd": 1}
    table = load(tmp_path, COCO | {"instances.json": coco(annotations=[crowd])})
    assert (table.labels[..., 0] < 0).all()
    assert table.remarks == ("left out 1 box around crowds",)


LISTS = {"ImageSets/Main/train.txt": b"a\n", "ImageSets/Main/val.txt": b"b\n", "ImageSets/Main/trainval.txt": b"a\nb"}


@pytest.mark.parametrize(
    ("more", "splits"),
    [({}, ["train", "gate", ""]), ({"ImageSets/Main/test.txt": b"c\n"}, ["train", "calibration", "gate"])],
)
def test_lists_tell_the_splits(tmp_path: Path, more: dict[str, bytes], splits: list[str]) -> None:
    """Test are the gate rows and val then those of calibration, as in folders of classes; a list of both is none."""
    table = load(tmp_path, VOC | LISTS | more | {"c.png": picture(2), "c.xml": voc(DOT)}, split="ImageSets/Main")
    assert table.told is not None
    assert table.told.tolist() == splits


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_names_of_folders_or_files_tell_the_splits(tmp_path: Path, layout: str) -> None:
    """As COCO's files and YOLO's folders are named."""
    if layout == "coco":
        second = coco(images=[{"id": 2, "file_name": "b.png"}], annotations=[])
        first = coco(images=[{"id": 1, "file_name": "a.png"}], annotations=[])
        pictures = {name: data for name, data in COCO.items() if name.startswith("images")}
        files = pictures | {"instances_train2017.json": first, "instances_test.json": second}
    else:
        files = {name.replace("/a", "/train/a").replace("/b", "/test/b"): data for name, data in YOLO.items()}
    table = load(tmp_path, files, split="names")
    assert table.told is not None
    assert table.names is not None
    told = dict(zip((name[-5:] for name in table.names.tolist()), table.told.tolist(), strict=True))
    assert told == {"a.png": "train", "b.png": "gate"}


MANY = [("cell", place % 70, place // 70, place % 70 + 5, place // 70 + 5) for place in range(600)]
REFUSED = {
    "no annotations": ({"a.png": picture()}, ArchiveError, "got 1 files without any"),
    "no picture": ({"a.xml": voc(CELL, name="a.png")}, ArchiveError, "Expected one picture for a.xml"),
    "two pictures": (
        {"l/a.png": picture(), "r/a.png": picture(1), "x.xml": voc(CELL, name="a.png")}, ArchiveError, "got 2",
    ),
    "cut XML": (VOC | {"Annotations/a.xml": voc(CELL)[:60]}, DataError, "Annotations/a.xml as XML"),
    "entities": (
        VOC | {"Annotations/a.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + voc()}, DataError, "document type",
    ),
    "not a number": (VOC | {"Annotations/a.xml": voc(("cell", float("nan"), 1, 2, 3))}, DataError, "object 0"),
    "no class": (VOC | {"Annotations/a.xml": voc(("", 0, 1, 2, 3))}, DataError, "Expected a name in Annotations/a.xml"),
    "blanks": (YOLO | {"classes.txt": b"cell\n", "labels/a.txt": b"3 .5 .5 .1 .1"}, DataError, "classes of 0 to 0"),
    "cut JSON": (COCO | {"instances.json": coco()[:50]}, DataError, "instances.json as JSON"),
    "unknown category": (
        COCO | {"instances.json": coco(categories=[{"id": 7, "name": "cell"}])}, DataError, "annotation 1, got 9",
    ),
    "unknown picture": (
        COCO | {"instances.json": coco(images=[{"id": 1, "file_name": "a.png"}])}, DataError, "got image_id 2",
    ),
    "missing picture": (
        COCO | {"instances.json": coco(images=[{"id": 1, "file_name": "z.png"}])}, ArchiveError, "'z.png'",
    ),
    "no list": (COCO | {"instances.json": coco(images={"id": 1})}, DataError, "'images' in instances.json as a list"),
    "bbox": (
        COCO | {"instances.json": coco(annotations=[{"image_id": 1, "category_id": 7, "bbox": [1, 2]}])}, DataError,
        r"\[x, y, width, height\] in instances.json, annotation 0",
    ),
    "YOLO numbers": (YOLO | {"labels/a.txt": b"0 .5 .5 .1\n"}, DataError, "labels/a.txt, line 1, got 4 numbers"),
    "YOLO words": (YOLO | {"labels/a.txt": b"0 .5 .5 .1 wide\n"}, DataError, "labels/a.txt, line 1, got 'wide'"),
    "YOLO class": (YOLO | {"labels/a.txt": b"-1 .5 .5 .1 .1\n"}, DataError, "class number of 0 or more"),
    "another encoding": (YOLO | {"labels/a.txt": b"\xff\xfe"}, DataError, "in UTF-8"),
    "another shape": (VOC | {"Annotations/a.xml": voc(CELL, size=(60, 80))}, CorruptImageError, "shape 60x80"),
    "broken picture": (VOC | {"JPEGImages/a.png": picture()[:40]}, CorruptImageError, "JPEGImages/a.png"),
    "too many": (VOC | {"Annotations/a.xml": voc(*MANY)},
                 DataError, "at most 500 boxes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, case: str) -> None:
    """The file and the place are named, with a class of error of its own."""
    files, error, said = REFUSED[case]
    with pytest.raises(error, match=said):
        load(tmp_path, files)


@pytest.mark.parametrize(
    ("files", "split", "said"),
    [
        (VOC | LISTS, "ImageSets/Main2", "split = 'ImageSets/Main2', got none.*ImageSets/Main"),
        (VOC, "names", "folders or files named train"),
        (VOC | LISTS | {"ImageSets/Main/test.txt": b"a\n"}, "ImageSets/Main", "'a' in one list"),
        (VOC | LISTS | {"JPEGImages/b.png": picture(0)}, "ImageSets/Main", "the same content"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, files: dict[str, bytes], split: str, said: str) -> None:
    """No lists, or one picture in two."""
    with pytest.raises(SplitError, match=said):
        load(tmp_path, files, split=split)


def test_a_polygon_of_yolo_becomes_its_box(tmp_path: Path) -> None:
    """As segmentation labels have it."""
    table = load(tmp_path, YOLO | {"labels/a.txt": b"0 .1 .2 .5 .2 .5 .8 .1 .6\n"})
    assert table.labels[0, 0] == pytest.approx([0, 0.1, 0.2, 0.5, 0.8])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_garbled_annotations_end_in_an_error_of_ours(tmp_path: Path, layout: str) -> None:
    """Whatever byte is changed, cut or repeated."""
    rng = np.random.default_rng(0)
    names = [name for name in LAYOUTS[layout] if not name.endswith(".png")]
    for turn in range(60):
        name = names[turn % len(names)]
        data = bytearray(LAYOUTS[layout][name])
        at = int(rng.integers(len(data)))
        data[at : at + int(rng.integers(0, 4))] = rng.bytes(int(rng.integers(0, 3)))
        with contextlib.suppress(CompressorError):
            check_sound(load(tmp_path, LAYOUTS[layout] | {name: bytes(data)}), "boxes")


def boxed(*rows: list[list[float]], names: tuple[str, ...] = ("a", "b")) -> Table:
    """Return a table of grey pictures with these boxes."""
    images = [np.full((4, 4, 3), place, np.uint8) for place in range(len(rows))]
    marked = [np.array(row, np.float32).reshape(-1, 5) for row in rows]
    return make_box_table(images, marked, names, slices=["all"] * len(rows))


ONE = [[0, 0.1, 0.1, 0.5, 0.5]]
TWO = [[1, 0.1, 0.1, 0.5, 0.5], [0, 0.2, 0.2, 0.6, 0.6]]


def test_joined_tables_have_places_for_the_fullest() -> None:
    """And mean the same class by name."""
    joined = concatenate(boxed(ONE), boxed(TWO, names=("b", "a")))
    assert joined.labels[..., 0].tolist() == [[0, -1], [0, 1]]
    check_sound(joined, "boxes")


def test_an_unknown_class_of_boxes_is_refused() -> None:
    """By name."""
    with pytest.raises(DataError, match="got b"):
        align(boxed(TWO), ("a",))


def test_equal_boxes_in_another_order_are_the_same_label() -> None:
    """The count of looks at a gate split must not begin anew."""
    assert list(boxed(TWO).label_texts()) == list(boxed(TWO[::-1]).label_texts())
    assert list(boxed(TWO).label_texts()) != list(boxed(ONE).label_texts())


def test_a_packed_table_keeps_boxes_and_remarks(tmp_path: Path) -> None:
    """As the cache stores it."""
    table = load(tmp_path, VOC | {"d.png": picture(3)})
    again = data_sets.unpack(data_sets.pack(table))
    assert np.array_equal(again.labels, table.labels)
    assert again.remarks == table.remarks != ()


@pytest.mark.parametrize(
    "box",
    [
        [2, 0, 0, 1, 1],
        [0.5, 0, 0, 1, 1],
        [0, 0.5, 0, 0.5, 1],
        [0, 0, 0, 1.1, 1],
        [0, np.nan, 0, 1, 1],
        [-2, 0, 0, 1, 1],
    ],
)
def test_unsound_boxes_of_a_person_s_own_loader_are_refused(box: list[float]) -> None:
    """Class, order of the edges, range, numbers."""
    with pytest.raises(DataError, match="in row 1"):
        check_sound(boxed(ONE, [box]), "mine:load")


def test_scenes_are_the_same_on_every_run_and_share_no_digit_between_splits() -> None:
    """Drawn by a seed, each split from handwritten digits of its own."""
    pools = scenes._pools()
    rows = np.concatenate(list(pools.values()))
    assert len(np.unique(rows)) == len(rows) > 800
    one, other = scenes.scene(pools["gate"], 1, 7), scenes.scene(pools["gate"], 1, 7)
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])


def test_the_ink_of_a_scene_is_inside_its_boxes() -> None:
    """Where there is a box, the picture differs from its ground."""
    pool = scenes._pools()["train"]
    inside, outside = [], []
    for number in range(20):
        image, found = scenes.scene(pool, 1, number)
        mask = np.zeros((scenes.SIDE, scenes.SIDE), bool)
        for _, x0, y0, x1, y1 in (found * np.array([1, *[scenes.SIDE] * 4])).round().astype(int).tolist():
            mask[y0:y1, x0:x1] = True
        inside += image[mask].ravel().tolist()
        outside += image[~mask].ravel().tolist()
    assert np.percentile(inside, 95) > np.percentile(outside, 95) + 60


def test_a_folder_with_nothing_but_a_zip_is_that_zip(tmp_path: Path) -> None:
    """As a downloaded data set lies; with another file beside it, it is a folder without annotations."""
    whole = load(tmp_path, VOC)
    found = boxes.load(DataRecipe(dataset="boxes", path=str(tmp_path)))
    assert found.hashes.tolist() == whole.hashes.tolist()
    (tmp_path / "notes.pdf").write_bytes(b"x")
    with pytest.raises(ArchiveError, match="without any"):
        boxes.load(DataRecipe(dataset="boxes", path=str(tmp_path)))


def test_turned_boxes_of_the_tools(tmp_path: Path) -> None:
    """Become the box around them: CVAT turns about the centre, Label Studio about the upper left corner."""
    turned = CVAT["annotations.xml"].replace(b'ybr="50"/><poly', b'ybr="50" rotation="90"/><poly')
    turned = turned.replace(b'xtl="10" ytl="20" xbr="40"', b'xtl="5" ytl="20" xbr="45"', 1)  # 40 x 30 about (25, 35)
    table = load(tmp_path, {**CVAT, "annotations.xml": turned})
    assert table.labels[0, 0, 1:] == pytest.approx([10 / 80, 15 / 60, 40 / 80, 55 / 60], abs=1e-5)
    quarter = studio(("a.png", [rectangle("cell", 50, 10, 70, 20, rotation=90)]), ("b.png", []))
    table = load(tmp_path, {**STUDIO, "export.json": quarter})  # 20 x 10 at (50, 10) becomes 10 x 20 left of it
    assert table.labels[0, 0, 1:] == pytest.approx([40 / 80, 10 / 60, 50 / 80, 30 / 60], abs=1e-5)
    assert (table.labels[1, :, 0] < 0).all()


def test_the_short_export_of_label_studio(tmp_path: Path) -> None:
    """JSON-MIN has rectangles under the name of the control; tasks without any are left out, and said."""
    first = rectangle(*CELL)
    value = first["value"] if isinstance(first["value"], dict) else {}
    tasks = [{"image": "/data/upload/1/a.png", "box": [{**value, "original_width": 80, "original_height": 60}]},
             {"image": "/data/upload/1/b.png"}]  # fmt: skip
    table = load(tmp_path, {**STUDIO, "export.json": json.dumps(tasks).encode()})
    assert table.labels[0, 0] == pytest.approx([0, 10 / 80, 20 / 60, 40 / 80, 50 / 60], abs=1e-5)
    assert [said.partition(":")[0] for said in table.remarks] == ["left out 1 pictures without an annotation"]


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        (b'label="dot"', b"", DataError, "a label in a.png"),
        (b"48,33", b"48", DataError, "points as x,y;x,y"),
        (b"b.png", b"c.png", ArchiveError, "'c.png'"),
    ],
)
def test_an_export_of_cvat_that_does_not_fit_is_named(
    tmp_path: Path, old: bytes, new: bytes, error: type[CompressorError], said: str
) -> None:
    """The picture and the box, and what to do."""
    with pytest.raises(error) as found:
        load(tmp_path, {**CVAT, "annotations.xml": CVAT["annotations.xml"].replace(old, new)})
    assert said in str(found.value)


@pytest.mark.parametrize(
    ("export", "error", "said"),
    [
        (studio(("c.png", [rectangle(*CELL)])), ArchiveError, "'c.png' of export.json, task 0"),
        (studio(("a.png", [rectangle(*CELL, rectanglelabels=[])])), DataError, "a label of each"),
        (studio(("a.png", [rectangle(*CELL, x="?")])), DataError, "Expected a number as x"),
        (json.dumps([{"image": "a.png", "annotations": [{"result": [rectangle(*CELL)]}] * 2}]).encode(), DataError,
         "one ground truth, in export.json, task 0, got 2"),
    ],
)  # fmt: skip
def test_an_export_of_label_studio_that_does_not_fit_is_named(
    tmp_path: Path, export: bytes, error: type[CompressorError], said: str
) -> None:
    """The task, and what to do."""
    with pytest.raises(error) as found:
        load(tmp_path, {**STUDIO, "export.json": export})
    assert said in str(found.value)
