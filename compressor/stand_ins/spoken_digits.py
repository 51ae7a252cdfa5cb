"""Ten kinds of sound by four voices in the format of ``spoken``: a zip of WAV files ``digit_speaker_index.wav``.

The kinds differ in how they change over time, not in pitch: a network that pools over positions can distinguish them,
and two epochs suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.recipe.model import DataRecipe
from compressor.stand_ins._zipped import write_zip
from edge_agent.streams.wav_header import PcmForm, wav_of

TAKES = 80
VOICES = {"alto": 1.06, "bass": 0.88, "soprano": 1.12, "tenor": 0.94}
_BEATS_HZ = 7
Sound = npt.NDArray[np.float64]


def write(folder: Path, data: DataRecipe) -> Path:
    """Write ``TAKES`` clips for each digit and voice; return the zip."""
    return write_clips(folder, data, TAKES)


def write_clips(folder: Path, data: DataRecipe, takes: int, kinds: Sequence[int] = range(10)) -> Path:
    """Write ``takes`` clips for each digit and voice; return the zip. ``kinds``: the kind of sound of each digit."""
    rate = int(data.options.get("sample_rate_hz", 8000))
    rng = np.random.default_rng(0)
    return write_zip(
        folder / "spoken-digits.zip",
        {
            f"{digit}_{voice}_{take}.wav": _clip(kinds[digit], pitch, rate, rng)
            for voice, pitch in VOICES.items()
            for digit in range(10)
            for take in range(takes)
        },
    )


def _clip(digit: int, pitch: float, rate: int, rng: np.random.Generator) -> bytes:
    """Return an 8-bit WAV: the digit's kind of sound, at a random volume, with a little noise."""
    time_s = np.arange(int(rng.uniform(0.6, 0.8) * rate)) / rate
    hiss = rng.normal(0, 1, len(time_s))
    heard = _sound(digit, pitch, time_s, hiss) * rng.uniform(0.25, 0.45) + 0.005 * hiss
    samples = np.clip(heard * 127 + 128, 0, 255).astype(np.uint8)
    return wav_of(samples.tobytes(), PcmForm(rate_hz=rate, channels=1, width=1))


def _sound(digit: int, pitch: float, time_s: Sound, hiss: Sound) -> Sound:  # noqa: PLR0911 - one kind a digit
    """Return the kind of sound of ``digit``, approximately within -1..1."""
    done, flat = time_s / time_s[-1], np.full_like(time_s, pitch)
    wave = np.sin(2 * np.pi * _BEATS_HZ * time_s)
    beat = wave > 0
    match digit:
        case 0:
            return _tone(800 * flat, time_s)
        case 1:
            return _tone((300 + 2700 * done) * pitch, time_s)
        case 2:
            return _tone((3000 - 2700 * done) * pitch, time_s)
        case 3:
            return _tone(1500 * flat, time_s) * beat
        case 4:
            return hiss * 0.5
        case 5:
            return hiss * 0.7 * beat
        case 6:
            chord: Sound = np.sum([_tone(300 * harmonic * flat, time_s) for harmonic in range(1, 10)], axis=0) / 4
            return chord
        case 7:
            return _tone(1500 * pitch + 900 * wave, time_s)
        case 8:
            return _tone((400 + 4400 * np.minimum(done, 1 - done)) * pitch, time_s)
        case _:
            return _tone(np.where(beat, 700.0, 2200.0) * pitch, time_s)


def _tone(hertz: Sound, time_s: Sound) -> Sound:
    """Return a sine with the frequency ``hertz`` at each sample."""
    tone: Sound = np.sin(2 * np.pi * np.cumsum(hertz) * (time_s[1] - time_s[0]))
    return tone
