"""The second carrier of a download: the device pulls chunks of the bundle over its connection to the broker.

1. At most ``WINDOW`` chunks are asked for and not here yet; they may come in any order, and are held in memory until
   those before them are written. So the part of a download is always the beginning of the bundle, whichever carrier
   wrote it, and its length says where to go on.
2. What was not asked for, is here already, or is damaged is dropped. If nothing that helps comes for a few seconds,
   what is missing of the window is asked for again; after ``silent_s`` the download ends, to go on another time.
3. Requests go out through the agent's loop, which alone publishes; chunks come in through it and wait in a bounded
   queue. A lost chunk is a lost chunk: it is asked for again.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.updater.ports import SUPERSEDED, FetchOrder, FetchProgress, Refusal
from edge_agent.updater.transfer.rate_limit import RateLimit
from wire.blob_chunks import CHUNK_BYTES, ByteRange, ChunkRequest, read_chunk
from wire.codec import encode
from wire.errors import MessageError

WINDOW = 8
_TURN_S = 0.2  # how soon a cancelled download ends
_AGAIN_S = 5.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChunkWish:
    """A request that the agent's loop is to publish on ``blob/req``."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class ChunkLink:
    """Between the worker that downloads and the loop; ``put`` queues a request for the loop."""

    put: Callable[[ChunkWish], None]
    _chunks: queue.Queue[bytes] = field(default_factory=lambda: queue.Queue(2 * WINDOW))

    def receive(self, payload: bytes) -> None:
        """Take a message of ``blob/data``; dropped if nobody waits for it any more."""
        try:
            self._chunks.put_nowait(payload)
        except queue.Full:
            return

    def ask(self, sha256: str, ranges: tuple[ByteRange, ...]) -> None:
        """Ask for ranges, each at most a chunk."""
        self.put(ChunkWish(encode(ChunkRequest(sha256=sha256, ranges=ranges, credit=len(ranges)))))

    def next(self, limit_s: float) -> bytes | None:
        """Return the next message, None if there is none within ``limit_s``."""
        try:
            return self._chunks.get(timeout=limit_s)
        except queue.Empty:
            return None

    def clear(self) -> int:
        """Forget the messages that wait, which belong to an earlier download; return how many bytes they were."""
        forgotten_bytes = 0
        while (payload := self.next(0.0)) is not None:
            forgotten_bytes += len(payload)
        return forgotten_bytes


@dataclass(slots=True, kw_only=True)
class ChunkPull:
    """One download over ``link``; ``append`` writes the next bytes of the part, and counts them as done.

    Each message that comes is counted as fetched here, of use or not.
    """

    link: ChunkLink
    order: FetchOrder
    progress: FetchProgress
    append: Callable[[bytes], None]
    pace: RateLimit
    silent_s: float
    clock_s: Callable[[], float] = time.monotonic
    _asked: dict[int, int] = field(default_factory=dict)  # start to length, in the order of asking
    _early: dict[int, bytes] = field(default_factory=dict)
    _next: int = 0

    def run(self) -> Refusal | None:
        """Pull what is missing; return None when all is here, or why not (``download_failed``: it may pass)."""
        self.progress.fetched_bytes += self.link.clear()
        self._next = self.progress.done_bytes
        useful_s = asked_s = self.clock_s()
        while self.progress.done_bytes < self.order.length_bytes:
            if self.progress.cancelled.is_set():
                return SUPERSEDED
            self._ask_more()
            payload, now_s = self.link.next(_TURN_S), self.clock_s()
            refusal, useful = self._take(payload) if payload is not None else (None, False)
            if refusal is not None:
                return refusal
            if useful:
                useful_s = asked_s = now_s
            elif now_s - useful_s >= self.silent_s:
                text = f"Expected {self.order.length_bytes} bytes over MQTT, got {self.progress.done_bytes}"
                return Refusal("download_failed", f"{text} and no more in {self.silent_s:.0f} s")
            elif now_s - asked_s >= _AGAIN_S:
                asked_s = now_s
                self.link.ask(self.order.sha256, self._ranges(list(self._asked)))
        return None

    def _ask_more(self) -> None:
        """Fill the window, half of it at a time: a request is a message too. With a rate limit, a piece at a time."""
        size, limited = self.pace.piece(CHUNK_BYTES), self.pace.bytes_per_s > 0
        room = WINDOW - len(self._asked) - len(self._early)
        if room < (1 if limited else WINDOW // 2):
            return
        new: list[int] = []
        while len(new) < (1 if limited else room) and self._next < self.order.length_bytes:
            self._asked[self._next] = min(size, self.order.length_bytes - self._next)
            new.append(self._next)
            self._next += self._asked[self._next]
        if new:
            self.pace.spend(sum(self._asked[start] for start in new))
            self.link.ask(self.order.sha256, self._ranges(new))

    def _ranges(self, starts: list[int]) -> tuple[ByteRange, ...]:
        return tuple(ByteRange(start=start, length=self._asked[start]) for start in starts)

    def _take(self, payload: bytes) -> tuple[Refusal | None, bool]:
        """Keep a chunk that was asked for, write what follows the part now; return a refusal, or if it was of use."""
        self.progress.fetched_bytes += len(payload)
        try:
            chunk, data = read_chunk(payload)
        except MessageError as error:
            _LOG.warning("chunk dropped error=%s", error)
            if self._asked:  # chunks mostly come in order, so it was the oldest
                self.link.ask(self.order.sha256, self._ranges([next(iter(self._asked))]))
            return None, False
        if chunk.sha256 != self.order.sha256:
            return None, False
        if chunk.code:
            return Refusal(chunk.code, chunk.text), False
        if self._asked.get(chunk.start) != len(data):
            return None, False
        del self._asked[chunk.start]
        self._early[chunk.start] = data
        while self.progress.done_bytes in self._early:
            self.append(self._early.pop(self.progress.done_bytes))
        return None, True
