"""Log-mel spectrogram of a sound: rows are frames in time, columns are mel bands from low to high.

WAV bytes (8- or 16-bit PCM) -> mono -> the middle ``clip_s`` seconds -> Hann windows -> power spectrum -> triangular
mel bands -> decibels relative to a full-scale sine -> ``floor_db`` .. ``ceiling_db`` as 0 .. 255. Does not resample: a
clip of another rate is rejected, because a device has one microphone with one rate.

Source: mel scale of O'Shaughnessy 1987 as in the HTK book (Young et al. 2006, section 5.4, equation 5.13): mel(f) =
2595 log10(1 + f / 700); triangles of equal width on that scale, peak 1, section 5.4. Periodic Hann window: Harris 1978.
"""

from __future__ import annotations

import io
import struct
import wave
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import Pixels, Values, to_pixels
from edge_agent.streams.wav_header import plain_wav
from wire.errors import SettingsError
from wire.settings import Bound

MAX_WAV_BYTES = 16 * 1024 * 1024
MAX_FRAMES = 4096
SUFFIXES = frozenset({".wav", ".wave"})
_TINY = 1e-20  # power of digital silence, far below any floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """The mel bands of a clip: what ``log_mel`` and ``mfcc`` share."""

    sample_rate_hz: Annotated[int, Bound(1_000, 192_000)] = 16_000  # that of the microphone; nothing is resampled
    clip_s: Annotated[float, Bound(0.01, 60.0)] = 1.0  # the middle of a longer sound; a shorter one is padded
    window_ms: Annotated[float, Bound(1.0, 500.0)] = 32.0  # 512 samples at 16 kHz
    hop_ms: Annotated[float, Bound(1.0, 500.0)] = 16.0  # half a window
    mels: Annotated[int, Bound(4, 256)] = 32  # bands, the columns of the picture
    low_hz: Annotated[float, Bound(0.0, 96_000.0)] = 80.0  # below speech
    high_hz: Annotated[float, Bound(0.0, 96_000.0)] = 0.0  # 0: half the sample rate
    floor_db: Annotated[float, Bound(-200.0, 100.0)] = -90.0  # re full-scale sine; near the noise of 16 bits

    def __post_init__(self) -> None:
        """Check the values together.

        Raises:
            SettingsError: If the window is longer than the clip, bands exceed the spectrum, or there are too many
                frames.
        """
        rate, window, hop, length = self.lengths
        if not 8 <= window <= length or hop < 1 or 1 + (length - window) // hop > MAX_FRAMES:  # noqa: PLR2004 - of a window
            message = f"Expected windows of 8 samples to the clip and at most {MAX_FRAMES} frames, got {window} samples"
            raise SettingsError(f"{message} every {hop} in a clip of {length}: change window_ms, hop_ms or clip_s")
        if not self.low_hz < (self.high_hz or rate / 2) <= rate / 2:
            message = f"Expected low_hz < high_hz <= {rate / 2:g}, got {self.low_hz:g} and {self.high_hz or rate / 2:g}"
            raise SettingsError(message)
        _ = self.filters

    @property
    def lengths(self) -> tuple[int, int, int, int]:
        """Sample rate in Hz, then window, hop and clip in samples."""
        rate = self.sample_rate_hz
        return rate, round(self.window_ms * rate / 1000), round(self.hop_ms * rate / 1000), round(self.clip_s * rate)

    @property
    def filters(self) -> Values:
        """The triangular bands, float64 (mels, window // 2 + 1), peak 1."""
        rate, window, _, _ = self.lengths
        return _filters(rate, window, self.mels, self.low_hz, self.high_hz or rate / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Spectrum):
    """``[data] options`` of ``front_end = "log_mel"``."""

    ceiling_db: Annotated[float, Bound(-200.0, 100.0)] = -10.0  # re full-scale sine: the level that becomes 255

    def __post_init__(self) -> None:
        """Check the values together.

        Raises:
            SettingsError: If two contradict each other.
        """
        Spectrum.__post_init__(self)  # super() does not work in a dataclass with slots before Python 3.14
        if self.ceiling_db <= self.floor_db:
            message = f"Expected ceiling_db above floor_db, got {self.ceiling_db:g} and {self.floor_db:g}"
            raise SettingsError(message)


def decode(data: bytes, settings: Settings) -> Pixels:
    """Return the log-mel picture of the WAV in ``data``, uint8 (frames, mels, 3).

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated.
    """
    return to_pixels(decibels(data, settings), settings.floor_db, settings.ceiling_db)


