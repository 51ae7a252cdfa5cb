"""Inputs without labels: folders, zips and arrays are read as a device would; what is broken is named."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor import tasks
from compressor.data import load, pack, unpack
from compressor.data._table import Table, align
from compressor.errors import ArchiveError, ColumnError, CorruptImageError, DataError
from compressor.recipe.model import DataRecipe
from edge_agent.pictures.sixteen_bits import to_levels


def png(value: int) -> bytes:
    """Return a small grey picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def loaded(path: Path, **settings: object) -> Table:
    """Return the table of the inputs at ``path``."""
    return load(DataRecipe(dataset="unlabelled", path=str(path), **settings))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them in a folder of its own, and what systems leave."""
    (tmp_path / "in" / "night").mkdir(parents=True)
    for name, value in {"b.png": 20, "a.PNG": 40, "night/c.png": 60}.items():
        (tmp_path / "in" / name).write_bytes(png(value))
    (tmp_path / "in" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def test_a_folder_and_its_zip_give_the_same_rows_without_labels(folder: Path, tmp_path: Path) -> None:
    """In the order of their names; other files are passed over."""
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    one, other = loaded(folder), loaded(tmp_path / "in.zip")
    assert one.names is not None
    assert one.names.tolist() == ["a.PNG", "b.png", "night/c.png"]
    assert [int(image[0, 0, 0]) for image in one.images] == [40, 20, 60]
    assert one.hashes.tolist() == other.hashes.tolist()
    assert not one.labelled
    assert one.labels.shape == (3, 0)
    assert tasks.of_rows(one).targets.classes(one.labels) is None


def test_pictures_of_16_bits_are_read_as_such(tmp_path: Path) -> None:
    """PNG and TIFF; of other formats none has 16 bits."""
    for name in ("a.png", "b.tif", "c.tiff"):
        Image.fromarray(np.full((8, 8), 30_000, np.uint16)).save(tmp_path / name)
    (tmp_path / "d.jpg").write_bytes(b"passed over")
    table = loaded(tmp_path, bits=16, colour="grey")
    assert [to_levels(image).max() for image in table.images] == [30_000] * 3


def test_a_table_without_labels_is_kept_and_takes_the_names_of_the_recipe(folder: Path) -> None:
    """The cache of a run gives it back, and the classes of the file are those of the recipe."""
    kept = align(unpack(pack(loaded(folder))), ("yes", "no"))
    assert not kept.labelled
    assert kept.class_names == ("yes", "no")


def test_files_that_show_the_same_object_are_one_source(folder: Path) -> None:
    """``sources.csv`` names them; a file that it does not name is a source of its own."""
    (folder / "sources.csv").write_text("path,source\na.PNG,door\nnight/c.png, door \n")
    table = loaded(folder)
    assert table.sources[[0, 2]].tolist() == ["door", "door"]
    assert table.sources[1] == table.hashes[1]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("file,source\na.PNG,1\n", ColumnError, "Expected the column 'path' in sources.csv, got file, source"),
        ("path,source\nz.png,1\n", DataError, "in sources.csv, row 2 the path of a file beside it, got 'z.png'"),
    ],
)
def test_sources_that_name_nothing_are_refused(folder: Path, text: str, error: type[Exception], said: str) -> None:
    """Frames of one scene would count as independent rows."""
    (folder / "sources.csv").write_text(text)
    with pytest.raises(error, match=said):
        loaded(folder)


def test_broken_pictures_are_named_and_left_out_only_if_allowed(folder: Path) -> None:
    """As with labels."""
    (folder / "cut.png").write_bytes(png(9)[:40])
    with pytest.raises(CorruptImageError, match=r"at most 0 broken inputs in .*, got 1: cut\.png: "):
        loaded(folder)
    table = loaded(folder, allow_corrupt=1)
    assert (len(table), table.corrupt) == (3, ("cut.png",))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty", None, "Expected pictures .* in .*empty, got nothing"),
        ("missing", b"", "Expected a zip, a folder or a file|Expected pictures"),
        ("a.npy", b"no array", r"Expected a NumPy array \(\.npy\) in .*a\.npy"),
    ],
)
def test_what_holds_no_inputs_is_refused(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    """By name, with what is wanted."""
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif content:
        path.write_bytes(content)
    with pytest.raises(ArchiveError, match=said):
        loaded(path)


def test_an_array_of_pictures_is_read(tmp_path: Path) -> None:
    """Grey ones too; floats are refused, because their range is unknown, and objects are never unpickled."""
    np.save(tmp_path / "x.npy", np.arange(48, dtype=np.uint8).reshape(3, 4, 4))
    table = loaded(tmp_path / "x.npy")
    assert (len(table), table.images[1].shape, int(table.images[1][0, 0, 2])) == (3, (4, 4, 3), 16)
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 4), np.float32))
    with pytest.raises(DataError, match="Expected x as uint8"):
        loaded(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ArchiveError, match="no objects in it"):
        loaded(tmp_path / "x.npy")


def test_an_array_of_windows_goes_through_the_front_end(tmp_path: Path) -> None:
    """As a device's own sensor would send them, one row a window; a wrong shape is named."""
    options = {"steps": 8, "channels": 2, "low_0": -1, "high_0": 1, "low_1": -1, "high_1": 1}
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(-1, 1, (5, 8, 2)).astype(np.float32))
    table = loaded(tmp_path / "x.npy", front_end="window", options=options)
    assert len(table) == 5
    np.save(tmp_path / "x.npy", np.zeros((5, 8), np.float32))
    with pytest.raises(DataError, match=r"Expected windows \(N, steps, channels\)"):
        loaded(tmp_path / "x.npy", front_end="window", options=options)


def test_people_see_one_class(folder: Path) -> None:
    """``compressor data explore`` counts classes."""
    table = loaded(folder)
    grouped, note = tasks.of_rows(table).targets.grouped(table)
    assert (grouped.class_names, set(grouped.labels.tolist())) == (("unlabelled",), {0})
    assert note == "inputs without labels: shown as one class"
