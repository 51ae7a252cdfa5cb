"""Commissioning again: a person says that the world before a device is another, and its baseline begins anew.

After a repair, a moved camera or another lens a device's baseline is that of the world before, and what is compared
with it says nothing. From the first whole window after the moment on everything is as at an installation. The windows
before it, also those that come late, belong to the world before.

Decides from when on windows count, and which alarms end: those whose devices were all commissioned again after their
last window. Faults do not end: they are about the device, not about what stands before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.drift.ledger import StoredVerdict, Verdicts
from server.drift.places import end_places
from server.drift.rows import device_attributes
from server.drift.verdicts import VerdictKind
from server.errors import CommissionRefusedError
from server.fleet.fleet import Device, Fleet
from server.ingest.faults import said_text
from server.people import MAX_NAME, MAX_WHY, By, actor_of
from server.registry.events import event_row
from server.store import commissions as store
from server.store.events import insert_events
from server.store.lists import drift as lists
from server.store.lists.paging import Page
from wire.codec import Json
from wire.messages import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Commission:
    """A device's baseline began anew with the window of ``from_ms``, as ``decided_by`` said at ``decided_ms``.

    ``attribute`` and ``value``: if it was said of all devices that have them, else "".
    """

    id: int = 0
    device: str
    from_ms: int
    decided_ms: int
    decided_by: str
    why: str
    attribute: str = ""
    value: str = ""

    @property
    def words(self) -> str:
        """By whom and why."""
        return f"commissioned again by {self.decided_by} ({self.why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commissions:
    """All commissions of one server. Safe to share between threads. ``window_ms``: the length of a window."""

    verdicts: Verdicts
    fleet: Fleet
    window_ms: int

    def all(self) -> tuple[Commission, ...]:
        """Return every commission, the newest first; older ones of a device go with the retention."""
        with self.verdicts.database.begin() as connection:
            return tuple(_commission(row) for row in store.all_commissions(connection))

    def page(self, *, device: str = "", limit: int = 500, cursor: str | None = None) -> Page[Commission]:
        """Return a page of commissions, the newest first; "" for those of any device.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.verdicts.database.begin() as connection:
            return lists.commission_page(connection, device=device, limit=limit, cursor=cursor).of(_commission)

    def of(self, device: str) -> Commission | None:
        """Return the newest commission of ``device``."""
        with self.verdicts.database.begin() as connection:
            rows = store.all_commissions(connection, device)
        return _commission(rows[0]) if rows else None

    def moments(self) -> dict[str, tuple[int, ...]]:
        """Return from when on (UTC ms) windows count, for each commission of each device."""
        found: dict[str, tuple[int, ...]] = {}
        with self.verdicts.database.begin() as connection:
            for device, from_ms in store.moments(connection):
                found[device] = (*found.get(device, ()), from_ms)
        return found

    def begin(self, device: str, why: str, *, now_ms: int, by: By) -> Commission:
        """Let the baseline of ``device`` begin anew with the next window; end its alarms.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
            CommissionRefusedError: If there is no reason or no name.
        """
        return self._begin([self.fleet.active_device(device)], why, by, now_ms)[0]

    def begin_all(
        self, attribute: str, value: str, why: str, *, now_ms: int, by: By
    ) -> tuple[Commission, ...]:  # fmt: skip
        """Let the baselines of all devices with this value of ``attribute`` ("site" too) begin anew.

        Raises:
            CommissionRefusedError: If no device of the fleet has it, or there is no reason or no name.
        """
        return self._begin(self._with(attribute, value), why, by, now_ms, attribute, value)

    def devices_with(self, attribute: str, value: str) -> tuple[str, ...]:
        """Return the devices that ``begin_all`` is about.

        Raises:
            CommissionRefusedError: If no device of the fleet has it.
        """
        return tuple(device.device for device in self._with(attribute, value))

    def _with(self, attribute: str, value: str) -> list[Device]:
        devices = [device for device in self.fleet.devices() if device_attributes(device).get(attribute) == value]
        if not devices:
            message = (
                f"Expected an attribute that devices of the fleet have, got {attribute[:63]}={value[:63]}, which none "
                "has: see the page of a device for what it has"
            )
            raise CommissionRefusedError(message)
        return devices

    def end_alarms(self, now_ms: int) -> None:
        """Close the alarms whose devices were all commissioned again after the alarm's last window."""
        found = [one for one in self.verdicts.open() if one.kind is not VerdictKind.DEVICE_FAULT and one.devices]
        if not found:
            return
        newest: dict[str, Commission] = {}
        for one in self.all():
            newest.setdefault(one.device, one)
        for verdict in found:
            last = _last_of(verdict, newest)
            if last is not None:
                self.verdicts.end(verdict, now_ms, last.words)

    def _begin(
        self, devices: Sequence[Device], why: str, by: By, now_ms: int, attribute: str = "", value: str = ""
    ) -> tuple[Commission, ...]:  # fmt: skip
        name = actor_of(by).name if by else ""
        if not why.strip() or not name.strip():
            got = "no reason" if not why.strip() else "no name"
            message = f"Expected a reason and a name, got {got}: say what was changed, such as 'lens replaced'"
            raise CommissionRefusedError(message)
        from_ms = -(-now_ms // self.window_ms) * self.window_ms
        made = [
            Commission(
                device=device.device, from_ms=from_ms, decided_ms=now_ms, decided_by=name[:MAX_NAME],
                why=said_text(why, "a reason", MAX_WHY), attribute=attribute, value=value,
            )
            for device in devices
        ]  # fmt: skip
        with self.verdicts.database.begin() as connection:
            rows = [{name: of for name, of in asdict(one).items() if name != "id"} for one in made]
            numbers = store.insert_commissions(connection, rows)
            end_places(connection, made[0].decided_by, made[0].why, [one.device for one in made], now_ms)
            insert_events(connection, [_event(one) for one in made])
            subject = f"{attribute}={value}" if attribute else made[0].device
            data: dict[str, Json] = {"why": made[0].why, "devices": [one.device for one in made]}
            record_act(connection, by, "device.commission", subject, now_ms, data=data)
        self.end_alarms(now_ms)
        return tuple(Commission(**{**asdict(one), "id": id_}) for one, id_ in zip(made, numbers, strict=True))


def _last_of(verdict: StoredVerdict, newest: Mapping[str, Commission]) -> Commission | None:
    """Return the last commission of the devices of ``verdict`` if all of them have one after its last window."""
    found = [newest.get(device) for device in verdict.devices]
    known = [one for one in found if one is not None and one.from_ms > verdict.last_window_ms]
    return max(known, key=lambda one: one.id) if len(known) == len(found) else None


def _event(one: Commission) -> dict[str, object]:
    at = datetime.fromtimestamp(one.from_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    with_all = f", with all of {one.attribute} {one.value}" if one.attribute else ""
    text = f"{one.device}: {one.words}{with_all}: its baseline begins anew with the window of {at} UTC"
    data: dict[str, Json] = {"by": one.decided_by, "why": one.why, "from_ms": one.from_ms}
    return event_row(
        one.decided_ms, "commission", "commissioned_again", Severity.INFO, text, device=one.device, data=data
    )


def _commission(row: sa.RowMapping) -> Commission:
    return Commission(**{str(key): value for key, value in row.items()})
