"""The microphone: real arecord on ALSA's file plug-in, and raw PCM; every sample comes once and in order."""

from __future__ import annotations

import io
import os
import shutil
import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edge_agent import front_ends
from edge_agent.errors import SourceError
from edge_agent.sources._stream import StreamSource
from edge_agent.streams.wav_header import PcmForm, wav_of
from tests.edge_agent.sinks.receiver import until
from tests.edge_agent.sources.prepared import Told, next_input

RATE = 8000
SAMPLES = np.arange(RATE, dtype="<i2")


@pytest.fixture
def microphone(stream: Callable[..., StreamSource]) -> Callable[..., StreamSource]:
    """Open a microphone."""

    def start(path: object, release: dict[str, float] | None = None, **settings: object) -> StreamSource:
        return stream("microphone", release=release, path=str(path), **settings)

    return start


def _wav(samples: bytes, rate: int, channels: int) -> bytes:
    return wav_of(samples, PcmForm(rate_hz=rate, channels=channels))


def _samples(data: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (RATE, 2, 1)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    """One second of a rising line as raw PCM."""
    path = tmp_path / "sound.pcm"
    path.write_bytes(SAMPLES.tobytes())
    return path


@pytest.mark.parametrize(("hop_s", "starts"), [(0.0, [0, 2000, 4000, 6000]), (0.125, range(0, 6001, 1000))])
def test_clips_of_a_file_begin_every_hop(hop_s: float, starts: list[int], microphone: Callable, pcm: Path) -> None:
    """None is dropped, and then the source has ended."""
    source = microphone(pcm, rate_hz=RATE, clip_s=0.25, hop_s=hop_s)
    found = [_samples(next_input(source).data) for _ in starts]
    assert [int(clip[0]) for clip in found] == list(starts)
    assert all(len(clip) == 2000 for clip in found)
    until(lambda: source.ended)


def test_a_hop_above_the_clip_leaves_sound_out(microphone: Callable, tmp_path: Path) -> None:
    """Through a FIFO, whose writer leaves and comes again."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    source = microphone(path, rate_hz=RATE, clip_s=0.01, hop_s=0.5, backlog=2)
    for part in (SAMPLES[:3000], SAMPLES[3000:]):
        with path.open("wb") as file:
            file.write(part.tobytes())
    assert [int(_samples(next_input(source).data)[0]) for _ in range(2)] == [0, 4000]


def test_arecord_records_at_the_rate_and_length_of_the_release(
    microphone: Callable, pcm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front end reads the clip; the recording is what the device gave."""
    if shutil.which("arecord") is None:
        pytest.skip("arecord is not installed (apt-get install alsa-utils)")
    plug_in = f'pcm.tone {{ type file slave.pcm {{ type null }} file /dev/null infile "{pcm}" format raw }}\n'
    (tmp_path / "asound.conf").write_text(plug_in)
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    options = front_ends.complete("log_mel", {"sample_rate_hz": RATE, "clip_s": 0.5})
    data = next_input(microphone("tone", options, backlog=1000)).data
    assert np.array_equal(_samples(data), SAMPLES[:4000])
    assert front_ends.decode("log_mel", data, options).shape[2] == 3


def test_a_device_that_is_no_device_is_reported_with_the_words_of_alsa(
    microphone: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once; it is tried again, as a microphone that is not plugged in yet."""
    if shutil.which("arecord") is None:
        pytest.skip("arecord is not installed (apt-get install alsa-utils)")
    (tmp_path / "asound.conf").write_text("")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    told: Told = []
    microphone("none", told=told, rate_hz=RATE, clip_s=0.5, retry_s=0.01)
    until(lambda: told, 20)
    assert told[0][0] == "source_missing"
    assert "arecord" in told[0][1]


def test_without_rate_and_length_or_without_the_file_it_does_not_start(
    microphone: Callable, pcm: Path, tmp_path: Path
) -> None:
    """Both are named."""
    with pytest.raises(SourceError, match="Expected rate_hz and clip_s"):
        microphone(pcm, rate_hz=RATE)
    with pytest.raises(SourceError, match="Expected a FIFO, device or file of PCM"):
        microphone(tmp_path / "none", rate_hz=RATE, clip_s=1)


def test_the_hop_is_that_at_which_the_release_was_judged(microphone: Callable, pcm: Path) -> None:
    """Unless it is set; one that differs is reported with both numbers, and is used."""
    release, told = {"sample_rate_hz": RATE, "clip_s": 0.5}, []
    source = microphone(pcm, release, interval_ms=125, told=told)
    assert [int(_samples(next_input(source).data)[0]) for _ in range(5)] == [0, 1000, 2000, 3000, 4000]
    assert not told
    source = microphone(pcm, release, interval_ms=125, hop_s=0.25, told=told)
    assert [int(_samples(next_input(source).data)[0]) for _ in range(3)] == [0, 2000, 4000]
    until(lambda: source.ended)
    assert [code for code, _ in told] == ["source_interval"]
    assert "hop_s = 0.125, at which the release was judged, got 0.25" in told[0][1]


def test_clips_of_a_file_have_the_times_of_their_samples(microphone: Callable, pcm: Path) -> None:
    """Its last sample was taken when the file was last changed; the last clip ends the stream."""
    os.utime(pcm, (1_700_000_000, 1_700_000_000))
    source = microphone(pcm, rate_hz=RATE, clip_s=0.25, hop_s=0.2)
    found = [next_input(source).place for _ in range(4)]
    assert [place.at_ms for place in found] == [1_700_000_000_000 - late for late in (750, 550, 350, 150)]
    assert [place.last for place in found] == [False, False, False, True]


def test_sound_through_a_fifo_has_the_times_of_its_samples(microphone: Callable, tmp_path: Path) -> None:
    """A second that comes at once lasts a second, to the hundredth that it is drawn to the clock."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    source = microphone(path, rate_hz=RATE, clip_s=0.25, backlog=100)
    with path.open("wb") as file:
        file.write(SAMPLES.tobytes())
    found = [next_input(source).place.at_ms for _ in range(4)]
    assert all(abs(after - before - 250) <= 3 for before, after in pairwise(found))


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_the_header_of_a_wav_is_no_sound(kind: str, microphone: Callable, tmp_path: Path) -> None:
    """Its rate and channels are used; the times of a file are those of its samples."""
    path = tmp_path / "sound.wav"
    data = _wav(np.repeat(SAMPLES, 2).tobytes(), RATE, 2)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(data)
    source = microphone(path, rate_hz=RATE, clip_s=0.25, backlog=100)
    if kind == "fifo":
        with path.open("wb") as file:
            file.write(data)
    for start in (0, 2000, 4000, 6000):
        with wave.open(io.BytesIO(next_input(source).data)) as file:
            assert (file.getnchannels(), file.getnframes()) == (2, 2000)
            assert int(np.frombuffer(file.readframes(1), "<i2")[0]) == start


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (_wav(bytes(9000), 44_100, 1), "got a WAV of 44100 Hz, 16 bits, 1 channel: convert it .*-ar 8000"),
        (_wav(bytes(9000), RATE, 6), "got a WAV of 8000 Hz, 16 bits, 6 channels"),
        (_wav(bytes(9000), RATE, 1)[:30], "got a WAV whose header is cut off"),
        (b"OggS" + bytes(9000), "got Ogg"),
        (b"", r"Expected 0.25 s of sound or more, an input, in .*sound, got 0 s: record a longer one"),
        (_wav(b"", RATE, 1), "got 0 s"),
        (_wav(bytes(2 * 1999), RATE, 1), "got 0.249875 s"),
        (bytes(2 * 1000), "got 0.125 s"),
    ],
)
def test_a_file_of_another_form_is_refused_with_what_it_is(
    data: bytes, got: str, microphone: Callable, tmp_path: Path
) -> None:
    """At the start, and how to convert it."""
    (tmp_path / "sound").write_bytes(data)
    with pytest.raises(SourceError, match=got):
        microphone(tmp_path / "sound", rate_hz=RATE, clip_s=0.25)


