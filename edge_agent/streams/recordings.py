"""A recording cut into windows: what the gates judge is cut by the same code as what a device hears of a file.

Decides where windows begin (each stride, as long as a whole window is left) and how sound becomes mono samples of 16
bits. Whether a recording is cut at all decides ``recorded_inputs``. Uses numpy and the standard library only.
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.streams.wav_header import MOST_CHANNELS, PcmForm, plain_wav, wav_of

Sound = NDArray[np.int16]
_WIDE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSound:
    """The content of a WAV: mono, int16 (S,)."""

    samples: Sound
    rate_hz: int


def window_starts(frames: int, clip: int, stride: int) -> range:
    """Return where the windows of a recording begin; what is left behind the last one is in none."""
    return range(0, frames - clip + 1, stride)


def mono(body: bytes, width: int, channels: int) -> Sound:
    """Return samples of 8 or 16 bits (``width`` 1 or 2 bytes) as mono of 16 bits: the mean of the channels."""
    raw = np.frombuffer(body, "<i2") if width == _WIDE else (np.frombuffer(body, np.uint8).astype(np.int16) - 128) << 8
    return np.asarray(raw.reshape(-1, channels).mean(axis=1).astype(np.int16) if channels > 1 else raw, np.int16)


def read_sound(data: bytes) -> StoredSound | None:
    """Return the sound of the WAV in ``data``; None if a front end has to say what is wrong with it."""
    try:
        with wave.open(io.BytesIO(plain_wav(data))) as file:
            head = file.getparams()
            if head.sampwidth not in {1, _WIDE} or head.nchannels not in range(1, MOST_CHANNELS + 1):
                return None
            body = file.readframes(min(head.nframes, len(data)))
    except (wave.Error, struct.error, EOFError, OSError, ValueError, ArithmeticError, RuntimeError):
        return None
    if len(body) != head.nframes * head.nchannels * head.sampwidth:
        return None
    return StoredSound(samples=mono(body, head.sampwidth, head.nchannels), rate_hz=head.framerate)


def windows(sound: Sound, clip: int, stride: int) -> Iterator[tuple[int, Sound]]:
    """Yield each window of ``sound`` with its first sample."""
    for start in window_starts(len(sound), clip, stride):
        yield start, sound[start : start + clip]


def as_wav(sound: Sound, rate_hz: int) -> bytes:
    """Return ``sound`` as a WAV of 16 bits, as the microphone of a device gives it."""
    return wav_of(sound.astype("<i2").tobytes(), PcmForm(rate_hz=rate_hz, channels=1))
