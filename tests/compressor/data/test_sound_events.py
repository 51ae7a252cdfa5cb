"""Recordings with events: what a window holds, and what is wrong with files and lists."""

from __future__ import annotations

import io
import wave
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.data import load, sound_events, word_streams
from compressor.data._event_windows import (
    AT_S,
    CLASS,
    END_S,
    EVENT,
    RECORDING,
    START_S,
    TOLERANCE_S,
    EventWindows,
    Recording,
    SoundEvent,
    as_wav,
    step_s,
    tabled,
)
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import DataRecipe
from compressor.stand_ins.spoken_digits import write_clips
from compressor.tasks.stream_events import targets

RATE = 4000
OPTIONS = {"sample_rate_hz": RATE, "clip_s": 0.5, "window_ms": 32, "hop_ms": 32, "mels": 8, "stride_s": 0.25}
DATA = DataRecipe(
    dataset="sound_events", task="stream_events", path="set", front_end="log_mel", options=OPTIONS, width=8, height=14,
    colour="grey",
)  # fmt: skip
HEAD = "start_s,end_s,label\n"


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Return noise, int16."""
    return np.random.default_rng(seed).integers(-3000, 3000, round(seconds * RATE)).astype(np.int16)


def written(folder: Path, name: str, events: str | None, seconds: float = 4.0, seed: int = 0) -> None:
    """Write a recording with its list of events below ``folder``/set."""
    file = folder / "set" / f"{name}.wav"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(as_wav(sound(seconds, seed), RATE))
    if events is not None:
        file.with_suffix(".csv").write_text(HEAD + events)


def test_windows_of_recordings_have_class_event_and_time(tmp_path: Path) -> None:
    """In order, whole, background first; the source is the recording, the slice its folder."""
    written(tmp_path, "hall/a", "1.0,1.5,tap\n3,3.2,knock\n")
    written(tmp_path, "b", "", seed=1)
    table = load(DATA, tmp_path)
    assert table.class_names == ("background", "knock", "tap")
    assert sorted(set(table.sources.tolist())) == ["b", "hall/a"]
    assert set(table.slices[table.sources == "hall/a"].tolist()) == {"hall"}
    own = table.labels[table.sources == "hall/a"]
    assert own[:, AT_S].tolist() == (np.arange(15) * 0.25 + 0.25).tolist()
    assert own[own[:, CLASS] == 2][:, AT_S].tolist() == [1.25]  # .6 of the tap is inside of no other window
    assert own[own[:, CLASS] == 1][:, AT_S].tolist() == [3.0, 3.25]
    assert own[own[:, EVENT] == 0][:, [START_S, END_S]].tolist() == [[1.0, 1.5]] * 3
    assert (table.labels[:, TOLERANCE_S] == 0.5).all()
    assert (table.labels[table.sources == "b"][:, CLASS] == 0).all()
    assert len(set(table.labels[:, RECORDING].tolist())) == 2
    assert step_s(table.labels) == 0.25
    assert targets.classes(table.labels).dtype == np.int64  # type: ignore[union-attr]


def test_a_zip_reads_as_its_folder(tmp_path: Path) -> None:
    """With the same rows and hashes."""
    written(tmp_path, "a", "1.0,1.5,tap\n")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in (tmp_path / "set").iterdir():
            archive.write(file, file.name)
    first, second = load(DATA, tmp_path), load(DataRecipe(**{**_fields(DATA), "path": "set.zip"}), tmp_path)
    assert first.hashes.tolist() == second.hashes.tolist()
    assert np.array_equal(first.labels, second.labels)


def _fields(data: DataRecipe) -> dict[str, object]:
    return {
        name: getattr(data, name) for name in ("dataset", "task", "front_end", "options", "width", "height", "colour")
    }


def test_silence_in_two_recordings_is_no_duplicate_but_a_copy_of_a_recording_is() -> None:
    """Or all recordings with digital silence would be one source."""
    quiet = np.zeros(2 * RATE, np.int16)
    first, other = sound(2.0), sound(2.0, 1)
    ends = sound_events.front_end(DATA)
    rows = [
        Recording(name=name, sound=np.concatenate([quiet, rest]), events=[SoundEvent(3.0, 3.5, "tap")])
        for name, rest in (("a", first), ("b", other), ("copy of a", first))
    ]
    table = tabled(rows, ends, EventWindows(stride_s=0.25))
    found = {name: set(table.hashes[table.sources == name].tolist()) for name in ("a", "b", "copy of a")}
    assert found["a"].isdisjoint(found["b"])
    assert found["a"] == found["copy of a"]


def test_stereo_and_eight_bits_are_read() -> None:
    """As the mean, and at full scale."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(1)
        file.setframerate(RATE)
        file.writeframes(bytes([128, 128, 255, 127, 0, 0]))
    assert sound_events.pcm(buffer.getvalue(), "a.wav", RATE).tolist() == [0, (127 * 256 - 256) // 2, -32768]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (None, r"Expected the events of a.wav in a.csv, got no such file: write start_s,end_s,label"),
        ("1.0,0.5,tap\n", r"Expected 0 <= start_s < end_s <= 4.000, .* in a.csv, row 2, got 1 and 0.5"),
        ("3.5,4.2,tap\n", r"end of the recording, in a.csv, row 2, got 3.5 and 4.2"),
        ("-1,1,tap\n", "row 2, got -1 and 1"),
        ("1,nan,tap\n", "Expected a finite number in a.csv, column 'end_s', row 2"),
        ("1,2,\n", "Expected a value in a.csv, column 'label', row 2"),
        ("1,2, tap\n", "without blanks around it in a.csv, row 2"),
        ("1,2,background\n", "Expected the label of an event in a.csv, row 2, got 'background'"),
        ("1,2\n", "Expected 3 cells in a.csv, row 2, got 2"),
        (
            "1.0,1.01,tap\n1.02,1.03,tap\n",
            r"Expected 0.6 of each event in a window that holds none more, got none for 'tap'",
        ),
    ],
)
def test_a_wrong_list_of_events_is_named(tmp_path: Path, events: str | None, said: str) -> None:
    """File, line, expectation, value and a next step."""
    written(tmp_path, "a", events)
    with pytest.raises(DataError, match=said):
        load(DATA, tmp_path)


