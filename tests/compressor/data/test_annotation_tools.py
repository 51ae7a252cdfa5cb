"""Exports of Label Studio and CVAT: labels, files by the tools' own paths, sources and splits, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor import data
from compressor.data._named_files import NamedFiles, folder_sources
from compressor.data._table import Table
from compressor.errors import ArchiveError, CompressorError, DataError, SplitError
from compressor.recipe.model import DataRecipe
from tests.compressor.data.test_class_folders import write
from tests.compressor.data.test_labelled_images import _png

PICTURES = {f"images/{name}.png": _png(20 * shade) for shade, name in enumerate(("1-a", "2-b", "3-c"))}


def load(dataset: str, folder: Path, **given: object) -> Table:
    """Return the table of the export in ``folder``."""
    return data.load(DataRecipe(dataset=dataset, path=str(folder), **given))  # type: ignore[arg-type]


def named(table: Table) -> list[tuple[str, str]]:
    """Return file and label of each row."""
    assert table.names is not None
    return [(name, table.class_names[label]) for name, label in zip(table.names.tolist(), table.labels, strict=True)]


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("images/1.png", "images/1.png"),
        ("/data/upload/7/2.png", "images/2.png"),
        ("/data/local-files/?d=b%2F3.png", "b/3.png"),
        ("/data/local-files/?d=C:\\pics\\b\\3.png", "b/3.png"),
        ("s3://bucket/a/3.png", "a/3.png"),
        ("https://host/x/2.png?signature=1#2", "images/2.png"),
        ("a%20b.png", "a%20b.png"),
        ("/data/upload/7/a%20b.png", "a b.png"),
        ("http://[x/2.png", "images/2.png"),
        ("no.png", "no.png"),
        ("../../etc/passwd", "passwd"),
    ],
)
def test_a_file_is_found_by_the_end_of_its_path(address: str, found: str) -> None:
    """Servers, buckets and disks of other hosts are of no account, and nothing is fetched."""
    files = NamedFiles(["images/1.png", "images/2.png", "a/3.png", "b/3.png", "a b.png"], "set")
    assert files.find(address, "x") == found


@pytest.mark.parametrize(
    ("address", "said"), [("3.png", "got 'a/3.png' and 'b/3.png'"), ("", "name of a file"), ("/", "name")]
)
def test_a_file_that_is_not_one_is_named(address: str, said: str) -> None:
    """Two of one name, or none."""
    with pytest.raises(DataError, match=said):
        NamedFiles(["a/3.png", "b/3.png"], "set").find(address, "task 1")


def test_folders_are_recordings_unless_they_are_classes() -> None:
    """A folder of one class each says nothing about recordings."""
    assert folder_sources(["f/1", "f/2", "g/1"], ["cat", "dog", "dog"]) == ["f", "f", "g"]
    assert folder_sources(["cat/1", "cat/2", "dog/1"], ["cat", "cat", "dog"]) == ["", "", ""]
    assert folder_sources(["1", "2"], ["cat", "dog"]) == ["", ""]


def chosen(*choices: str, **more: object) -> dict[str, Any]:
    """Return an annotation with a result of ``choices``."""
    value = {"choices": list(choices)}
    return {"result": [{"from_name": "choice", "type": "choices", "value": value}], **more}


def task(file: str, *annotations: dict[str, Any], **fields: object) -> dict[str, Any]:
    """Return a task of Label Studio."""
    return {"id": 5, "data": {"image": f"/data/upload/1/{file}", **fields}, "annotations": list(annotations)}


def studio(folder: Path, document: object) -> Path:
    """Write an export with three pictures."""
    return write(folder, {**PICTURES, "export.json": json.dumps(document).encode()})


def test_tasks_of_label_studio(tmp_path: Path) -> None:
    """Ground truth counts first, skipped and empty tasks are left out, the data has source, slice and split."""
    place = studio(tmp_path, [
        task("1-a.png", chosen("cat"), chosen("dog", was_cancelled=True), source="film", site="n", part="train"),
        task("2-b.png", chosen("cat"), chosen("dog", ground_truth=True), source="film", site="s", part=""),
        task("3-c.png"),
    ])  # fmt: skip
    table = load("label_studio", place, slices="site", split="part")
    assert named(table) == [("images/1-a.png", "cat"), ("images/2-b.png", "dog")]
    assert table.sources.tolist() == ["film", "film"]
    assert table.slices.tolist() == ["n", "s"]
    assert table.told is not None
    assert table.told.tolist() == ["train", ""]


def test_json_min_of_label_studio(tmp_path: Path) -> None:
    """The only key that is none of the tool's own is the label; others are named."""
    place = studio(tmp_path, [
        {"id": 1, "image": "/data/upload/1/1-a.png", "choice": "cat", "annotator": 1, "lead_time": 2.5},
        {"id": 2, "image": "/data/upload/1/2-b.png", "choice": {"choices": ["dog"]}, "annotator": 1},
        {"id": 3, "image": "/data/upload/1/3-c.png", "annotator": 1},
    ])  # fmt: skip
    assert named(load("label_studio", place)) == [("images/1-a.png", "cat"), ("images/2-b.png", "dog")]
    place = studio(tmp_path, [{"photo": "1-a.png", "kind": "cat", "note": "x"}, {"photo": "2-b.png", "kind": "dog"}])
    table = load("label_studio", place, columns={"path": "photo", "label": "kind"})
    assert [label for _, label in named(table)] == ["cat", "dog"]


