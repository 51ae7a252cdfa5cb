"""Pictures with boxes as tools export them: each is drafted as a detection that reads them, and nothing is changed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor import data as data_sets
from tests.compressor.data.test_boxes import rectangle, studio, voc
from tests.compressor.data.test_class_folders import write
from tests.compressor.exploration.test_init import drafted, run_drafted

COUNT, WIDTH, HEIGHT = 48, 80, 60
Files = dict[str, bytes]


def boxed(number: int) -> tuple[bytes, tuple[str, float, float, float, float]]:
    """Return a noisy picture with one bright or dark square, and its box."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 160, (HEIGHT, WIDTH, 3))
    kind, side = ("bright", "dark")[number % 2], 16
    left, top = int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side))
    pixels[top : top + side, left : left + side] = 230 if kind == "bright" else 20
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue(), (kind, left, top, left + side, top + side)


PICTURES = [boxed(number) for number in range(COUNT)]
NAMES = ("bright", "dark")


def in_voc() -> Files:
    """Return Pascal VOC with lists."""
    files = {f"JPEGImages/{n}.png": data for n, (data, _) in enumerate(PICTURES)}
    files |= {f"Annotations/{n}.xml": voc(box, name=f"{n}.png") for n, (_, box) in enumerate(PICTURES)}
    for name, rows in (("train", range(30)), ("val", range(30, 36)), ("test", range(36, COUNT))):
        files[f"ImageSets/Main/{name}.txt"] = "\n".join(map(str, rows)).encode()
    return files


def line(box: tuple[str, float, float, float, float]) -> bytes:
    """Return a line of YOLO."""
    kind, x0, y0, x1, y1 = box
    centre = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT
    return f"{NAMES.index(kind)} {centre[0]} {centre[1]} {(x1 - x0) / WIDTH} {(y1 - y0) / HEIGHT}\n".encode()


def in_yolo() -> Files:
    """Return YOLO as Roboflow exports it: folders train, valid and test, each with images and labels."""
    files = {"data.yaml": b"train: ../train/images\nnc: 2\nnames: ['bright', 'dark']\n", "README.txt": b"by a tool\n"}
    for n, (data, box) in enumerate(PICTURES):
        part = ("train", "train", "train", "valid", "test")[n % 5]
        files |= {f"{part}/images/{n}.png": data, f"{part}/labels/{n}.txt": line(box)}
    return files


def in_darknet() -> Files:
    """Return YOLO without splits, texts beside the pictures."""
    files = {"obj/classes.txt": b"bright\ndark\n"}
    for n, (data, box) in enumerate(PICTURES):
        files |= {f"obj/{n}.png": data, f"obj/{n}.txt": line(box)}
    return files


def in_coco(name: str = "annotations/instances.json") -> Files:
    """Return COCO."""
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(COUNT)],
        "categories": [{"id": place, "name": name} for place, name in enumerate(NAMES)],
        "annotations": [
            {"image_id": n, "category_id": NAMES.index(kind), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for n, (_, (kind, x0, y0, x1, y1)) in enumerate(PICTURES)
        ],
    }
    return {name: json.dumps(document).encode(), **{f"images/{n}.png": data for n, (data, _) in enumerate(PICTURES)}}


def in_hidden_coco() -> Files:
    """Return COCO as Roboflow exports it: the name of its file begins with ``_``."""
    return in_coco("_annotations.coco.json")


def in_studio() -> Files:
    """Return an export of Label Studio."""
    export = studio(*((f"{n}.png", [rectangle(*box)]) for n, (_, box) in enumerate(PICTURES)))
    return {"project-1.json": export, **{f"images/{n}.png": data for n, (data, _) in enumerate(PICTURES)}}


def in_cvat() -> Files:
    """Return an export of CVAT."""
    images = "".join(
        f'<image name="{n}.png" width="{WIDTH}" height="{HEIGHT}"><box label="{kind}" xtl="{x0}" ytl="{y0}" xbr="{x1}" '
        f'ybr="{y1}"/></image>'
        for n, (_, (kind, x0, y0, x1, y1)) in enumerate(PICTURES)
    )
    return {"annotations.xml": f"<annotations>{images}</annotations>".encode(),
            **{f"images/{n}.png": data for n, (data, _) in enumerate(PICTURES)}}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "split", "why"),
    [
        (in_voc, "ImageSets/Main", "a Pascal VOC annotation (.xml) for each picture"),
        (in_yolo, "names", "YOLO"),
        (in_darknet, "", "YOLO"),
        (in_coco, "", "instances.json has images, annotations and categories: COCO boxes"),
        (in_hidden_coco, "", "_annotations.coco.json"),
        (in_studio, "", "project-1.json is an export of Label Studio with rectangles"),
        (in_cvat, "", "annotations.xml is an export of CVAT with boxes"),
    ],
)
def test_boxes_are_drafted_as_a_detection(tmp_path: Path, make: Callable[[], Files], split: str, why: str) -> None:
    """With the classes that the files name, the splits that they tell and a network for boxes; it loads as drafted."""
    files = make()
    folder = write(tmp_path / "seen", files)
    recipe, text = drafted(folder)
    assert (recipe.data.dataset, recipe.data.task, recipe.data.split) == ("boxes", "detection", split)
    assert (recipe.model.network, recipe.model.labels) == ("centre_net", NAMES)
    assert (recipe.data.width, recipe.data.height) == (80, 64)
    assert [gate.name for gate in recipe.gates] == ["detection_map_drop", "detection_f1_drop"]
    assert why in text
    assert f"{COUNT} boxes; the rarest class is in {COUNT // 2} pictures" in text
    assert len(data_sets.load(recipe.data, tmp_path)) == COUNT
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_tags_and_captions_are_no_boxes(tmp_path: Path) -> None:
    """A text beside a picture that is no line of numbers; an export of CVAT with tags alone."""
    captions = {f"{kind}/{n}.png": boxed(n)[0] for n in range(40) for kind in (NAMES[n % 2],)}
    captions |= {name.replace(".png", ".txt"): b"a square on grey\n" for name in captions}
    assert drafted(write(tmp_path / "captions", captions))[0].data.dataset == "class_folders"
    tags = "".join(f'<image name="{n}.png"><tag label="{NAMES[n % 2]}"/></image>' for n in range(COUNT))
    files = {**in_cvat(), "annotations.xml": f"<annotations>{tags}</annotations>".encode()}
    assert drafted(write(tmp_path / "tags", files))[0].data.dataset == "cvat"


def test_small_boxes_take_a_larger_input(tmp_path: Path) -> None:
    """Half of the boxes must be wider than a cell of the grid."""
    large = Image.new("RGB", (640, 480), (120, 120, 120))
    for side, size in ((20, (320, 240)), (200, (224, 160))):
        files: Files = {}
        for n in range(40):
            large.paste((255, 5 * n, 0), (0, 0, 32, 32))
            large.save(picture := io.BytesIO(), "PNG")
            marked = voc(("dot", 5 + n, 9, 5 + n + side, 9 + side), size=(640, 480), name=f"{n}.png")
            files |= {f"{n}.png": picture.getvalue(), f"{n}.xml": marked}
        recipe, _ = drafted(write(tmp_path / str(side), files))
        assert (recipe.data.width, recipe.data.height) == size


@pytest.mark.nightly
def test_a_drafted_detection_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an export of a tool to a verdict, with two commands."""
    write(tmp_path / "cells", in_cvat())
    monkeypatch.chdir(tmp_path)
    run_drafted("cells")
