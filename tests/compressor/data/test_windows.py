"""Sensor windows from tables, series and strokes, and refused data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.errors import ArchiveError, ColumnError, CorruptImageError, DataError
from compressor.exploration.load import fit_ranges
from compressor.recipe.model import DataRecipe
from edge_agent import front_ends

STEPS = {"steps": 2, "channels": 2, "low": 0, "high": 10}
TABLE = "window,label,site,x,y\na,walk,north,1,2\nb,run,south,5,6\na,walk,north,3,4\nb,run,south,7,8\n"


def recipe(path: Path, **settings: object) -> DataRecipe:
    """Return a recipe of the windows at ``path``."""
    given: dict[str, object] = {"front_end": "window", "options": STEPS, **settings}
    return DataRecipe(dataset="windows", path=str(path), **given)  # type: ignore[arg-type]


def table_at(folder: Path, text: str = TABLE) -> Path:
    """Return a CSV with ``text``."""
    (folder / "steps.csv").write_text(text)
    return folder / "steps.csv"


def test_lines_of_one_window_become_one_picture(tmp_path: Path) -> None:
    """Windows are gathered by name, scaled by the recipe's range; the label is checked to be one."""
    table = data.load(recipe(table_at(tmp_path), slices="site"))
    assert table.class_names == ("run", "walk")
    assert table.slices.tolist() == ["north", "south"]
    assert table.sources.tolist() == ["a", "b"]
    assert table.images[0][:, :, 0].tolist() == [[26, 51], [76, 102]]


