"""CSV files as other programs write them: delimiters, marks, separators of paths, names of columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.data._delimited import lines_of
from compressor.data._table import Table
from compressor.errors import ArchiveError, ColumnError, CompressorError, DataError
from compressor.recipe.model import DataRecipe, ModelRecipe, Recipe, TrainRecipe
from compressor.run.bundles import recipe_digest
from tests.compressor.data.test_labelled_images import _png

WINDOW = {"steps": 2, "channels": 2, "low": 0, "high": 10}


def images(folder: Path, listing: str | bytes, *, name: str = "labels.csv", **given: object) -> Table:
    """Return the table of two images below ``pics``, listed by ``listing``."""
    (folder / "pics").mkdir(exist_ok=True)
    for shade, file in enumerate(("a.png", "b.png")):
        (folder / "pics" / file).write_bytes(_png(9 * shade))
    (folder / name).write_bytes(listing if isinstance(listing, bytes) else listing.encode())
    recipe = DataRecipe(dataset="labelled_images", path=str(folder), **given)  # type: ignore[arg-type]
    return data.load(recipe)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_delimiter_is_found_out(tmp_path: Path, delimiter: str, mark: bytes, end: str) -> None:
    """By the columns that are wanted; a mark of the encoding and the ends of lines don't matter."""
    text = end.join(["path,label,note", 'pics/a.png,cat,"x,y;z"', "pics/b.png,dog,"]).replace('"x,y;z"', "\0")
    text = text.replace(",", delimiter).replace("\0", '"x,y;z"')
    table = images(tmp_path, mark + text.encode())
    assert [table.class_names[label] for label in table.labels] == ["cat", "dog"]


def test_a_header_with_two_delimiters_goes_by_the_wanted_columns() -> None:
    """More columns are not better ones."""
    lines = lines_of(b"path;label;a,b,c,d,e\nx;y;z\n", "l.csv", ("path", "label"), {})
    assert (lines.delimiter, lines.head) == (";", ["path", "label", "a,b,c,d,e"])


def test_paths_of_windows(tmp_path: Path) -> None:
    """Backslashes and a leading dot are the same file; two spellings are one path."""
    table = images(tmp_path, "path,label\npics\\a.png,cat\n.\\pics\\b.png,dog\n")
    assert table.names is not None
    assert table.names.tolist() == ["pics/a.png", "pics/b.png"]
    with pytest.raises(DataError, match=r"one label for 'pics/a\.png'"):
        images(tmp_path, "path,label\npics\\a.png,cat\npics/a.png,dog\n")


@pytest.mark.parametrize("path", ["..\\up.png", "c:\\x.png", "\\\\host\\x.png", "\\x.png", "pics\\..\\..\\x.png"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    """In either spelling."""
    with pytest.raises(ArchiveError, match="relative path inside"):
        images(tmp_path, f"path,label\n{path},cat\n")


def test_other_names_of_columns(tmp_path: Path) -> None:
    """A column of the wanted name that is not meant is passed over."""
    text = "Datei;Klasse;Film;path\npics/a.png;cat;f;1\npics/b.png;dog;f;2\n"
    names = {"path": "Datei", "label": "Klasse", "source": "Film"}
    table = images(tmp_path, text, columns=names)
    assert table.class_names == ("cat", "dog")
    assert table.sources.tolist() == ["f", "f"]


def test_a_list_may_be_parted_by_tabs(tmp_path: Path) -> None:
    """By its name, too."""
    assert len(images(tmp_path, "path\tlabel\npics/a.png\tcat\npics/b.png\tdog\n", name="labels.tsv")) == 2


@pytest.mark.parametrize(
    ("columns", "error", "said"),
    [
        (
            {"path": "datei"},
            ColumnError,
            "'datei' in labels.csv ([data] columns, path), got Datei, Klasse: did you mean",
        ),
        ({"file": "Datei"}, DataError, "one of label, lane, path, source, got 'file'"),
        ({"path": "Datei", "label": "Datei"}, DataError, "got 'Datei' for label and path"),
        ({"label": "Klasse"}, ColumnError, "Expected the column 'path' in labels.csv, got Datei, label: name the one"),
    ],
)
def test_wrong_names_are_named(tmp_path: Path, columns: dict[str, str], error: type[Exception], said: str) -> None:
    """With those that there are."""
    with pytest.raises(error) as found:
        images(tmp_path, "Datei,Klasse\npics/a.png,cat\n", columns=columns)
    assert said in str(found.value)


def test_names_of_columns_are_inputs_of_a_release() -> None:
    """Another column of labels is another recipe; a recipe without them keeps its digest."""
    recipe = Recipe(
        model=ModelRecipe(name="m"), data=DataRecipe(), train=TrainRecipe(), compress=(), targets=(), gates=()
    )
    other = replace(recipe, data=replace(recipe.data, columns={"label": "x"}))
    assert repr(other) == repr(recipe)
    assert recipe_digest(other) != recipe_digest(recipe)


def windows(folder: Path, text: str, **given: object) -> Table:
    """Return the windows in a table."""
    (folder / "t.csv").write_text(text)
    given = {"options": WINDOW, **given}
    return data.load(DataRecipe(dataset="windows", path=str(folder / "t.csv"), front_end="window", **given))  # type: ignore[arg-type]


def test_decimal_commas_where_commas_part_no_cells(tmp_path: Path) -> None:
    """The same numbers as with points."""
    plain = windows(tmp_path, "window,label,x,y\na,1,0.5,2\na,1,1.5,3\n")
    other = windows(tmp_path, "window;label;x;y\na;1;0,5;2\na;1;1,5;3\n")
    assert other.hashes.tolist() == plain.hashes.tolist()


@pytest.mark.parametrize("value", ["1.234,5", "1,234,567", "1,5x", ","])
def test_a_number_of_points_and_commas_is_named(tmp_path: Path, value: str) -> None:
    """What its comma means is not guessed."""
    with pytest.raises(DataError, match="Expected a finite number"):
        windows(tmp_path, f"window;label;x;y\na;1;{value};2\na;1;1,5;3\n")


def test_columns_of_a_table_of_windows(tmp_path: Path) -> None:
    """The window and its label by other names; what is left are channels."""
    table = windows(
        tmp_path, "id,act,x,y\na,walk,1,2\na,walk,2,3\nb,run,4,5\nb,run,5,6\n", columns={"window": "id", "label": "act"}
    )
    assert table.class_names == ("run", "walk")


def test_seeded_damage_of_a_list_is_coded(tmp_path: Path) -> None:
    """Cut lists, flipped bytes: an error of ours each time, or a table."""
    rng = np.random.default_rng(0)
    whole = b'path;label;source\r\npics\\a.png;cat;"f;1"\r\npics\\b.png;dog;f2\r\n'
    for _ in range(200):
        changed = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for at in rng.integers(0, len(changed), 2):
            changed[at] = rng.integers(0, 256)
        try:
            images(tmp_path, bytes(changed))
        except CompressorError:
            continue
