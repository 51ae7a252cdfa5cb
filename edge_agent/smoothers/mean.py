"""The mean of the outputs of the last inputs, with hysteresis: a new label must lead several times in a row.

The mean of logits is, up to a constant, the logarithm of the geometric mean of the class probabilities; of a regression
it is the mean of the values. ``debounce`` and ``hold_ms`` are for classes: while a label is held, its last outputs are
answered again.

Source: Chen, Parada, Heigold, Small-footprint keyword spotting using deep neural networks, ICASSP 2014, 2.3 (a mean
over a short window before a decision); Ganssle, A guide to debouncing, 2008 (counting equal readings).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from edge_agent.smoothers import Outputs, broken
from wire.errors import SettingsError
from wire.settings import Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[smoothing]`` of ``kind = "mean"``."""

    window: Annotated[int, Bound(1, 1000)] = 5  # inputs in the mean
    gap_ms: Annotated[int, Bound(0, 86_400_000)] = 2000  # inputs further apart are another stream; 0: never
    debounce: Annotated[int, Bound(1, 1000)] = 1  # a new label must lead this often in a row
    hold_ms: Annotated[int, Bound(0, 86_400_000)] = 0  # a label stays at least this long


class Mean:
    """The state of one stream."""

    def __init__(self, settings: Settings) -> None:
        """Begin a stream."""
        self._settings = settings
        self._begin()

    def _begin(self) -> None:
        self._last: deque[Outputs] = deque(maxlen=self._settings.window)
        self._held: Outputs | None = None
        self._leads = 0
        self._led_by = -1
        self._at_ms = self._since_ms = 0

    def add(self, outputs: Outputs, at_ms: int) -> tuple[Outputs, int]:
        """Return the outputs to answer with, and over how many inputs they are."""
        settings = self._settings
        if self._last and broken(at_ms - self._at_ms, settings.gap_ms):
            self._begin()
        self._at_ms = at_ms
        self._last.append(outputs)
        mean: Outputs = np.asarray(np.mean(self._last, axis=0, dtype=np.float64), np.float32)
        if settings.debounce == 1 and not settings.hold_ms:
            return mean, len(self._last)
        leader = int(mean.argmax())
        self._leads = self._leads + 1 if leader == self._led_by else 1
        self._led_by = leader
        if self._held is None or leader == int(self._held.argmax()):
            if self._held is None:
                self._since_ms = at_ms
            self._held = mean
        elif self._leads >= settings.debounce and at_ms - self._since_ms >= settings.hold_ms:
            self._held, self._since_ms = mean, at_ms
        return self._held, len(self._last)


def make(settings: Settings, classes: int) -> Mean:
    """Return the smoother at the beginning of a stream.

    Raises:
        SettingsError: If a label is to be held, but the outputs are no classes.
    """
    if not classes and (settings.debounce > 1 or settings.hold_ms):
        message = f"Expected debounce = 1 and hold_ms = 0 for values, got {settings.debounce} and {settings.hold_ms}"
        raise SettingsError(f"{message}: only a label is held; leave them out")
    return Mean(settings)
