"""Tables that people bring: rows of features, with times, texts and gaps; what is drafted, and that it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from compressor import data as data_sets
from compressor.errors import DataError
from compressor.exploration.draft import draft
from compressor.progress import Silent
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import parse_recipe, read_recipe
from tests.compressor.exploration.test_init import drafted, run_drafted

COUNT = 80


def written(folder: Path, columns: Mapping[str, Sequence[object]], name: str = "t.csv") -> Path:
    """Write a CSV of ``columns``."""
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def features(count: int = COUNT) -> dict[str, list[object]]:
    """Return two features of very different size that tell two classes apart."""
    rng = np.random.default_rng(0)
    kinds = np.arange(count) % 2
    return {
        "small": [f"{value:.4f}" for value in 0.01 * (kinds + rng.normal(0, 0.2, count))],
        "large": [f"{value:.1f}" for value in 5000 + 900 * kinds + rng.normal(0, 300, count)],
    }


def classes(count: int = COUNT) -> list[object]:
    """Return two classes, in turns."""
    return ["ab"[n % 2] for n in range(count)]


def test_rows_of_features_have_a_network_and_ranges_of_their_own(tmp_path: Path) -> None:
    """A row is a window of one step; each column is scaled by itself."""
    recipe, text = drafted(written(tmp_path, {**features(), "label": classes()}))
    assert (recipe.model.network, recipe.data.width, recipe.data.height) == ("mlp", 2, 1)
    options = recipe.data.options
    assert (options["steps"], options["channels"]) == (1, 2)
    assert options["high_0"] < 0.1
    assert options["low_1"] > 3000
    assert "have no order" in text
    table = data_sets.load(recipe.data, tmp_path)
    assert np.ptp([image[0, 0, 0] for image in table.images]) > 100  # the small one is told apart, too


@pytest.mark.parametrize(
    ("columns", "labels", "wanted"),
    [
        ({"Class": classes()}, (), {"label": "Class"}),
        ({"species": ["oak", "elm"] * 40}, (), {"label": "species"}),
        ({"species": ["oak", "elm"] * 40, "city": ["x", "y"] * 40}, ("city",), {"label": "city"}),
        ({"price": [f"{n / 7:.2f}" for n in range(COUNT)]}, ("price",), {"target": "price"}),
        ({"target": [f"{n / 7:.2f}" for n in range(COUNT)]}, (), {}),
        ({"label": [f"{n / 7:.2f}" for n in range(COUNT)]}, (), {"target": "label"}),
    ],
)
def test_the_label_is_found_by_its_name_or_its_texts(
    tmp_path: Path, columns: dict[str, list[object]], labels: tuple[str, ...], wanted: dict[str, str]
) -> None:
    """Or it is named; numbers that nearly all differ are predicted."""
    recipe, _ = drafted(written(tmp_path, {**features(), **columns}), *labels)
    assert recipe.data.columns == wanted
    assert (recipe.data.label == "number") == (next(iter(columns.values()))[1] == "0.14")
    assert recipe.data.options["channels"] == 2


def test_no_label_is_an_error_with_the_command(tmp_path: Path) -> None:
    """It names the columns, the option and the key of a recipe."""
    path = written(tmp_path, features())
    with pytest.raises(DataError, match=r"got small, large: .*--label COLUMN, or .* columns = \{label = \"COLUMN\"\}"):
        draft(path, tmp_path, Silent())
    with pytest.raises(DataError, match=r"Expected the column 'price' in t\.csv, got small, large"):
        draft(path, tmp_path, Silent(), labels=("price",))


def test_what_is_no_feature_is_left_out_by_name(tmp_path: Path) -> None:
    """Times, texts and a running number, each with its reason; the file stays as it is."""
    columns = {
        "id": range(COUNT), "date": [f"2026-01-{1 + n % 28:02}" for n in range(COUNT)], **features(),
        "city": ["Oslo", "Bergen"] * 40, "label": classes(),
    }  # fmt: skip
    path = written(tmp_path, columns)
    before = path.read_bytes()
    recipe, text = drafted(path)
    assert recipe.data.ignore == ("id", "date", "city")
    assert "columns =" not in text
    for said in (
        "id: another number in each row",
        "date: a time that only grows or a date",
        "city: texts, 2 different: write a column of 0 and",
    ):
        assert said in text
    assert data_sets.load(recipe.data, tmp_path).images[0].shape == (1, 2, 3)
    assert path.read_bytes() == before


def test_a_duration_is_a_feature(tmp_path: Path) -> None:
    """A column ``time`` whose numbers don't run is one; where they run, it is left out."""
    columns = {**features(), "label": classes()}
    recipe, _ = drafted(written(tmp_path, {"time": [n * 37 % 50 for n in range(COUNT)], **columns}))
    assert (recipe.data.ignore, recipe.data.options["channels"]) == ((), 3)
    recipe, _ = drafted(written(tmp_path, {"time": [n // 3 for n in range(COUNT)], **columns}))
    assert (recipe.data.ignore, recipe.data.options["channels"]) == (("time",), 2)


def test_ranges_of_anomalies_are_wider(tmp_path: Path) -> None:
    """What is unusual lies outside of what normal rows have."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=COUNT)
    recipe, text = drafted(written(tmp_path, {"x": [f"{one:.3f}" for one in x], "y": rng.normal(size=COUNT).round(3),
                                              "label": ["ok"] * COUNT}))  # fmt: skip
    assert recipe.data.task == "anomaly"
    assert recipe.data.options["low_0"] < x.min() < x.max() < recipe.data.options["high_0"]
    assert "50 % more on both sides" in text


def test_incomplete_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    """In the recipe and by the run; nothing is filled in."""
    columns = {**features(), "label": classes()}
    for row, gap in ((3, ""), (9, "NA"), (10, "nan")):
        columns["large"][row] = gap
    columns["small"][9] = "?"
    recipe, text = drafted(written(tmp_path, columns))
    assert recipe.data.missing == "drop"
    assert f"3 of {COUNT} rows lack a value (large 3, small 1)" in text
    table = data_sets.load(recipe.data, tmp_path)
    assert len(table) == COUNT - 3
    assert table.remarks[0].startswith(f"left out 3 of {COUNT} rows without a value (large 3, small 1)")
    assert "t.csv row 6" in table.sources
    assert "t.csv row 5" not in table.sources


def test_all_columns_that_are_no_numbers_are_named_at_once(tmp_path: Path) -> None:
    """With the keys that leave them out, and how to use them."""
    columns = {**features(), "city": ["Oslo", "Bergen"] * 40, "kind": ["x", "y"] * 40, "label": classes()}
    columns["large"][4] = ""
    columns["small"][7] = "-"
    path = written(tmp_path, columns)
    asked = DataRecipe(dataset="features", path=str(path), front_end="window", options={"steps": 1, "channels": 2})
    with pytest.raises(DataError) as found:
        data_sets.load(asked)
    for said in (
        "column 'city', row 2, got 'Oslo' and 1 other texts",
        "column 'kind'",
        "column 'small', row 9, got '-'",
        "no value in 'large' (1 of 80 rows, the first 6)",
        'ignore = ["small", "city", "kind"]',
        'missing = "drop"',
    ):
        assert said in str(found.value)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Of ``ignore``, with the nearest one."""
    path = written(tmp_path, {**features(), "label": classes()})
    asked = DataRecipe(dataset="features", path=str(path), front_end="window", ignore=("smal",))
    with pytest.raises(DataError, match=r"'smal' of \[data\] ignore in t.csv, got small, large, label.*'small'"):
        data_sets.load(asked)


def test_a_time_alone_makes_no_recording(tmp_path: Path) -> None:
    """Regular steps with long runs of a label do; rows with a date do not."""
    seconds = {"timestamp": [f"2026-01-01T00:{n // 60:02}:{n % 60:02}" for n in range(640)]}
    turns = [("ab"[n // 40 % 2]) for n in range(640)]
    recipe, text = drafted(written(tmp_path, {**seconds, **features(640), "label": turns}))
    assert recipe.data.dataset == "recordings"
    assert "timestamp runs in steps of 1 s, 100 % of them equal" in text
    recipe, text = drafted(written(tmp_path, {**seconds, **features(640), "label": classes(640)}))
    assert recipe.data.dataset == "features"
    assert "label changes from line to line" in text
    days = {"timestamp": [1000 * n * n for n in range(640)]}
    recipe, text = drafted(written(tmp_path, {**days, **features(640), "label": turns}))
    assert (recipe.data.dataset, recipe.data.ignore) == ("features", ("timestamp",))
    assert "timestamp does not run regularly" in text


def sensor(count: int = 6400) -> dict[str, list[object]]:
    """Return the times, a second apart, and values of a sensor that nobody labelled."""
    values = np.random.default_rng(0).normal(20, 1, count)
    times = np.datetime64("2026-01-01T00:00:00") + np.arange(count) * np.timedelta64(1, "s")
    return {"timestamp": times.astype(str).tolist(), "temperature": [f"{value:.4f}" for value in values]}


@pytest.mark.parametrize("alone", [False, True])
def test_a_recording_without_a_label_is_drafted_to_find_anomalies(tmp_path: Path, *, alone: bool) -> None:
    """As one folder alone is: all its windows are normal, which is said; of the file, and of a folder with it."""
    (tmp_path / "rooms").mkdir()
    path = written(tmp_path / "rooms", sensor())
    made = draft(path if alone else path.parent, tmp_path, Silent())
    recipe = parse_recipe(made.text)
    assert (recipe.data.task, recipe.data.normal, recipe.data.dataset) == ("anomaly", ("normal",), "recordings")
    assert recipe.alarm.interval_s == recipe.data.options["stride"]
    assert any("no column is a label" in said and "--label COLUMN names one" in said for said in made.remarks)
    assert "no column 'label' in t.csv: all windows are 'normal', as [data] normal has it" in made.remarks


@pytest.mark.parametrize("column", [["0"] * 3200 + ["1"] * 3200, ["off", "on"] * 3200])
def test_a_column_that_may_be_the_label_is_asked_for(tmp_path: Path, column: list[object]) -> None:
    """Flags and texts of an unknown name: which they are is a person's to say; no channel is made of them."""
    path = written(tmp_path, {**sensor(), "state": column, "more": column})
    with pytest.raises(DataError, match=r"--label COLUMN.*a recording without any label, .*find-anomalies\.md"):
        draft(path, tmp_path, Silent())


def test_the_only_channel_as_label_is_refused_with_the_way_to_anomalies(tmp_path: Path) -> None:
    """Nothing is left to learn from; few different values look like classes, many do not."""
    for values in (sensor(), {**sensor(), "temperature": ["1", "2", "3", "4"] * 1600}):
        path = written(tmp_path, values)
        with pytest.raises(DataError, match=r"besides label and time.*leave --label out .*find-anomalies"):
            draft(path, tmp_path, Silent(), labels=("temperature",))


@pytest.mark.parametrize("numbers", [False, True])
def test_rows_in_arrays(tmp_path: Path, *, numbers: bool) -> None:
    """(N, F) with a class or a number each; names of classes are not needed."""
    x = np.random.default_rng(0).normal(size=(COUNT, 5)) * np.array([1, 1, 1e4, 1, 1])
    y = x[:, 0] if numbers else (x[:, 0] > 0).astype(np.int64)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    recipe, text = drafted(tmp_path / "a.npz")
    assert (recipe.model.network, recipe.data.options["channels"], recipe.data.height) == ("mlp", 5, 1)
    assert recipe.data.options["high_2"] > 1000 > recipe.data.options["high_1"]
    assert recipe.model.labels == (() if numbers else ("0", "1"))
    assert "give a series a third axis" in text
    assert recipe.gates[0].name == ("error_increase" if numbers else "accuracy_drop")


def test_parquet_of_lists(tmp_path: Path) -> None:
    """A list of numbers is a row of features, lists of lists are windows."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa  # noqa: PLC0415 - optional

    x = np.random.default_rng(0).normal(size=(COUNT, 6, 2))
    for values, network, steps in ((x.reshape(COUNT, 12), "mlp", 1), (x, "window_cnn", 6)):
        parquet.write_table(pa.table({"label": classes(), "x": values.tolist()}), tmp_path / "f.parquet")
        recipe, _ = drafted(tmp_path / "f.parquet")
        assert (recipe.model.network, recipe.data.options["steps"]) == (network, steps)


def test_true_and_false_are_features_and_what_is_not_read_is_printed(tmp_path: Path) -> None:
    """As pandas ``get_dummies`` writes a category; a column of texts is left out by name, and said."""
    columns = {**features(), "label": classes(), "city_Ulm": [n % 3 == 0 for n in range(COUNT)],
               "shop": [f"s{n % 5}" for n in range(COUNT)]}  # fmt: skip
    made = draft(written(tmp_path, columns), tmp_path, Silent())
    assert any(said.startswith("not read of t.csv: shop (texts, 5 different") for said in made.remarks)
    (tmp_path / "made.toml").write_text(made.text)
    recipe = read_recipe(tmp_path / "made.toml")
    assert recipe.data.ignore == ("shop",)
    assert recipe.data.options["channels"] == 3
    columns["city_Ulm"][7] = "maybe"
    with pytest.raises(DataError, match="column 'city_Ulm', row 2, got 'True' and 2 other texts"):
        data_sets.load(recipe.data, tmp_path) if written(tmp_path, columns) else None


def test_columns_of_flags_are_several_labels(tmp_path: Path) -> None:
    """Named by the option, each 0 or 1; another value is named with its row."""
    columns = {**features(), "red": [n % 2 for n in range(COUNT)], "wet": [int(n % 3 == 0) for n in range(COUNT)]}
    recipe, _ = drafted(written(tmp_path, columns), "red", "wet")
    assert (recipe.data.task, recipe.data.label_columns) == ("multi_label", ("red", "wet"))
    table = data_sets.load(recipe.data, tmp_path)
    assert (table.class_names, table.labels[:3].tolist()) == (
        ("red", "wet"),
        [[False, True], [True, False], [False, False]],
    )
    columns["wet"][5] = 2
    with pytest.raises(DataError, match=r"Expected 0 or 1 in t\.csv, column 'wet', row 7, got '2' \(1\): "):
        drafted(written(tmp_path, columns), "red", "wet")


def test_a_drafted_table_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a CSV with gaps and an id to a verdict, with two commands."""
    columns = {"id": range(160), **features(160), "label": classes(160)}
    columns["large"][4] = ""
    written(tmp_path, columns)
    monkeypatch.chdir(tmp_path)
    run_drafted("t.csv")
    assert "left out 1 of 160 rows without a value" in capsys.readouterr().err
