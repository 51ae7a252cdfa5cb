"""Delivers notices: one courier for each route, each in a thread of its own, so that no route waits for another.

Order rules:

1. A notice is sent until its receiver accepts it; there is no end to that. The waits grow from 5 s to 10 minutes.
2. Of one alert, a later notice waits for the earlier one; other alerts of the route do not.
3. It counts as delivered once that is stored. After a crash in between it is sent again, with the same key.
4. A receiver that fails gets one notice at a time, with waits up to a minute, however many wait.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from server.alerts.config import APPRISE, EMAIL, WEBHOOK, AlertRoute, AlertsConfig
from server.alerts.model import Alert, AlertKind, AlertSeverity, NoticeEvent
from server.alerts.notices import document_of
from server.alerts.picture import DrawnEvidence, EvidencePicture
from server.alerts.receivers.chat import Chat
from server.alerts.receivers.email import Mail
from server.alerts.receivers.message import NoticeMessage, Receiver, line_of
from server.alerts.receivers.webhook import Webhook
from server.errors import ServerError
from server.store.database import Database
from server.store.monitoring import alerts as store

_LOG = logging.getLogger(__name__)
FIRST_WAIT_MS, LONGEST_WAIT_MS = 5_000, 600_000
_ROUTE_WAIT_MS, _LONGEST_ROUTE_WAIT_MS = 1_000, 60_000
_RECEIVERS: dict[str, Callable[[AlertRoute], Receiver]] = {WEBHOOK: Webhook, EMAIL: Mail, APPRISE: Chat}


def receiver_of(route: AlertRoute) -> Receiver:
    """Return the receiver of ``route``."""
    return _RECEIVERS[route.to](route)


def couriers(database: Database, config: AlertsConfig, picture: EvidencePicture) -> tuple[Courier, ...]:
    """Return a courier for each route.

    Raises:
        ConfigError: If a route lacks a file or a package, or a secret is readable by others.
    """
    found = []
    for route in config.route:
        receiver = receiver_of(route)
        receiver.check()
        found.append(Courier(database=database, route=route.name, receiver=receiver, picture=picture))
    return tuple(found)


def wait_ms(attempts: int) -> int:
    """Return how long to wait after the ``attempts``-th failure, in ms."""
    return min(FIRST_WAIT_MS << min(attempts - 1, 20), LONGEST_WAIT_MS)


@dataclass(slots=True, kw_only=True)
class Courier:
    """Delivers what goes by one route. ``turn`` and ``wait`` belong to one thread; anyone may call ``wake``."""

    database: Database
    route: str
    receiver: Receiver
    picture: EvidencePicture
    _awake: threading.Event = field(default_factory=threading.Event)
    _failures: int = 0
    _resting_until_ms: int = 0

    def wake(self) -> None:
        """End the wait: there is something to deliver, or the server stops."""
        self._awake.set()

    def wait(self, seconds: float) -> None:
        """Wait until ``wake`` is called, at most ``seconds``."""
        self._awake.wait(seconds)
        self._awake.clear()

    def turn(self, now_ms: int) -> bool:
        """Try to deliver one notice that is due at ``now_ms`` (UTC ms); return whether it was delivered."""
        if now_ms < self._resting_until_ms <= now_ms + _LONGEST_ROUTE_WAIT_MS:
            return False
        with self.database.begin() as connection:
            row = store.next_notice(connection, self.route, now_ms, LONGEST_WAIT_MS)
        if row is None:
            return False
        error = ""
        try:
            answer = self.receiver.send(self._message(row, now_ms))
        except ServerError as failure:
            error = line_of(str(failure))
        except Exception as failure:  # noqa: BLE001 - a foreign package may raise anything, and the notice is kept all the same
            error = line_of(f"{type(failure).__name__}: {failure}")
            _LOG.exception("A receiver failed in an unforeseen way. route=%s", self.route)
        if error:
            self._failed(row, error, now_ms)
            return False
        with self.database.begin() as connection:
            changes = {"delivered_ms": now_ms, "answer": answer, "error": "", "attempts": row["attempts"] + 1}
            store.update_notice(connection, row["id"], changes)
        if self._failures:
            _LOG.warning("A receiver of alerts accepts again. route=%s", self.route)
        self._failures = self._resting_until_ms = 0
        return True

    def _message(self, row: sa.RowMapping, now_ms: int) -> NoticeMessage:
        body: str = row["body"]
        verdict = json.loads(body)["alert"]["verdict"]
        drawn = self._drawn(verdict) if row["event"] != NoticeEvent.RESOLVED else None
        return NoticeMessage(
            key=row["key"], alert=row["alert"], event=row["event"], body=body.encode(), sent_s=now_ms // 1000,
            picture=drawn,
        )  # fmt: skip

    def _drawn(self, verdict: int) -> DrawnEvidence | None:
        try:
            return self.picture.of(verdict)
        except Exception:  # noqa: BLE001 - a notice without its picture is better than none
            _LOG.exception("The evidence of a verdict can't be drawn. verdict=%d", verdict)
            return None

    def _failed(self, row: sa.RowMapping, error: str, now_ms: int) -> None:
        attempts = row["attempts"] + 1
        self._failures += 1
        self._resting_until_ms = now_ms + min(_ROUTE_WAIT_MS << min(self._failures - 1, 20), _LONGEST_ROUTE_WAIT_MS)
        if self._failures == 1:
            _LOG.error("A receiver of alerts fails; it is tried again. route=%s error=%s", self.route, error)
        changes = {
            "attempts": attempts, "next_ms": now_ms + wait_ms(attempts), "failed_ms": row["failed_ms"] or now_ms,
            "error": error,
        }  # fmt: skip
        with self.database.begin() as connection:
            store.update_notice(connection, row["id"], changes)


def trial(route: AlertRoute, now_ms: int, base_url: str) -> str:
    """Send a trial notice by ``route`` and return what the receiver answered.

    Raises:
        DeliveryError: If it did not accept it.
        ConfigError: If the route lacks a file or a package.
    """
    alert = Alert(
        key="test", subject="test", kind=AlertKind.SERVER, severity=AlertSeverity(route.severity),
        title=f"A trial of the route {route.name}", cause="a person asked for it: nothing is wrong",
        action="nothing", opened_ms=now_ms, seen_ms=now_ms,
    )  # fmt: skip
    body = document_of(alert, NoticeEvent.TEST, now_ms, "A trial", base_url).encode()
    receiver = receiver_of(route)
    receiver.check()
    message = NoticeMessage(key=secrets.token_hex(16), alert=0, event="test", body=body, sent_s=now_ms // 1000)
    return receiver.send(message)
