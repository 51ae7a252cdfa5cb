"""Verifies the log of acts a part at a time, for a page: what was verified is remembered, and begun anew each hour.

A whole verification (``AuditLog.verify``, ``fleet-server audit verify``) reads every record; a page must not wait for
that. Each call checks at most ``STEP`` more records, so a log of any length is verified over several calls, and later
calls read only what is new. A record changed after it was checked is found when the verification begins anew. A log
that was found broken stays so until somebody begins anew: it does not heal.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from server.access.audit_log import AuditLog, ChainFinding
from server.clock import Clock

STEP = 2_000
"""Records a call: about a tenth of a second."""
ANEW_MS = 3_600_000
NOTED_MS = 60_000
"""So often the time is noted while nothing is new: a page is drawn anew when it changes."""
_EMPTY = ChainFinding(count=0, head_sha256="")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainState:
    """How far the chain is verified. ``over``: up to its end; otherwise the next call goes on.

    ``at_ms``: when the last record was checked; ``begun_ms``: when the first one was (UTC ms).
    """

    finding: ChainFinding
    over: bool
    at_ms: int
    begun_ms: int


@dataclass(slots=True, kw_only=True)
class ChainWatch:
    """The verification of one log in this process. Safe to share between threads: one checks, others get its state."""

    log: AuditLog
    clock: Clock
    _state: ChainState = field(default=ChainState(finding=_EMPTY, over=False, at_ms=0, begun_ms=0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self) -> ChainState:
        """Check up to ``STEP`` more records, and return how far the chain is verified."""
        if not self._lock.acquire(blocking=False):
            return self._state
        try:
            now_ms, known = self.clock(), self._state
            if known.finding.broken_seq:
                return known
            anew = not known.begun_ms or (known.over and now_ms - known.begun_ms >= ANEW_MS)
            begun_ms = now_ms if anew else known.begun_ms
            place = (0, "") if anew else (known.finding.count, known.finding.head_sha256)
            finding, over = self.log.verify_on(place, STEP)
            if anew or (finding, over) != (known.finding, known.over) or now_ms - known.at_ms >= NOTED_MS:
                self._state = ChainState(finding=finding, over=over, at_ms=now_ms, begun_ms=begun_ms)
            return self._state
        finally:
            self._lock.release()

    def again(self) -> None:
        """Begin anew with the next call."""
        with self._lock:
            self._state = ChainState(finding=_EMPTY, over=False, at_ms=0, begun_ms=0)
