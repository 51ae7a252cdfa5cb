"""Labels as numbers: from texts, columns and series; refused labels; the unit of a network's output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.data._table import Table, make_table, make_value_table
from compressor.errors import ColumnError, DataError
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import parse_recipe
from compressor.tasks.regression.targets import EXTREMES, extremes, fitted, grouped, read

OPTIONS = {"steps": 2, "channels": 1, "low": 0, "high": 10}
NUMBERS = parse_recipe(b'[model]\nname = "n"\n[data]\nlabel = "number"')


def labelled(*names: str) -> Table:
    """Return a table of as many different images as ``names``, which are their labels."""
    images = [np.full((4, 4, 3), i, np.uint8) for i in range(len(names))]
    return make_table(images, names, slices=["all"] * len(names))


def as_numbers(table: Table) -> Table:
    """Return ``table`` with numbers as labels."""
    return read(table, NUMBERS.data)


def windows(path: Path, **settings: object) -> DataRecipe:
    """Return a recipe of the windows at ``path`` with numbers to predict."""
    given: dict[str, object] = {"front_end": "window", "options": OPTIONS, "label": "number", **settings}
    return DataRecipe(dataset="windows", path=str(path), **given)  # type: ignore[arg-type]


def test_classes_named_by_numbers_become_these_numbers() -> None:
    """A meter's reading keeps its tenth."""
    table = as_numbers(labelled("3.7", "0.2", "3.7", "9.9"))
    assert table.labels.ndim == 2
    assert table.labels.dtype == np.float32
    assert table.labels[:, 0].tolist() == pytest.approx([3.7, 0.2, 3.7, 9.9])
    assert table.class_names == ("value",)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("1", "two", "3"), "'two' .*row 1"),
        (("1", "nan", "3"), "'nan' .*row 1"),
        (("1", "inf"), "'inf'"),
        (("5", "5", "5"), "that differ, got 5 in all 3 rows"),
    ],
)
def test_refuses_text_nan_infinity_and_a_constant(names: tuple[str, ...], said: str) -> None:
    """Labels that can't be learned are named before anything is trained."""
    with pytest.raises(DataError, match=said):
        as_numbers(labelled(*names))


@pytest.mark.slow
def test_the_embedded_digits_can_be_read_as_numbers() -> None:
    """A recipe of numbers needs no data of its own to be tried."""
    table = data.load(DataRecipe(label="number"))
    assert table.labels.shape == (len(table), 1)
    assert set(table.labels.ravel().tolist()) == set(range(10))


def test_target_columns_of_a_table_are_the_values(tmp_path: Path) -> None:
    """Several targets are several outputs; they are not channels."""
    text = "window,target_low,target_high,x\na,1,2.5,3\na,1,2.5,4\nb,7,8,5\nb,7,8,6\n"
    (tmp_path / "steps.csv").write_text(text)
    table = data.load(windows(tmp_path))
    assert table.class_names == ("target_low", "target_high")
    assert table.labels.tolist() == [[1, 2.5], [7, 8]]


def test_parquet_targets_read_as_csv_targets_do(tmp_path: Path) -> None:
    """The same table in Parquet has the same numbers."""
    pytest.importorskip("pyarrow")
    import pyarrow.csv  # noqa: PLC0415 - optional
    import pyarrow.parquet  # noqa: PLC0415 - optional

    (tmp_path / "steps.csv").write_text("window,target,x\na,1.5,3\na,1.5,4\nb,7,5\nb,7,6\n")
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(tmp_path / "steps.csv"), tmp_path / "steps.parquet")
    first, second = (data.load(windows(tmp_path / f"steps.{kind}")) for kind in ("csv", "parquet"))
    assert first.labels.tolist() == second.labels.tolist() == [[1.5], [7.0]]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("window,label,x\na,1,3\na,1,4\n", ColumnError, "'target'"),
        ("window,target,x\na,1,3\na,warm,4\n", DataError, "'target', row 3"),
        ("window,target,x\na,nan,3\na,nan,4\n", DataError, "'target', row 2"),
        ("window,target,x\na,1,3\na,2,4\n", DataError, "one target of window a"),
        ("window,target,x\na,1,3\na,1,4\nb,1,5\nb,1,6\n", DataError, "'target' that differ"),
    ],
)
def test_refuses_targets_that_are_none(tmp_path: Path, text: str, error: type[DataError], said: str) -> None:
    """Missing, text, NaN, two for one window, and a constant have different errors, with file and row."""
    (tmp_path / "steps.csv").write_text(text)
    with pytest.raises(error, match=said):
        data.load(windows(tmp_path))


