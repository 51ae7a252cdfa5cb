"""Labelled images from zip and folder, and refused data."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor import data
from compressor.data import labelled_images
from compressor.data._front_end import preprocessing_of
from compressor.errors import ArchiveError, ColumnError, CompressorError, CorruptImageError, DataError
from compressor.recipe.model import DataRecipe
from edge_agent.inference.preprocess import decode_image, fitted

Entries = dict[str, bytes]


def _png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 4, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _entries(labels: str = "path,label,site\na.png,3.7,north\nb.png,0.2,south\n") -> Entries:
    return {"labels.csv": labels.encode(), "a.png": _png(10), "b.png": _png(200)}


def _zip(path: Path, entries: Entries) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def _recipe(path: Path, **settings: object) -> DataRecipe:
    return DataRecipe(dataset="labelled_images", path=str(path), slices="site", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_reads_zip_and_folder_alike(tmp_path: Path, kind: str) -> None:
    """Images, labels and slices come in the order of the CSV, from a zip or a folder."""
    place = _zip(tmp_path / "d.zip", _entries()) if kind == "zip" else tmp_path
    if kind == "folder":
        for name, content in _entries().items():
            (tmp_path / name).write_bytes(content)
    table = data.load(_recipe(Path(place.name) if kind == "zip" else Path()), tmp_path)
    assert table.class_names == ("0.2", "3.7")
    assert table.labels.tolist() == [1, 0]
    assert table.slices.tolist() == ["north", "south"]
    assert table.images[1].shape == (6, 4, 3)


def test_a_folder_with_nothing_but_a_zip_is_that_zip(tmp_path: Path) -> None:
    """As a downloaded data set lies."""
    packed = data.load(_recipe(_zip(tmp_path / "d.zip", _entries())))
    assert data.load(_recipe(Path()), tmp_path).hashes.tolist() == packed.hashes.tolist()


def test_a_source_column_holds_views_of_one_thing_together(tmp_path: Path) -> None:
    """Near copies count once and are never in two splits; a row without a source is its own source."""
    labels = "path,label,site,source\na.png,3.7,north,scene\nb.png,0.2,south,scene\nc.png,0.2,south,\n"
    table = data.load(_recipe(_zip(tmp_path / "d.zip", {**_entries(labels), "c.png": _png(90)})))
    assert table.sources.tolist() == ["scene", "scene", table.hashes[2]]


def test_blanks_and_forms_of_an_accent_make_no_other_source(tmp_path: Path) -> None:
    """Else frames of one scene would be in train and gate; a name of blanks alone is none."""
    names = ["caf\u00e9", " cafe\u0301 ", "  "]
    rows = "".join(f"{file}.png,1,x,{name}\n" for file, name in zip("abc", names, strict=True))
    labels = "path,label,site,source\n" + rows
    table = data.load(_recipe(_zip(tmp_path / "d.zip", {**_entries(labels), "c.png": _png(90)})))
    assert table.sources.tolist() == ["caf\u00e9", "caf\u00e9", table.hashes[2]]


@pytest.mark.parametrize("header", ["Source", " source", "SOURCE ", "Lane"])
def test_a_column_in_another_spelling_is_named(tmp_path: Path, header: str) -> None:
    """It would be passed over, and frames of one scene would count as independent rows."""
    place = _zip(tmp_path / "d.zip", _entries(f"path,label,site,{header}\na.png,1,x,s\nb.png,2,x,s\n"))
    with pytest.raises(ColumnError, match=f"Expected the column '{header.strip().lower()}' in .*, got '{header}'"):
        data.load(_recipe(place))
    assert data.load(DataRecipe(dataset="labelled_images", path=str(place), slices=header))  # a slice of this name


def test_floor_maps_positions_to_digits(tmp_path: Path) -> None:
    """With label = "floor", 3.7 is the class 3."""
    table = data.load(_recipe(_zip(tmp_path / "d.zip", _entries()), label="floor"))
    assert table.class_names == ("0", "3")


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    """The error names the missing column and the existing ones."""
    place = _zip(tmp_path / "d.zip", _entries("path,label,domain\na.png,1,x\n"))
    with pytest.raises(ColumnError, match=r"the column 'site' in labels\.csv, got path, label, domain"):
        data.load(_recipe(place))


def test_corrupt_images_are_named_and_counted(tmp_path: Path) -> None:
    """A cut-off image and an absent one are both named."""
    place = _zip(
        tmp_path / "d.zip", {**_entries("path,label,site\na.png,1,x\nno.png,1,x\nb.png,1,x\n"), "a.png": _png(1)[:40]}
    )
    with pytest.raises(CorruptImageError, match=r"got 2: a\.png: .*; no\.png: not there"):
        data.load(_recipe(place, allow_corrupt=1))


def test_corrupt_images_are_left_out_when_allowed(tmp_path: Path) -> None:
    """As many as the recipe permits are skipped, and the table remembers which."""
    place = _zip(tmp_path / "d.zip", {**_entries(), "a.png": b"not an image"})
    table = data.load(_recipe(place, allow_corrupt=1))
    assert table.corrupt == ("a.png",)
    assert len(table) == 1


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.png", "a/../../up.png", "c:\\x.png"])
def test_unsafe_paths_are_refused(tmp_path: Path, name: str) -> None:
    """A path that leaves the archive is refused, in the zip and in the CSV."""
    with pytest.raises(ArchiveError, match="relative path"):
        data.load(_recipe(_zip(tmp_path / "d.zip", _entries(f"path,label,site\n{name},1,x\n"))))
    with pytest.raises(ArchiveError, match="relative path"):
        labelled_images.safe_path(name)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link that leaves the folder counts as absent."""
    folder = tmp_path / "d"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(_png(3))
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    (folder / "labels.csv").write_text("path,label,site\na.png,1,x\n")
    with pytest.raises(CorruptImageError, match="not there"):
        data.load(_recipe(folder))


