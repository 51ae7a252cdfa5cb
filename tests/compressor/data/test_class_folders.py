"""Folders of classes: what their layout tells, files of each kind, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor import data
from compressor.data._layout import placed
from compressor.data._npy import read_npy
from compressor.data._split import split
from compressor.data._table import Shares, Table
from compressor.data.class_folders import raw
from compressor.errors import ArchiveError, CompressorError, CorruptImageError, DataError, SplitError
from compressor.recipe.model import DataRecipe
from edge_agent.errors import SensorError
from edge_agent.pictures.sixteen_bits import to_levels
from tests.compressor.data.test_labelled_images import _png
from tests.compressor.data.test_spoken import OPTIONS, wav

PNG = frozenset({".png"})
WINDOW = {"steps": 4, "channels": 2, "low": 0, "high": 10}


def told(*names: str) -> list[tuple[str, str, str]]:
    """Return label, split and source of each file."""
    return [(file.label, file.split, file.source) for file in placed(names, PNG, "set")]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write ``files`` by their names."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def load(path: Path, **given: object) -> Table:
    """Return the table of the folders at ``path``."""
    return data.load(DataRecipe(dataset="class_folders", path=str(path), **given))  # type: ignore[arg-type]


def test_a_folder_is_a_class() -> None:
    """Each file without a recording is one of its own."""
    assert told("cat/1.png", "dog/1.png") == [("cat", "", ""), ("dog", "", "")]


def test_a_folder_around_everything_is_passed_over() -> None:
    """As zips of a folder have it; a file of another kind beside it changes nothing."""
    assert told("set/cat/1.png", "set/dog/1.png", "README.md") == told("cat/1.png", "dog/1.png")
    assert told("set/train/cat/1.png", "set/val/cat/2.png") == told("train/cat/1.png", "val/cat/2.png")


@pytest.mark.parametrize(
    ("tops", "splits"),
    [
        (("train", "val"), ("train", "gate")),
        (("Training", "Validation", "Test"), ("train", "calibration", "gate")),
        (("train", "test"), ("train", "gate")),
        (("train", "calibration", "gate", "reference"), ("train", "calibration", "gate", "reference")),
        (("train", "val", "gate"), ("train", "calibration", "gate")),
    ],
)
def test_folders_of_splits_at_the_top_are_told(tops: tuple[str, ...], splits: tuple[str, ...]) -> None:
    """What was kept for testing judges; without it, what was kept for validation."""
    found = told(*(f"{top}/cat/{row}.png" for row, top in enumerate(tops)))
    assert [one for _, one, _ in found] == list(splits)
    assert {label for label, _, _ in found} == {"cat"}


def test_a_class_may_be_called_test() -> None:
    """Splits are told only if nothing else is at the top."""
    assert told("test/1.png", "dog/1.png") == [("test", "", ""), ("dog", "", "")]


def test_folders_below_a_class_are_recordings() -> None:
    """Of one name in two classes, they are one recording; a file in none is its own."""
    found = told("cat/film-1/1.png", "cat/film-2/a/1.png", "dog/film-1/1.png", "dog/9.png")
    assert [source for _, _, source in found] == ["film-1", "film-2/a", "film-1", ""]


def test_one_name_below_all_classes_is_no_recording() -> None:
    """``class/images/1.png``: all rows would be one source, and no split could be drawn."""
    assert {source for _, _, source in told("cat/images/1.png", "dog/images/1.png")} == {""}


def test_a_speaker_of_speech_commands_is_a_source() -> None:
    """Its words are never in two splits."""
    found = placed(["yes/ab1_nohash_0.wav", "no/ab1_nohash_3.wav", "_background_noise_/x.wav"], {".wav"}, "set")
    assert [(file.label, file.source) for file in found] == [("yes", "ab1"), ("no", "ab1")]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "got no files"),
        (("cat/1.txt",), "folders of classes with files .png in set, got cat/1.txt"),
        (("cat/1.png", "up.png"), "every file in a folder of its class in set, got 'up.png'"),
        (("train/cat/1.png", "val/2.png"), "got 'val/2.png'"),
        (("cat/1.png", "dog/1.png", "cow/1.heic"), "files .png in the folder 'cow', got 1 of other kinds"),
        (("train/cat/1.png", "train/cow/1.xml", "val/cat/2.png"), "the folder 'train/cow', got 1"),
    ],
)
def test_a_layout_that_says_no_class_is_named(names: tuple[str, ...], said: str) -> None:
    """The file or the folder is in the line, and what to do."""
    with pytest.raises(DataError) as found:
        placed(names, PNG, "set")
    assert said in str(found.value)


def test_pictures_of_16_bits_are_read_as_such(tmp_path: Path) -> None:
    """TIFF files of a thermal camera, in folders."""
    for kind in ("cold", "hot"):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.full((8, 8), 29_000 + 900 * (kind == "hot"), np.uint16)).save(tmp_path / kind / "1.tiff")
    table = load(tmp_path, bits=16, colour="grey")
    assert [int(to_levels(image)[0, 0]) for image in table.images] == [29_000, 29_900]


def test_hidden_files_are_no_files() -> None:
    """As operating systems leave them."""
    assert told("cat/1.png", "dog/1.png", "__MACOSX/cat/._1.png", "cat/.x.png") == told("cat/1.png", "dog/1.png")


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_images_come_with_split_source_and_name(tmp_path: Path, kind: str) -> None:
    """From a zip and from a folder alike."""
    files = {f"train/{cls}/film-{n}/{n}.png": _png(n + 90 * (cls == "cat")) for cls in ("cat", "dog") for n in range(9)}
    files |= {f"test/{cls}/{cls}-film/1.png": _png(200 + len(cls) * (cls == "cat")) for cls in ("cat", "dog")}
    place = write(tmp_path / "set", files)
    if kind == "zip":
        place = tmp_path / "set.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    table = load(place)
    assert table.class_names == ("cat", "dog")
    assert table.names is not None
    assert table.names.tolist() == sorted(files)
    assert table.told is not None
    assert table.told.tolist() == ["gate"] * 2 + ["train"] * 18
    assert table.sources.tolist()[:3] == ["cat-film", "dog-film", "film-0"]
    parts = split(table, 0, shares=Shares(train=0.4, calibration=0.3, gate=0.1, reference=0.2))
    assert parts.gate.tolist() == [0, 1]


def test_one_picture_in_two_folders_of_splits_is_named(tmp_path: Path) -> None:
    """It would judge a model that knows it."""
    place = write(tmp_path, {"train/cat/1.png": _png(1), "train/dog/2.png": _png(2), "val/cat/3.png": _png(1)})
    with pytest.raises(SplitError, match=r"'train/cat/1.png' in train and 'val/cat/3\.png' in gate"):
        load(place)


def test_a_picture_that_can_not_be_read_counts_as_corrupt(tmp_path: Path) -> None:
    """A kind that no device decodes is not passed over."""
    place = write(tmp_path, {"cat/1.png": _png(1), "dog/2.png": _png(2), "dog/3.heic": b"ftypheic" * 9})
    with pytest.raises(CorruptImageError, match=r"dog/3\.heic"):
        load(place)
    assert load(place, allow_corrupt=1).corrupt == ("dog/3.heic",)


def test_sounds_in_folders_of_words(tmp_path: Path) -> None:
    """With a front end the files are WAV; the recording is its file, or its speaker."""
    place = write(tmp_path, {"yes/a_nohash_0.wav": wav(1), "no/a_nohash_1.wav": wav(2), "no/3.wav": wav(3)})
    table = load(place, front_end="log_mel", options=OPTIONS)
    assert table.class_names == ("no", "yes")
    assert table.sources.tolist() == ["no/3.wav", "a", "a"]
    assert len(raw(DataRecipe(dataset="class_folders", path=str(place), front_end="log_mel", options=OPTIONS))) == 3


@pytest.mark.parametrize("binary", [0, 1])
def test_arrays_and_csv_of_one_sample_give_one_picture(tmp_path: Path, binary: int) -> None:
    """The same numbers, whatever they are written in."""
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    place = write(tmp_path, {"b/1.csv": b"x,y\n" + "\n".join(f"{a},{b}" for a, b in values).encode(),
                             "c/1.json": json.dumps(values.tolist()).encode()})  # fmt: skip
    (place / "a").mkdir()
    np.save(place / "a" / "1.npy", values)
    table = load(place, front_end="window", options={**WINDOW, "binary": binary})
    assert table.class_names == ("a", "b", "c")
    assert len(set(table.hashes.tolist())) == 1


def test_a_series_of_numbers_is_one_channel(tmp_path: Path) -> None:
    """(T,) is (T, 1)."""
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", np.arange(4) + ord(name) % 3)
    assert load(tmp_path, front_end="window", options={**WINDOW, "channels": 1}).images[0].shape == (4, 1, 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expected a NumPy array"),
        (b"\x93NUMPY\x01\x00", "Expected a NumPy array"),
        (b"\x93NUMPY\x03\x00" + bytes(20), "format 3.0"),
    ],
)
def test_bytes_that_are_no_array_are_named(content: bytes, said: str) -> None:
    """The file is in the line."""
    with pytest.raises(DataError, match=said):
        read_npy(content, "a/1.npy")


def header(text: str) -> bytes:
    """Return a file of ``text`` as header and 16 bytes of content."""
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(16)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 99999)}", "Expected 79999"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}", "Expected 24 bytes of float64"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", "Python objects"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': ('a',)}", "Expected a NumPy array"),
        ("__import__('os').system('true')", "Expected a NumPy array"),
        ("(" * 110, "Expected a NumPy array"),
    ],
)
def test_a_header_that_lies_allocates_nothing(text: str, said: str) -> None:
    """Terabytes by a header of 128 bytes, objects, code."""
    with pytest.raises(DataError, match=said):
        read_npy(header(text), "a/1.npy")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"options": {"steps": 4}}, "Expected no options"),
        ({"front_end": "window", "options": WINDOW, "decode": "full"}, "Expected no decode"),
        ({"front_end": "window", "options": {**WINDOW, "stride": 2}}, "no 'stride' .* a window in each file"),
        ({"front_end": "stroke"}, "front_end one of log_mel, mfcc, window, got stroke"),
    ],
)
def test_a_key_that_would_not_be_read_is_refused(tmp_path: Path, given: dict[str, object], said: str) -> None:
    """Before any file is opened, or as soon as the front end is known."""
    np.save(write(tmp_path, {"a/1.png": _png(1)}) / "a" / "1.npy", np.zeros((4, 2)))
    with pytest.raises(DataError, match=said):
        load(tmp_path, **given)


def test_a_damaged_array_is_a_broken_file_like_others(tmp_path: Path) -> None:
    """Left out if the recipe allows it, and named if not; ranges are not fitted without it."""
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", np.arange(8).reshape(4, 2) + ord(name) % 3)
    whole = (tmp_path / "a" / "1.npy").read_bytes()
    (tmp_path / "a" / "2.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptImageError, match=r"at most 0 files .* got 1: a/2\.npy: Expected a NumPy"):
        load(tmp_path, front_end="window", options=WINDOW)
    table = load(tmp_path, front_end="window", options=WINDOW, allow_corrupt=1)
    assert (len(table), table.corrupt) == (2, ("a/2.npy",))
    with pytest.raises(SensorError, match="Expected a NumPy array"):
        raw(DataRecipe(path=str(tmp_path), front_end="window", options=WINDOW))


def test_sounds_are_read_one_by_one(tmp_path: Path) -> None:
    """Forty of a megabyte each, of which the pictures are small."""
    size = 1_000_000
    write(tmp_path, {f"{'ab'[n % 2]}/{n}.wav": wav(n) + bytes(size) for n in range(40)})
    tracemalloc.start()
    table = load(tmp_path, front_end="log_mel", options=OPTIONS)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(table), most < 10 * size) == (40, True)


def test_a_link_that_leaves_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Neither a picture nor an array outside of the data set is read."""
    np.save(tmp_path / "outside.npy", np.zeros((4, 2)))
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "1.npy").symlink_to(tmp_path / "outside.npy")
    with pytest.raises(ArchiveError, match="link that leaves it"):
        load(tmp_path / "set", front_end="window", options=WINDOW)