def test_numbers_of_label_studio(tmp_path: Path) -> None:
    """A rating or a number is what a regression predicts."""
    results = [[{"from_name": "x", "value": {kind: number}}] for kind, number in (("number", 2.5), ("rating", 4))]
    document = [task(f"{name}.png", {"result": found}) for name, found in zip(("1-a", "2-b"), results, strict=True)]
    assert load("label_studio", studio(tmp_path, document), label="number").labels.tolist() == [[2.5], [4.0]]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"tasks": []}, "export.json as a list of tasks, got dict"),
        ([3], "as a list of tasks"),
        ([], "Expected annotated tasks in export.json, got none of 0"),
        ([task("1-a.png")], "Expected annotated tasks in export.json, got none of 1"),
        ([task("1-a.png", chosen("cat"), chosen("dog"))], "one label in export.json, task 5, got cat, dog: settle it"),
        ([task("1-a.png", chosen("cat", "dog"))], "Expected one choice in export.json, task 5, got ['cat', 'dog']"),
        ([task("1-a.png", chosen("cat "))], "without blanks around it in export.json, task 5"),
        ([{"data": {"text": "x"}, "annotations": [chosen("cat")]}], "an image under image or img"),
        ([{"image": "1-a.png", "a": "x", "b": "y"}], "one key that can be the label in export.json, task 0, got a, b"),
        (
            [{"image": "1-a.png", "label": [{"x": 1}]}],
            "Expected one label in export.json, task 0, key 'label', got a list",
        ),
        ([task("no.png", chosen("cat")), task("1-a.png", chosen("dog"))], "got 1: no.png: not there"),
    ],
)
def test_an_export_of_label_studio_that_does_not_fit_is_named(tmp_path: Path, document: object, said: str) -> None:
    """The task is in the line, and what to do."""
    with pytest.raises(CompressorError) as found:
        load("label_studio", studio(tmp_path, document))
    assert said in str(found.value)
    assert "[internal]" not in str(found.value)


@pytest.mark.parametrize("dataset", ["label_studio", "cvat"])
def test_there_is_one_export(tmp_path: Path, dataset: str) -> None:
    """None and two are refused; which is meant is not guessed."""
    ending = "json" if dataset == "label_studio" else "xml"
    with pytest.raises(ArchiveError, match="got no"):
        load(dataset, write(tmp_path, PICTURES))
    write(tmp_path, {f"{name}.{ending}": b"[]" for name in "ab"})
    with pytest.raises(ArchiveError, match=f"got a.{ending}, b.{ending}"):
        load(dataset, tmp_path)


def image(name: str, *tags: str, subset: str = "", source: str = "") -> str:
    """Return an image of CVAT."""
    own = f'<attribute name="source">{source}</attribute>' if source else ""
    tagged = "".join(f'<tag label="{tag}" source="manual">{own}</tag>' for tag in tags)
    return f'<image id="0" name="{name}" subset="{subset}" width="4" height="6">{tagged}</image>'


def cvat(folder: Path, *images: str, pictures: dict[str, bytes] | None = None) -> Path:
    """Write an export with pictures."""
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta/>'
    text = f"{head}{''.join(images)}</annotations>"
    return write(folder, {**(PICTURES if pictures is None else pictures), "annotations.xml": text.encode()})


def test_tags_of_cvat(tmp_path: Path) -> None:
    """An image without a tag is left out; subsets are splits; folders of mixed classes are recordings."""
    pictures = {f"images/{part}/f{n}/{n}{cls}.png": _png(9 * n + 100 * (cls == "cat") + 50 * (part == "Test"))
                for part in ("Train", "Test") for n in (1, 2) for cls in ("cat", "dog")}  # fmt: skip
    images = [
        image(name.split("/", 2)[2].replace("/f", "/f"), name[-7:-4], subset=name.split("/")[1]) for name in pictures
    ]
    moved = {name.replace("/Test/f", "/Test/g"): content for name, content in pictures.items()}
    images = [one.replace('"f', '"g') if 'subset="Test"' in one else one for one in images]
    table = load("cvat", cvat(tmp_path, *images, image("f1/none.png", subset="Train"), pictures=moved))
    assert len(table) == 8
    assert table.told is not None
    assert table.told.tolist() == ["train"] * 4 + ["gate"] * 4
    assert table.sources.tolist() == ["f1", "f1", "f2", "f2", "g1", "g1", "g2", "g2"]


