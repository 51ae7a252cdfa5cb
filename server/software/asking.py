"""Asks devices for the lists of software whose digests they report, each list once, whatever the number of devices.

Decides whom it asks, and how often: a device that does not answer, or whose list is not that of its digest, is passed
over for another one, at growing intervals. A list that is not here is never guessed from another.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from server.errors import ServerError
from server.fleet.fleet import Fleet, SentCommand
from server.registry.events import EventLog
from server.store.database import Database
from server.store.software import runs as store
from wire.codec import from_document
from wire.errors import MessageError
from wire.messages import DeviceState, Severity
from wire.software import SOFTWARE_VERB, SoftwareAnswer, unpack_software

_LOG = logging.getLogger(__name__)
EVERY_MS = 10_000
AT_ONCE = 16
"""Lists that are asked for at once: after an update of a whole fleet there are few, of all devices at first many."""
_TTL_S = 60.0
_WAIT_MS, _MAX_WAIT_MS = 60_000, 3_600_000
_CANDIDATES = 50
_CONNECTED = tuple(
    state.value for state in DeviceState if state not in (DeviceState.LOST, DeviceState.DISCONNECTED)
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Ask:
    """``command``: the id of the last, "" when its end was seen; ``tries``: how many were sent."""

    command: str = ""
    device: str = ""
    tries: int = 0
    next_ms: int = 0


@dataclass(slots=True, kw_only=True)
class SoftwareAsking:
    """The service; ``turn`` by one thread of the one server that decides."""

    database: Database
    fleet: Fleet
    events: EventLog
    _asks: dict[str, _Ask] = field(default_factory=dict)
    _next_ms: int = 0

    def turn(self, now_ms: int) -> None:
        """Store what was answered; every ten seconds, ask for what is missing."""
        for digest, ask in list(self._asks.items()):
            if ask.command:
                self._see(digest, ask, now_ms)
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + EVERY_MS
        with self.database.begin() as connection:
            missing = store.missing_lists(connection, AT_ONCE * 4)
        self._asks = {digest: ask for digest, ask in self._asks.items() if digest in missing}
        under_way = sum(bool(ask.command) for ask in self._asks.values())
        for digest in missing:
            ask = self._asks.setdefault(digest, _Ask())
            if not ask.command and now_ms >= ask.next_ms and under_way < AT_ONCE:
                under_way += self._send(digest, ask, now_ms)

    def _send(self, digest: str, ask: _Ask, now_ms: int) -> bool:
        with self.database.begin() as connection:
            there = store.connected_runners(connection, digest, _CONNECTED, _CANDIDATES)
        if not there:
            ask.next_ms = now_ms + _WAIT_MS
            return False
        ask.device = there[ask.tries % len(there)]
        ask.next_ms = now_ms + min(_WAIT_MS * 2 ** min(ask.tries, 10), _MAX_WAIT_MS)
        ask.tries += 1
        try:
            ask.command = self.fleet.send_command(ask.device, SOFTWARE_VERB, {"sha256": digest}, _TTL_S)
        except ServerError as error:  # revoked a moment ago
            _LOG.info("A device was not asked for its software. device=%s error=%s", ask.device, error)
        return bool(ask.command)

    def _see(self, digest: str, ask: _Ask, now_ms: int) -> None:
        """Take the answer to ``ask``, if there is one; give it up if there is none in time."""
        answer = self.fleet.command(ask.command)
        if not answer.answered_ms and now_ms <= answer.expires_ms:
            return
        ask.command = ""
        if answer.answered_ms and answer.ok:
            self._take(digest, answer, now_ms)
        elif answer.answered_ms:
            _LOG.info("A device did not send its software. device=%s code=%s", ask.device, answer.code)

    def _take(self, digest: str, answer: SentCommand, now_ms: int) -> None:
        try:
            software, packed = unpack_software(from_document(SoftwareAnswer, answer.data), digest)
        except MessageError as error:
            text = f"{error}: the list is refused; another device that runs it is asked"
            self.events.add(now_ms, "ingest", "software_invalid", Severity.WARNING, text, device=answer.device)
            return
        values = {"packed": packed, "left_out": software.left_out, "stored_ms": now_ms}
        rows = [
            {"kind": one.kind.value, "key": one.key, "name": one.name, "version": one.version, "sha256": one.sha256}
            for one in software.components
        ]
        with self.database.begin() as connection:
            store.store_list(connection, digest, values, rows)
        self._asks.pop(digest, None)