def series(folder: Path, horizon: int) -> DataRecipe:
    """Return a recipe of one series 0, 1, ... 19 with an anomaly at steps 8 and 9."""
    lines = [f"2026-01-01 00:{minute:02d}:00,{minute}" for minute in range(20)]
    (folder / "heat.csv").write_text("\n".join(["timestamp,celsius", *lines]))
    spans = {"heat.csv": [["2026-01-01 00:08:00", "2026-01-01 00:09:00"]]}
    (folder / "combined_windows.json").write_text(json.dumps(spans))
    options = {**OPTIONS, "stride": 2, "source_windows": 2, "horizon": horizon}
    return windows(folder, options=options)


def test_the_next_steps_of_a_series_are_the_values(tmp_path: Path) -> None:
    """Window and horizon stay inside of one source, and an anomaly has a slice of its own."""
    table = data.load(series(tmp_path, 2))
    assert table.class_names == ("celsius_in_1", "celsius_in_2")
    assert table.labels.tolist() == [[2, 3], [6, 7], [10, 11], [14, 15], [18, 19]]
    assert table.slices.tolist() == ["heat", "heat", "heat anomaly", "heat", "heat"]


def test_a_horizon_that_no_source_spans_is_refused(tmp_path: Path) -> None:
    """Otherwise the values of one source would be inputs of the next."""
    with pytest.raises(DataError, match="2 and 3 after it"):
        data.load(series(tmp_path, 3))


def test_numbers_where_classes_are_wanted_are_refused(tmp_path: Path) -> None:
    """An external data set that returns numbers needs label = "number"."""
    module = tmp_path / "own_numbers.py"
    module.write_text(
        "import numpy as np\nfrom compressor.data._table import make_value_table\n\n\n"
        "def load(data, root):\n"
        "    images = [np.full((4, 4, 3), i, np.uint8) for i in range(3)]\n"
        "    return make_value_table(images, [[1], [2], [4]], ['litres'], slices=['all'] * 3)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert data.load(DataRecipe(dataset="own_numbers:load", label="number")).class_names == ("litres",)
        with pytest.raises(DataError, match="label = 'number'"):
            data.load(DataRecipe(dataset="own_numbers:load"))


def test_rows_without_a_number_for_every_name_are_refused() -> None:
    """A row too short would shift the others."""
    images = [np.zeros((4, 4, 3), np.uint8)] * 2
    with pytest.raises(DataError, match="2 numbers for each of 2 rows"):
        make_value_table(images, [[1.0], [2.0]], ["a", "b"], slices=["all"] * 2)


def test_the_unit_comes_from_the_train_rows_and_turns_back() -> None:
    """Only the train rows determine it; learned targets are centred, and real() is the inverse."""
    table = as_numbers(labelled("10", "20", "1000"))
    known = fitted(NUMBERS, table, table.take(np.array([0, 1])))
    assert known.unit is not None
    assert (known.unit.mean, known.unit.spread) == ((15.0,), (5.0,))
    assert known.lessons[:, 0].tolist() == [-1, 1, 197]
    assert np.allclose(known.unit.real(known.lessons), table.labels)


def test_a_recipe_may_state_the_unit() -> None:
    """Then the same weights mean the same on any rows; another number of values is refused."""
    table = as_numbers(labelled("1", "2"))
    stated = replace(NUMBERS, data=replace(NUMBERS.data, target_mean=(4.0,), target_std=(2.0,)))
    assert fitted(stated, table, table).lessons[:, 0].tolist() == [-1.5, -1.0]
    wrong = replace(NUMBERS, data=replace(NUMBERS.data, target_mean=(4.0, 1.0), target_std=(2.0, 1.0)))
    with pytest.raises(DataError, match=r"1 numbers \(value\), got 2 and 2"):
        fitted(wrong, table, table)


def test_an_imported_model_speaks_the_values_own_unit() -> None:
    """The outputs of its file are already in degrees."""
    table = as_numbers(labelled("1", "2"))
    own = replace(NUMBERS, model=replace(NUMBERS.model, onnx="mine.onnx"))
    assert np.array_equal(fitted(own, table, table).lessons, table.labels)


def test_a_constant_among_the_train_rows_is_refused() -> None:
    """Its deviation would be 0."""
    table = as_numbers(labelled("1", "1.0", "2"))
    with pytest.raises(DataError, match="train rows of different 'value'"):
        fitted(NUMBERS, table, table.take(np.array([0, 1])))


def test_extremes_are_the_smallest_and_largest_rows() -> None:
    """An int8 output reaches as far as calibration did."""
    table = as_numbers(labelled(*[str(i) for i in range(100)]))
    chosen = extremes(table).labels[:, 0].tolist()
    assert chosen == [*range(EXTREMES), *range(100 - EXTREMES, 100)]


def test_numbers_are_looked_at_in_groups_of_equal_size() -> None:
    """Exploration counts classes."""
    table, note = grouped(as_numbers(labelled(*[str(i) for i in range(10)])))
    assert "5 groups" in note
    assert np.bincount(table.labels).tolist() == [2] * 5
    assert table.class_names[0] == "value 0 to 1.8"
