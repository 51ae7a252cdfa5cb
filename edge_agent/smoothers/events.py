"""Events in a stream: the mean of the class probabilities of the last inputs, and when an event begins and ends.

Class 0 is the background. An event begins at the first input whose mean probability of its class reaches the threshold,
once that has held for ``least_ms``. It ends when this probability was below ``release_ratio`` of the threshold for more
than ``hold_ms``; for ``refractory_ms`` from its end on no event begins. The threshold is no setting: a release carries
the one that was chosen on rows of their own, and the gates judge what this code makes of recordings.

Answers are logarithms of the mean probabilities, so that a softmax gives these back.

Source: Chen, Parada, Heigold, Small-footprint keyword spotting using deep neural networks, ICASSP 2014, 2.3 (a mean of
posteriors over a short window, then a threshold); Schmitt, A thermionic trigger, 1938 (two thresholds).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from edge_agent.smoothers import Outputs, Spotted, broken
from wire.errors import SettingsError
from wire.settings import Bound

BACKGROUND = 0
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[smoothing]`` of ``kind = "events"``."""

    window: Annotated[int, Bound(1, 1000)] = 3  # inputs in the mean
    gap_ms: Annotated[int, Bound(0, 86_400_000)] = 2000  # inputs further apart are another stream; 0: never
    least_ms: Annotated[int, Bound(0, 86_400_000)] = 0  # so long the threshold must be held before an event begins
    release_ratio: Annotated[float, Bound(0, 1)] = 0.5  # of the threshold: below it an event ends
    hold_ms: Annotated[int, Bound(0, 86_400_000)] = 0  # so long it may be below before that is an end
    refractory_ms: Annotated[int, Bound(0, 86_400_000)] = 500  # after an event, none begins
    false_accepts_per_hour: Annotated[float, Bound(0, 1e6)] = 0.0  # the threshold is chosen for so many; 0: best F1


class MeanProbabilities:
    """The mean probabilities of one stream."""

    def __init__(self, settings: Settings) -> None:
        """Begin a stream."""
        self._gap_ms = settings.gap_ms
        self._last: deque[Outputs] = deque(maxlen=settings.window)
        self._at_ms = 0

    def add(self, outputs: Outputs, at_ms: int) -> tuple[Outputs, int]:
        """Return the logarithms of the mean probabilities, and over how many inputs they are."""
        if self._last and broken(at_ms - self._at_ms, self._gap_ms):
            self._last.clear()
        self._at_ms = at_ms
        raised = np.exp(outputs.astype(np.float64) - outputs.max())
        self._last.append(raised / raised.sum())
        mean = np.maximum(np.mean(self._last, axis=0), _TINY)
        return np.log(mean).astype(np.float32), len(self._last)


class EventSpotter:
    """The events of one stream, from its mean probabilities."""

    def __init__(self, settings: Settings, threshold: float) -> None:
        """Begin a stream; ``threshold``: 0..1."""
        self._settings, self._threshold, self.gap_ms = settings, threshold, settings.gap_ms
        self._begin()

    def _begin(self) -> None:
        self._event: Spotted | None = None
        self._rising = BACKGROUND
        self._risen_ms = self._quiet_until_ms = 0
        self._at_ms: int | None = None

    def add(self, probabilities: Sequence[float], at_ms: int) -> tuple[Spotted, ...]:
        """Return the events that ended or began with the newest input; ``probabilities``: of each class, a mean."""
        settings, found = self._settings, []
        if self._at_ms is not None and broken(at_ms - self._at_ms, settings.gap_ms):
            found += self._ended()
            self._begin()
        self._at_ms = at_ms
        if self._event is not None:
            own = probabilities[self._event.label]
            if own >= settings.release_ratio * self._threshold:
                peak = max(own, self._event.confidence)
                self._event = self._event._replace(end_ms=at_ms, confidence=peak)
            elif at_ms - self._event.end_ms > settings.hold_ms:
                found += self._ended()
        if self._event is None:
            found += self._begun(probabilities, at_ms)
        return tuple(found)

    @property
    def event(self) -> Spotted | None:
        """The event that has begun and not ended."""
        return self._event

    def end(self) -> tuple[Spotted, ...]:
        """End the stream; return the event that ends with it."""
        found = self._ended()
        self._begin()
        return tuple(found)

    def _ended(self) -> list[Spotted]:
        event, self._event = self._event, None
        if event is None:
            return []
        self._quiet_until_ms = event.end_ms + self._settings.refractory_ms
        return [event._replace(ended=True)]

    def _begun(self, probabilities: Sequence[float], at_ms: int) -> list[Spotted]:
        best = max(probabilities[BACKGROUND + 1 :])
        if best < self._threshold or at_ms < self._quiet_until_ms:
            self._rising = BACKGROUND
            return []
        label = probabilities.index(best, BACKGROUND + 1)
        if label != self._rising:
            self._rising, self._risen_ms = label, at_ms
        if at_ms - self._risen_ms < self._settings.least_ms:
            return []
        self._event = Spotted(label=label, start_ms=self._risen_ms, end_ms=at_ms, confidence=best)
        self._rising = BACKGROUND
        return [self._event]


def make(settings: Settings, classes: int) -> MeanProbabilities:
    """Return the smoother at the beginning of a stream.

    Raises:
        SettingsError: If the outputs are not the background and at least one class.
    """
    if classes < 2:  # noqa: PLR2004 - the background and one more
        raise SettingsError(f"Expected the background and a class or more for events, got {classes} classes")
    return MeanProbabilities(settings)


def spotter(settings: Settings, threshold: float) -> EventSpotter:
    """Return what finds the events of a stream, at its beginning."""
    return EventSpotter(settings, threshold)
