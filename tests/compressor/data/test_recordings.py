"""Recordings cut into windows: labels of folders, of a list and of steps, sources, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.data._table import Table
from compressor.data.recordings import raw
from compressor.errors import ArchiveError, ColumnError, CompressorError, DataError
from compressor.recipe.model import DataRecipe
from tests.compressor.data.test_class_folders import write

OPTIONS = {"steps": 4, "channels": 2, "low": 0, "high": 100}


def steps(count: int, start: int = 0, head: str = "time,x,y", tail: str = "") -> bytes:
    """Return a recording of ``count`` steps, counted from ``start``."""
    lines = [f"{row},{row + start},{2 * row}{tail}" for row in range(count)]
    return "\n".join([head, *lines]).encode()


def recipe(folder: Path, options: Mapping[str, float] = OPTIONS, **given: object) -> DataRecipe:
    """Return the recipe of the recordings in ``folder``."""
    return DataRecipe(dataset="recordings", path=str(folder), front_end="window", options=options, **given)  # type: ignore[arg-type]


def load(folder: Path, **given: object) -> Table:
    """Return the windows of the recordings in ``folder``."""
    return data.load(recipe(folder, **given))  # type: ignore[arg-type]


def test_folders_of_classes(tmp_path: Path) -> None:
    """Each file is a source; the time is no channel; the last steps that fill no window are left out."""
    place = write(tmp_path, {"walk/ann.csv": steps(9), "walk/bob.csv": steps(8, 50), "run/ann.csv": steps(4, 90)})
    table = load(place)
    assert [table.class_names[label] for label in table.labels] == ["run", "walk", "walk", "walk", "walk"]
    assert table.sources.tolist() == ["run/ann", "walk/ann", "walk/ann", "walk/bob", "walk/bob"]
    values = raw(recipe(place))[2].values
    assert values.tolist() == [[4, 8], [5, 10], [6, 12], [7, 14]]


def test_folders_of_splits_and_people(tmp_path: Path) -> None:
    """A folder below the class is the source of all recordings in it."""
    files = {f"{part}/walk/{part}-{who}/{n}.csv": steps(4, 9 * n + 30 * (part == "test") + 3 * len(who))
             for part in ("train", "test") for who in ("ann", "bobby") for n in (1, 2)}  # fmt: skip
    table = load(write(tmp_path, files))
    assert table.told is not None
    assert table.told.tolist() == ["gate"] * 4 + ["train"] * 4
    assert table.sources.tolist()[::2] == ["test-ann", "test-bobby", "train-ann", "train-bobby"]


def test_a_list_of_recordings(tmp_path: Path) -> None:
    """With its sources and slices, other names of columns, and paths of Windows."""
    listing = "Datei;Art;Person;site\nd\\a.csv;walk;ann;n\nd\\b.csv;run;ann;s\n"
    place = write(tmp_path, {"d/a.csv": steps(8), "d/b.csv": steps(4, 50), "labels.csv": listing.encode()})
    table = load(place, slices="site", columns={"path": "Datei", "label": "Art", "source": "Person"})
    assert [table.class_names[label] for label in table.labels] == ["walk", "walk", "run"]
    assert table.sources.tolist() == ["ann"] * 3
    assert table.slices.tolist() == ["n", "n", "s"]


def test_labels_of_steps(tmp_path: Path) -> None:
    """More than half of a window's steps decide; a window without such a label is left out."""
    labels = ["rest"] * 5 + ["walk"] * 5 + ["run"] * 2
    lines = [f"{row},{row},{row},{label},ann" for row, label in enumerate(labels)]
    place = write(tmp_path, {"a.csv": "\n".join(["time,x,y,label,source", *lines]).encode()})
    table = load(place)
    assert [table.class_names[label] for label in table.labels] == ["rest", "walk"]
    assert table.sources.tolist() == ["ann", "ann"]


def test_windows_overlap_by_their_stride(tmp_path: Path) -> None:
    """All of one recording, unless neighbours that are far enough apart may be sources of their own."""
    place = write(tmp_path, {"walk/a.csv": steps(20), "run/a.csv": steps(20, 70)})
    assert len(load(place, options={**OPTIONS, "stride": 2})) == 18
    table = load(place, options={**OPTIONS, "stride": 2, "source_windows": 3})
    assert table.sources.tolist()[:5] == ["run/a/0", "run/a/0", "run/a/1", "run/a/1", "run/a/2"]


def test_numbers_to_predict(tmp_path: Path) -> None:
    """Those of a window's last step."""
    lines = [f"{row},{row},{row},{row / 2}" for row in range(8)]
    place = write(tmp_path, {"a.csv": "\n".join(["time,x,y,target", *lines]).encode()})
    assert load(place, label="number").labels.tolist() == [[1.5], [3.5]]


def test_a_time_of_another_name_and_a_channel_called_t(tmp_path: Path) -> None:
    """With a named column of times, others of such names are channels."""
    place = write(tmp_path, {"walk/a.csv": steps(4, head="clock,t,y"), "run/b.csv": steps(4, 9, head="clock,t,y")})
    assert load(place, columns={"timestamp": "clock"}).images[0].shape == (4, 2, 3)