def test_ranges_are_fitted_on_windows_that_do_not_overlap(tmp_path: Path) -> None:
    """By recording, so that only those of train count."""
    written(tmp_path, "a", "1.0,1.5,tap\n")
    found = sound_events.raw(DATA, tmp_path)
    assert [one.source for one in found] == ["a"] * 8
    assert all(-60 < float(one.values.mean()) < 0 for one in found)


def test_wrong_recordings_are_named(tmp_path: Path) -> None:
    """Too short, of another rate, cut off, no WAV, no recording, a list without a column."""
    (tmp_path / "set").mkdir()
    with pytest.raises(ArchiveError, match="Expected recordings"):
        load(DATA, tmp_path)
    written(tmp_path, "a", "", seconds=0.4)
    with pytest.raises(DataError, match=r"Expected at least a window of 0.5 s in a, got 0.4 s"):
        load(DATA, tmp_path)
    file = tmp_path / "set" / "a.wav"
    for content, said in (
        (as_wav(sound(1.0), 8000), "Expected sound at 4000 Hz in a.wav, got 8000 Hz"),
        (as_wav(sound(1.0), RATE)[:-100], "frames of sound in a.wav"),
        (b"RIFF", "Expected a WAV"),
        (b"", "Expected a WAV"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=said):
            load(DATA, tmp_path)
    file.write_bytes(as_wav(sound(1.0), RATE))
    (tmp_path / "set" / "a.csv").write_text("start,end_s,label\n")
    with pytest.raises(ColumnError, match=r"Expected the column 'start_s' in a.csv, got start, end_s, label"):
        load(DATA, tmp_path)


def test_events_after_the_last_window_are_left_out_and_counted(tmp_path: Path) -> None:
    """The run says so."""
    written(tmp_path, "a", "1.0,1.5,tap\n4.05,4.1,tap\n", seconds=4.1)
    assert load(DATA, tmp_path).remarks == ("1 events begin after the last window of their recording and are left out",)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"stride_s": 0}, "stride_s between 0.005 and 60, got 0"),
        ({"strid_s": 0.2}, "got 'strid_s'"),
        ({"inside_ratio": 2}, "inside_ratio between 0.05 and 1, got 2"),
    ],
)
def test_options_have_ranges(tmp_path: Path, option: dict[str, float], said: str) -> None:
    """Of the data set and of the front end, in one table."""
    written(tmp_path, "a", "1.0,1.5,tap\n")
    with pytest.raises(DataError, match=said):
        load(DataRecipe(**{**_fields(DATA), "path": "set", "options": {**OPTIONS, **option}}), tmp_path)