def decibels(data: bytes, settings: Spectrum) -> Values:
    """Return the mel bands of the WAV in ``data`` in dB re full-scale sine, float64 (frames, mels), not clipped above.

    Values below ``floor_db`` are raised to it.

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated.
    """
    rate, window, hop, length = settings.lengths
    sound = samples(data, rate)
    # the middle of the sound, padded with silence on both sides if it is shorter
    start = max(0, (len(sound) - length) // 2)
    sound = sound[start : start + length]
    before = (length - len(sound)) // 2
    clip = np.pad(sound, (before, length - len(sound) - before))
    frames = np.lib.stride_tricks.sliding_window_view(clip, window)[::hop]
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = np.abs(np.fft.rfft(frames * taper)) / (taper.sum() / 2)
    levels: Values = 10 * np.log10(np.maximum(spectrum**2 @ settings.filters.T, _TINY))
    return np.maximum(levels, settings.floor_db)


def samples(data: bytes, rate_hz: int) -> Values:
    """Return the sound in ``data`` as mono, float64 (N,), -1..1. Sizes are checked before samples are read.

    Raises:
        SensorError: If it is not an 8- or 16-bit PCM WAV of ``rate_hz``, mono or stereo, or is truncated, empty or too
            large.
    """
    if len(data) > MAX_WAV_BYTES:
        message = f"Expected a WAV of at most {MAX_WAV_BYTES} bytes, got {len(data)}"
        raise SensorError(f'{message}: cut it, or read it as a stream, by kind = "microphone" with its path')
    command = f"(ffmpeg -i FILE -ar {rate_hz} -ac 1 -c:a pcm_s16le NEW.wav)"
    try:
        with wave.open(io.BytesIO(plain_wav(data))) as file:
            header = file.getparams()
            width, channels = header.sampwidth, header.nchannels
            if width not in {1, 2} or channels not in {1, 2}:
                message = f"Expected 8- or 16-bit PCM, mono or stereo, got {8 * width} bits and {channels}"
                raise SensorError(f"{message} channels: convert it {command}")
            if header.framerate != rate_hz:
                message = f"Expected sound at {rate_hz} Hz, got {header.framerate} Hz"
                raise SensorError(f"{message}: record at that rate or convert it {command}")
            if not 0 < header.nframes * channels * width <= len(data):
                message = f"Expected 1 or more frames of sound that fit into {len(data)} bytes, got {header.nframes}"
                raise SensorError(f"{message} frames: the WAV is empty or cut off: convert what it has {command}")
            body = file.readframes(header.nframes)
    except (wave.Error, struct.error, EOFError, OSError, ValueError, ArithmeticError, RuntimeError) as error:
        message = f"Expected a WAV file (8- or 16-bit PCM), got {len(data)} bytes: {str(error) or 'cut off'}"
        raise SensorError(f"{message}: convert it to plain 16-bit PCM {command}") from error
    if len(body) != header.nframes * header.nchannels * header.sampwidth:
        message = f"Expected {header.nframes} frames of sound, got {len(body)} bytes: the WAV is cut off"
        raise SensorError(f"{message}: convert what it has {command}")
    wide = header.sampwidth == 2  # noqa: PLR2004 - bytes of a sample
    raw = np.frombuffer(body, "<i2" if wide else np.uint8).astype(np.float64)
    sound: Values = (raw / 32_768 if wide else (raw - 128) / 128).reshape(-1, header.nchannels).mean(axis=1)
    return sound


@lru_cache(maxsize=8)
def _filters(rate: int, window: int, mels: int, low_hz: float, high_hz: float) -> Values:
    """Return the triangular bands, float64 (mels, window // 2 + 1), peak 1.

    Raises:
        SettingsError: If a band contains no line of the spectrum.
    """
    edges_mel = np.linspace(_mel(low_hz), _mel(high_hz), mels + 2)
    lines = _mel(np.arange(window // 2 + 1) * (rate / window))
    rise = (lines - edges_mel[:-2, None]) / (edges_mel[1:-1] - edges_mel[:-2])[:, None]
    fall = (edges_mel[2:, None] - lines) / (edges_mel[2:] - edges_mel[1:-1])[:, None]
    bands = np.maximum(0, np.minimum(rise, fall))
    empty = int((bands.sum(axis=1) == 0).sum())
    if empty:
        message = (
            f"Expected every mel band to hold a line of the spectrum, got {empty} of {mels} without: fewer mels, a"
        )
        raise SettingsError(f"{message} longer window_ms or a higher low_hz")
    return bands


def _mel(hertz: NDArray[np.floating[Any]] | float) -> Values:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))