def test_a_file_beyond_its_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is known before it is opened."""
    monkeypatch.setattr("edge_agent.front_ends.window.MAX_WINDOW_BYTES", 50)
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "1.npy", np.zeros((4, 2)))
    with pytest.raises(ArchiveError, match="of at most 50 bytes"):
        load(tmp_path, front_end="window", options=WINDOW)


def test_seeded_damage_is_coded(tmp_path: Path) -> None:
    """Cut and flipped arrays, tables and sounds: an error of ours each time, or a table."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", np.arange(8, dtype="<f4").reshape(4, 2))
    whole = {
        "a/1.npy": ((tmp_path / "x.npy").read_bytes(), "window", WINDOW),
        "a/1.csv": (b"x,y\n0,1\n2,3\n4,5\n6,7\n", "window", WINDOW),
        "a/1.json": (b"[[0,1],[2,3],[4,5],[6,7]]", "window", WINDOW),
        "a/1.wav": (wav(1), "log_mel", OPTIONS),
    }
    for name, (content, front_end, options) in whole.items():
        place = tmp_path / name.partition(".")[2]
        for _ in range(60):
            changed = bytearray(content[: rng.integers(1, len(content) + 1)])
            for at in rng.integers(0, min(len(changed), 140), 3):
                changed[at] = rng.integers(0, 256)
            write(place, {name: bytes(changed)})
            try:
                load(place, front_end=front_end, options=options)
            except CompressorError:
                continue
