"""Mutes devices: for a while they raise no alert and no concern of their own.

A mute is about telling people, not about measuring: a muted device is judged for drift, belongs to its pools and
counts in rollouts as before. The overall status names who is muted and until when. A mute with an end is over at that
moment; ``turn`` then takes it off the device. Decides nothing about alerts (``server.alerts.causes``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from server.access.audit_log import record_act
from server.clock import Clock
from server.errors import MuteRefusedError
from server.fleet.fleet import Device, Fleet
from server.ingest.faults import check_printable
from server.people import MAX_WHY, SOMEBODY, By, actor_of
from server.registry.events import event_row
from server.store import fleet as store
from server.store.events import insert_events
from wire.codec import Json
from wire.messages import Severity

_CHECK_EVERY_MS = 15_000
_LAST_MS = 253_402_300_799_000  # the end of the year 9999
NOT_MUTED: Mapping[str, object] = {"muted_ms": 0, "muted_until_ms": 0, "muted_why": "", "muted_by": ""}


@dataclass(slots=True, kw_only=True)
class DeviceMutes:
    """Mutes of the devices of one fleet. ``turn`` is for one thread, the rest for any."""

    fleet: Fleet
    clock: Clock
    _checked_ms: int = field(default=-_CHECK_EVERY_MS)

    def mute(self, device: str, until_ms: int = 0, why: str = "", *, by: By = SOMEBODY) -> Device:
        """Mute ``device`` until ``until_ms`` (UTC ms; 0: until it is unmuted), as ``by`` decided; return it.

        A device that is muted gets the new end and reason.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it left the fleet.
            MuteRefusedError: If the end is no moment to come, or the reason is too long or not printable.
        """
        check_printable(why, "a reason", MAX_WHY, MuteRefusedError)
        known, now_ms = self.fleet.active_device(device), self.clock()
        if until_ms and not now_ms < until_ms <= _LAST_MS:
            said = f"{until_ms} (now is {now_ms}, UTC ms)"
            raise MuteRefusedError(f"Expected the end of a mute to lie ahead, or 0 for until it is unmuted, got {said}")
        who = actor_of(by).name
        row = {"muted_ms": now_ms, "muted_until_ms": until_ms, "muted_why": why, "muted_by": who}
        text = f"{device} was muted by {who} {until_text(until_ms)}" + (f": {why}" if why else "")
        self._note(known, "muted", text, row, {"until_ms": until_ms, "why": why}, by)
        return self.fleet.device(device)

    def unmute(self, device: str, *, by: By = SOMEBODY) -> Device:
        """Let ``device`` raise alerts and concerns again, as ``by`` decided; return it.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it left the fleet.
        """
        known = self.fleet.active_device(device)
        if known.muted_ms:
            self._note(known, "unmuted", f"{device} was unmuted by {actor_of(by).name}", NOT_MUTED, {}, by)
        return self.fleet.device(device)

    def turn(self, now_ms: int) -> None:
        """Take the mutes off whose time is over, every 15 s, with an event each."""
        if 0 <= now_ms - self._checked_ms < _CHECK_EVERY_MS:
            return
        self._checked_ms = now_ms
        over = [one for one in self.fleet.devices() if one.muted_ms and not one.is_muted(now_ms)]
        for device in over:
            text = f"The mute of {device.device} by {device.muted_by} is over"
            event = event_row(now_ms, "device", "mute_over", Severity.INFO, text, device=device.device)
            with self.fleet.database.begin() as connection:
                # a person may have muted it again meanwhile
                if store.end_mute(connection, device.device, device.muted_until_ms, NOT_MUTED):
                    insert_events(connection, [event])

    def _note(
        self, known: Device, code: str, text: str, row: Mapping[str, object], data: Mapping[str, Json], by: By
    ) -> None:
        now_ms, told = self.clock(), {**data, "by": actor_of(by).name}
        event = event_row(now_ms, "device", code, Severity.INFO, text, device=known.device, data=told)
        with self.fleet.database.begin() as connection:
            store.update_device(connection, known.device, row)
            insert_events(connection, [event])
            record_act(connection, by, f"device.{_ACTS[code]}", known.device, now_ms, data=data)


_ACTS = {"muted": "mute", "unmuted": "unmute"}


def until_text(until_ms: int) -> str:
    """Return until when a mute holds, in words; 0: until it is unmuted."""
    if not until_ms:
        return "until it is unmuted"
    return f"until {datetime.fromtimestamp(until_ms / 1000, UTC).strftime('%Y-%m-%d %H:%M UTC')}"


def muted_names(devices: Iterable[Device], now_ms: int) -> frozenset[str]:
    """Return the ids of those of ``devices`` that are muted at ``now_ms``."""
    return frozenset(device.device for device in devices if device.is_muted(now_ms))
