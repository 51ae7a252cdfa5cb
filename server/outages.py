"""Logs recurring failures: at the first, then once a minute, and once more when the outage is over.

A database that another process has locked, or a full disk, fails many times a minute, and each time in the same way.
Expected errors get one line; an unexpected exception is a bug and is logged with its stack.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from server.errors import ServerError
from wire.errors import WireError

_LOG = logging.getLogger(__name__)
_QUIET_S = 60.0
_EXPLAINED = (ServerError, WireError, OSError, sa.exc.OperationalError)


@dataclass(slots=True)
class _Outage:
    """An outage since ``since_s``: the number of failures of each part that has not recovered."""

    since_s: float
    parts: dict[str, int] = field(default_factory=dict)
    well: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Outages:
    """The outages of one server. Safe to share between threads."""

    monotonic: Callable[[], float] = time.monotonic
    _now: _Outage | None = None
    _said_s: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def failed(self, part: str, error: Exception) -> None:
        """Log that ``part`` failed and will retry, unless the same failure was logged within the last minute."""
        now_s, text = self.monotonic(), f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"[:500]
        with self._lock:
            outage = self._now = self._now or _Outage(now_s)
            outage.parts[part] = outage.parts.get(part, 0) + 1
            outage.well.discard(part)
            if now_s - self._said_s.get(text, -_QUIET_S) < _QUIET_S:
                return
            self._said_s = {said: at_s for said, at_s in self._said_s.items() if now_s - at_s < _QUIET_S} | {
                text: now_s
            }
        stack = None if isinstance(error, _EXPLAINED) else error
        _LOG.error("Failed; it is tried again. part=%s error=%s", part, text, exc_info=stack)

    def worked(self, part: str) -> None:
        """Record that ``part`` works; log the end of the outage when every part that had failed works again."""
        outage = self._now
        if outage is None or part not in outage.parts:
            return
        with self._lock:
            outage.well.add(part)
            if self._now is not outage or outage.well != outage.parts.keys():
                return
            self._now, self._said_s = None, {}
        failures = ", ".join(f"{name} {count}" for name, count in sorted(outage.parts.items()))
        _LOG.warning("Works again. lasted_s=%.0f failures=%s", self.monotonic() - outage.since_s, failures)
