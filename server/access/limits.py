"""Limits of failed logins, by address and by account, without a way to lock a person out for good.

Three counts, each of the failures within a window: of an address; of an account, from browsers that never logged in
to it; and of an account, from a browser that did. Such a browser shows it by a cookie that only the server can make.
Somebody who guesses at an account, from however many addresses, fills the second count alone: the person goes on
logging in from a browser that is known, and anybody does once the window is over and nobody guesses any more.

A login that is refused by a limit is not tried and not counted, so a limit never grows by itself.

Source: OWASP, "Slow Down Online Guessing Attacks with Device Cookies".
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from dataclasses import dataclass, field

from server.clock import Clock

_ADDRESS, _ACCOUNT, _KNOWN = "address", "account", "known"
_WINDOWS_MS = {_ADDRESS: 60_000, _ACCOUNT: 15 * 60_000, _KNOWN: 15 * 60_000}
_MOST = {_ADDRESS: 10, _ACCOUNT: 20, _KNOWN: 20}  # a person who mistypes never reaches them
_MAX_KEYS = 4_096


@dataclass(slots=True, kw_only=True)
class LoginLimits:
    """The failures of this process. Safe to share between threads."""

    clock: Clock
    _failures_ms: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_s(self, address: str, account: str, *, known: bool) -> int:
        """Return for how many seconds a login must wait, 0 if it may be tried.

        ``known``: the browser has logged in to ``account`` before.
        """
        now_ms, longest = self.clock(), 0
        with self._lock:
            for key in _keys(address, account, known=known):
                recent = self._recent(key, now_ms)
                if len(recent) >= _MOST[key[0]]:
                    longest = max(longest, recent[-_MOST[key[0]]] + _WINDOWS_MS[key[0]] - now_ms)
        return -(-longest // 1_000)

    def note_failure(self, address: str, account: str, *, known: bool) -> None:
        """Count a failure; the memory is bounded, the key that failed longest ago goes first."""
        now_ms = self.clock()
        with self._lock:
            for key in _keys(address, account, known=known):
                recent = [*self._recent(key, now_ms), now_ms]
                self._failures_ms.pop(key, None)
                self._failures_ms[key] = recent
            while len(self._failures_ms) > _MAX_KEYS:
                del self._failures_ms[next(iter(self._failures_ms))]

    def _recent(self, key: tuple[str, str], now_ms: int) -> list[int]:
        return [at_ms for at_ms in self._failures_ms.get(key, ()) if now_ms - at_ms < _WINDOWS_MS[key[0]]]


def _keys(address: str, account: str, *, known: bool) -> tuple[tuple[str, str], ...]:
    return (_ADDRESS, address), (_KNOWN if known else _ACCOUNT, account[:63])


def browser_proof(account: str, password_hash: str) -> str:
    """Return what shows that a browser has logged in to ``account``; another password makes it worthless."""
    key = hashlib.sha256(b"tinyfleet browser\0" + password_hash.encode()).digest()
    return hmac.new(key, account.encode(), "sha256").hexdigest()


def is_known_browser(account: str, password_hash: str, shown: str) -> bool:
    """Return whether ``shown`` is the proof of a browser that has logged in to ``account``."""
    return bool(password_hash) and hmac.compare_digest(browser_proof(account, password_hash).encode(), shown.encode())