def test_a_wav_of_another_form_in_a_fifo_is_passed_over_and_reported(microphone: Callable, tmp_path: Path) -> None:
    """What follows it is heard."""
    path, told = tmp_path / "fifo", []
    os.mkfifo(path)
    source = microphone(path, rate_hz=RATE, clip_s=0.25, backlog=100, told=told)
    with path.open("wb") as file:
        file.write(_wav(bytes(9000), 44_100, 1) + _wav(SAMPLES.tobytes(), RATE, 1))
    assert [int(_samples(next_input(source).data)[0]) for _ in range(2)] == [0, 2000]
    assert [code for code, _ in told] == ["source_format"]


def test_sound_that_is_dropped_is_reported_once_with_the_key_that_helps(microphone: Callable, tmp_path: Path) -> None:
    """Through a FIFO it may come faster than the model answers; what fits into the backlog is no report."""
    path, told = tmp_path / "fifo", []
    os.mkfifo(path)
    few = microphone(path, rate_hz=RATE, clip_s=0.25, told=told)
    with path.open("wb") as file:
        file.write(SAMPLES[:4000].tobytes())
    until(lambda: few._number == 2, 20)
    assert told == []
    with path.open("wb") as file:
        file.write(SAMPLES.tobytes())
    until(lambda: few._number >= 6, 20)
    until(lambda: told, 20)
    assert [code for code, _ in told] == ["source_dropped"]
    assert "through with 2 clips before the next came from" in told[0][1]
    assert "set a larger backlog (up to 1000) in [source]" in told[0][1]


def test_a_release_with_another_rate_and_length_is_recorded_for(
    microphone: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a swap on: arecord is started again for another rate."""
    program = tmp_path / "arecord"
    program.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    release = {"sample_rate_hz": RATE, "clip_s": 0.5}
    source = microphone("default", release, retry_s=0.01)
    assert len(_samples(next_input(source).data)) == RATE // 2
    release.update(sample_rate_hz=2 * RATE, clip_s=0.25)

    def form() -> tuple[int, int]:
        with wave.open(io.BytesIO(next_input(source).data)) as file:
            return file.getframerate(), file.getnframes()

    until(lambda: form() == (2 * RATE, RATE // 2), 20)
