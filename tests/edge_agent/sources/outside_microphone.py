"""An external source: one second of a tone whenever the clock advances so far, like a microphone."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from edge_agent.device.clock import Clock
from edge_agent.sources import Capture, Surroundings
from wire.settings import Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of this kind."""

    rate_hz: Annotated[int, Bound(8_000, 48_000)] = 16_000  # samples a second
    clip_s: Annotated[float, Bound(0.1, 10)] = 1.0


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> Microphone:
    """Return the microphone."""
    del surroundings
    return Microphone(settings, clock)


class Microphone:
    """See the module."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Listen from now on."""
        self._settings, self._clock, self._heard, self._dropped = settings, clock, 0, 0
        self._due_s = clock.monotonic_s() + settings.clip_s

    def take(self) -> Capture | None:
        """Return the newest clip; older clips that were not taken are dropped."""
        late = int((self._clock.monotonic_s() - self._due_s) / self._settings.clip_s)
        if self._clock.monotonic_s() < self._due_s:
            return None
        self._dropped += late
        self._heard += late + 1
        self._due_s += (late + 1) * self._settings.clip_s
        return Capture(f"clip-{self._heard}.wav", self._clip())

    def _clip(self) -> bytes:
        count = round(self._settings.clip_s * self._settings.rate_hz)
        tone = (8_000 * np.sin(np.arange(count) * 0.1)).astype("<i2")
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self._settings.rate_hz)
            file.writeframes(tone.tobytes())
        return buffer.getvalue()

    def done(self, capture: Capture) -> None:
        """A clip that was served needs no cleaning up."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """It does not come again."""
        del capture, code, final
        return True

    def take_dropped(self) -> int:
        """Return how many clips were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped
