"""No key of ``[data]`` is ignored: each data set uses it for loading or for the manifest, or refuses it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor import data, tasks
from compressor.data._front_end import preprocessing_of
from compressor.data._split import split
from compressor.data._table import Table
from compressor.errors import CompressorError, DataError
from compressor.recipe.model import DataRecipe, ModelRecipe, Recipe, TrainRecipe
from compressor.recipe.read import check_task
from edge_agent import front_ends
from tests.compressor.data.test_idx import _write
from tests.compressor.data.test_labelled_images import _png
from tests.compressor.data.test_spoken import OPTIONS, wav
from wire.settings import rules

SHARES = {"train": 0.4, "calibration": 0.2, "gate": 0.2, "reference": 0.2}
COUNT = 40
TABLE = "window,label,site,x\n" + "".join(
    f"w{row},{row % 2}.5,{'ab'[row % 2]},{row + step}\n" for row in range(COUNT) for step in range(2)
)
SERIES = "timestamp,x\n" + "".join(f"2020-01-01 00:00:{step:02},{step}\n" for step in range(48))
STROKES = {"strokes": [
    {"label": f"{row % 2}.5", "strokePoints": [{"x": 0, "y": 0}, {"x": row + 1, "y": 2}][:row + 1]}
    for row in range(COUNT)
]}  # fmt: skip
CHANGED: Mapping[str, object] = {
    "path": "elsewhere", "slices": "x", "split": "part", "train_slices": ("b",), "label": "floor", "width": 8,
    "height": 8, "colour": "grey", "orientation": "stored", "decode": "full", "allow_corrupt": 3, "mean": 0.1,
    "std": 0.9, "target_mean": (1.0,), "target_std": (2.0,), "shares": {**SHARES, "gate": 0.3, "train": 0.3},
    "front_end": "mfcc", "options": {"side": 16}, "dataset": "nonsense", "columns": {"label": "x"},
    "scale": 1.0, "resize": "letterbox",
    "resize_to": 64, "resample": "box", "antialias": False, "fill": 9, "bits": 16,
    "normal": ("x",), "separator": ";", "label_columns": ("x",), "ignore": ("x",), "missing": "drop",
}  # fmt: skip
"""Of every field of ``[data]`` another value than the recipes below have."""


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, DataRecipe]:
    """Return a small recipe of each form of data."""
    root = tmp_path_factory.mktemp("sets")
    for name in (
        "images",
        "idx",
        "words",
        "tables",
        "series",
        "strokes",
        "classes/0.5",
        "classes/1.5",
        "studio",
        "cvat",
        "recordings",
        "features",
    ):
        (root / name).mkdir(parents=True)
    lines = [f"{row}.png,{row % 2}.{row},{'ab'[row % 2]},,{row % 3}" for row in range(COUNT)]
    (root / "images" / "labels.csv").write_text(
        "path,label,site,part,x\n" + "\n".join(lines).replace("39,b,,", "39,b,gate,")
    )
    for row in range(COUNT):
        (root / "images" / f"{row}.png").write_bytes(_png(5 * row) if row else b"broken")
        (root / "classes" / f"{row % 2}.5" / f"{row}.png").write_bytes(_png(5 * row) if row else b"broken")
        (root / "classes" / f"{row % 2}.5" / f"{row}.wav").write_bytes(wav(row) if row else b"broken")
        steps = "".join(f"{row + step},{row % 2}.5,{'ab'[row % 2]}\n" for step in range(2))
        (root / "recordings" / f"{row}.csv").write_text(
            f"x,label,site\n{steps if row else '1e300,0.5,a' + chr(10) + steps}"
        )
        for tool in ("studio", "cvat"):
            (root / tool / f"{row}.png").write_bytes(_png(5 * row) if row else b"broken")
        (root / "words" / f"{row % 2}.5_ann_{row}.wav").write_bytes(wav(row) if row else b"broken")
    tasks_of_tool = [{"image": f"{row}.png", "choice": f"{row % 2}.5", "site": "ab"[row % 2]} for row in range(COUNT)]
    (root / "studio" / "export.json").write_text(json.dumps([{**one, "part": "", "x": "y"} for one in tasks_of_tool]))
    tags = (f'<image name="{row}.png"><tag label="{row % 2}.5"/></image>' for row in range(COUNT))
    (root / "cvat" / "annotations.xml").write_text(f"<annotations>{''.join(tags)}</annotations>")
    _write(root / "idx", "train", COUNT, COUNT)
    pictures = np.arange(COUNT * 64, dtype=np.uint32).astype(np.uint8).reshape(COUNT, 8, 8)
    pictures[:, 0, 0] = np.arange(COUNT)
    labels = {"y": np.arange(COUNT) % 2, "class_names": np.array(["0.5", "1.5"])}
    np.savez(root / "a.npz", x=pictures, site=np.array(["a", "b"] * (COUNT // 2)), **labels)
    lines = [f"{row % 2}.5,{'ab'[row % 2]},,{row % 3},{row},{row + 1}" for row in range(1, COUNT)]
    lines.append("0.5,a,,1,,2")
    (root / "features" / "f.csv").write_text("label,site,fold,part,x,y\n0.5,a,,1,1e300,2\n" + "\n".join(lines))
    floats = np.arange(COUNT * 2.0).reshape(COUNT, 2)
    np.savez(root / "f.npz", x=floats, site=np.array(["a", "b"] * (COUNT // 2)), **labels)
    (root / "tables" / "t.csv").write_text(TABLE + "long,0.5,b,1\n" * 3)
    (root / "series" / "s.csv").write_text(SERIES)
    (root / "series" / "wide.csv").write_text("timestamp,x,y\n" + "2020-01-01 00:00:00,1,2\n" * 2)
    spans = {"s.csv": [["2020-01-01 00:00:00", "2020-01-01 00:00:07"]], "wide.csv": []}
    (root / "series" / "combined_windows.json").write_text(json.dumps(spans))
    (root / "strokes" / "1_a.json").write_text(json.dumps(STROKES))
    window = {"steps": 2, "channels": 1, "low": 0, "high": 60}

    def recipe(dataset: str, folder: str, **given: object) -> DataRecipe:
        return DataRecipe(dataset=dataset, path=str(root / folder), shares=SHARES, **given)  # type: ignore[arg-type]

    return {
        "digits": DataRecipe(),
        "labelled_images": recipe("labelled_images", "images", slices="site", allow_corrupt=1),
        "idx": recipe("idx", "idx"),
        "arrays": recipe("arrays", "a.npz", slices="site"),
        "class_folders/images": recipe("class_folders", "classes", allow_corrupt=1),
        "class_folders/sounds": recipe(
            "class_folders", "classes", allow_corrupt=1, front_end="log_mel", options=OPTIONS
        ),
        "label_studio": recipe("label_studio", "studio", allow_corrupt=1, slices="site", columns={"label": "choice"}),
        "cvat": recipe("cvat", "cvat", allow_corrupt=1),
        "spoken": recipe("spoken", "words", allow_corrupt=1, front_end="log_mel", options=OPTIONS),
        "features": recipe(
            "features",
            "features",
            slices="site",
            columns={"label": "label"},
            allow_corrupt=1,
            front_end="window",
            options={"steps": 3, "channels": 1, "low": 0, "high": 60},
            split="fold",
            missing="drop",
        ),
        "arrays/features": recipe("arrays", "f.npz", slices="site", front_end="window", options=window),
        "recordings": recipe(
            "recordings", "recordings", slices="site", allow_corrupt=1, front_end="window", options=window
        ),
        "windows/table": recipe(
            "windows", "tables", slices="site", allow_corrupt=1, front_end="window", options=window
        ),
        "windows/series": recipe(
            "windows", "series", allow_corrupt=1, front_end="window", options={**window, "source_windows": 2}
        ),
        "windows/strokes": recipe("windows", "strokes", allow_corrupt=1, front_end="stroke"),
    }


FORMS = (
    "digits",
    "labelled_images",
    "class_folders/images",
    "class_folders/sounds",
    "label_studio",
    "cvat",
    "idx",
    "arrays",
    "spoken",
    "features",
    "arrays/features",
    "recordings",
    "windows/table",
    "windows/series",
    "windows/strokes",
)


OF_THE_RUN = ("calibration", "near_copies")
"""Keys that a run reads, and that change no table; tests/compressor/imported/test_calibration.py and
tests/compressor/exploration/test_explore.py have them."""


def outcome(asked: DataRecipe) -> str:
    """Return the result of ``asked``: the table, its splits, its unit and the manifest's preprocessing, or an error."""
    try:
        check_task(
            Recipe(model=ModelRecipe(name="m"), data=asked, train=TrainRecipe(), compress=(), targets=(), gates=())
        )
        table = data.load(asked)
        parts = split(table, 0, slices=asked.train_slices)
        recipe = Recipe(model=ModelRecipe(name="m"), data=asked, train=TrainRecipe(), compress=(), targets=(), gates=())
        unit = tasks.of(asked).targets.fitted(recipe, table, table.take(parts.train)).unit
        rows = [part.tolist() for part in (parts.train, parts.gate, parts.reference)]
        return f"{loaded(table)} {rows} {unit} {preprocessing_of(asked)}"
    except CompressorError as error:
        return f"refused: {error}"


