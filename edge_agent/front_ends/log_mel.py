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
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import Option, Pixels, Values, settled, to_pixels

MAX_WAV_BYTES = 16 * 1024 * 1024
MAX_FRAMES = 4096
SPECTRUM_OPTIONS = {
    "sample_rate_hz": Option(default=16_000, low=1_000, high=192_000, whole=True),
    "clip_s": Option(default=1.0, low=0.01, high=60.0),
    "window_ms": Option(default=32.0, low=1.0, high=500.0),
    "hop_ms": Option(default=16.0, low=1.0, high=500.0),
    "mels": Option(default=32, low=4, high=256, whole=True),
    "low_hz": Option(default=80.0, low=0.0, high=96_000.0),
    "high_hz": Option(default=0.0, low=0.0, high=96_000.0),  # 0: half the sample rate
    "floor_db": Option(default=-90.0, low=-200.0, high=100.0),
}
SUFFIXES = frozenset({".wav", ".wave"})
OPTIONS = {**SPECTRUM_OPTIONS, "ceiling_db": Option(default=-10.0, low=-200.0, high=100.0)}
_TINY = 1e-20  # power of digital silence, far below any floor


def complete(options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` with all defaults filled in.

    Raises:
        SensorError: If an option is unknown or out of range, or two contradict each other.
    """
    wanted = settled(options, OPTIONS)
    check_spectrum(wanted)
    if wanted["ceiling_db"] <= wanted["floor_db"]:
        message = f"Expected ceiling_db above floor_db, got {wanted['ceiling_db']:g} and {wanted['floor_db']:g}"
        raise SensorError(message)
    return wanted


def decode(data: bytes, options: Mapping[str, float]) -> Pixels:
    """Return the log-mel picture of the WAV in ``data``, uint8 (frames, mels, 3).

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated, or an option is out of range.
    """
    wanted = complete(options)
    return to_pixels(decibels(data, wanted), wanted["floor_db"], wanted["ceiling_db"])


def check_spectrum(options: Mapping[str, float]) -> None:
    """Check that the complete ``options`` of the spectrum are consistent.

    Raises:
        SensorError: If the window is longer than the clip, bands exceed the spectrum, or there are too many frames.
    """
    rate, window, hop, length = _lengths(options)
    top = options["high_hz"] or rate / 2
    if not 8 <= window <= length or hop < 1 or 1 + (length - window) // hop > MAX_FRAMES:  # noqa: PLR2004 - of a window
        message = f"Expected windows of 8 samples to the clip and at most {MAX_FRAMES} frames, got windows of {window}"
        raise SensorError(f"{message} every {hop} in a clip of {length}: change window_ms, hop_ms or clip_s")
    if not options["low_hz"] < top <= rate / 2:
        message = f"Expected low_hz < high_hz <= {rate / 2:g}, got {options['low_hz']:g} and {top:g}"
        raise SensorError(message)
    _filters(rate, window, int(options["mels"]), options["low_hz"], top)


def decibels(data: bytes, options: Mapping[str, float]) -> Values:
    """Return the mel bands of the WAV in ``data`` in dB re full-scale sine, float64 (frames, mels), not clipped above.

    ``options`` are complete (``complete``). Values below ``floor_db`` are raised to it.

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated.
    """
    rate, window, hop, length = _lengths(options)
    sound = samples(data, rate)
    # the middle of the sound, padded with silence on both sides if it is shorter
    start = max(0, (len(sound) - length) // 2)
    sound = sound[start : start + length]
    before = (length - len(sound)) // 2
    clip = np.pad(sound, (before, length - len(sound) - before))
    frames = np.lib.stride_tricks.sliding_window_view(clip, window)[::hop]
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = np.abs(np.fft.rfft(frames * taper)) / (taper.sum() / 2)
    bands = _filters(rate, window, int(options["mels"]), options["low_hz"], options["high_hz"] or rate / 2)
    levels: Values = 10 * np.log10(np.maximum(spectrum**2 @ bands.T, _TINY))
    return np.maximum(levels, options["floor_db"])


def samples(data: bytes, rate_hz: int) -> Values:
    """Return the sound in ``data`` as mono, float64 (N,), -1..1. Sizes are checked before samples are read.

    Raises:
        SensorError: If it is not an 8- or 16-bit PCM WAV of ``rate_hz``, mono or stereo, or is truncated, empty or too
            large.
    """
    if len(data) > MAX_WAV_BYTES:
        raise SensorError(f"Expected a WAV of at most {MAX_WAV_BYTES} bytes, got {len(data)}")
    try:
        with wave.open(io.BytesIO(data)) as file:
            header = file.getparams()
            width, channels = header.sampwidth, header.nchannels
            if width not in {1, 2} or channels not in {1, 2}:
                message = f"Expected 8- or 16-bit PCM, mono or stereo, got {8 * width} bits and {channels}"
                raise SensorError(f"{message} channels: convert it")
            if header.framerate != rate_hz:
                message = f"Expected sound at {rate_hz} Hz, got {header.framerate} Hz"
                raise SensorError(f"{message}: record at that rate or set sample_rate_hz")
            if not 0 < header.nframes * channels * width <= len(data):
                message = f"Expected 1 or more frames of sound that fit into {len(data)} bytes, got {header.nframes}"
                raise SensorError(f"{message} frames: the WAV is empty or cut off")
            body = file.readframes(header.nframes)
    except (wave.Error, struct.error, EOFError, OSError, ValueError, ArithmeticError, RuntimeError) as error:
        message = f"Expected a WAV file (8- or 16-bit PCM), got {len(data)} bytes: {str(error) or 'cut off'}"
        coded = str(error).startswith("unknown format")  # float samples are 3, extensible headers 65534
        raise SensorError(f"{message}: convert it to plain 16-bit PCM" if coded else message) from error
    if len(body) != header.nframes * header.nchannels * header.sampwidth:
        raise SensorError(f"Expected {header.nframes} frames of sound, got {len(body)} bytes: the WAV is cut off")
    wide = header.sampwidth == 2  # noqa: PLR2004 - bytes of a sample
    raw = np.frombuffer(body, "<i2" if wide else np.uint8).astype(np.float64)
    sound: Values = (raw / 32_768 if wide else (raw - 128) / 128).reshape(-1, header.nchannels).mean(axis=1)
    return sound


def _lengths(options: Mapping[str, float]) -> tuple[int, int, int, int]:
    """Return sample rate in Hz, then window, hop and clip in samples."""
    rate = int(options["sample_rate_hz"])
    window, hop = (round(options[name] * rate / 1000) for name in ("window_ms", "hop_ms"))
    return rate, window, hop, round(options["clip_s"] * rate)


@lru_cache(maxsize=8)
def _filters(rate: int, window: int, mels: int, low_hz: float, high_hz: float) -> Values:
    """Return the triangular bands, float64 (mels, window // 2 + 1), peak 1.

    Raises:
        SensorError: If a band contains no line of the spectrum.
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
        raise SensorError(f"{message} longer window_ms or a higher low_hz")
    return bands


def _mel(hertz: NDArray[np.floating[Any]] | float) -> Values:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))
