"""Delivers answers to one sink from a thread of its own, through a bounded queue: a slow sink never stops inference.

Decides when an answer is dropped: the oldest, when the queue is full. A sink that fails gets the same answers again
after a pause, so a receiver may see some twice. Answers are settled in their order; those that wait when the process
ends stay unsettled.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from edge_agent.errors import SinkError
from edge_agent.sinks import Sink
from edge_agent.sinks._accounts import Account
from edge_agent.sinks._filters import AnswerFilter, SinkSettings
from wire.answers import AnswerRecord

_LOG = logging.getLogger(__name__)
BATCH = 256
_RETRY_MIN_S, _RETRY_MAX_S = 0.5, 30.0


class Delivery:
    """The queue and thread of one sink. ``offer`` is called by one thread, and never waits."""

    def __init__(
        self, name: str, sink: Sink, settings: SinkSettings, account: Account, tell: Callable[[str, str], None]
    ) -> None:
        """Start the thread; ``tell`` reports a code and a text, and may be called from it."""
        self.name, self.account = name, account
        self._sink, self._tell, self._limit = sink, tell, settings.queue
        self._filter = AnswerFilter(settings)
        self._queue: deque[tuple[int, AnswerRecord]] = deque()
        self._sending: int | None = None  # number of the first answer that the sink has now
        self._offered = 0
        self._wake = threading.Condition()
        self._idle = self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        self._thread.start()

    def join_at(self, number: int) -> None:
        """Count the first answer that is offered as the one after ``number``."""
        self._offered = number

    def offer(self, record: AnswerRecord, now_s: float) -> None:
        """Queue ``record`` if it passes the filter; the oldest waiting one is dropped if the queue is full."""
        self._offered += 1
        self.account.add("offered")
        passed = self._filter.passed(record, now_s)
        if passed is None:
            self.account.add("filtered")
            return
        with self._wake:
            if len(self._queue) >= self._limit:
                self._queue.popleft()
                self._drop(1)
            self._queue.append((self._offered, passed))
            if self._idle:
                self._wake.notify()

    @property
    def settled(self) -> int:
        """All answers offered up to this number are sent, filtered or dropped."""
        with self._wake:
            if self._sending is not None:
                return self._sending - 1
            return self._queue[0][0] - 1 if self._queue else self._offered

    def close(self, wait_s: float) -> None:
        """Let the sink take what waits, for at most ``wait_s``; the rest stays unsettled, to be counted as cut off."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(wait_s)

    def _drop(self, number: int) -> None:
        """Count dropped answers; the lock is held."""
        self.account.add("dropped", number)

    def _run(self) -> None:
        pause_s, raised = 0.0, False
        while (batch := self._next(pause_s)) is not None:
            try:
                delivered = self._sink.send([record for _, record in batch])
                if not isinstance(delivered, int) or not 0 <= delivered <= len(batch):
                    message = f"Expected send to return 0 to {len(batch)}, got {delivered!r}: correct the sink"
                    raise SinkError(message)  # noqa: TRY301 - handled as any failure of a sink
            except (SinkError, OSError) as error:
                if not pause_s:
                    self._tell("sink_failed", f"{self.name}: {error}: the answers wait, and the oldest are dropped")
                delivered = error.delivered if isinstance(error, SinkError) else 0
                pause_s = _RETRY_MIN_S if delivered else min(_RETRY_MAX_S, pause_s * 2 or _RETRY_MIN_S)
                self._give_back(batch, delivered)
                continue
            except (Exception, SystemExit) as error:  # noqa: BLE001 - outermost frame; the same answer would raise again
                if not raised:  # a sink that raises each time must not fill log and spool
                    _LOG.exception("sink raised sink=%s", self.name)
                    text = f"{self.name}: {type(error).__name__}: {error}: the answers are dropped while it raises"
                    self._tell("sink_failed", text)
                delivered, raised = 0, True
            else:
                if pause_s or raised:
                    _LOG.info("sink works again sink=%s", self.name)
                raised = False
            pause_s = 0.0
            with self._wake:
                self._sending = None
                self.account.add("sent", delivered)
                self._drop(len(batch) - delivered)
        self._sink.close()

    def _next(self, pause_s: float) -> list[tuple[int, AnswerRecord]] | None:
        """Wait for answers, and after a failure for ``pause_s``; return some of them, or None at the end."""
        with self._wake:
            if pause_s:
                self._wake.wait_for(lambda: self._closing, pause_s)
                if self._closing:  # it has had its chance
                    return None
            while not self._queue:
                if self._closing:
                    return None
                self._idle = True
                self._wake.wait()
                self._idle = False
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._sending = batch[0][0]
            return batch

    def _give_back(self, batch: list[tuple[int, AnswerRecord]], delivered: int) -> None:
        """Put all but the first ``delivered`` back to the front; what has no room is dropped, the oldest first."""
        with self._wake:
            self._sending = None
            self.account.add("sent", delivered)
            back = batch[delivered:]
            room = max(0, self._limit - len(self._queue))
            kept = back[-room:] if room else []
            self._drop(len(back) - len(kept))
            self._queue.extendleft(reversed(kept))
