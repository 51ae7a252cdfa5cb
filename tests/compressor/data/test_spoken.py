"""Spoken words from zip and folder through the device's front end, and refused data."""

from __future__ import annotations

import io
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from compressor import data
from compressor.data import spoken
from compressor.data._split import split
from compressor.errors import ArchiveError, CorruptImageError, CorruptInputError, DataError
from compressor.exploration.load import fit_ranges
from compressor.recipe.model import DataRecipe
from edge_agent import front_ends

OPTIONS = {"sample_rate_hz": 8000, "clip_s": 0.1, "mels": 16, "low_hz": 200}


def wav(seed: int) -> bytes:
    """Return 0.1 s of noise, 16-bit mono at 8 kHz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((np.random.default_rng(seed).standard_normal(800) * 1000).astype("<i2").tobytes())
    return buffer.getvalue()


def archive(folder: Path, entries: dict[str, bytes]) -> Path:
    """Return a zip of ``entries``."""
    with zipfile.ZipFile(folder / "words.zip", "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return folder / "words.zip"


def recipe(path: Path, **settings: object) -> DataRecipe:
    """Return a recipe of the data at ``path``."""
    given: dict[str, object] = {"front_end": "log_mel", "options": OPTIONS, **settings}
    return DataRecipe(dataset="spoken", path=str(path), **given)  # type: ignore[arg-type]


WORDS = {"r/1_ann_0.wav": wav(1), "r/0_ann_0.wav": wav(0), "r/0_bo_b_1.wav": wav(2), "r/README.md": b"not a sound"}


def test_label_slice_and_source_come_from_the_file_name(tmp_path: Path) -> None:
    """Label first, then speaker; the file is the source; order is that of the names."""
    table = data.load(recipe(archive(tmp_path, WORDS)))
    assert table.class_names == ("0", "1")
    assert table.labels.tolist() == [0, 0, 1]
    assert table.slices.tolist() == ["ann", "bo_b", "ann"]
    assert table.sources.tolist() == ["0_ann_0", "0_bo_b_1", "1_ann_0"]


def test_the_picture_is_the_one_the_device_makes(tmp_path: Path) -> None:
    """Training data and device go through one function."""
    wanted = recipe(archive(tmp_path, WORDS))
    name, options = spoken.front_end(wanted)
    assert np.array_equal(data.load(wanted).images[2], front_ends.decode(name, wav(1), options))
    assert np.array_equal(data.load(wanted).images[2], front_ends.decode("log_mel", wav(1), OPTIONS))


def test_a_folder_reads_as_its_zip_does(tmp_path: Path) -> None:
    """The files have the same hashes in a folder and in a zip."""
    (tmp_path / "r").mkdir()
    for name, content in WORDS.items():
        (tmp_path / name).write_bytes(content)
    zipped = data.load(recipe(archive(tmp_path, WORDS)))
    assert data.load(recipe(tmp_path / "r")).hashes.tolist() == zipped.hashes.tolist()


def test_cut_off_sounds_are_named_and_may_be_left_out(tmp_path: Path) -> None:
    """A cut-off file is an error that names it, unless the recipe allows so many."""
    path = archive(tmp_path, {**WORDS, "r/1_bo_9.wav": wav(3)[:-10]})
    with pytest.raises(CorruptImageError, match=r"1_bo_9\.wav: .*cut off"):
        data.load(recipe(path))
    assert data.load(recipe(path, allow_corrupt=1)).corrupt == ("r/1_bo_9.wav",)


def test_sounds_of_a_kind_that_is_not_read_are_counted_once(tmp_path: Path) -> None:
    """The code is that of inputs, not of images; the conversion is said once, and another reason beside it."""
    other = {f"r/{n % 2}_bo_{n}.wav": wav(n).replace(b"\x01\x00", b"\x03\x00", 1) for n in range(10, 18)}
    path = archive(tmp_path, {**WORDS, **other, "r/1_bo_9.wav": wav(3)[:-10]})
    with pytest.raises(CorruptInputError, match=r"got 9: ") as refused:
        data.load(recipe(path))
    said = str(refused.value)
    assert refused.value.code == "input_corrupt"
    assert said.count("unknown format: 3: convert it") == 1
    assert "r/0_bo_10.wav, r/0_bo_12.wav, " in said
    assert " and 3 more: Expected a WAV file" in said
    assert "; r/1_bo_9.wav: " in said


@pytest.mark.parametrize(
    ("entries", "settings", "error", "said"),
    [
        ({"../0_a_0.wav": wav(0)}, {}, ArchiveError, "inside the archive"),
        ({"notes.txt": b""}, {}, ArchiveError, "Expected WAV files"),
        ({"zero.wav": wav(0)}, {}, DataError, "label_speaker_index"),
        (WORDS, {"front_end": ""}, DataError, "one of log_mel, mfcc, got none"),
        (WORDS, {"options": {"mel": 3}}, DataError, "did you mean 'mels'"),
    ],
)
def test_unsafe_paths_and_wrong_recipes_are_refused(
    tmp_path: Path, entries: dict[str, bytes], settings: dict[str, object], error: type[DataError], said: str
) -> None:
    """Each raises the error that names the next step."""
    with pytest.raises(error, match=said):
        data.load(recipe(archive(tmp_path, entries), **settings))


def test_a_damaged_zip_entry_is_refused(tmp_path: Path) -> None:
    """Bytes changed in the zip are found by its checksum."""
    path = archive(tmp_path, WORDS)
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ArchiveError, match="intact"):
        data.load(recipe(path))


def test_ranges_are_fitted_on_train_rows_alone(tmp_path: Path) -> None:
    """Louder gate rows do not change what ``data fit`` prints."""
    words = {f"{i % 2}_ann_{i}.wav": wav(i) for i in range(60)}
    wanted = recipe(archive(tmp_path, words))
    first = fit_ranges(wanted, Path(), seed=0)
    table = data.load(wanted)
    gate = {f"{source}.wav" for source in table.sources[split(table, 0).gate].tolist()}
    loud = {
        name: b"".join([content[:44], b"\x00\x7f\x00\x80" * 400]) for name, content in words.items() if name in gate
    }
    assert fit_ranges(recipe(archive(tmp_path, words | loud)), Path(), seed=0) == first
    assert first["floor_db"] < first["ceiling_db"]
