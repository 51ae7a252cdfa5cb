"""The microphone: real arecord on ALSA's file plug-in, and raw PCM; every sample comes once and in order."""

from __future__ import annotations

import io
import os
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_agent import front_ends
from edge_agent.errors import SourceError
from edge_agent.sources._stream import StreamSource
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
