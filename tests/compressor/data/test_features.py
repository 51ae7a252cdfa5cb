"""Features in arrays and in tables: the same pictures from each form, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.data import arrays, features
from compressor.data._table import Table
from compressor.errors import ArchiveError, ColumnError, CompressorError, CorruptImageError, DataError, SplitError
from compressor.recipe.model import DataRecipe
from tests.compressor.data.test_class_folders import header, write

OPTIONS = {"steps": 3, "channels": 2, "low": 0, "high": 100}
X = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2)
GOOD = {
    "x": X, "y": np.array([1, 0, 1, 0]), "class_names": np.array(["b", "a"]),
    "source": np.array(["p", "p", "", "q"]), "site": np.array(["n", "s", "n", "s"]),
    "part": np.array(["train", "", "gate", ""]),
}  # fmt: skip
CSV = "label,source,site,part," + ",".join(f"f{n}" for n in range(6)) + "\n" + "".join(
    f"{'ab'[n % 2]},{'pp,q'[n].strip(',')},{'ns'[n % 2]},{('train', '', 'gate', '')[n]},"
    + ",".join(str(6 * n + k) for k in range(6)) + "\n"
    for n in range(4)
)  # fmt: skip


def npz(folder: Path, given: dict[str, object] | None = None, **changes: object) -> Table:
    """Return the table of the good arrays with ``changes``; None leaves one out."""
    kept = {name: value for name, value in (GOOD | changes).items() if value is not None}
    np.savez(folder / "a.npz", **kept)  # type: ignore[arg-type]
    return load("arrays", folder / "a.npz", **(given or {}))


def load(dataset: str, path: Path, **given: object) -> Table:
    """Return the table of the features at ``path``."""
    settings = {"options": OPTIONS, "front_end": "window", **given}
    return data.load(DataRecipe(dataset=dataset, path=str(path), **settings))  # type: ignore[arg-type]


def csv(folder: Path, text: str = CSV, **given: object) -> Table:
    """Return the table of features in a CSV."""
    return load("features", write(folder, {"f.csv": text.encode()}) / "f.csv", **given)


def test_arrays_and_tables_give_the_same_pictures(tmp_path: Path) -> None:
    """Six numbers in a line are three steps of two channels; classes keep the order of an array's names."""
    one = npz(tmp_path, {"slices": "site", "split": "part"})
    other = csv(tmp_path, slices="site", split="part")
    assert one.hashes.tolist() == other.hashes.tolist()
    assert one.images[1][:, :, 0].tolist() == [[15, 18], [20, 23], [26, 28]]
    assert (one.class_names, other.class_names) == (("b", "a"), ("a", "b"))
    for table in (one, other):
        assert [table.class_names[label] for label in table.labels] == ["a", "b", "a", "b"]
        assert table.slices.tolist() == ["n", "s", "n", "s"]
        assert table.told is not None
        assert table.told.tolist() == ["train", "", "gate", ""]
    assert one.sources.tolist() == ["p", "p", "a.npz row 2", "q"]
    assert other.sources.tolist() == ["p", "p", "f.csv row 4", "q"]


@pytest.mark.parametrize("binary", [0, 1])
def test_bytes_are_those_that_a_device_gets(tmp_path: Path, binary: int) -> None:
    """As text or raw."""
    asked = {"options": {**OPTIONS, "binary": binary}}
    table = csv(tmp_path, slices="site", split="part", **asked)
    assert npz(tmp_path, asked).hashes.tolist() == table.hashes.tolist() == npz(tmp_path).hashes.tolist()


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 1, 1)])
def test_one_channel_needs_no_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """(N, T) is (N, T, 1); so is a thermal image with a channel at its end."""
    options = {"steps": 6, "channels": 1, "low": 0, "high": 100}
    assert npz(tmp_path, {"options": options}, x=X.reshape(shape)).images[0].shape == (6, 1, 3)


def test_a_folder_of_arrays_is_read_as_a_file_of_them(tmp_path: Path) -> None:
    """As numpy.save writes them one by one."""
    for name, value in GOOD.items():
        np.save(tmp_path / f"{name}.npy", value)
    assert load("arrays", tmp_path).hashes.tolist() == npz(tmp_path).hashes.tolist()


def test_images_in_a_folder_of_arrays(tmp_path: Path) -> None:
    """Bytes are images, without a front end."""
    for name, value in {**GOOD, "x": X.astype(np.uint8).reshape(4, 3, 2)}.items():
        np.save(tmp_path / f"{name}.npy", value)
    assert load("arrays", tmp_path, front_end="", options={}).images[0].shape == (3, 2, 3)


