"""The streams that a release answers: each has a smoother and, for events, a spotter of its own, by its name.

Decides which inputs have to do with each other: those of one stream, until it ends. Inputs of different files, senders
or topics never share a mean. At most ``MOST`` streams are kept; beyond, the one that was silent longest ends.

A stream with an open event ends when its sender has stopped: when nothing waits to be answered and its last input came
more than ``SILENCE_S`` ago, more than twice the release's ``gap_ms``, and more than twice what came of it at once: who
sends pieces of five minutes is silent for five minutes between them. Where ``gap_ms`` is 0 it goes on after any time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edge_agent.smoothers import Outputs, Smoother, Spotted, Spotter

MOST = 64
SILENCE_S = 60.0
"""Longer than a network is away for a moment, and short enough for who waits for the end of an alarm."""


@dataclass(slots=True, kw_only=True)
class _Stream:
    smoother: Smoother
    spotter: Spotter | None
    quiet_s: float | None = None  # since when nothing waits; None: not since its last input
    burst_ms: int | None = None  # when the first input of those was taken that came without a pause
    longest_ms: int = 0  # of such inputs, together

    def hear(self, at_ms: int) -> None:
        """Note an input that was taken ``at_ms``."""
        if self.quiet_s is not None or self.burst_ms is None:
            self.quiet_s, self.burst_ms = None, at_ms
        self.longest_ms = max(self.longest_ms, at_ms - self.burst_ms)

    def silent(self, now_s: float) -> bool:
        """Return whether its sender has stopped; called while nothing waits."""
        if self.spotter is None or self.spotter.event is None or not self.spotter.gap_ms:
            return False
        if self.quiet_s is None:
            self.quiet_s = now_s
        return now_s - self.quiet_s > max(SILENCE_S, 2 * self.spotter.gap_ms / 1000, 2 * self.longest_ms / 1000)


class Streams:
    """The state of all streams of one release. For one thread."""

    def __init__(self, smoother: Callable[[], Smoother], spotter: Callable[[], Spotter | None]) -> None:
        """Begin without any; ``smoother`` and ``spotter`` return one at the beginning of a stream."""
        self._smoother, self._spotter = smoother, spotter
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._news: list[tuple[str, Spotted]] = []
        self.finds_events = spotter() is not None

    def add(self, name: str, outputs: Outputs, at_ms: int) -> tuple[Outputs, int]:
        """Return the outputs to answer with for the newest input of a stream, and over how many inputs they are.

        Args:
            name: Of the stream; a new one begins.
            outputs: float32 (D,), finite, of this input alone.
            at_ms: When it was taken.
        """
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = _Stream(smoother=self._smoother(), spotter=self._spotter())
        self._streams.move_to_end(name)
        while len(self._streams) > MOST:
            self.end(next(iter(self._streams)))
        stream.hear(at_ms)
        shown, count = stream.smoother.add(outputs, at_ms)
        if stream.spotter is not None:
            chances = np.exp(shown.astype(np.float64)).tolist()
            self._news += [(name, one) for one in stream.spotter.add(chances, at_ms)]
        return shown, count

    def end(self, name: str) -> None:
        """End a stream: an event that is open ends with its last input, and the next input begins another stream."""
        stream = self._streams.pop(name, None)
        if stream is not None and stream.spotter is not None:
            self._news += [(name, one) for one in stream.spotter.end()]

    def end_silent(self, now_s: float) -> bool:
        """End the streams whose senders have stopped; return whether there was one. Called while nothing waits.

        Args:
            now_s: Of the monotonic clock.
        """
        gone = [name for name, stream in self._streams.items() if stream.silent(now_s)]
        for name in gone:
            self.end(name)
        return bool(gone)

    def end_all(self) -> None:
        """End every stream."""
        for name in list(self._streams):
            self.end(name)

    def take(self) -> list[tuple[str, Spotted]]:
        """Return the events that began or ended since the last call, each with the name of its stream."""
        found, self._news = self._news, []
        return found

    def open(self) -> Iterator[tuple[str, Spotted]]:
        """Yield the events that have begun and not ended, as they are now."""
        for name, stream in self._streams.items():
            if stream.spotter is not None and stream.spotter.event is not None:
                yield name, stream.spotter.event
