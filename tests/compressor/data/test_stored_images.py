"""Images on disk behave like those in memory, and what happens to their file is an error with a name or nothing."""

from __future__ import annotations

import gc
import io
import os
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from compressor import data
from compressor.cache import Cache
from compressor.data import _stored_images as stored_images
from compressor.data import load_kept, pack, unpack
from compressor.data._stored_images import Image, Images, StoredImages, joined, kept, object_array, shapes_of, stored_in
from compressor.data._table import Table, concatenate, make_table
from compressor.errors import DataError, StorageError
from compressor.recipe.model import DataRecipe

SMALL = 100
"""Bytes in memory at most: an image of 8 x 4 pixels fits, two do not."""

MOST = 3
"""Images alive at a time: the one being made, the one being written, and that in hand."""


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_images, "HELD_BYTES", SMALL)


def write_zip(path: Path) -> None:
    """Write two pictures with labels."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.csv", "path,label\na.png,1\nb.png,2\n")
        for name, shade in (("a", 10), ("b", 200)):
            picture = io.BytesIO()
            Picture.fromarray(np.full((6, 4, 3), shade, np.uint8)).save(picture, "PNG")
            archive.writestr(f"{name}.png", picture.getvalue())


def drawn(count: int) -> list[Image]:
    """Return ``count`` images of sizes that differ."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (4 + row % 3, 8, 3), dtype=np.uint8) for row in range(count)]


def same(one: Images, other: Images) -> bool:
    """Return whether both have equal images."""
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_images_on_disk_are_chosen_like_an_object_array() -> None:
    """Rows by index, negative too, by slice, by indices in any order, by mask; sizes without reading."""
    images = drawn(9)
    found, wanted = kept(images).images, object_array(images)
    assert isinstance(found, StoredImages)
    assert found.shape == wanted.shape
    assert same(found, wanted)
    assert np.array_equal(found[-1], wanted[-1])
    for rows in (slice(2, 7, 2), np.array([8, 0, 0, 3]), np.arange(9) % 2 == 0, np.array([], np.int64)):
        assert same(found[rows], wanted[rows])
        assert np.array_equal(shapes_of(found[rows]), shapes_of(wanted[rows]))
    with pytest.raises(IndexError):
        found[9]


def test_few_images_stay_in_memory_and_hashes_are_the_same() -> None:
    """The limit is of bytes: one image is below it, and each hash is that of the image in memory."""
    assert isinstance(kept(drawn(1)).images, np.ndarray)
    assert kept(drawn(9)).hashes == [stored_images.image_hash(image) for image in drawn(9)]


@pytest.mark.parametrize("counts", [(9, 9), (1, 9), (9, 1), (1, 1)])
def test_tables_are_joined_without_reading(counts: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of both is on disk; the images stay those of their rows."""
    parts = [make_table(drawn(count), ["a"] * count, slices=[""] * count) for count in counts]
    with monkeypatch.context() as patch:
        patch.setattr(stored_images.PixelFile, "read", None)  # a read would fail
        both = joined(parts[0].images, parts[1].images)
    assert same(both, object_array([*drawn(counts[0]), *drawn(counts[1])]))
    assert same(concatenate(*parts).images, both)


def test_a_generator_of_images_is_never_held_whole() -> None:
    """While a table is made and while it is read, only a few images are alive."""
    alive = most = 0

    def ended() -> None:
        nonlocal alive
        alive -= 1

    def made() -> Iterator[Image]:
        nonlocal alive, most
        for image in drawn(40):
            mine = image.copy()
            weakref.finalize(mine, ended)
            alive += 1
            most = max(most, alive)
            yield mine
            del mine

    table = make_table(made(), ["a"] * 40, slices=[""] * 40)
    gc.collect()
    assert (len(table), alive) == (40, 0)
    assert most <= MOST


def test_stored_images_refuse_to_become_an_array() -> None:
    """An accident that would hold all of them fails in a test, not in the memory of a person."""
    images = kept(drawn(9)).images
    with pytest.raises(TypeError, match="read one by one"):
        np.asarray(images)


def test_no_file_with_a_name_is_left_beside_the_cache(tmp_path: Path) -> None:
    """Not even while the images are in use: a killed run leaves nothing."""
    with stored_in(tmp_path / "cache"):
        images = kept(drawn(9)).images
    assert len(images) == 9
    assert list((tmp_path / "cache").iterdir()) == []


def open_files() -> int:
    """Return the number of files that this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_descriptor_is_closed_with_the_last_image_set() -> None:
    """A worker that runs for months does not run out of them."""
    before = open_files()
    images = kept(drawn(9)).images[2:4]
    assert open_files() == before + 1
    assert np.array_equal(images[0], drawn(9)[2])
    del images
    assert open_files() == before


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "taken").write_text("")
    with stored_in(tmp_path / "taken"), pytest.raises(StorageError, match=r"taken.*free space"):
        kept(drawn(9))


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever image it is full."""
    left = [200]

    def write(_: int, content: memoryview, __: int) -> int:
        left[0] -= len(content)
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return len(content)

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(StorageError, match="No space left on device: free space"):
        kept(drawn(9))


def test_an_image_of_another_kind_is_named_with_its_row() -> None:
    """Only images are stored; a loader's floats are no images."""
    with pytest.raises(DataError, match=r"got float64 \(8, 8, 3\) in row 2.*make it uint8"):
        kept([*drawn(2), np.zeros((8, 8, 3)), *drawn(1)])  # type: ignore[list-item]


