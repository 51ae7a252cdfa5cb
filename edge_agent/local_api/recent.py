"""The last answers and inputs of this device in memory, and who follows them; totals for the metrics.

Decides what is kept: the last ``MAX_ANSWERS`` answers, the times of the last ``TIMES``, and of the newest inputs as
many as fit ``keep_bytes``, ``_MAX_INPUTS`` at most. Each follower has a bounded queue of its own: what a slow one can't
take is dropped, the oldest first, and counted. Written by the inference loop, read by the threads of HTTP requests.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from wire.answers import AnswerRecord
from wire.codec import Json

MAX_ANSWERS = 100
MAX_FOLLOWED = 256
TIMES = 1024
_MAX_INPUTS = 1024  # empty ones need no bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptInput:
    """One input with its answer; ``predicted``: the number of its class, -1 if it has none."""

    record: AnswerRecord
    data: bytes
    artifact_sha256: str
    predicted: int


@dataclass(slots=True)
class Follower:
    """A client that gets every answer from now on. ``lost`` were dropped because it is slow."""

    waiting: deque[AnswerRecord] = field(default_factory=deque)
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts since this process began. ``errors``: by code. Times in seconds: sum of all, and the last ones."""

    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    run_s: float = 0.0
    latency_s: float = 0.0
    last_run_s: tuple[float, ...] = ()
    last_latency_s: tuple[float, ...] = ()


class Recent:
    """What the loop says of its answers, for many threads."""

    def __init__(self, keep_bytes: int) -> None:
        """Keep inputs of at most ``keep_bytes``."""
        self._news = threading.Condition()
        self._answers: deque[AnswerRecord] = deque(maxlen=MAX_ANSWERS)
        self._inputs: OrderedDict[str, KeptInput] = OrderedDict()
        self._left_bytes = keep_bytes
        self._followers: list[Follower] = []
        self._awaited: dict[str, AnswerRecord | None] = {}
        self._events: dict[str, tuple[Mapping[str, Json], ...]] = {}  # of those that are awaited
        self._runs_s: deque[float] = deque(maxlen=TIMES)
        self._latencies_s: deque[float] = deque(maxlen=TIMES)
        self._totals = Totals()
        self._closed = False

    def add(self, kept: KeptInput) -> None:
        """Add an answer and its input; never waits for a follower."""
        record = kept.record
        with self._news:
            self._answers.append(record)
            self._count(record)
            self._keep(kept)
            for follower in self._followers:
                if len(follower.waiting) >= MAX_FOLLOWED:
                    follower.waiting.popleft()
                    follower.lost += 1
                follower.waiting.append(record)
            self._note_awaited(record)
            self._news.notify_all()

    def _note_awaited(self, record: AnswerRecord) -> None:
        """Keep an answer that somebody waits for: of a recording the last one, with the events of all its windows."""
        whole = record.id.partition("#")[0]
        if whole not in self._awaited:
            return
        events = self._events[whole] = (*self._events.get(whole, ()), *record.events)
        if record.id == whole or record.error:
            self._awaited[whole] = replace(record, id=whole, events=events)

    def _count(self, record: AnswerRecord) -> None:
        before = self._totals
        if record.error:
            before.errors[record.error] += 1
            return
        run_s, latency_s = record.run_ms / 1000, record.latency_ms / 1000
        self._runs_s.append(run_s)
        self._latencies_s.append(latency_s)
        self._totals = replace(
            before, answers=before.answers + 1, run_s=before.run_s + run_s, latency_s=before.latency_s + latency_s
        )

    def _keep(self, kept: KeptInput) -> None:
        former = self._inputs.pop(kept.record.id, None)
        self._left_bytes += (len(former.data) if former is not None else 0) - len(kept.data)
        self._inputs[kept.record.id] = kept
        while self._left_bytes < 0 or len(self._inputs) > _MAX_INPUTS:
            _, oldest = self._inputs.popitem(last=False)
            self._left_bytes += len(oldest.data)

    def dropped(self, count: int) -> None:
        """Count inputs that never reached the model."""
        with self._news:
            self._totals = replace(self._totals, dropped=self._totals.dropped + count)

    @property
    def totals(self) -> Totals:
        """The totals now."""
        with self._news:
            return replace(
                self._totals,
                errors=Counter(self._totals.errors),
                last_run_s=tuple(self._runs_s),
                last_latency_s=tuple(self._latencies_s),
            )

    def last(self, count: int) -> list[AnswerRecord]:
        """Return the last ``count`` answers, oldest first."""
        with self._news:
            return list(self._answers)[-count:] if count > 0 else []

    def input(self, name: str) -> KeptInput | None:
        """Return the input of the answer with the id ``name``, if it is still kept."""
        with self._news:
            return self._inputs.get(name)

    def expect(self, name: str) -> None:
        """Keep the answer with the id ``name`` for ``awaited``; call it before the input is offered."""
        with self._news:
            self._awaited[name] = None

    def awaited(self, name: str, limit_s: float) -> AnswerRecord | None:
        """Return the expected answer, or None if it isn't there within ``limit_s``."""
        with self._news:
            if limit_s:
                self._news.wait_for(lambda: self._awaited[name] is not None or self._closed, limit_s)
            self._events.pop(name, None)
            return self._awaited.pop(name)

    @contextmanager
    def following(self) -> Iterator[Follower]:
        """Yield a follower, which gets answers as long as the block runs."""
        follower = Follower()
        with self._news:
            self._followers.append(follower)
        try:
            yield follower
        finally:
            with self._news:
                self._followers = [other for other in self._followers if other is not follower]

    def next(self, follower: Follower, limit_s: float) -> tuple[list[AnswerRecord], int] | None:
        """Wait up to ``limit_s`` for answers; return them and how many were lost before, or None at the end."""
        with self._news:
            self._news.wait_for(lambda: follower.waiting or self._closed, limit_s)
            if self._closed:
                return None
            found, lost = list(follower.waiting), follower.lost
            follower.waiting.clear()
            follower.lost = 0
            return found, lost

    def close(self) -> None:
        """End all followers."""
        with self._news:
            self._closed = True
            self._news.notify_all()
