"""Ends devices: revoked (credentials are refused), retired (gone for good) or removed (forgotten, too).

A revoked device may be the same when it comes back, so its assignment stays. One that was retired or removed has no
assignment, and what comes back under its id begins anew: it may be other hardware. A retired one keeps its tags and its
name, as a record.

Each is one change in the database: the device leaves the fleet, its password is deleted, and its unused claims become
void. Its events, evidence and lineage stay. HTTP reads the database for each request. ``enforce`` applies the change
to the broker, whether this process or a command beside it made the change: mosquitto disconnects users that are no
longer in its password file when it reloads the file. Last, the retained messages of the device are cleared, more than
once, because its will may arrive after its session was closed.

A removed device that enrols again with a new claim has no release assigned: it may be other hardware.

Source: mosquitto 2.0, security_default.c: at SIGHUP, clients that are no longer authorised are disconnected (measured:
0.1 s).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from server.access.audit_log import record_act
from server.clock import Clock
from server.errors import DeviceEndedError
from server.fleet.fleet import Device, Fleet, Outbox, reported_gen
from server.fleet.mutes import NOT_MUTED
from server.ingest.faults import said_text
from server.people import MAX_WHY, SOMEBODY, By, actor_of
from server.registry.events import event_row
from server.store import fleet as store
from server.store.certificates import revoke_certificates, revoked_certificates
from server.store.events import insert_events
from wire.messages import Severity
from wire.topics import Kind, Topic

_LOG = logging.getLogger(__name__)
REVOKED, RETIRED, REMOVED = "revoked", "retired", "removed"
FOR_GOOD = frozenset({RETIRED, REMOVED})
_ACTS = {REVOKED: "revoke", RETIRED: "retire", REMOVED: "remove"}
_RETAINED = (Kind.STATE, Kind.REPORTED, Kind.DESIRED)
_CLEAR_AFTER_MS = (0, 2_000, 10_000)
_CLEARED_A_TURN = 200
_CUT_WITHIN_MS = 600_000
"""Sessions of devices revoked before that were not admitted by the broker, which starts with the server."""


@dataclass(eq=False, slots=True, kw_only=True)
class Revocations:
    """Ends devices and disconnects them from the broker. ``enforce`` is for one thread, the rest for any."""

    fleet: Fleet
    outbox: Outbox
    clock: Clock
    _ended: dict[str, int] = field(default_factory=dict)
    _revoked: frozenset[str] = frozenset()
    _to_clear: list[tuple[int, str]] = field(default_factory=list)

    def revoke(self, device: str, why: str = "", *, by: By = SOMEBODY) -> Device:
        """Refuse the credentials of ``device`` from now on, as ``by`` decided; it stays listed as revoked.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was retired or removed.
        """
        known = self.fleet.device(device)
        if known.ended in FOR_GOOD:
            message = f"Expected a device of the fleet, got {device!r}, which was {known.ended}: it is refused already"
            raise DeviceEndedError(message)
        return known if known.ended == REVOKED else self._end(known, REVOKED, {}, why=why, by=by)

    def retire(self, device: str, why: str = "", *, by: By = SOMEBODY) -> Device:
        """Let ``device`` leave the fleet for good, as ``by`` decided; its tags, its name and its history stay.

        Its credentials are refused and its assignment is deleted. Its last report stays too: an open rollout judges it
        in its next turn, and leaves it out if it had not failed.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was removed.
        """
        known = self.fleet.device(device)
        if known.ended == REMOVED:
            message = f"Expected a device that was not removed, got {device!r}: it is gone already"
            raise DeviceEndedError(message)
        return known if known.ended == RETIRED else self._end(known, RETIRED, {"desired": None}, why=why, by=by)

    def remove(self, device: str, why: str = "", *, by: By = SOMEBODY) -> Device:
        """Refuse the credentials of ``device``, delete its assignment, tags and name, as ``by`` decided.

        Its history stays.

        Its last report stays too: an open rollout judges it in its next turn.

        Raises:
            UnknownDeviceError: If there is none of that id.
        """
        known = self.fleet.device(device)
        if known.ended == REMOVED:
            return known
        return self._end(known, REMOVED, {"desired": None, "tags": "", "title": ""}, why=why, by=by)

    def _end(self, known: Device, ended: str, changes: dict[str, object], *, why: str, by: By) -> Device:
        now_ms, why = self.clock(), said_text(why, "a reason", MAX_WHY)
        gone = {"ended": ended, "ended_ms": now_ms, "ended_why": why, "password_hash": "", **NOT_MUTED, **changes}
        # the generation is kept, so that a device that comes back accepts its next assignment
        gone["desired_gen"] = max(known.desired_gen, reported_gen(known))
        text = f"{known.device} was {ended} by {by}" + (f": {why}" if why else "")
        data = {"release": known.release, "site": known.site, "by": actor_of(by).name}
        event = event_row(now_ms, "device", ended, Severity.WARNING, text, device=known.device, data=data)
        with self.fleet.database.begin() as connection:
            store.update_device(connection, known.device, gone)
            store.void_claims(connection, known.device, now_ms)
            revoke_certificates(connection, known.device, now_ms)
            insert_events(connection, [event])
            record_act(connection, by, f"device.{_ACTS[ended]}", known.device, now_ms, data={"why": why})
        _LOG.warning("A device was %s. device=%s", ended, known.device)
        return self.fleet.device(known.device)

    def enforce(self, now_ms: int, admit_only_the_fleet: Callable[[Collection[str]], None]) -> None:
        """Apply changes in the database to the broker: to its users first, then to its retained messages.

        Args:
            now_ms: the time.
            admit_only_the_fleet: writes the broker's users and revoked certificates anew and makes it reload them, then
                ends the sessions of the given devices, whose certificates were revoked.
        """
        with self.fleet.database.begin() as connection:
            ended = store.ended_since(connection)
            revoked = {row["serial"]: row for row in revoked_certificates(connection)}
        if ended != self._ended or revoked.keys() != self._revoked:
            news = [row for serial, row in revoked.items() if serial not in self._revoked]
            admit_only_the_fleet({row["device"] for row in news if row["revoked_ms"] > now_ms - _CUT_WITHIN_MS})
            self._revoked = frozenset(revoked)
            fresh = [device for device, at_ms in ended.items() if self._ended.get(device) != at_ms]
            self._to_clear += [(now_ms + after_ms, device) for after_ms in _CLEAR_AFTER_MS for device in fresh]
            self._ended = ended
        due = [item for item in self._to_clear if item[0] <= now_ms][:_CLEARED_A_TURN]
        done = {item for item in due if item[1] not in ended or self._clear(item[1])}
        if done:
            self._to_clear = [item for item in self._to_clear if item not in done]

    def _clear(self, device: str) -> bool:
        site = self.fleet.device(device).site
        return all(self.outbox.clear(Topic(site=site, device=device, kind=kind)) for kind in _RETAINED)
