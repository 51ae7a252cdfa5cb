"""Several labels, anomalies and events: which data they are drafted for, and that what is drafted can be loaded."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor import data as data_sets
from compressor import tasks
from compressor.data._split import split, told_groups
from compressor.data._table import Table
from compressor.data._window_table import Columns
from compressor.errors import DataError, SplitError
from compressor.exploration.draft import draft
from compressor.exploration.duplicates import with_near_sources
from compressor.exploration.layouts import recognised, tabular
from compressor.progress import Silent
from compressor.recipe.model import DataRecipe, Recipe
from compressor.recipe.read import parse_recipe
from compressor.tasks._drafting import Facts
from compressor.tasks.anomaly import draft as anomaly
from tests.compressor.data.test_class_folders import write
from tests.compressor.data.test_sound_events import as_wav
from tests.compressor.exploration import test_init
from tests.compressor.exploration.test_init import picture, run_drafted

COUNT = 120
RATE = 4000


def drafted(path: Path) -> tuple[Recipe, str, Table]:
    """Return the recipe that is drafted for ``path``, its text, and the table that it loads, ready to train."""
    recipe, text = test_init.drafted(path)
    table = data_sets.load(recipe.data, path.parent)
    parts = split(table, recipe.train.seed)
    return recipe, text, tasks.of(recipe.data).targets.fitted(recipe, table, table.take(parts.train))


def listed(folder: Path, head: list[str], rows: list[list[object]]) -> Path:
    """Write pictures and a list of them; the first cell of each row is the picture's number."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(head)
    writer.writerows([f"{row[0]}.png", *row[1:]] for row in rows)
    pictures = {f"{row[0]}.png": picture(int(str(row[0])), colour=True) for row in rows}
    return write(folder, {"labels.csv": out.getvalue().encode(), **pictures})