@pytest.mark.parametrize("binary", [0, 1])
def test_the_picture_is_the_one_the_device_makes(tmp_path: Path, binary: int) -> None:
    """Text and raw float32 of the same numbers, decoded as a device does, are the training picture."""
    options = {**STEPS, "binary": binary}
    table = data.load(recipe(table_at(tmp_path), options=options, slices="site"))
    sent = np.array([[1, 2], [3, 4]], "<f4").tobytes() if binary else b"1,2\n3,4\n"
    assert np.array_equal(table.images[0], front_ends.decode("window", sent, options))


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    """The same table in Parquet has the same hashes."""
    pytest.importorskip("pyarrow")
    import pyarrow.csv  # noqa: PLC0415 - optional
    import pyarrow.parquet  # noqa: PLC0415 - optional

    pyarrow.parquet.write_table(pyarrow.csv.read_csv(table_at(tmp_path)), tmp_path / "steps.parquet")
    first, second = (data.load(recipe(tmp_path / f"steps.{kind}", slices="site")) for kind in ("csv", "parquet"))
    assert first.hashes.tolist() == second.hashes.tolist()


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (TABLE.replace(",7,8", ",nan,8"), DataError, r"steps\.csv, column 'x', row 5, got 'nan'"),
        (TABLE.replace(",7,8", ",,8"), DataError, r"steps\.csv, column 'x', row 5, got ''"),
        (TABLE.replace(",7,8", ",7"), DataError, "Expected 5 cells in steps.csv, row 5, got 4"),
        (TABLE.replace("b,run,south,7", "b,sit,south,7"), DataError, "one label of window b"),
        (TABLE.replace("window,", "name,"), ColumnError, "column 'window'"),
        (TABLE + "a,walk,north,3,4\n", CorruptImageError, "window a: Expected 2 steps, got 3"),
        ("window,label,site\na,walk,north\n", DataError, "at least one channel"),
        ("", ColumnError, "column 'window'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str, error: type[DataError], said: str) -> None:
    """NaN, gaps, ragged lines, two labels and missing columns are named by file, row and column."""
    with pytest.raises(error, match=said):
        data.load(recipe(table_at(tmp_path, text), slices="site"))


def test_a_foreign_parquet_is_refused(tmp_path: Path) -> None:
    """Bytes that are not Parquet raise a DataError that names the file."""
    pytest.importorskip("pyarrow")
    (tmp_path / "steps.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"steps\.parquet as Parquet"):
        data.load(recipe(tmp_path / "steps.parquet"))


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    """Neither of them is the column that the recipe means."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = [pyarrow.array([1, 2])] * 3
    parquet.write_table(pyarrow.table(columns, names=["label", "x", "x"]), tmp_path / "steps.parquet")
    with pytest.raises(ColumnError, match=r"different names in steps\.parquet, got 'x' twice: rename one"):
        data.load(recipe(tmp_path / "steps.parquet"))


def series(folder: Path, rows: int = 64) -> Path:
    """Return a folder in the form of the Numenta benchmark: minutes 16 to 23 are anomalous."""
    lines = [f"2020-01-01 00:{i:02d}:00,{i}" for i in range(min(rows, 60))]
    (folder / "hot.csv").write_text("\n".join(["timestamp,value", *lines]))
    spans = {"known/hot.csv": [["2020-01-01 00:16:00.000000", "2020-01-01 00:23:00.000000"]]}
    (folder / "combined_windows.json").write_text(json.dumps(spans))
    return folder


def test_series_are_cut_into_windows_that_know_their_anomalies(tmp_path: Path) -> None:
    """Half a window inside a labelled span makes it an anomaly; neighbours share a source."""
    options = {"steps": 8, "source_windows": 2, "high": 60}
    table = data.load(recipe(series(tmp_path), options=options))
    names = [table.class_names[i] for i in table.labels.tolist()]
    assert names == ["normal", "normal", "anomaly", "normal", "normal", "normal", "normal"]
    assert table.sources.tolist()[:3] == ["hot/0", "hot/0", "hot/1"]


def test_overlapping_windows_stay_inside_their_source(tmp_path: Path) -> None:
    """No step of the series is in windows of two sources, so none can be in two splits."""
    options = {"steps": 8, "stride": 2, "source_windows": 8, "high": 255}
    table = data.load(recipe(series(tmp_path), options={**options, "low": 0}))
    seen: dict[int, str] = {}
    for image, source in zip(table.images, table.sources.tolist(), strict=True):
        for step in image[:, 0, 0].tolist():
            assert seen.setdefault(step, source) == source


def strokes(folder: Path, stroke: object) -> Path:
    """Return a stroke file by one person."""
    (folder / "ann_0.json").write_text(json.dumps({"strokes": [stroke]}))
    return folder / "ann_0.json"


def test_strokes_are_drawn_as_the_device_draws_them(tmp_path: Path) -> None:
    """Label, person and picture of a stroke come from its file."""
    points = [{"x": 0, "y": 0}, {"x": 1, "y": 0}, {"x": 1, "y": 2}]
    table = data.load(recipe(strokes(tmp_path, {"label": "7", "strokePoints": points}), front_end="stroke", options={}))
    assert (table.class_names, table.slices.tolist(), table.sources.tolist()) == (("7",), ["ann"], ["ann_0/0"])
    assert np.array_equal(table.images[0], front_ends.decode("stroke", json.dumps(points).encode(), {}))


@pytest.mark.parametrize("stroke", [{"label": "7"}, {"strokePoints": []}, {"label": "7", "strokePoints": [[1]]}, 7])
def test_strokes_of_another_form_are_named(tmp_path: Path, stroke: object) -> None:
    """A stroke without label or points is named by file and place."""
    with pytest.raises(DataError, match=r"stroke 0 of ann_0\.json"):
        data.load(recipe(strokes(tmp_path, stroke), front_end="stroke", options={}))


def test_what_is_no_windows_is_refused(tmp_path: Path) -> None:
    """An empty folder and a missing path raise an ArchiveError."""
    for path in (tmp_path, tmp_path / "none.zip"):
        with pytest.raises(ArchiveError):
            data.load(recipe(path))


def test_each_channel_gets_its_own_range_from_train_rows(tmp_path: Path) -> None:
    """``data fit`` prints low and high per channel, as options for the recipe."""
    rng = np.random.default_rng(0)
    lines = [f"w{i // 2},{i // 2 % 2},{rng.uniform(0, 1):.4f},{rng.uniform(50, 90):.4f}" for i in range(240)]
    wanted = recipe(table_at(tmp_path, "\n".join(["window,label,x,y", *lines])))
    fitted = fit_ranges(wanted, Path(), seed=0, inside=1.0)
    assert fitted["low_0"] < 0.1
    assert 0.9 < fitted["high_0"] <= 1
    assert 50 <= fitted["low_1"] < 55
    assert 85 < fitted["high_1"] <= 90
    data.load(recipe(Path(wanted.path), options={**STEPS, **fitted}))


@pytest.mark.parametrize(("steps", "fits"), [(4, True), (5, False)])
def test_a_series_shorter_than_a_window_is_refused(tmp_path: Path, steps: int, fits: bool) -> None:  # noqa: FBT001
    """It would silently give no rows; a series of exactly a window's length gives one."""
    lines = "timestamp,x\n" + "".join(f"2020-01-01 00:00:0{step},{step}\n" for step in range(4))
    (tmp_path / "s.csv").write_text(lines)
    (tmp_path / "combined_windows.json").write_text('{"s.csv": []}')
    asked = recipe(tmp_path, options={"steps": steps, "channels": 1})
    if fits:
        assert len(data.load(asked)) == 1
        return
    with pytest.raises(DataError, match=r"at least 5 steps in s\.csv, got 4"):
        data.load(asked)