def test_an_attribute_of_cvat_is_the_source(tmp_path: Path) -> None:
    """Rather than the folder; a subset that is no split leaves the row open."""
    place = cvat(
        tmp_path, image("1-a.png", "cat", source="film", subset="default"), image("2-b.png", "dog", source="film")
    )
    table = load("cvat", place)
    assert named(table) == [("images/1-a.png", "cat"), ("images/2-b.png", "dog")]
    assert table.sources.tolist() == ["film", "film"]
    assert table.told is None


BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;'>]><annotations>&b;</annotations>"
OUTSIDE = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><annotations>&a;</annotations>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "as XML, got: no element found"),
        ("<annotations>", "as XML, got: no element found"),
        ("<boxes></boxes>", "to begin with <annotations>, got <boxes>"),
        ("<annotations></annotations>", "images with a tag in annotations.xml, got none of 0"),
        ("<annotations><image/></annotations>", "image number 0 without a name"),
        (BOMB, "a document type or an entity"),
        (OUTSIDE, "a document type or an entity"),
        ("<annotations>" + "<a>" * 100, "nested deeper than 64"),
        (f"<annotations>{image('1-a.png', 'cat', 'dog')}</annotations>", "Expected one tag of '1-a.png'"),
        (f"<annotations>{image('1-a.png', ' cat')}</annotations>", "without blanks around it"),
        ('<?xml version="1.0" encoding="nonsense"?><annotations/>', "as XML, got: unknown encoding"),
    ],
)
def test_an_export_of_cvat_that_does_not_fit_is_named(tmp_path: Path, text: str, said: str) -> None:
    """Entities are refused before they are expanded or fetched."""
    write(tmp_path, {**PICTURES, "annotations.xml": text.encode()})
    with pytest.raises(DataError) as found:
        load("cvat", tmp_path)
    assert said in str(found.value)


def test_one_picture_in_two_subsets_is_named(tmp_path: Path) -> None:
    """As in folders."""
    pictures = {"images/Train/a.png": _png(1), "images/Test/b.png": _png(1)}
    place = cvat(
        tmp_path, image("a.png", "cat", subset="Train"), image("b.png", "dog", subset="Test"), pictures=pictures
    )
    with pytest.raises(SplitError, match=r"in train and .* in gate"):
        load("cvat", place)


def test_exports_in_a_zip(tmp_path: Path) -> None:
    """As the tools hand them out."""
    place = studio(tmp_path / "set", [task("1-a.png", chosen("cat")), task("2-b.png", chosen("dog"))])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(place.rglob("*.*")):
            archive.write(file, file.relative_to(place))
    assert named(load("label_studio", tmp_path / "set.zip")) == named(load("label_studio", place))


@pytest.mark.parametrize("dataset", ["label_studio", "cvat"])
def test_seeded_damage_of_an_export_is_coded(tmp_path: Path, dataset: str) -> None:
    """Cut and flipped: an error of ours each time, or a table."""
    rng = np.random.default_rng(0)
    if dataset == "label_studio":
        file = (
            studio(tmp_path, [task("1-a.png", chosen("cat"), source="f"), task("2-b.png", chosen("dog"))])
            / "export.json"
        )
    else:
        file = cvat(tmp_path, image("1-a.png", "cat", source="f"), image("2-b.png", "dog")) / "annotations.xml"
    whole = file.read_bytes()
    for _ in range(150):
        changed = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, len(changed), 3):
            changed[at] = rng.integers(0, 256)
        file.write_bytes(bytes(changed))
        try:
            load(dataset, tmp_path, allow_corrupt=1)
        except CompressorError:
            continue


def test_all_choices_of_an_image_are_its_labels(tmp_path: Path) -> None:
    """Of a recipe of several labels; an annotation without a choice is a row without any, a task without one is not."""
    tasks = [
        {"id": 1, "data": {"image": "1-a.png"}, "annotations": [chosen("dog", "cat"), chosen("cat", "dog")]},
        {"id": 2, "data": {"image": "2-b.png"}, "annotations": [{"result": []}]},
        {"id": 3, "data": {"image": "3-c.png"}, "annotations": []},
    ]
    folder = write(tmp_path, {**PICTURES, "p.json": json.dumps(tasks).encode()})
    table = load("label_studio", folder, task="multi_label")
    assert table.class_names == ("cat", "dog")
    assert table.labels.tolist() == [[True, True], [False, False]]
    with pytest.raises(DataError, match=r"Expected one choice in p\.json, task 1"):
        load("label_studio", folder)
