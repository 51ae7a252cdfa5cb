"""Data that can't be used, as a person meets them: one coded line, exit code 4, nothing but a cache beside it."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.cli import main
from compressor.data import labelled_images

HEAD = '[model]\nname = "m"\n[train]\nepochs = 1\n[data]\nwidth = 8\nheight = 8\npath = "set"\n'
IMAGES = HEAD + 'dataset = "labelled_images"\nslices = "site"\n'
WINDOWS = HEAD + 'dataset = "windows"\nfront_end = "window"\noptions = {steps = 2, channels = 2, low = 0, high = 10}\n'
STROKES = HEAD + 'dataset = "windows"\nfront_end = "stroke"\n'
SERIES = WINDOWS.replace("channels = 2", "channels = 1")
SOUNDS = HEAD + 'dataset = "spoken"\nfront_end = "log_mel"\n'
IDX = HEAD + 'dataset = "idx"\n'
OWN = HEAD + 'dataset = "tiny_own_data:load"\n'
CSV = "path,label,site\na.png,1,x\n"
Refused = Callable[[str], str]
Entries = Mapping[str, str | bytes]


def png(shade: int = 90) -> bytes:
    """Return a small noisy image, so that half of its bytes are half of its pixels."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(shade).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def folder(at: Path, entries: Entries) -> None:
    """Write a folder ``set``."""
    for name, content in entries.items():
        path = at / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def archive(at: Path, entries: Entries) -> bytearray:
    """Write a zip ``set`` and return its bytes."""
    with zipfile.ZipFile(at / "set", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return bytearray((at / "set").read_bytes())


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a recipe beside the data, expect exit code 4 and one coded line, return the line."""

    def run(recipe: str) -> str:
        (tmp_path / "recipe.toml").write_text(recipe)
        with pytest.raises(SystemExit) as stop:
            main(["run", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "out")])
        said = capsys.readouterr()
        line = said.err.strip().splitlines()[-1]
        assert (stop.value.code, said.out, line[:7]) == (4, "", "error [")
        assert "Traceback" not in said.err
        assert "[internal]" not in line
        assert not list((tmp_path / "out").glob("*.*"))
        return line

    return run


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"labels.csv": ""}, "Expected the column 'path'"),
        ({"labels.csv": "path,label,site\n"}, "Expected 1 to 500000 lines"),
        ({"labels.csv": CSV + "b.png\n"}, "Expected a value in labels.csv, row 3, column 'label', got none"),
        ({"labels.csv": CSV + "b.png,,x\n"}, "Expected a value in labels.csv, row 3, column 'label', got none"),
        (
            {"labels.csv": CSV + "b.png,circle ,x\n"},
            "without blanks around it in labels.csv, row 3, column 'label', got 'circle ': write 'circle'",
        ),
        (
            {"labels.csv": CSV + "b.png,1,x\na.png,2,x\n"},
            "Expected one label for 'a.png' in labels.csv, got '1' in row 2 and '2' in row 4",
        ),
        ({"labels.csv": CSV + "b" * 200_000 + ",1,x\n"}, "field larger than field limit"),
        ({"labels.csv": "path,label,site\n../up.png,1,x\n"}, "Expected a relative path inside the archive"),
        ({"labels.csv": "path,label,site\nb\0.png,1,x\n"}, "Expected a relative path inside the archive"),
        ({"labels.csv": CSV, "a.png": png()[:1500]}, "a.png: Expected an intact image"),
        ({"labels.csv": CSV, "a.png": b""}, "a.png: Expected an intact image"),
        ({"labels.csv": CSV, "a.png": b"\0" * (33 << 20)}, "Expected 'a.png' of at most 33554432 bytes"),
    ],
)
@pytest.mark.parametrize("make", [folder, archive])
def test_a_bad_set_of_images_is_named(
    entries: Entries, said: str, make: Callable[[Path, Entries], object], tmp_path: Path, refused: Refused
) -> None:
    """The line has the file, its row and the missing part, for a folder and for a zip."""
    make(tmp_path, entries)
    assert said in refused(IMAGES)


def encrypted(data: bytearray) -> None:
    """Mark every entry as encrypted."""
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for start in range(len(data) - 4):
            if data[start : start + 4] == mark:
                data[start + offset] |= 1


def of_foreign_method(data: bytearray) -> None:
    """Return the zip with an unknown compression method for every entry."""
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        for start in range(len(data) - 4):
            if data[start : start + 4] == mark:
                data[start + offset] = 99


def damaged(data: bytearray) -> None:
    """Change packed bytes of the first entry."""
    start = data.find(b"labels.csv") + 10
    data[start : start + 8] = b"\xff" * 8


def cut(data: bytearray) -> None:
    """Leave the first half."""
    del data[len(data) // 2 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [(encrypted, "encrypted"), (of_foreign_method, "method"), (damaged, "labels.csv"), (cut, "not a zip file")],
)
def test_a_bad_zip_is_named(change: Callable[[bytearray], None], said: str, tmp_path: Path, refused: Refused) -> None:
    """It is refused as an archive, whatever is wrong with it."""
    data = archive(tmp_path, {"labels.csv": CSV * 50, "a.png": png()})
    change(data)
    (tmp_path / "set").write_bytes(data)
    line = refused(IMAGES)
    assert line.startswith("error [archive_refused]")
    assert said in line


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, refused: Refused) -> None:
    """300 megabytes of labels in 300 kilobytes."""
    archive(tmp_path, {"labels.csv": b"\n" * (300 << 20)})
    assert "Expected 'labels.csv' of at most 268435456 bytes, got 314572800" in refused(IMAGES)


def test_many_images_that_fill_the_memory_together_are_refused(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes of one packed colour, listed again and again."""
    monkeypatch.setattr(labelled_images, "MAX_SET_BYTES", 100_000)
    folder(tmp_path, {"labels.csv": CSV + "a.png,1,x\n" * 99, "a.png": png()})
    assert "Expected images of at most 100000 bytes of pixels in all, got more at 'a.png'" in refused(
        IMAGES + 'decode = "full"\n'
    )


@pytest.mark.parametrize("name", ["labels.csv", "a.png"])
def test_a_link_that_leaves_the_folder_is_not_followed(name: str, tmp_path: Path, refused: Refused) -> None:
    """Files outside of the data set are not read."""
    folder(tmp_path, {"labels.csv": CSV, "a.png": png()})
    (tmp_path / "set" / name).rename(tmp_path / "outside")
    (tmp_path / "set" / name).symlink_to(tmp_path / "outside")
    assert name in refused(IMAGES)


def test_labels_outside_of_the_recipes_are_named(tmp_path: Path, refused: Refused) -> None:
    """Both sides are in the line."""
    folder(tmp_path, {"labels.csv": CSV + "b.png,7,x\n", "a.png": png(), "b.png": png(3)})
    assert "Expected labels among 0, 1, got 7" in refused(
        '[model]\nlabels = ["0", "1"]\n' + IMAGES.replace("[model]\n", "")
    )


def test_one_content_in_two_splits_is_named_by_its_files(tmp_path: Path, refused: Refused) -> None:
    """A user's own splits overlap: both files are in the line."""
    names = [f"{i}.png" for i in range(20)]
    rows = "".join(f"{name},1,x,{'train' if i % 2 else 'gate'}\n" for i, name in enumerate(names))
    folder(tmp_path, {"labels.csv": f"path,label,site,part\n{rows}", **{n: png(i // 2) for i, n in enumerate(names)}})
    line = refused(IMAGES + 'split = "part"\n')
    assert line.startswith("error [split_invalid]: Expected disjoint splits, got the same content")
    assert "'0.png' in gate and '1.png' in train: leave one out" in line


def idx(*shape: int, data: bytes | None = None) -> bytes:
    """Return an idx file of bytes."""
    content = bytes(i % 7 for i in range(int(np.prod(shape)))) if data is None else data
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (b"", idx(9), "got '' of 0 bytes"),
        (idx(300, 8, 8, data=b"xx"), idx(300), "Expected 19200 bytes of data"),
        (idx(2**32 - 1, 2**32 - 1, 2**31, data=b""), idx(9), "bytes of data"),
        (idx(300, 8, 8), idx(100), "Expected as many labels as images"),
        (idx(0, 8, 8), idx(0), "got files of no images for train"),
        (idx(300, 0, 8), idx(300), "Expected images of uint8 (H, W, 3)"),
        (gzip.compress(idx(300, 8, 8), mtime=0)[:60], idx(300), "Expected an idx file"),
        (idx(300, 8, 8), idx(300), "Expected labels among 0, 1, got 2, 3, 4, 5, 6"),
    ],
)
def test_a_bad_idx_file_is_named(images: bytes, labels: bytes, said: str, tmp_path: Path, refused: Refused) -> None:
    """Cut, empty, of other lengths, or with labels that the recipe does not have."""
    folder(tmp_path, {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels})
    assert said in refused('[model]\nlabels = ["0", "1"]\n' + IDX.replace("[model]\n", ""))


@pytest.mark.parametrize(
    ("recipe", "name", "content", "said"),
    [
        (WINDOWS, "t.csv", "window,label,x,y\na,w,1,2\na,w,nan,3\n", "t.csv, column 'x', row 3, got 'nan'"),
        (WINDOWS, "t.csv", "window,label,x,y\na,w,1,2\na,w,-inf,3\n", "t.csv, column 'x', row 3, got '-inf'"),
        (WINDOWS, "t.csv", "window,label,x,y\na,w,1,2\na,w,1e300,3\n", "Expected finite numbers, got inf"),
        (WINDOWS, "t.csv", "window,label,x,y\na,,1,2\na,,2,3\n", "t.csv, column 'label', row 2, got none"),
        (WINDOWS, "t.csv", "window,label,x,y\na,w,1,2\na,r,2,3\n", "Expected one label of window a"),
        (WINDOWS, "t.csv", "", "Expected the column 'window' in t.csv"),
        (SERIES, "s.csv", "timestamp\n2014-01-01 00:00:00\n", "besides 'timestamp'"),
        (SERIES, "s.csv", "timestamp,v\n2014-01-01 00:00:00,1\n2014-01-01 00:05:00,nan\n", "column 'v', row 3"),
        (STROKES, "s.json", "[" * 100_000, "Expected s.json as JSON"),
        (STROKES, "s.json", '{"strokes": [{"label": "1", "strokePoints": [{"x": NaN, "y": 0}]}]}', "s.json stroke 0"),
        (SOUNDS, "1_a_0.wav", b"RIFF", "1_a_0.wav: Expected a WAV file"),
        (SOUNDS, "1_a_0.wav", b"", "1_a_0.wav: Expected a WAV file"),
        (SOUNDS, "x.wav", b"", "label_speaker_index.wav"),
    ],
)
def test_a_bad_sensor_file_is_named(
    recipe: str, name: str, content: str | bytes, said: str, tmp_path: Path, refused: Refused
) -> None:
    """File, column, row and value, for tables, series, strokes and sounds."""
    folder(tmp_path, {name: content} | ({"combined_windows.json": json.dumps({name: []})} if recipe == SERIES else {}))
    assert said in refused(recipe)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": [1.0, float("nan")]}, "column 'x', row 1, got nan"),
        ({"x": [1.0, float("inf")]}, "column 'x', row 1, got inf"),
        ({"x": [1.0, None]}, "column 'x', row 1, got None"),
        ({"x": ["a", "b"]}, "column 'x', row 0, got 'a'"),
        ({"x": [[1.0], [2.0]]}, "Expected one number in each row"),
        ({"x": [1.0, 2.0], "label": ["w", None]}, "column 'label', row 1, got none"),
    ],
)
def test_a_bad_parquet_table_is_named(
    columns: Mapping[str, list[object]], said: str, tmp_path: Path, refused: Refused
) -> None:
    """NaN, infinity, nothing, texts and lists where numbers belong."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa  # noqa: PLC0415 - optional

    (tmp_path / "set").mkdir()
    table = {"window": ["a", "a"], "label": ["w", "w"], "y": [1.0, 2.0], **columns}
    parquet.write_table(pa.table(table), tmp_path / "set" / "t.parquet")
    assert said in refused(WINDOWS)
    whole = (tmp_path / "set" / "t.parquet").read_bytes()
    (tmp_path / "set" / "t.parquet").write_bytes(whole[: len(whole) // 2])
    assert "Expected t.parquet as Parquet" in refused(WINDOWS)


MADE = """import numpy as np
from dataclasses import replace
from compressor.data._table import make_table
rows = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3)).astype(np.uint8)
table = make_table(list(rows), [str(i % 2) for i in range(400)], slices=["s"] * 400)
def load(data, root=None):
    """


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return replace(table, labels=table.labels + 5)", "to be whole numbers of 0 to 1"),
        ("return replace(table, labels=table.labels - 1)", "got -1 in row 0"),
        ("return replace(table, labels=np.full(400, np.nan))", "got nan in row 0"),
        ("return replace(table, labels=table.labels[:10])", "got 10 in 'labels' for 400 images"),
        (
            "return make_table([r / 255 for r in rows], ['1'] * 400, slices=['s'] * 400)",
            "got float64 (8, 8, 3) in row 0",
        ),
        ("return make_table([r * np.nan for r in rows], ['1'] * 400, slices=['s'] * 400)", "with NaN or infinity"),
        ("return make_table([r[:, :, 0] for r in rows], ['1'] * 400, slices=['s'] * 400)", "got uint8 (8, 8)"),
        ("t = replace(table, images=table.images[np.arange(400) // 2]); return t", "two for the rows 0 and 1"),
        ("return {}['x']", "got KeyError: 'x' in tiny_own_data.py, line 7"),
        ("return None", "to return a Table, got NoneType"),
    ],
)
def test_a_loader_of_ones_own_is_checked(
    body: str, said: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels, lengths, types, NaN and hashes of its table, and its exceptions, with the line."""
    (tmp_path / "tiny_own_data.py").write_text(MADE + body + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "tiny_own_data", raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    assert said in refused(OWN)


def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(tmp_path: Path, refused: Refused) -> None:
    """Only plain files are read."""
    folder(tmp_path, {"labels.csv": CSV})
    os.mkfifo(tmp_path / "set" / "a.png")
    assert "a.png: not there" in refused(IMAGES)
