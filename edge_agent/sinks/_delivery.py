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
        self.settings = settings
        self._filter = AnswerFilter(settings)
        self._queue: deque[tuple[int, AnswerRecord]] = deque()
        self._sending: int | None = None  # number of the first answer that the sink has now
        self._offered = self._expected = 0
        self._lock = threading.Lock()
        # Wakes the thread: held while there is no news. A Condition costs more, for each answer.
        self._news = threading.Lock()
        self._news.acquire()
        self._idle = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        self._thread.start()

    def join_at(self, number: int) -> None:
        """Count the next answer that is offered as the one after ``number``: those before are not for this sink."""
        self._offered = number

    def expect(self) -> None:
        """Count an answer as offered that follows a little later: the process may be killed in between."""
        self._expected += 1
        self.account.add("offered")

    def offer(self, record: AnswerRecord, now_s: float, *, held: bool = False) -> None:
        """Queue ``record`` if it passes the filter; the oldest waiting one is dropped if the queue is full.

        ``held``: an idle thread sleeps on until ``wake``.
        """
        self._offered += 1
        if self._expected:
            self._expected -= 1
        else:
            self.account.add("offered")
        passed = self._filter.passed(record, now_s)
        if passed is None:
            self.account.add("filtered")
            return
        with self._lock:
            if len(self._queue) >= self._limit:
                self._queue.popleft()
                self._drop(1)
            self._queue.append((self._offered, passed))
        if not held:
            self.wake()

    def wake(self) -> None:
        """Let the thread take what waits, if it is idle."""
        if self._idle and self._queue:
            with self._lock:
                self._wake()

    @property
    def settled(self) -> int:
        """All answers offered up to this number are sent, filtered or dropped."""
        with self._lock:
            if self._sending is not None:
                return self._sending - 1
            return self._queue[0][0] - 1 if self._queue else self._offered

    def close(self, wait_s: float) -> None:
        """Let the sink take what waits, for at most ``wait_s``; the rest stays unsettled, to be counted as cut off."""
        self._ending.set()
        with self._lock:
            self._wake()
        self._thread.join(wait_s)

    def _wake(self) -> None:
        """Wake the thread if it waits for news; the lock is held."""
        if self._idle:
            self._idle = False
            self._news.release()

    def _drop(self, number: int) -> None:
        """Count dropped answers; the lock is held."""
        if number:
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
                    self._tell(SinkError.code, f"{self.name}: {error}: the answers wait, and the oldest are dropped")
                delivered = error.delivered if isinstance(error, SinkError) else 0
                pause_s = _RETRY_MIN_S if delivered else min(_RETRY_MAX_S, pause_s * 2 or _RETRY_MIN_S)
                self._give_back(batch, delivered)
                continue
            except (Exception, SystemExit) as error:  # noqa: BLE001 - outermost frame; the same answer would raise again
                if not raised:  # a sink that raises each time must not fill log and spool
                    _LOG.exception("sink raised sink=%s", self.name)
                    text = f"{self.name}: {type(error).__name__}: {error}: the answers are dropped while it raises"
                    self._tell(SinkError.code, text)
                delivered, raised = 0, True
            else:
                if pause_s or raised:
                    _LOG.info("sink works again sink=%s", self.name)
                raised = False
            pause_s = 0.0
            with self._lock:
                self._sending = None
                self.account.add("sent", delivered)
                self._drop(len(batch) - delivered)
        self._sink.close()

    def _next(self, pause_s: float) -> list[tuple[int, AnswerRecord]] | None:
        """Wait for answers, and after a failure for ``pause_s``; return some of them, or None at the end."""
        if pause_s and self._ending.wait(pause_s):  # it has had its chance
            return None
        while True:
            with self._lock:
                if self._queue:
                    batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                    self._sending = batch[0][0]
                    return batch
                if self._ending.is_set():
                    return None
                self._idle = True
            self._news.acquire()

    def _give_back(self, batch: list[tuple[int, AnswerRecord]], delivered: int) -> None:
        """Put all but the first ``delivered`` back to the front; what has no room is dropped, the oldest first."""
        with self._lock:
            self._sending = None
            self.account.add("sent", delivered)
            back = batch[delivered:]
            room = max(0, self._limit - len(self._queue))
            kept = back[-room:] if room else []
            self._drop(len(back) - len(kept))
            self._queue.extendleft(reversed(kept))