@pytest.mark.parametrize("separator", ["|", ";", ","])
def test_several_labels_in_a_cell(tmp_path: Path, separator: str) -> None:
    """Parts that come again make several labels; an empty cell is a row without any."""
    kinds = ["red", f"red{separator}green", "green", f"blue{separator}green", ""]
    path = listed(tmp_path / "lamps", ["path", "label"], [[n, kinds[n % 5]] for n in range(COUNT)])
    recipe, text, table = drafted(path)
    assert (recipe.data.task, recipe.data.separator) == ("multi_label", separator)
    assert table.class_names == ("blue", "green", "red") == recipe.model.labels
    assert table.labels[:5].astype(int).tolist() == [[0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert [gate.name for gate in recipe.gates] == ["label_map_drop", "label_f1_drop"]
    assert "whose parts come in other rows" in text
    assert recipe.train.class_weights == "balanced"


@pytest.mark.parametrize("kinds", [["Paris, France", "Rome, Italy"], ["1,5", "2,5"], ["a|b", "c|d"], ["0|1", "1|0"]])
def test_a_separator_alone_makes_no_several_labels(tmp_path: Path, kinds: list[str]) -> None:
    """Its parts must come again, and be names."""
    path = listed(tmp_path / "places", ["path", "label"], [[n, kinds[n % 2]] for n in range(COUNT)])
    assert drafted(path)[0].data.task == ""


def test_a_column_of_flags_for_each_label(tmp_path: Path) -> None:
    """As data sets of competitions have them; a column of other numbers is none."""
    rows = [[n, n % 2, int(n % 3 == 0), n % 7] for n in range(COUNT)]
    recipe, text, table = drafted(listed(tmp_path / "kaggle", ["image", "red", "wet", "age"], rows))
    assert (recipe.data.label_columns, recipe.data.columns) == (("red", "wet"), {"path": "image"})
    assert table.labels[:3].astype(int).tolist() == [[0, 1], [1, 0], [0, 0]]
    assert "2 labels, each 0 or 1 in a row: columns of 0 and 1 alone" in text


def test_flags_written_as_fractions_and_words_are_labels_and_named(tmp_path: Path) -> None:
    """What was taken for labels is printed, with a remark where each row has exactly one: these may be classes."""
    rows: list[list[object]] = [[n, float(n % 2), bool(n % 2 == 0)] for n in range(COUNT)]
    made = draft(listed(tmp_path / "a", ["image_id", "red", "wet"], rows), tmp_path, Silent())
    assert 'label_columns = ["red", "wet"]' in made.text
    assert made.remarks[0].startswith("labels, a column of 0 and 1 each: red, wet; ")
    assert "Each line has exactly one of them: if no picture can have two, they are classes" in made.remarks[0]
    rows[0][2] = False
    assert "exactly one" not in draft(listed(tmp_path / "b", ["id", "red", "wet"], rows), tmp_path, Silent()).remarks[0]


@pytest.mark.parametrize("form", ["sample_submission.csv", "gender_submission.csv"])
def test_a_form_for_answers_is_passed_by_with_a_word(tmp_path: Path, form: str) -> None:
    """As a competition's train.csv beside its sample_submission.csv; where there is nothing else, it is read."""
    path = listed(tmp_path / "a", ["path", "label"], [[n, "ab"[n % 2]] for n in range(COUNT)])
    (path / "labels.csv").rename(path / "train.csv")
    (path / form).write_text("id,label\n1,0\n")
    table = drafted(path)[2]
    assert table.class_names == ("a", "b")
    assert table.remarks[-1] == f"not read: {form}, by its name a form for answers"
    (path / "train.csv").rename(path / "my_submission.csv")
    (path / form).unlink()
    assert drafted(path)[2].class_names == ("a", "b")


def test_a_form_for_answers_beside_rows_of_features_is_passed_by(tmp_path: Path) -> None:
    """Its columns are others."""
    lines = ["a,b,label", *(f"{n % 7},{n % 5},{'xy'[n % 2]}" for n in range(COUNT))]
    write(tmp_path / "rows", {"train.csv": "\n".join(lines).encode(), "sample_submission.csv": b"id,label\n1,x\n"})
    table = drafted(tmp_path / "rows")[2]
    assert len(table) == COUNT
    assert "not read: sample_submission.csv, by its name a form for answers" in table.remarks


def test_the_test_list_of_a_competition_is_passed_by_in_draft_and_run(tmp_path: Path) -> None:
    """Its columns are those of train.csv without the labels; a table beside it that lacks others counts."""
    rows: list[list[object]] = [[n, n % 2, int(n % 3 == 0), n % 7] for n in range(COUNT)]
    path = listed(tmp_path / "a", ["image_id", "red", "wet", "age"], rows)
    (path / "labels.csv").rename(path / "train.csv")
    (path / "test.csv").write_text("image_id,age\n7.png,3\n")
    (path / "sample_submission.csv").write_text("image_id,red,wet\n7.png,.5,.5\n")
    recipe, _, table = drafted(path)
    assert (recipe.data.label_columns, len(table)) == (("red", "wet"), COUNT)
    assert "not read: test.csv, which lacks red, wet of train.csv: rows without labels" in table.remarks
    (path / "test.csv").write_text("image_id,red,wet,place\n7.png,0,1,3\n")
    with pytest.raises(DataError, match=r"or labels\.csv, got test\.csv, train\.csv"):
        recognised(path)


def test_pictures_without_a_label_are_counted_with_the_way_to_use_them(tmp_path: Path) -> None:
    """Of classes and numbers a step learns from such pictures, if they lie in a folder of their own."""
    path = listed(tmp_path / "a", ["path", "label"], [[n, "ab"[n % 2] if n % 3 else ""] for n in range(COUNT)])
    with pytest.raises(DataError, match=rf"row 2, column 'label', got none .* {COUNT // 3} of {COUNT} rows") as refused:
        drafted(path)
    assert 'move the pictures to a folder, and write [data] unlabelled = "FOLDER" with' in str(refused.value)
    anomaly_recipe = DataRecipe(dataset="labelled_images", path="a", task="anomaly", normal=("a",))
    with pytest.raises(DataError, match=r"fill them in or leave the rows out$"):
        data_sets.load(anomaly_recipe, tmp_path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_test_table_of_a_competition_beside_rows_of_features(tmp_path: Path, ending: str) -> None:
    """It is passed by if it lacks the label, and read if it lacks something else."""
    kinds = [f"{n % 7},{n % 5},m{n},{'xy'[n % 2]}" for n in range(COUNT)]
    folder = tmp_path / "rows"
    write(folder, {"train.csv": "\n".join(["a,b,source,label", *kinds]).encode(), "test.csv": b"a,b,source\n9,9,m\n"})
    if ending == "parquet":
        parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
        for name in ("train", "test"):
            parquet[1].write_table(parquet[0].read_csv(folder / f"{name}.csv"), folder / f"{name}.parquet")
            (folder / f"{name}.csv").unlink()
    recipe, _, table = drafted(folder)
    assert len(table) == COUNT
    assert f"not read: test.{ending}, which lacks label of train.{ending}: rows without labels" in table.remarks
    if ending == "csv":
        (folder / "test.csv").write_text("a,b,label\n9,9,x\n")
        assert len(data_sets.load(recipe.data, tmp_path)) == COUNT + 1


def test_two_lists_of_pictures_are_told_at_once(tmp_path: Path) -> None:
    """Which of them counts is a person's to say; a list called labels.csv is taken."""
    path = listed(tmp_path / "a", ["path", "label"], [[n, "ab"[n % 2]] for n in range(COUNT)])
    (path / "more.csv").write_text("id,label\n1,0\n")
    assert drafted(path)[2].class_names == ("a", "b")
    (path / "labels.csv").rename(path / "train.csv")
    with pytest.raises(DataError, match=r"or labels\.csv, got more\.csv, train\.csv: call the one with"):
        recognised(path)


def test_what_is_known_of_a_person_is_no_label_beside_others(tmp_path: Path) -> None:
    """It is left out with a word; of two columns the other is the label; --label has the last word."""
    rows = [[n, n % 2, int(n % 3 == 0), int(n % 5 == 0)] for n in range(COUNT)]
    path = listed(tmp_path / "a", ["image", "sex", "scar", "mole"], rows)
    made = draft(path, tmp_path, Silent())
    assert 'label_columns = ["scar", "mole"]' in made.text
    assert "; not taken: sex, by its name known of a picture beforehand (if not, --label names all)" in made.remarks[0]
    asked = draft(path, tmp_path, Silent(), labels=("sex", "scar"))
    assert 'label_columns = ["sex", "scar"]' in asked.text
    one = draft(listed(tmp_path / "b", ["image", "Sex", "scar"], [row[:3] for row in rows]), tmp_path, Silent())
    assert 'columns = {path = "image", label = "scar"}' in one.text
    assert one.remarks[0].startswith("the label is 'scar', the only other column of 0 and 1; not taken: Sex")
    both = draft(listed(tmp_path / "c", ["image", "male", "smoker"], [row[:3] for row in rows]), tmp_path, Silent())
    assert 'label_columns = ["male", "smoker"]' in both.text


def test_flags_in_arrays(tmp_path: Path) -> None:
    """``y`` of 0 and 1, (N, L), beside rows of features."""
    x = np.random.default_rng(0).normal(size=(COUNT, 6))
    np.savez(tmp_path / "a.npz", x=x, y=(x[:, :3] > 0).astype(int), class_names=np.array(["a", "b", "c"]))
    recipe, _, table = drafted(tmp_path / "a.npz")
    assert (recipe.data.task, recipe.model.network) == ("multi_label", "mlp")
    assert table.labels.tolist() == (x[:, :3] > 0).tolist()


def inspected(folder: Path) -> Path:
    """Write a category of MVTec AD: normal pictures to learn from, kinds of defects to judge, masks of them."""
    files = {f"train/good/{n}.png": picture(n) for n in range(60)}
    files |= {f"test/good/{n}.png": picture(100 + n) for n in range(20)}
    for kind in ("crack", "hole"):
        files |= {f"test/{kind}/{n}.png": picture(200 + n + 50 * len(kind), bright=True) for n in range(12)}
        files |= {f"ground_truth/{kind}/{n}_mask.png": picture(900 + n) for n in range(12)}
    return write(folder, files | {"license.txt": b"x"})


def few(folder: Path) -> Path:
    """Write folders ok and nok, few of the latter."""
    return write(folder, {f"{'nok' if n % 12 == 0 else 'ok'}/{n}.png": picture(n) for n in range(COUNT)})


def normal(folder: Path) -> Path:
    """Write one folder of normal pictures."""
    return write(folder, {f"parts/{n}.png": picture(n) for n in range(COUNT)})


@pytest.mark.parametrize(
    ("make", "names", "odd", "why"),
    [
        (inspected, ("good",), 24, "the training rows are all good: crack, hole can't be learnt, only found"),
        (few, ("ok",), 10, "10 of 120 rows (10 sources) are not ok: too few to learn"),
        (normal, ("parts",), 0, "all rows are 'parts': what is unlike them is an anomaly"),
    ],
)
def test_anomalies_are_drafted(
    tmp_path: Path, make: Callable[[Path], Path], names: tuple[str, ...], odd: int, why: str
) -> None:
    """Where nothing but normal rows can be learnt; the other possibility stands in the recipe."""
    recipe, text, table = drafted(make(tmp_path / "seen"))
    assert (recipe.data.task, recipe.data.normal, recipe.model.network) == ("anomaly", names, "auto_encoder")
    assert int(table.labels.sum()) == odd
    assert why in text
    assert ("Possible too: a classifier" in text) == bool(odd) == ("auc_drop" in text)
    assert bool(recipe.model.allow_constant) == (not odd)
    assert "false_alarms_per_day = 1.0" in text


def test_rows_that_a_gate_on_anomalies_lacks_are_said(tmp_path: Path) -> None:
    """It could never pass: the gate on false alarms is a comment, unless it is the only one."""
    some = draft(inspected(tmp_path / "some"), tmp_path, Silent())
    lacks = "4,314 normal calibration rows or more (there are 18) and 2,157 normal gate rows or more (there are 20)"
    assert [lacks in said and said.endswith("That gate is a comment.") for said in some.remarks] == [True]
    assert "\n# false_alarms_per_day = {max = 2.0}\n" in some.text
    assert [gate.name for gate in parse_recipe(some.text).gates] == ["auc_drop"]
    assert "of 44 gate rows, 24 anomalous; with fewer than 100 sources, 20 of each kind, it stays INC" in some.text
    assert (
        "give at least 56 more before the first run (a later look needs more); 45 normal and 55 anomalous" in some.text
    )
    none = draft(normal(tmp_path / "none"), tmp_path, Silent())
    assert [said.endswith("It stays INCONCLUSIVE until then.") for said in none.remarks] == [True]
    assert [gate.name for gate in parse_recipe(none.text).gates] == ["false_alarms_per_day"]


def test_the_interval_of_windows_is_that_of_their_starts(tmp_path: Path) -> None:
    """Windows of 32 lines of a minute each, side by side, are 32 minutes apart, which the rows that lack count too."""
    moments = np.datetime64("2026-01-01T00:00:00") + np.arange(6400) * np.timedelta64(60, "s")
    values = np.random.default_rng(0).normal(20, 1, len(moments))
    lines = [f"{str(at).replace('T', ' ')},{value:.3f}" for at, value in zip(moments, values, strict=True)]
    spans = json.dumps({"sensor.csv": []}).encode()
    sensor = "\n".join(["timestamp,x", *lines]).encode()
    path = write(tmp_path / "series", {"sensor.csv": sensor, "combined_windows.json": spans})
    made = draft(path, tmp_path, Silent())
    assert "from one window's start to the next, by the times in the file" in made.text
    assert parse_recipe(made.text).alarm.interval_s == 1920.0
    assert any("at one input each 1920 s it needs 135 normal calibration rows" in said for said in made.remarks)


@pytest.mark.parametrize(
    ("first", "step", "seconds"),
    [("1796000000", 1, 1.0), ("1796000000000", 500, 0.5), ("1796000000000000000", 10**9, 1.0), ("0", 2, 2.0)],
)
def test_the_spacing_of_lines_by_their_times(first: str, step: int, seconds: float) -> None:
    """Numbers since 1970 are seconds, or parts of them by their size."""
    cells = [str(int(first) + step * n) for n in range(9)]
    assert tabular.spacing_s(Columns("a.csv", {"Time": cells})) == pytest.approx(seconds, rel=0.01)
    assert tabular.spacing_s(Columns("a.csv", {"x": cells})) == 0


@pytest.mark.parametrize(
    ("calibration", "gate", "gates"),
    [(4314, 2157, ["auc_drop", "false_alarms_per_day"]), (4313, 2157, ["auc_drop"]), (4314, 2156, ["auc_drop"])],
)
def test_enough_rows_keep_the_gate_on_false_alarms(calibration: int, gate: int, gates: list[str]) -> None:
    """Three days of a minute each to calibrate, half of that to judge; anomalous gate rows are none of them."""
    rows, odd = np.arange(30), 20
    names = rows.astype(np.str_)
    table = Table(
        images=[np.zeros((8, 8, 3), np.uint8)] * 30, labels=(rows < odd).astype(np.int64), sources=names, hashes=names,
        slices=np.full(30, "all"), class_names=("normal", "anomaly"),
    )  # fmt: skip
    facts = Facts(
        table=table, kind="image", width=8, height=8, train=9, gate=gate + odd, smallest=9, calibration=calibration
    )
    made = anomaly.parts(facts)
    assert [key.name for key in made.gates] == gates
    assert bool(made.remarks) == (len(gates) == 1)


def test_enough_defects_are_drafted_as_classes(tmp_path: Path) -> None:
    """And the recipe says how to look for anomalies instead."""
    files = {f"{('good', 'defect')[n % 2]}/{n}.png": picture(n) for n in range(COUNT)}
    recipe, text, _ = drafted(write(tmp_path / "parts", files))
    assert recipe.data.task == ""
    assert 'Possible too: [data] task = "anomaly", normal = ["good"]' in text


@pytest.mark.parametrize("defects", ["crack", "good"])
def test_splits_of_files_that_look_alike_are_drafted_as_told(tmp_path: Path, defects: str) -> None:
    """A run refuses them otherwise: of anomalies, where parts of one kind look alike, and of classes."""
    place = inspected(tmp_path / "seen")
    if defects == "good":
        write(place, {f"train/crack/{n}.png": picture(600 + n, bright=True) for n in range(60)})
    with Image.open(place / "train/good/0.png") as image:
        image.save(place / "test/good/again.jpg", quality=95)
    recipe, text, table = drafted(place)
    assert recipe.data.near_copies == "as_told"
    assert "some rows look like rows of another" in text
    unnamed = table.sources == table.hashes
    told_groups(with_near_sources(table, Silent(), unnamed, as_told=True))
    with pytest.raises(SplitError):
        told_groups(with_near_sources(table, Silent(), unnamed))


def test_a_list_of_events_is_found_among_many_tables(tmp_path: Path) -> None:
    """Tables beside the list say nothing of it, however many they are."""
    place = recorded(tmp_path / "taps", shared=True)
    write(place, {f"notes/{n:03}.csv": b"a,b\n1,2\n" for n in range(150)} | {"a.csv": b"a,b\n1,2\n"})
    assert recognised(place).dataset == "sound_events"


def recorded(folder: Path, *, shared: bool = False) -> Path:
    """Write recordings with taps, and their lists: one beside each, or one of all."""
    files: dict[str, bytes] = {}
    together = ["filename,onset,offset,event_label"]
    for n in range(24):
        sound = np.random.default_rng(n).integers(-200, 200, 8 * RATE).astype(np.int16)
        lines = []
        for start in (1.0 + n % 3, 5.0):
            at = int(start * RATE)
            sound[at : at + RATE // 2] = (8000 * np.sin(np.arange(RATE // 2) / 3)).astype(np.int16)
            lines.append(f"{start},{start + 0.5},tap")
        files[f"{n}.wav"] = as_wav(sound, RATE)
        together += [f"{n}.wav,{line}" for line in lines]
        if not shared:
            files[f"{n}.csv"] = "\n".join(["start,end,label", *lines]).encode()
    return write(folder, files | ({"events.csv": "\n".join(together).encode()} if shared else {}))


@pytest.mark.parametrize("shared", [False, True])
def test_recordings_with_lists_of_events(tmp_path: Path, shared: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Windows a little longer than an event; the smoother has their stride; columns of other names are given."""
    recipe, text, table = drafted(recorded(tmp_path / "taps", shared=shared))
    assert (recipe.data.dataset, recipe.data.task, recipe.smoothing.kind) == ("sound_events", "stream_events", "events")
    assert (recipe.data.options["clip_s"], recipe.data.options["stride_s"]) == (0.6, 0.15)
    assert recipe.smoothing.interval_ms == 150
    assert table.class_names == ("background", "tap")
    assert recipe.data.columns["start_s"] == ("onset" if shared else "start")
    assert ("their events in events.csv" if shared else "a list of events beside each") in text


@pytest.mark.nightly
@pytest.mark.parametrize("make", [inspected, recorded, few])
def test_what_is_drafted_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]) -> None:
    """To a verdict, with two commands."""
    make(tmp_path / "seen")
    monkeypatch.chdir(tmp_path)
    run_drafted("seen")
