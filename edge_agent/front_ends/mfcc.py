"""Mel-frequency cepstral coefficients of a sound: rows are frames in time, columns are coefficients.

The first ``coefficients`` of the orthonormal DCT-II of the log-mel bands of ``log_mel``, each scaled from its own
``low_K`` .. ``high_K`` (fitted on train rows, ``compressor data fit``) to 0 .. 255.

Source: Davis and Mermelstein 1980, equation 1; DCT-II with the orthonormal factors of Ahmed, Natarajan and Rao 1974.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import Option, Pixels, Values, ranges, settled, to_pixels
from edge_agent.front_ends.log_mel import SPECTRUM_OPTIONS, check_spectrum, decibels

SUFFIXES = frozenset({".wav", ".wave"})
OPTIONS = {
    **SPECTRUM_OPTIONS,
    "coefficients": Option(default=10, low=1, high=64, whole=True),
    "low": Option(default=-100.0, low=-1e4, high=1e4),
    "high": Option(default=100.0, low=-1e4, high=1e4),
}
_NUMBERED = ("low_", "high_")


def complete(options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` with all defaults filled in.

    Raises:
        SensorError: If an option is unknown or out of range, or two contradict each other.
    """
    wanted = settled(options, OPTIONS, numbered=_NUMBERED)
    check_spectrum(wanted)
    if wanted["coefficients"] > wanted["mels"]:
        message = f"Expected at most as many coefficients as mels, got {wanted['coefficients']:g}, {wanted['mels']:g}"
        raise SensorError(message)
    ranges(wanted, int(wanted["coefficients"]))
    return wanted


def decode(data: bytes, options: Mapping[str, float]) -> Pixels:
    """Return the MFCC picture of the WAV in ``data``, uint8 (frames, coefficients, 3).

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated, or an option is out of range.
    """
    wanted = complete(options)
    return to_pixels(cepstrum(data, wanted), *ranges(wanted, int(wanted["coefficients"])))


def cepstrum(data: bytes, options: Mapping[str, float]) -> Values:
    """Return the coefficients of the WAV in ``data``, float64 (frames, coefficients); ``options`` are complete.

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated.
    """
    bands = decibels(data, options)
    rows: Values = np.matmul(bands, _cosines(int(options["mels"]), int(options["coefficients"])).T)
    return rows


@lru_cache(maxsize=8)
def _cosines(mels: int, coefficients: int) -> Values:
    """Return the first rows of the orthonormal DCT-II, float64 (coefficients, mels)."""
    rows: Values = np.cos(np.pi / mels * (np.arange(mels) + 0.5) * np.arange(coefficients)[:, None])
    rows *= np.sqrt(2 / mels)
    rows[0] /= np.sqrt(2)
    return rows