def loaded(table: Table) -> str:
    """Return the contents of ``table``, as text."""
    told = None if table.told is None else table.told.tolist()
    columns = [table.hashes, table.labels, table.slices, table.sources]
    return f"{[column.tolist() for column in columns]} {table.class_names} {table.corrupt} {table.shares} {told}"


@pytest.mark.parametrize("form", FORMS[1:])  # to render digits for each would take minutes
@pytest.mark.parametrize(
    "key", [field.name for field in dataclasses.fields(DataRecipe) if field.repr and field.name not in OF_THE_RUN]
)
def test_a_key_changes_something_or_is_refused(recipes: Mapping[str, DataRecipe], form: str, key: str) -> None:
    """Every form of data, every key of ``[data]`` that is in a recipe's digest; a later one is tried by being there."""
    asked = recipes[form]
    plain, value = outcome(asked), CHANGED[key]
    assert not plain.startswith("refused"), plain
    changed = outcome(replace(asked, **{key: value}))  # type: ignore[arg-type]
    if key == "allow_corrupt" and not changed.startswith("refused"):  # as many are left out as before
        changed = outcome(replace(asked, allow_corrupt=0))
    if key == "missing" and not changed.startswith("refused"):  # the rows are left out as before
        changed = outcome(replace(asked, missing="error"))
    assert changed != plain


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", [key for key in data.KEYS if key != data.FLOOR])
def test_a_key_that_is_not_read_is_named(recipes: Mapping[str, DataRecipe], form: str, key: str) -> None:
    """The error names the data set and those that read the key; a key that is read is accepted."""
    asked = recipes[form]
    asked = (
        replace(asked, task="multi_label") if key == "label_columns" else asked
    )  # of other tasks no data set reads it
    said = outcome(replace(asked, **{key: CHANGED[key]}))  # type: ignore[arg-type]
    refused = f"Expected no {key} = {CHANGED[key]!r} in [data] with dataset = {asked.dataset!r}"
    assert (refused in said) == (key not in data.reads(asked.dataset))
    readers = [name for name in data.datasets() if key in data.reads(name)]
    assert readers
    assert refused not in said or ", ".join(readers) in said


