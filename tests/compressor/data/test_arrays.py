"""Images in a NumPy file: its contents, and refused files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.data import arrays
from compressor.data._split import split
from compressor.errors import ArchiveError, ColumnError, DataError, SplitError
from compressor.recipe.model import DataRecipe

ARRAYS = DataRecipe(dataset="arrays", path="a.npz")
GOOD = {
    "x": np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9), "y": np.array([1, 0, 1]),
    "class_names": np.array(["cat", "dog"]), "site": np.array(["n", "s", "n"]), "part": np.array(["train", "", "gate"]),
}  # fmt: skip


def load(folder: Path, recipe: DataRecipe = ARRAYS, **changes: object) -> data.Table:
    """Write the good arrays with changes (None leaves one out) and read them."""
    kept = {name: value for name, value in (GOOD | changes).items() if value is not None}
    np.savez(folder / "a.npz", **kept)
    return data.load(recipe, folder)


@pytest.mark.parametrize("shape", [(3, 8, 9), (3, 8, 9, 1)])
def test_grey_pictures_get_equal_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Classes keep the order of the file; each picture is a source of its own."""
    table = load(tmp_path, x=GOOD["x"].reshape(shape))
    assert table.images[2].shape == (8, 9, 3)
    assert (table.images[2] == GOOD["x"][2][:, :, None]).all()
    assert (table.labels.tolist(), table.class_names) == ([1, 0, 1], ("cat", "dog"))
    assert (table.sources == table.hashes).all()


def test_named_arrays_are_slices_splits_and_sources(tmp_path: Path) -> None:
    """As columns of a CSV are."""
    recipe = DataRecipe(dataset="arrays", path="a.npz", slices="site", split="part")
    table = load(tmp_path, recipe, x=np.zeros((3, 8, 9, 3), np.uint8), source=np.array(["a", "b", "c"]))
    assert (table.slices.tolist(), table.sources.tolist()) == (["n", "s", "n"], ["a", "b", "c"])
    assert table.told is not None
    assert table.told.tolist() == ["train", "", "gate"]
    with pytest.raises(SplitError):
        split(table, 0)  # one content in two told splits


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"y": None}, ColumnError, "Expected the array 'y'"),
        ({"x": GOOD["x"] / 255}, DataError, "scale it to 0..255"),
        ({"x": np.zeros((3, 3, 8, 9), np.uint8)}, DataError, "put the channels last"),
        ({"x": np.zeros((0, 8, 9), np.uint8)}, DataError, "got uint8 (0, 8, 9)"),
        ({"y": np.array([1, 0])}, DataError, "Expected y as integers (3,)"),
        ({"y": np.array([1.0, 0.0, 1.0])}, DataError, "got float64 (3,)"),
        ({"y": np.array([1, 0, 2])}, DataError, "got 2 in row 2"),
        ({"y": np.array([1, 0, -1])}, DataError, "got -1 in row 2"),
        ({"class_names": np.array([1, 2])}, DataError, "Expected 'class_names' as texts"),
        ({"source": np.array(["a"])}, DataError, "Expected 'source' as texts (3,)"),
        ({"class_names": np.array(["cat", "dog"], dtype=object)}, ArchiveError, "no objects in it"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    """The error has the array, its actual type and shape, and the next step."""
    with pytest.raises(error) as caught:
        load(tmp_path, **changes)
    assert said in str(caught.value)


def test_a_damaged_or_absent_file_is_named(tmp_path: Path) -> None:
    """Cut off, of another kind, not there; and an array that the recipe names and the file lacks."""
    load(tmp_path)
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (whole[:-30], b"no zip", whole.replace(b"NUMPY", b"NIMPY")):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ArchiveError, match=r"a\.npz"):
            data.load(ARRAYS, tmp_path)
    with pytest.raises(ArchiveError, match=r"other\.npz"):
        data.load(DataRecipe(dataset="arrays", path="other.npz"), tmp_path)
    with pytest.raises(ColumnError, match="Expected the array 'maker'"):
        load(tmp_path, DataRecipe(dataset="arrays", path="a.npz", slices="maker"))


def test_rows_of_any_order_in_memory_are_the_same_pictures(tmp_path: Path) -> None:
    """An array whose columns come first can't be read row by row, and is read whole."""
    wanted = load(tmp_path)
    found = load(tmp_path, x=np.asfortranarray(GOOD["x"]))
    assert found.hashes.tolist() == wanted.hashes.tolist()


def test_pictures_are_taken_one_by_one_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What numpy loads whole are the other arrays; the rows of x are never asked for together."""
    most = 0

    def counted(x: arrays.Array, where: str) -> Sequence[arrays.Array]:
        nonlocal most
        most = max(most, len(x))
        return pictures(x, where)

    pictures = arrays.pictures
    monkeypatch.setattr(arrays, "pictures", counted)
    assert load(tmp_path).hashes.tolist()
    assert most == 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_breaks_off_between_its_pictures_is_named(tmp_path: Path, save: Callable[..., None]) -> None:
    """Damage that no header shows: the first pictures can be read, a later one can't."""
    x = np.random.default_rng(0).integers(0, 256, (40, 64, 64), dtype=np.uint8)
    save(tmp_path / "a.npz", x=x, y=np.arange(40) % 2, class_names=np.array(["cat", "dog"]))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "a.npz").write_bytes(bytes(content))
    with pytest.raises(ArchiveError, match=r"a\.npz.*write it with numpy"):
        data.load(ARRAYS, tmp_path)
