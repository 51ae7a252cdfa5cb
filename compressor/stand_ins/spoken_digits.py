"""Ten kinds of sound by four voices, as ``spoken`` reads them: a zip of WAV named ``digit_speaker_index.wav``.

The kinds differ in how they move, not in pitch: a network that forgets where in the picture something was tells them
apart, and two epochs are enough.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.recipe import DataRecipe
from compressor.stand_ins._zipped import write_zip

TAKES = 80
VOICES = {"alto": 1.06, "bass": 0.88, "soprano": 1.12, "tenor": 0.94}
_BEATS_HZ = 7


def write(folder: Path, data: DataRecipe) -> Path:
    """Write ``TAKES`` clips for each digit and voice; return the zip."""
    rate = int(data.options.get("sample_rate_hz", 8000))
    rng = np.random.default_rng(0)
    return write_zip(
        folder / "spoken-digits.zip",
        {
            f"{digit}_{voice}_{take}.wav": _clip(digit, pitch, rate, rng)
            for voice, pitch in VOICES.items()
            for digit in range(10)
            for take in range(TAKES)
        },
    )


def _clip(digit: int, pitch: float, rate: int, rng: np.random.Generator) -> bytes:
    """Return a WAV of 8 bits: the digit's kind of sound, louder or softer, in a little noise."""
    seconds = rng.uniform(0.6, 0.8)
    time_s = np.arange(int(seconds * rate)) / rate
    done = time_s / seconds
    hiss = rng.normal(0, 1, len(time_s))
    beat = np.sin(2 * np.pi * _BEATS_HZ * time_s) > 0
    sound = (
        _tone(np.full_like(done, 800 * pitch), rate),
        _tone((300 + 2700 * done) * pitch, rate),
        _tone((3000 - 2700 * done) * pitch, rate),
        _tone(np.full_like(done, 1500 * pitch), rate) * beat,
        hiss * 0.5,
        hiss * 0.7 * beat,
        sum(_tone(np.full_like(done, harmonic * 300 * pitch), rate) for harmonic in range(1, 10)) / 4,
        _tone(1500 * pitch + 900 * np.sin(2 * np.pi * _BEATS_HZ * time_s), rate),
        _tone((400 + 4400 * np.minimum(done, 1 - done)) * pitch, rate),
        _tone(np.where(beat, 700, 2200) * pitch, rate),
    )[digit]
    heard = sound * rng.uniform(0.25, 0.45) + 0.005 * hiss
    return _wav(np.clip(heard * 127 + 128, 0, 255).astype(np.uint8), rate)


def _tone(hertz: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float64]:
    """Return a sine whose frequency is ``hertz`` at each sample."""
    wave_of: npt.NDArray[np.float64] = np.sin(2 * np.pi * np.cumsum(hertz) / rate)
    return wave_of


def _wav(samples: npt.NDArray[np.uint8], rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