def test_rows_without_events_are_refused_for_the_task(tmp_path: Path) -> None:
    """And a data set that has none at all."""
    written(tmp_path, "a", "")
    with pytest.raises(DataError, match="Expected at least one event"):
        load(DATA, tmp_path)
    with pytest.raises(DataError, match="Expected events in recordings from 'digits'"):
        load(DataRecipe(dataset="digits", task="stream_events"))


def test_recordings_of_clips_are_the_same_each_time(tmp_path: Path) -> None:
    """Each clip once; the first labels are events, the others speech; another seed gives others."""
    path = write_clips(tmp_path, DataRecipe(), 1)
    options = {"sample_rate_hz": 8000, "clip_s": 0.8, "mels": 8, "hop_ms": 64, "window_ms": 64, "recording_s": 12.0,
               "pause_s": 1.0, "keywords": 2, "stride_s": 0.4}  # fmt: skip

    def loaded(**more: float) -> object:
        own = DataRecipe(
            dataset="word_streams", task="stream_events", path=path.name, front_end="log_mel", colour="grey",
            options={**options, **more},
        )  # fmt: skip
        return load(own, tmp_path)

    first, again, other = loaded(), loaded(), loaded(seed=1)
    assert first.hashes.tolist() == again.hashes.tolist() != other.hashes.tolist()  # type: ignore[attr-defined]
    assert first.class_names == ("background", "0", "1")  # type: ignore[attr-defined]
    events = {(row[RECORDING], row[EVENT]) for row in first.labels if row[CLASS] > 0}  # type: ignore[attr-defined]
    assert len(events) == 2 * 4
    assert set(first.slices.tolist()) == {"alto", "bass", "soprano", "tenor"}  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="Expected at most 10 keywords, the labels of the clips, got 11"):
        loaded(keywords=11)
    with pytest.raises(DataError, match="Expected clips of at most half of recording_s = 2"):
        list(word_streams.composed([_long_clip()], frozenset(), word_streams.Composed(recording_s=2.0), 8000))


def _long_clip() -> word_streams.SensorSample:
    data = as_wav(np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16), 8000)
    return word_streams.SensorSample(name="0_a_0.wav", data=data, label="0", slice="a", source="0_a_0")


def test_one_list_of_all_recordings(tmp_path: Path) -> None:
    """By their paths, in any order; a line with a path alone is a recording without events."""
    for place, name in enumerate(("a", "hall/b", "c")):
        written(tmp_path, name, None, seed=place)
    listed = tmp_path / "set" / "events.csv"
    listed.write_text(
        "file,onset,offset,event\nhall/b.wav,3,3.2,knock\na.wav,1.0,1.5,tap\nhall/b.wav,0.5,1,tap\nc.wav,,,\n"
    )
    asked = replace(DATA, columns={"path": "file", "start_s": "onset", "end_s": "offset", "label": "event"})
    table = load(asked, tmp_path)
    assert table.class_names == ("background", "knock", "tap")
    held = {name: set(table.labels[table.sources == name, CLASS].tolist()) for name in ("a", "hall/b", "c")}
    assert held == {"a": {0, 2}, "hall/b": {0, 1, 2}, "c": {0}}
    for text, said in (
        ("c.wav,,,\n", r"the events of c.wav in c.csv or events.csv, got no line of it: .*a line with its path alone"),
        ("hall/b.wav", "Expected a recording of the set as path in events.csv, row 2, got 'hall/z.wav'"),
    ):
        whole = listed.read_text()
        listed.write_text(whole.replace(text, text.replace("b.wav", "z.wav") if "b.wav" in text else ""))
        with pytest.raises(DataError, match=said):
            load(asked, tmp_path)
        listed.write_text(whole)


def test_all_recordings_without_events_are_named_with_the_lists_own_columns(tmp_path: Path) -> None:
    """Not the first alone, and not names of columns that the list does not have."""
    for place, name in enumerate(("a", "b", "c")):
        written(tmp_path, name, None, seed=place)
    (tmp_path / "set" / "events.csv").write_text("file,onset,offset,event\na.wav,1.0,1.5,tap\n")
    asked = replace(DATA, columns={"path": "file", "start_s": "onset", "end_s": "offset", "label": "event"})
    said = (
        r"events of b.wav, c.wav in events.csv, got no line of these 2: write onset,offset,event and .* column 'file'"
    )
    with pytest.raises(DataError, match=said):
        load(asked, tmp_path)