def labelled(count: int) -> Table:
    """Return a table of ``count`` images in a data set's columns."""
    return make_table(drawn(count), [str(row % 2) for row in range(count)], slices=["s"] * count)


def test_a_packed_table_has_its_pixels_beside_it(tmp_path: Path) -> None:
    """The bytes of the result hold none of them, and come back with them."""
    table = labelled(9)
    packed = pack(table, tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == sum(image.nbytes for image in drawn(9))
    back = unpack(packed, tmp_path)
    assert isinstance(back.images, StoredImages)
    assert same(back.images, table.images)
    assert np.array_equal(back.hashes, table.hashes)
    assert same(unpack(pack(table)).images, table.images)  # without a folder it is one piece


def test_pictures_of_16_bits_are_packed_like_others(tmp_path: Path) -> None:
    """Two bytes a pixel, in one piece and beside the result."""
    images = [np.arange(48, dtype=np.uint8).reshape(6, 4, 2) + np.uint8(row) for row in range(9)]
    table = make_table(images, ["a"] * 9, slices=["s"] * 9)
    assert isinstance(table.images, StoredImages)
    assert same(unpack(pack(table, tmp_path), tmp_path).images, images)
    assert same(unpack(pack(table)).images, images)


@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
def test_pixels_that_were_harmed_are_noticed_and_made_anew(harm: str, tmp_path: Path) -> None:
    """A resumed run reads a zip again if the pixels that it kept are not those it wrote."""
    write_zip(tmp_path / "set.zip")
    recipe = DataRecipe(dataset="labelled_images", path="set.zip")
    first = Cache(tmp_path / "cache")
    wanted = list(load_kept(first, recipe, tmp_path).images)
    (file,) = first.results.glob("pixels-*")
    content = file.read_bytes()
    file.unlink() if harm == "gone" else file.write_bytes(content[:-1] + (b"" if harm == "cut" else b"?"))
    again = Cache(tmp_path / "cache")
    found = load_kept(again, recipe, tmp_path)
    assert again.ran == ["data"]
    assert same(found.images, object_array(wanted))
    assert file.read_bytes() == content
    last = Cache(tmp_path / "cache")
    load_kept(last, recipe, tmp_path)
    assert last.ran == []


def test_pixels_cut_while_they_are_used_are_an_error_with_a_name(tmp_path: Path) -> None:
    """Never an image of zeros or of half another one."""
    table = labelled(9)
    packed = pack(table, tmp_path)
    back = unpack(packed, tmp_path)
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - 1)
    assert np.array_equal(back.images[0], table.images[0])
    with pytest.raises(StorageError, match="cut while it was used; run again"):
        back.images[8]


def test_pixels_deleted_while_they_are_used_are_still_read(tmp_path: Path) -> None:
    """The open file outlives its name."""
    table = labelled(9)
    back = unpack(pack(table, tmp_path), tmp_path)
    next(tmp_path.iterdir()).unlink()
    assert same(back.images, table.images)


def test_a_zip_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept under the name of the file that is no more."""
    write_zip(tmp_path / "set.zip")
    real = data.load

    def load(recipe: DataRecipe, root: Path | None = None) -> Table:
        table = real(recipe, root)
        with (tmp_path / "set.zip").open("ab") as file:
            file.write(b"more")
        return table

    monkeypatch.setattr(data, "load", load)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(DataError, match="to stay as it is while it is read"):
        load_kept(cache, DataRecipe(dataset="labelled_images", path="set.zip"), tmp_path)
    assert list(cache.results.iterdir()) == []