def test_lists_in_parquet(tmp_path: Path) -> None:
    """A list of numbers, or of lists of them, is the numbers in their order."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa  # noqa: PLC0415 - optional

    for values in (X.reshape(4, 6).tolist(), X.tolist()):
        parquet.write_table(pa.table({"label": ["a", "b"] * 2, "x": values}), tmp_path / "f.parquet")
        assert load("features", tmp_path / "f.parquet").hashes.tolist() == npz(tmp_path).hashes.tolist()
    parquet.write_table(pa.table({"label": ["a", "b"], "x": [[1.0], [1.0, 2.0]]}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=r"lists of numbers of one length in f\.parquet, column 'x'"):
        load("features", tmp_path / "f.parquet")
    parquet.write_table(pa.table({"label": ["a", "b"], "x": [[1.0, None], [1.0, 2.0]]}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=r"finite numbers in f\.parquet, column 'x', row 0"):
        load("features", tmp_path / "f.parquet")
    parquet.write_table(pa.table({"target": [[1.0, 2.0], [3.0, 4.0]], "x": X[:2].tolist()}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=r"a number in each row of f\.parquet, column 'target', got lists"):
        load("features", tmp_path / "f.parquet", label="number")


def test_numbers_to_predict(tmp_path: Path) -> None:
    """In columns of their own."""
    text = "target,target_b,x,y\n1.5,2,3,4\n2.5,3,5,6\n"
    options = {"steps": 2, "channels": 1, "low": 0, "high": 9}
    assert csv(tmp_path, text, label="number", options=options).labels.tolist() == [[1.5, 2.0], [2.5, 3.0]]


def test_ranges_can_be_fitted(tmp_path: Path) -> None:
    """The numbers before they become bytes."""
    npz(tmp_path)
    recipe = DataRecipe(dataset="arrays", path=str(tmp_path / "a.npz"), front_end="window", options=OPTIONS)
    assert arrays.raw(recipe)[1].values.tolist() == X[1].tolist()
    csv(tmp_path, slices="site", split="part")
    recipe = DataRecipe(dataset="features", path=str(tmp_path / "f.csv"), front_end="window", options=OPTIONS,
                        slices="site", split="part")  # fmt: skip
    assert features.raw(recipe)[1].values.tolist() == X[1].tolist()


def test_several_labels_and_numbers_in_arrays(tmp_path: Path) -> None:
    """A column of y each, with a name or without; another value than 0 and 1 is named."""
    several = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    table = npz(tmp_path, {"task": "multi_label"}, y=several)
    assert (table.class_names, table.labels.tolist()) == (("b", "a"), several.astype(bool).tolist())
    assert npz(tmp_path, {"task": "multi_label"}, y=several, class_names=None).class_names == ("label_0", "label_1")
    numbers = np.array([1.5, 2, 3, 4])
    table = npz(tmp_path, {"label": "number"}, y=numbers, class_names=None)
    assert (table.class_names, table.labels.tolist()) == (("target",), [[1.5], [2], [3], [4]])
    images = {"front_end": "", "options": {}, "task": "multi_label"}
    table = npz(tmp_path, images, x=X.astype(np.uint8).reshape(4, 3, 2), y=several)
    assert table.labels.tolist() == several.astype(bool).tolist()
    for changes, said in (
        ({"y": several + 1}, "Expected 0 or 1 in the column 'b'"), ({"y": several[:, :0]}, "Expected y as numbers (4,"),
        ({"y": np.array([0.5, 1.0, np.nan, 1.0])[:, None].repeat(2, 1)}, "Expected finite numbers as y"),
        ({"y": np.zeros((4, 3), int)}, "a name for each of 3 columns"), ({"y": several[:3]}, "Expected y as numbers"),
    ):  # fmt: skip
        with pytest.raises(DataError) as found:
            npz(tmp_path, {"task": "multi_label"}, **changes)
        assert said in str(found.value)
    with pytest.raises(DataError, match=r'several labels \(N, L\) take task = "multi_label"'):
        npz(tmp_path, y=several)


NAN = X.copy()
NAN[2, 1, 0] = np.nan


@pytest.mark.parametrize(
    ("changes", "given", "error", "said"),
    [
        ({"x": NAN}, {}, CorruptImageError, "Expected at most 0 rows that can't be used"),
        ({"x": X.astype(complex)}, {}, DataError, "Expected x as numbers (N, T), (N, T, C) or (N, T, C, 1)"),
        ({"x": X[None]}, {}, DataError, "got float32 (1, 4, 3, 2)"),
        ({"x": X}, {"front_end": "", "options": {}}, DataError, 'or read features with front_end = "window"'),
        ({}, {"front_end": ""}, DataError, "Expected no options in [data] with arrays and images"),
        ({}, {"decode": "full"}, DataError, "Expected no decode in [data] with arrays and front_end"),
        ({}, {"front_end": "log_mel"}, DataError, "front_end one of window, got log_mel"),
        ({}, {"options": {**OPTIONS, "stride": 2}}, DataError, "no 'stride'"),
        ({}, {"options": {**OPTIONS, "channels": 3}}, CorruptImageError, "3 channels"),
        ({"y": np.array([0, 1, 2, 0])}, {}, DataError, "Expected y from 0 to 1, the rows of class_names"),
        ({"y": np.array([0, 1, -1, 0])}, {}, DataError, "got -1"),
        ({"y": np.array([0, 1, -1, 0]), "class_names": None}, {}, DataError, "got -1"),
        ({"y": np.array([0, 1, 2**60, 0]), "class_names": None}, {}, DataError, "y below 10000 without class_names"),
        ({"y": None}, {}, ColumnError, "Expected the array 'y'"),
        ({"part": np.array(["train", "", "dev", ""])}, {"split": "part"}, SplitError, "got 'dev'"),
        ({"x": np.array([[object()]] * 4)}, {}, ArchiveError, "no objects in it"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, object], given: dict[str, object], error: type[Exception], said: str
) -> None:
    """The array, its type and shape, and the next step."""
    with pytest.raises(error) as found:
        npz(tmp_path, given, **changes)
    assert said in str(found.value)


@pytest.mark.parametrize(
    ("text", "given", "error", "said"),
    [
        ("", {}, ColumnError, "the column 'label' in f.csv"),
        ("label,x\n", {}, ArchiveError, "got no lines"),
        ("label\na\n", {}, ColumnError, "columns of numbers in f.csv"),
        ("label,x,y,z\na,1,2,3\n", {}, DataError, "numbers for 2 channels in each line of f.csv, got 3"),
        ("label,x,y\na,1,2\n", {}, CorruptImageError, "steps"),
        ("label,x,y\na,1,w\n", {}, DataError, "f.csv, column 'y', row 2, got 'w'"),
        ("label,x,y\n,1,2\n", {}, DataError, "column 'label', row 2"),
        ("label,x,y\na ,1,2\n", {}, DataError, "without blanks around it in f.csv, row 2"),
        ("label,Source,x\na,s,2\n", {}, ColumnError, "got 'Source'"),
        ("label,x,y\na,2,3\n", {"split": "part"}, ColumnError, "the column 'part'"),
        ("label,x\na,2\n", {"label": "number"}, ColumnError, "the column 'target'"),
        ("label,x\na,2\n", {"columns": {"window": "x"}}, DataError, "got 'window'"),
        ("label,x\na,2\n", {"options": {**OPTIONS, "stride": 1}}, DataError, "no 'stride'"),
    ],
)
def test_tables_that_do_not_fit_are_named(
    tmp_path: Path, text: str, given: dict[str, object], error: type[Exception], said: str
) -> None:
    """File, column, row and value."""
    with pytest.raises(error) as found:
        csv(tmp_path, text, **given)
    assert said in str(found.value)


def test_a_folder_of_arrays_is_checked_before_it_is_read(tmp_path: Path) -> None:
    """A header that lies, and a link that leaves the folder."""
    for name, value in GOOD.items():
        np.save(tmp_path / f"{name}.npy", value)
    lie = "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 99999)}"
    (tmp_path / "x.npy").write_bytes(header(lie))
    with pytest.raises(ArchiveError, match="Expected 79999"):
        load("arrays", tmp_path)
    (tmp_path / "x.npy").unlink()
    (tmp_path / "x.npy").symlink_to("/etc/hostname")
    with pytest.raises(ColumnError, match="the array 'x'"):
        load("arrays", tmp_path)


def test_seeded_damage_is_coded(tmp_path: Path) -> None:
    """Cut and flipped files of each form: an error of ours each time, or a table."""
    rng = np.random.default_rng(0)
    npz(tmp_path)
    for name, whole in (("a.npz", (tmp_path / "a.npz").read_bytes()), ("f.csv", CSV.encode())):
        for _ in range(120):
            changed = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
            for at in rng.integers(0, len(changed), 4):
                changed[at] = rng.integers(0, 256)
            (tmp_path / name).write_bytes(bytes(changed))
            try:
                load("arrays" if name == "a.npz" else "features", tmp_path / name)
            except CompressorError:
                continue


def test_the_columns_of_numbers_are_known_by_name(tmp_path: Path) -> None:
    """For the header of what a device reads; several steps in a line, a list or an array have no name for each."""
    flat = {"options": {"steps": 1, "channels": 2, "low": 0, "high": 100}}
    table = csv(tmp_path, "label,y,x\na,1,2\nb,3,4\n", **flat)
    assert table.columns == ("y", "x")
    assert data.unpack(data.pack(table)).columns == table.take(np.array([0])).columns == ("y", "x")
    assert csv(tmp_path, slices="site", split="part").columns == ()
    assert npz(tmp_path).columns == ()


def test_files_with_the_same_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    """Numbers of one would be read as those of another; other names altogether have no order."""
    flat = {"options": {"steps": 1, "channels": 2, "low": 0, "high": 100}}
    files = {"a.csv": b"label,x,y\na,1,2\n", "b.csv": b"label,y,x\nb,3,4\n"}
    with pytest.raises(DataError, match=r"Expected the columns x, y in one order in .*, got y, x of b\.csv row 2"):
        load("features", write(tmp_path / "one", files), **flat)
    files["b.csv"] = b"label,v,w\nb,3,4\n"
    assert load("features", write(tmp_path / "two", files), **flat).columns == ()