@pytest.mark.parametrize(("kind", "decode", "sides"), [
    ("JPEG", "reduced", (4000, 3000)), ("JPEG", "full", (4000, 3000)), ("PNG", "reduced", (4000, 3000)),
    ("JPEG", "reduced", (12000, 9000)),
])  # fmt: skip
def test_a_photo_is_scaled_on_reading(kind: str, decode: str, sides: tuple[int, int], tmp_path: Path) -> None:
    """12 and 108 megapixels: no more than the input needs, in full only where the recipe says so; none is corrupt."""
    photo = Image.linear_gradient("L").resize(sides, Image.Resampling.NEAREST).convert("RGB")
    photo.save(tmp_path / "photo", kind)
    (tmp_path / "labels.csv").write_text("path,label\nphoto,1\n")
    asked = DataRecipe(dataset="labelled_images", path=str(tmp_path), decode=decode, width=96, height=96)
    (image,) = data.load(asked).images
    assert image.shape == ((sides[1], sides[0], 3) if decode == "full" else (sides[1] // 8, sides[0] // 8, 3))
    assert abs(int(image[image.shape[0] // 2, 0, 0]) - 127) <= 3


@pytest.mark.parametrize("resize", ["stretch", "centre_crop", "letterbox"])
def test_a_large_photo_held_sideways_is_the_upright_one(resize: str, tmp_path: Path) -> None:
    """It is reduced and placed by its upright size: the same input, but for the JPEG's blocks."""
    small = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    upright = Image.fromarray(small).resize((2400, 1800), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned; viewers turn the picture back
    upright.save(tmp_path / "upright.jpg", quality=95)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "sideways.jpg", quality=95, exif=exif)
    (tmp_path / "labels.csv").write_text("path,label\nupright.jpg,1\nsideways.jpg,1\n")
    asked = DataRecipe(dataset="labelled_images", path=str(tmp_path), width=48, height=64, resize=resize)
    images = list(data.load(asked).images)
    assert [image.shape for image in images] == [images[0].shape] * 2
    assert images[0].shape[1] <= 1200
    one, other = (fitted(image, preprocessing_of(asked)).astype(int) for image in images)
    assert np.abs(one - other).max() <= 6


@pytest.mark.parametrize(("sides", "decode"), [((6000, 6000), "full"), ((16000, 9000), "reduced")])
def test_a_photo_beyond_all_limits_is_named(sides: tuple[int, int], decode: str, tmp_path: Path) -> None:
    """By the sizes in its header, before anything is decoded: it may be a bomb of a few kilobytes."""
    Image.new("1", sides).save(tmp_path / "bomb.png")
    (tmp_path / "labels.csv").write_text("path,label\nbomb.png,1\n")
    asked = DataRecipe(dataset="labelled_images", path=str(tmp_path), decode=decode)
    with pytest.raises(
        CorruptImageError, match=rf"bomb.png: Expected an image of .* pixels, got {sides[0]}x{sides[1]}"
    ):
        data.load(asked)


def test_an_oversize_entry_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are read from the directory, not found out by unpacking."""
    monkeypatch.setattr(labelled_images, "MAX_IMAGE_BYTES", 50)
    with pytest.raises(ArchiveError, match="at most 50 bytes"):
        data.load(_recipe(_zip(tmp_path / "d.zip", _entries())))


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ({"a.png": b""}, ArchiveError),
        ({"labels.csv": b"path,label,site\n"}, ArchiveError),
        ({"labels.csv": b"\xff\xfe\x00"}, DataError),
        ({"labels.csv": b"path,label,site\na.png,word,x\n", "a.png": _png(1)}, DataError),
        ({"labels.csv": b"path,label,site\na.png,nan,x\n", "a.png": _png(1)}, DataError),
        ({"labels.csv": b"path,label,site\na.png\n", "a.png": _png(1)}, DataError),
    ],
)
def test_nonsense_is_a_coded_error(tmp_path: Path, entries: Entries, kind: type[CompressorError]) -> None:
    """A file that is not CSV, an empty one, other encodings and labels that are not numbers are refused by name."""
    with pytest.raises(kind):
        data.load(_recipe(_zip(tmp_path / "d.zip", entries), label="floor"))


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    """A file of another kind, or none, is an archive error."""
    (tmp_path / "d.zip").write_bytes(b"no zip")
    for name in ("d.zip", "absent.zip"):
        with pytest.raises(ArchiveError, match="zip or folder"):
            data.load(_recipe(tmp_path / name))


def _turned(image: Image.Image, orientation: int) -> bytes:
    """Return ``image`` as a camera mounted sideways or upside down stores it, with the matching tag."""
    turns = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    turn = turns[orientation]
    (image if turn is None else image.transpose(turn)).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def test_the_same_picture_is_the_same_however_the_camera_was_held(tmp_path: Path) -> None:
    """Upright by the tag on the build host and on the device; ``stored`` keeps the behaviour of earlier releases."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8))
    names = [f"{orientation}.png" for orientation in (1, 3, 6, 8)]
    rows = "".join(f"{name},{i},x\n" for i, name in enumerate(names))
    entries = {name: _turned(picture, int(name[0])) for name in names}
    path = _zip(tmp_path / "d.zip", {"labels.csv": f"path,label,site\n{rows}".encode(), **entries})
    recipe = _recipe(path, width=4, height=6)
    assert all(np.array_equal(image, np.asarray(picture)) for image in data.load(recipe).images)
    assert all(np.array_equal(decode_image(entries[name], preprocessing_of(recipe)), picture) for name in names)
    stored = _recipe(path, width=4, height=6, orientation="stored", decode="full")
    assert sum(np.array_equal(image, np.asarray(picture)) for image in data.load(stored).images) == 1
    assert preprocessing_of(stored).schema == 1


def test_a_large_picture_is_held_as_the_device_decodes_it(tmp_path: Path) -> None:
    """A picture of 7 megapixels: an eighth per side, or all of it where the recipe says so; the device's pixels."""
    buffer = io.BytesIO()
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(small).resize((3000, 2400)).save(buffer, "JPEG")
    entries = {**_entries("path,label,site\na.jpg,a,x\nb.png,b,x\n"), "a.jpg": buffer.getvalue()}
    path = _zip(tmp_path / "d.zip", entries)
    recipe = _recipe(path)
    held = data.load(recipe).images[0]
    assert held.shape == (300, 375, 3)
    assert np.array_equal(held, decode_image(buffer.getvalue(), preprocessing_of(recipe)))
    whole = _recipe(path, decode="full")
    assert np.array_equal(data.load(whole).images[0], decode_image(buffer.getvalue(), preprocessing_of(whole)))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (_entries("path,label,site\na.png,3.7,north,west\nb.png,0.2,south\n"), "row 2 than the header has, got 1 more"),
        (_entries("path,label,site,label\na.png,3.7,north,4\nb.png,0.2,south,1\n"), "columns of different names"),
        ({"x.csv": b"path,label\n", "y.csv": b"path,label\n", "a.png": _png(1)}, "one CSV file at the top .* x.csv, y"),
    ],
)
def test_what_would_be_read_in_part_is_refused(tmp_path: Path, entries: Entries, said: str) -> None:
    """A cell too many, a repeated column, two tables: otherwise one of two would silently be used."""
    with pytest.raises(CompressorError, match=said):
        data.load(_recipe(_zip(tmp_path / "d.zip", entries)))


@pytest.mark.parametrize(("last", "refused"), [("reference", True), ("", False)])
def test_shares_beside_a_column_that_tells_every_split_are_refused(tmp_path: Path, last: str, refused: bool) -> None:  # noqa: FBT001
    """Nothing is drawn, so they would not be read; one row that is left open is drawn by them."""
    names = ["train", "gate", "calibration", last]
    lines = [f"{row}.png,{row},north,{name}" for row, name in enumerate(names)]
    entries = {"labels.csv": "\n".join(["path,label,site,part", *lines]).encode()}
    entries |= {f"{row}.png": _png(row) for row in range(4)}
    shares = {"train": 0.4, "calibration": 0.2, "gate": 0.2, "reference": 0.2}
    asked = _recipe(_zip(tmp_path / "d.zip", entries), split="part", shares=shares)
    if not refused:
        assert len(data.load(asked)) == 4
        return
    with pytest.raises(DataError, match=r"no shares in \[data\] with split = 'part'"):
        data.load(asked)


def test_a_column_for_each_label(tmp_path: Path) -> None:
    """0 and 1, in the order of the recipe, also of a label that no row has; another value is named with its row."""
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(_png(50 * n))
    lines = ["path,red,wet,old,source", *(f"{n}.png,{n % 2},{n // 2},0,s{n}" for n in range(4))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    asked = DataRecipe(
        dataset="labelled_images", path=str(tmp_path), task="multi_label", label_columns=("wet", "red", "old")
    )
    table = data.load(asked)
    assert table.class_names == ("wet", "red", "old")
    assert table.labels.astype(int).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert table.sources.tolist() == ["s0", "s1", "s2", "s3"]
    (tmp_path / "labels.csv").write_text("\n".join(lines).replace("3.png,1", "3.png,yes"))
    with pytest.raises(DataError, match=r"Expected 0 or 1 in labels\.csv, column 'red', row 5, got 'yes'"):
        data.load(asked)
    with pytest.raises(ColumnError, match="the column 'blue'"):
        data.load(replace(asked, label_columns=("blue",)))


@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize("paths", [("a", "b"), ("a.png", "b.png"), ("sub/a", "sub/b.png")])
def test_a_list_without_folder_or_suffix_finds_its_pictures(tmp_path: Path, kind: str, paths: tuple[str, str]) -> None:
    """As lists of competitions have it; the remark says how a path was read. Other files are no pictures."""
    entries = _entries(f"path,label,site\n{paths[0]},x,n\n{paths[1]},y,s\n")
    made = {"train.csv": entries["labels.csv"], "in/sub/a.png": _png(10), "in/sub/b.png": _png(200), "in/a.txt": b"-"}
    for name, content in made.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    table = data.load(_recipe(_zip(tmp_path / "d.zip", made) if kind == "zip" else tmp_path / "set"))
    assert table.names is not None
    assert table.names.tolist() == ["in/sub/a.png", "in/sub/b.png"]
    assert table.labels.tolist() == [0, 1]
    assert f"{paths[0]} is read as in/sub/a.png" in table.remarks[-1]


def test_a_lost_picture_is_never_replaced_by_one_of_its_name(tmp_path: Path) -> None:
    """A list that names files as they lie is taken as it stands; two folders with the name are an error."""
    entries = _entries() | {"test/b.png": _png(20), "train/a.png": _png(9), "test/a.png": _png(8)}
    del entries["b.png"]
    with pytest.raises(CorruptImageError, match=r"got 1: b\.png: not there"):
        data.load(_recipe(_zip(tmp_path / "one.zip", entries)))
    del entries["a.png"]
    with pytest.raises(ArchiveError, match=r"'a\.png', which may be 'test/a\.png' or 'train/a\.png': write the folder"):
        data.load(_recipe(_zip(tmp_path / "two.zip", entries)))


def test_leaving_out_all_pictures_is_no_way(tmp_path: Path) -> None:
    """If none is there, the next step is the paths."""
    place = _zip(tmp_path / "d.zip", {"labels.csv": _entries()["labels.csv"], "c.png": _png(3)})
    with pytest.raises(CorruptImageError, match=r"got none of 2: a\.png: not there: write their paths") as refused:
        data.load(_recipe(place, allow_corrupt=2))
    assert "allow_corrupt" not in str(refused.value)


def test_cells_that_are_no_flags_are_counted_in_all_columns(tmp_path: Path) -> None:
    """Blank for not mentioned and -1 for uncertain, as in lists of findings: one error, with the file's own names."""
    lines = ["path,red,wet,old", "a.png,1.0,,0.0", "b.png,0.0,-1.0,1.0", "c.png,,-1.0,0.0"]
    place = _zip(tmp_path / "d.zip", {"labels.csv": "\n".join(lines).encode(), "a.png": _png(1)})
    asked = DataRecipe(
        dataset="labelled_images", path=str(place), task="multi_label", label_columns=("red", "wet", "old")
    )
    said = (
        r"column 'red', row 4, got nothing \(1\); column 'wet', row 2, got '-1\.0' \(2\), nothing \(1\): write 0 where"
    )
    with pytest.raises(DataError, match=said):
        data.load(asked)
    named = replace(asked, task="", label_columns=(), columns={"label": "wet"})
    with pytest.raises(DataError, match=r"row 2, column 'wet', got none"):
        data.load(named)
