"""Logs people in on the pages: by name and password, or as ``operator`` with the token of the state directory.

An unknown name, a disabled user and a wrong password get the same answer after the same time.
"""

from __future__ import annotations

import hmac
import threading
from collections import deque
from dataclasses import dataclass, field

from server.access.audit_log import AuditLog
from server.access.limits import LoginLimits, browser_proof, is_known_browser
from server.access.sessions import PAGE, SessionStore
from server.access.users import Users
from server.clock import Clock
from server.people import Actor, ActorKind

OPERATOR = "operator"
_MINUTE_MS = 60_000
_REFUSALS_A_MINUTE = 60
"""So many failed logins are recorded a minute: anybody can cause them, and the log of acts is kept for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOutcome:
    """What came of a login. ``cookie``: of the session, "" if there is none. ``wait_s``: until the next try, or 0.

    ``proof``: for the browser to keep, which shows later that it has logged in to this account.
    """

    cookie: str = ""
    wait_s: int = 0
    proof: str = ""


@dataclass(slots=True, kw_only=True)
class Logins:
    """Logging in and out of one server. Safe to share between threads."""

    users: Users
    sessions: SessionStore
    limits: LoginLimits
    log: AuditLog
    operator_token: str
    clock: Clock
    _refused_ms: deque[int] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def log_in(self, name: str, password: str, *, address: str, proof: str = "") -> LoginOutcome:
        """Return the session that name and password open.

        Args:
            name: of a user, or ``operator``, whose password is the token.
            password: as it was typed.
            address: of the browser.
            proof: what the browser kept of its last login, "" for nothing.

        Raises:
            PasswordsUnavailableError: If argon2-cffi is not installed.
        """
        name = name.strip().lower()
        stored = self.operator_token if name == OPERATOR else self.users.password_hash(name)
        known = is_known_browser(name, stored, proof)
        wait_s = self.limits.wait_s(address, name, known=known)
        if wait_s:
            return LoginOutcome(wait_s=wait_s)
        if not self._proves(name, password):
            self.limits.note_failure(address, name, known=known)
            self._note_refusal(name, address)
            return LoginOutcome()
        kind = ActorKind.TOKEN if name == OPERATOR else ActorKind.USER
        cookie = self.sessions.open(name, kind, address)
        self.log.add(Actor(account=name, kind=kind, through=PAGE, address=address), "login", name, self.clock())
        return LoginOutcome(cookie=cookie, proof=browser_proof(name, stored))

    def log_out(self, cookie: str) -> None:
        """End the session of ``cookie``."""
        principal = self.sessions.principal(cookie)
        self.sessions.close(cookie)
        if principal is not None:
            self.log.add(principal.actor, "logout", principal.actor.account, self.clock())

    def log_out_everywhere(self, cookie: str) -> None:
        """End every session of the account that ``cookie`` belongs to, in all browsers."""
        principal = self.sessions.principal(cookie)
        if principal is None:
            return
        account = principal.actor.account
        if principal.actor.kind is ActorKind.USER:
            self.users.end_sessions(account, by=principal.actor)
        else:
            self.log.add(principal.actor, "user.log_out_everywhere", account, self.clock())
        self.sessions.close_all(account)

    def _proves(self, name: str, password: str) -> bool:
        if name == OPERATOR:
            given = password.strip().encode(errors="replace")
            return hmac.compare_digest(given, self.operator_token.encode())
        return self.users.log_in(name, password) is not None

    def _note_refusal(self, name: str, address: str) -> None:
        now_ms = self.clock()
        with self._lock:
            while self._refused_ms and now_ms - self._refused_ms[0] >= _MINUTE_MS:
                self._refused_ms.popleft()
            if len(self._refused_ms) >= _REFUSALS_A_MINUTE:
                return
            self._refused_ms.append(now_ms)
        stranger = Actor(account="anybody", kind=ActorKind.ANYBODY, through=PAGE, address=address)
        self.log.add(stranger, "login.refuse", name if name.isprintable() else "", now_ms)