@pytest.mark.parametrize(
    ("form", "front_end"),
    [("spoken", "log_mel"), ("spoken", "mfcc"), ("windows/table", "window"), ("windows/series", "window"),
     ("windows/strokes", "stroke")],
)  # fmt: skip
def test_an_option_changes_the_pictures_or_is_refused(
    recipes: Mapping[str, DataRecipe], form: str, front_end: str
) -> None:
    """Every option that front end and data set know; ``binary`` and ``resample`` are the device's as well."""
    asked = replace(recipes[form], front_end=front_end)
    plain = loaded(data.load(asked))
    own = {"coefficients": 12.0, "mels": 18.0, "clip_s": 0.2, "channels": 2.0, "low": -3.0, "high": 77.0, "steps": 3.0,
           "floor_db": -25.0, "ceiling_db": -20.0, "high_hz": 3000.0, "sample_rate_hz": 9000.0}  # fmt: skip
    bounds = rules(front_ends.settings_of(front_end))
    for name, default in front_ends.complete(front_end, {}).items():
        value = own.get(name, min(bounds[name].high, max(default * 1.5, default + 1, bounds[name].low)))
        try:
            changed = loaded(data.load(replace(asked, options={**asked.options, name: value})))
        except DataError:
            continue
        assert changed != plain or name in {"binary", "resample"}, name


@pytest.mark.parametrize(
    ("form", "changes", "said"),
    [
        ("windows/table", {"options": {"steps": 2, "stride": 1}}, "no 'stride' in .* a table of windows"),
        ("windows/table", {"options": {"steps": 2, "horizon": 2}}, "no 'horizon' in .* a table of windows"),
        ("windows/series", {"options": {"steps": 2, "horizon": 2}}, "no 'horizon' in .* classes as labels"),
        ("windows/series", {"slices": "x"}, "whose slices are its files"),
        ("windows/strokes", {"slices": "x"}, "whose slices are its files"),
        ("idx", {"label": "floor"}, 'Expected no label = "floor" in .*that does .labelled_images'),
    ],
)
def test_what_one_form_of_windows_does_not_read_is_refused(
    recipes: Mapping[str, DataRecipe], form: str, changes: dict[str, object], said: str
) -> None:
    """The content of the path decides the form, so these errors are raised when it is read."""
    with pytest.raises(DataError, match=said):
        data.load(replace(recipes[form], **changes))  # type: ignore[arg-type]


def test_a_data_set_of_ones_own_may_read_anything() -> None:
    """Its keys are its own matter."""
    asked = DataRecipe(dataset="tests.compressor.data.test_keys:anything", slices="site", allow_corrupt=3)
    assert len(data.load(asked)) == 2


def anything(asked: DataRecipe, root: Path | None = None) -> Table:
    """Return two rows."""
    del asked, root
    images = [np.full((4, 4, 3), shade, np.uint8) for shade in (0, 9)]
    return data._table.make_table(images, ["a", "b"], slices=["s", "s"])