def test_files_without_a_label_are_normal_for_anomalies_alone(tmp_path: Path) -> None:
    """With one normal label; a misspelt column and two normal labels stay errors, and a remark says it."""
    place = write(tmp_path, {"a.csv": steps(8), "b.csv": steps(8, 9)})
    normal: dict[str, object] = {"task": "anomaly", "normal": ("ok",)}
    table = load(place, **normal)
    assert (table.labels.tolist(), table.kinds.tolist()) == ([0] * 4, ["ok"] * 4)
    assert table.remarks == (
        "no column 'label' in a.csv and 1 files more: all windows are 'ok', as [data] normal has it",
    )
    for given in ({"columns": {"label": "state"}}, {"normal": ("ok", "fine")}):
        with pytest.raises(ColumnError):
            load(place, **{**normal, **given})
    write(tmp_path, {"a.csv": steps(8, head="time,x,Label")})
    with pytest.raises(ColumnError):
        load(place, **normal)


def test_bytes_are_those_that_a_device_gets(tmp_path: Path) -> None:
    """As text or as raw numbers, the picture is the same."""
    place = write(tmp_path, {"walk/a.csv": steps(8), "run/b.csv": steps(8, 9)})
    assert load(place, options={**OPTIONS, "binary": 1}).hashes.tolist() == load(place).hashes.tolist()


@pytest.mark.parametrize(
    ("files", "given", "error", "said"),
    [
        ({"a.txt": b"x"}, {}, ArchiveError, "Expected recordings (CSV or Parquet, one a file)"),
        ({"a.csv": steps(8)}, {}, ColumnError, "the column 'label' in a.csv, got time, x, y"),
        ({"w/a.csv": steps(3), "r/b.csv": steps(8)}, {}, DataError, "at least 4 steps in w/a.csv, got 3"),
        ({"w/a.csv": steps(8, head="time,x,Label"), "r/b.csv": steps(8)}, {}, ColumnError, "in w/a.csv, got 'Label'"),
        ({"w/a.csv": b"time\n1\n2\n3\n4", "r/b.csv": steps(8)}, {}, ColumnError, "a column of numbers in w/a.csv"),
        ({"w/a.csv": steps(8).replace(b"3,3,", b"3,nan,"), "r/b.csv": steps(8)}, {}, DataError, "column 'x', row 5"),
        ({"w/a.csv": b"", "r/b.csv": steps(8)}, {}, DataError, "w/a.csv"),
        ({"w/a.csv": steps(8), "r/b.csv": steps(8)}, {"options": {**OPTIONS, "channels": 3}}, DataError, "3 channels"),
        ({"w/a.csv": steps(8)}, {"options": {**OPTIONS, "stride": 1, "source_windows": 2}}, DataError, "of 4 steps"),
        ({"w/a.csv": steps(8)}, {"options": {**OPTIONS, "horizon": 2}}, DataError, "horizon"),
        ({"w/a.csv": steps(8)}, {"columns": {"channel": "x"}}, DataError, "got 'channel'"),
        ({"labels.csv": b"path,label\n../a.csv,w\n"}, {}, ArchiveError, "inside the archive"),
        ({"labels.csv": b"path,label\nno.csv,w\n"}, {}, ArchiveError, "'no.csv'"),
        ({"labels.csv": b"path,label\na.csv, w\n", "a.csv": steps(4)}, {}, DataError, "in labels.csv, row 2"),
        ({"labels.csv": b"path,label,Source\na.csv,w,s\n", "a.csv": steps(4)}, {}, ColumnError, "got 'Source'"),
        ({"a.csv": steps(8)}, {"label": "number"}, ColumnError, "the column 'target'"),
        ({"a.csv": b"x,y,label,source\n" + b"1,2,w,s\n" * 3 + b"1,2,w,t\n"}, {}, DataError, "one source of"),
        ({"a.csv": b"x,y,label\n" + b"1,2,w\n1,2,r\n" * 2}, {}, DataError, "one label for more than half"),
    ],
)  # fmt: skip
def test_recordings_that_do_not_fit_are_named(
    tmp_path: Path, files: dict[str, bytes], given: dict[str, object], error: type[Exception], said: str
) -> None:
    """File, column, row and value, and what to do."""
    with pytest.raises(error) as found:
        load(write(tmp_path, files), **given)
    assert said in str(found.value)


def test_parquet_is_a_recording(tmp_path: Path) -> None:
    """As CSV is."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa  # noqa: PLC0415 - optional

    write(tmp_path, {"walk/a.csv": steps(8), "run/b.csv": steps(8, 9)})
    expected = load(tmp_path).hashes.tolist()
    (tmp_path / "walk" / "a.csv").unlink()
    table = {"time": list(range(8)), "x": list(range(8)), "y": [2 * row for row in range(8)]}
    parquet.write_table(pa.table(table), tmp_path / "walk" / "a.parquet")
    assert load(tmp_path).hashes.tolist() == expected


def test_seeded_damage_is_coded(tmp_path: Path) -> None:
    """Cut and flipped files: an error of ours each time, or a table."""
    rng = np.random.default_rng(0)
    write(tmp_path, {"walk/a.csv": steps(12), "run/b.csv": steps(8, 9)})
    whole = (tmp_path / "walk" / "a.csv").read_bytes()
    for _ in range(150):
        changed = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, len(changed), 2):
            changed[at] = rng.integers(0, 256)
        write(tmp_path, {"walk/a.csv": bytes(changed)})
        try:
            load(tmp_path)
        except CompressorError:
            continue
