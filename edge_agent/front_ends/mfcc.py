"""Mel-frequency cepstral coefficients of a sound: rows are frames in time, columns are coefficients.

The first ``coefficients`` of the orthonormal DCT-II of the log-mel bands of ``log_mel``, each scaled from its own
``low_K`` .. ``high_K`` (fitted on train rows, ``compressor data fit``) to 0 .. 255.

Source: Davis and Mermelstein 1980, equation 1; DCT-II with the orthonormal factors of Ahmed, Natarajan and Rao 1974.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated

import numpy as np

from edge_agent.front_ends._base import Pixels, Values, ranges, to_pixels
from edge_agent.front_ends.log_mel import Spectrum, decibels
from wire.errors import SettingsError
from wire.settings import Bound

SUFFIXES = frozenset({".wav", ".wave"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Spectrum):
    """``[data] options`` of ``front_end = "mfcc"``."""

    coefficients: Annotated[int, Bound(1, 64)] = 10  # of the DCT, the columns of the picture
    low: Annotated[float, Bound(-1e4, 1e4)] = -100.0  # becomes 0, in every column without a low_K of its own
    high: Annotated[float, Bound(-1e4, 1e4)] = 100.0  # becomes 255, in every column without a high_K of its own
    columns: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values together.

        Raises:
            SettingsError: If two contradict each other.
        """
        Spectrum.__post_init__(self)  # super() does not work in a dataclass with slots before Python 3.14
        if self.coefficients > self.mels:
            message = f"Expected at most as many coefficients as mels, got {self.coefficients}, {self.mels}"
            raise SettingsError(message)
        ranges(self.low, self.high, self.columns, self.coefficients)


def decode(data: bytes, settings: Settings) -> Pixels:
    """Return the MFCC picture of the WAV in ``data``, uint8 (frames, coefficients, 3).

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated.
    """
    lows, highs = ranges(settings.low, settings.high, settings.columns, settings.coefficients)
    return to_pixels(cepstrum(data, settings), lows, highs)


def cepstrum(data: bytes, settings: Settings) -> Values:
    """Return the coefficients of the WAV in ``data``, float64 (frames, coefficients).

    Raises:
        SensorError: If it is not a WAV of the configured rate, too large or truncated.
    """
    rows: Values = np.matmul(decibels(data, settings), _cosines(settings.mels, settings.coefficients).T)
    return rows


@lru_cache(maxsize=8)
def _cosines(mels: int, coefficients: int) -> Values:
    """Return the first rows of the orthonormal DCT-II, float64 (coefficients, mels)."""
    rows: Values = np.cos(np.pi / mels * (np.arange(mels) + 0.5) * np.arange(coefficients)[:, None])
    rows *= np.sqrt(2 / mels)
    rows[0] /= np.sqrt(2)
    return rows
