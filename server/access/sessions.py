"""Sessions of the pages, in the memory of this process: after a restart everybody logs in again.

The cookie is a random number of which only a hash is kept. A session ends after a time without anything that its
person does (a page that refreshes itself is nothing), after a longer time in any case, by logging out, and when its
user is disabled, gets another password or logs out everywhere, also by a command beside the server.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

from server.access.roles import Principal, Role
from server.access.users import Users
from server.clock import Clock
from server.people import Actor, ActorKind
from wire.canonical import sha256_hex

_MAX_SESSIONS = 256  # the one that was used longest ago goes first
PAGE = "page"


@dataclass(slots=True, kw_only=True)
class OpenSession:
    """One session: whose, from which address, since when, and when its person last did something (UTC ms).

    ``gen``: the user's ``session_gen`` when it began.
    """

    account: str
    kind: ActorKind
    address: str
    opened_ms: int
    used_ms: int
    gen: int = 0


@dataclass(slots=True, kw_only=True)
class SessionStore:
    """The sessions of this process. Safe to share between threads.

    ``file_role``: the role of the operator's token, which has no user. ``idle_ms`` and ``life_ms``: how long a session
    lasts unused, and at most.
    """

    users: Users
    clock: Clock
    file_role: Role
    idle_ms: int
    life_ms: int
    _open: dict[str, OpenSession] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, account: str, kind: ActorKind, address: str) -> str:
        """Return the cookie of a new session of ``account``, which has just proved itself."""
        cookie, now_ms = secrets.token_urlsafe(32), self.clock()
        user = self.users.find(account) if kind is ActorKind.USER else None
        session = OpenSession(
            account=account, kind=kind, address=address, opened_ms=now_ms, used_ms=now_ms,
            gen=user.session_gen if user else 0,
        )  # fmt: skip
        with self._lock:
            self._open[_key(cookie)] = session
            while len(self._open) > _MAX_SESSIONS:
                del self._open[min(self._open, key=lambda one: self._open[one].used_ms)]
        return cookie

    def principal(self, cookie: str, *, acting: bool = False) -> Principal | None:
        """Return whose session ``cookie`` is, with the role of now; None once it has ended.

        ``acting``: its person does something, so that the time without use begins anew.
        """
        now_ms = self.clock()
        with self._lock:
            session = self._open.get(_key(cookie)) if cookie else None
        if session is None:
            return None
        role = self._role(session, now_ms)
        if role is None:
            self.close(cookie)
            return None
        if acting:
            session.used_ms = now_ms
        actor = Actor(account=session.account, kind=session.kind, through=PAGE, address=session.address)
        return Principal(actor=actor, role=role)

    def _role(self, session: OpenSession, now_ms: int) -> Role | None:
        if now_ms - session.used_ms >= self.idle_ms or now_ms - session.opened_ms >= self.life_ms:
            return None
        if session.kind is not ActorKind.USER:
            return self.file_role
        user = self.users.find(session.account)
        if user is None or user.disabled_ms or session.gen != user.session_gen:
            return None
        return user.role

    def close(self, cookie: str) -> None:
        """End the session of ``cookie``."""
        with self._lock:
            self._open.pop(_key(cookie), None)

    def close_all(self, account: str) -> None:
        """End every session of ``account`` in this process."""
        with self._lock:
            for key in [key for key, session in self._open.items() if session.account == account]:
                del self._open[key]


def _key(cookie: str) -> str:
    return sha256_hex(cookie.encode())
