"""The ledger of new places: devices that look at something training does not know, what is known of them, who decides.

A place is decided once: by a person who accepts it, for every release of the model while the device stays at its site;
or by labels that show no harm, for the release that they judged. An acceptance that was a mistake is taken back; when
its device is commissioned again, what is known of a place is of the world before, and decides nothing any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.drift.ledger import AskedDevice, StoredVerdict, Verdicts
from server.drift.verdicts import VerdictKind
from server.errors import NoNewPlaceError, UnknownDeviceError
from server.ingest.faults import said_text
from server.people import MAX_NAME, MAX_WHY, SOMEBODY, By, actor_of
from server.registry.events import event_row
from server.store import places as store
from server.store.events import insert_events
from server.store.fleet import one_device
from server.store.lists import drift as lists
from server.store.lists.paging import Page
from wire.codec import Json
from wire.messages import Severity


class PlaceState(StrEnum):
    """What is known of a new place."""

    OPEN = "open"  # labels are missing
    HARMFUL = "harmful"  # labels show that the model is worse there
    HARMLESS = "harmless"  # labels show that it is not much worse
    ACCEPTED = "accepted"  # by a person
    WITHDRAWN = "withdrawn"  # a person accepted it by mistake
    COMMISSIONED = "commissioned"  # its device was commissioned again: this is of before


NOT_KNOWN = -1.0
"""The error rate in training of a release that was made without labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlace(AskedDevice):
    """A new place, by the id of its ``verdict``.

    ``source_risk``: the error rate where the release was gated, ``NOT_KNOWN`` if it was made without labels.
    ``decided_by`` and ``why``: who decided it last.
    """

    site: str
    model: str
    state: PlaceState = PlaceState.OPEN
    source_risk: float = 0.0
    decided_by: str = ""
    why: str = ""

    @property
    def words(self) -> str:
        """The state and what labels show."""
        known = {
            PlaceState.HARMFUL: ", harmful", PlaceState.HARMLESS: ", harmless",
            PlaceState.ACCEPTED: f", accepted by {self.decided_by}",
            PlaceState.WITHDRAWN: f", its acceptance was taken back by {self.decided_by}",
            PlaceState.COMMISSIONED: ", before it was commissioned again",
        }.get(self.state, "")  # fmt: skip
        return f"new to training{known}; {self.risk}"

    @property
    def risk(self) -> str:
        """The error rate there in words."""
        if not self.audited:
            return self.text or "no labels yet"
        before = "not known" if self.source_risk == NOT_KNOWN else f"{self.source_risk:.0%}"
        return f"{self.shown}, in training {before}"


@dataclass(frozen=True, slots=True)
class Places:
    """All new places of one server. Safe to share between threads."""

    verdicts: Verdicts

    def all(self) -> tuple[NewPlace, ...]:
        """Return every place, the newest first."""
        with self.verdicts.database.begin() as connection:
            return tuple(_place(row) for row in store.all_places(connection))

    def harmful(self) -> set[int]:
        """Return the verdicts of the places where labels show that the model is worse, by id."""
        with self.verdicts.database.begin() as connection:
            return store.verdicts_of_places(connection, PlaceState.HARMFUL.value)

    def page(
        self, *, device: str = "", site: str = "", state: str = "", limit: int = 500, cursor: str | None = None
    ) -> Page[NewPlace]:  # fmt: skip
        """Return a page of places, the newest first; "" for any.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.verdicts.database.begin() as connection:
            found = lists.place_page(connection, device=device, site=site, state=state, limit=limit, cursor=cursor)
        return found.of(_place)

    def of(self, device: str) -> NewPlace | None:
        """Return the newest place of ``device``."""
        with self.verdicts.database.begin() as connection:
            row = store.newest_place(connection, device)
        return _place(row) if row is not None else None

    def of_verdicts(self, verdicts: Collection[int]) -> dict[int, NewPlace]:
        """Return the place of each of ``verdicts`` that has one."""
        if not verdicts:
            return {}
        with self.verdicts.database.begin() as connection:
            return {row["verdict"]: _place(row) for row in store.places_of(connection, verdicts)}

    def add(self, place: NewPlace) -> None:
        """Add a place."""
        with self.verdicts.database.begin() as connection:
            store.insert_place(connection, asdict(place))

    def note(self, place: NewPlace, now_ms: int) -> None:
        """Store what is known of ``place`` now, unless it was decided meanwhile; record a new state in the events."""
        with self.verdicts.database.begin() as connection:
            known = store.place_of(connection, place.verdict)
            changed = store.update_place(connection, place.verdict, asdict(place), undecided=True)
            if changed and known is not None and known["state"] != place.state:
                insert_events(connection, [_event(place, now_ms, f"{place.device}: {place.state}: {place.risk}")])

    def accept(self, device: str, why: str = "", *, now_ms: int, by: By = SOMEBODY) -> NewPlace:
        """Accept the place of ``device``, as ``by`` decided: its verdict ends with its next window.

        Raises:
            UnknownDeviceError: If there is none of that id.
            NoNewPlaceError: If it has no verdict ``new_place``.
        """
        found = [one for one in self.verdicts.open(VerdictKind.NEW_PLACE) if one.devices == (device,)]
        places = {place.verdict: place for place in self.all()}
        if not found or found[-1].id not in places:
            self._expect_device(device)
            message = f"Expected a device with an open verdict new_place, got {device[:63]!r}, which has none"
            raise NoNewPlaceError(message)
        place = replace(
            places[found[-1].id], state=PlaceState.ACCEPTED, decided_ms=now_ms, decided_by=actor_of(by).name[:MAX_NAME],
            why=said_text(why, "a reason", MAX_WHY),
        )  # fmt: skip
        text = f"{device}: its place was accepted by {place.decided_by}" + (f": {place.why}" if place.why else "")
        with self.verdicts.database.begin() as connection:
            store.update_place(connection, place.verdict, asdict(place), undecided=False)
            insert_events(connection, [_event(place, now_ms, text)])
            record_act(connection, by, "place.accept", device, now_ms, data={"why": place.why})
        return place

    def accepted(self, device: str) -> NewPlace | None:
        """Return the newest place of ``device`` that a person accepted, None if there is none."""
        return next(iter(self.page(device=device, state=PlaceState.ACCEPTED, limit=1).rows), None)

    def withdraw(self, device: str, why: str = "", *, now_ms: int, by: By = SOMEBODY) -> NewPlace:
        """Take back that the place of ``device`` was accepted: it is new again with its next window.

        All acceptances for its model and site are taken back. One whose verdict is still open waits for labels again.

        Raises:
            UnknownDeviceError: If there is none of that id.
            NoNewPlaceError: If nobody accepted its place.
        """
        newest, alarms = self.accepted(device), {one.id for one in self.verdicts.open()}
        if newest is None:
            self._expect_device(device)
            message = f"Expected a device whose place a person accepted, got {device[:63]!r}: see the list of places"
            raise NoNewPlaceError(message)
        who, why = actor_of(by).name[:MAX_NAME], said_text(why, "a reason", MAX_WHY)
        alike = [
            one for one in self.all()
            if (one.device, one.site, one.model, one.state) == (device, newest.site, newest.model, newest.state)
        ]  # fmt: skip
        found = [
            replace(one, state=PlaceState.OPEN, decided_ms=0, decided_by="", why="") if one.verdict in alarms
            else replace(one, state=PlaceState.WITHDRAWN, decided_ms=now_ms, decided_by=who, why=why)
            for one in alike
        ]  # fmt: skip
        text = f"{device}: the acceptance of its place was taken back by {who}" + (f": {why}" if why else "")
        with self.verdicts.database.begin() as connection:
            for place in found:
                store.update_place(connection, place.verdict, asdict(place), undecided=False)
            event = _event(replace(found[0], state=PlaceState.WITHDRAWN, decided_by=who), now_ms, text)
            insert_events(connection, [event])
            record_act(connection, by, "place.withdraw", device, now_ms, data={"why": why})
        return found[0]

    def _expect_device(self, device: str) -> None:
        missing = UnknownDeviceError(f"Expected a registered device, got {device[:63]!r}: see fleet-server devices")
        self.verdicts.database.row(lambda connection: one_device(connection, device), missing)


def end_places(connection: sa.Connection, by: str, why: str, devices: Sequence[str], now_ms: int) -> None:
    """Mark all that is known of the places of ``devices`` as of before: ``by`` commissioned them again."""
    fresh = {"state": PlaceState.COMMISSIONED.value, "decided_ms": now_ms, "decided_by": by, "why": why}
    store.update_places_of(connection, devices, fresh)


def place_of_verdict(verdict: StoredVerdict, site: str) -> NewPlace:
    """Return the place of a verdict ``new_place`` on a device at ``site``, nothing known of it yet."""
    return NewPlace(
        verdict=verdict.id, device=verdict.devices[0], site=site, model=verdict.model, release=verdict.release
    )


def _event(place: NewPlace, now_ms: int, text: str) -> dict[str, object]:
    severity = Severity.WARNING if place.state is PlaceState.HARMFUL else Severity.INFO
    data: dict[str, Json] = {"verdict": place.verdict, "site": place.site, "by": place.decided_by}
    return event_row(now_ms, "place", f"place_{place.state}", severity, text, device=place.device, data=data)


def _place(row: sa.RowMapping | Mapping[str, object]) -> NewPlace:
    values = {str(key): value for key, value in row.items()}
    return NewPlace(**{**values, "state": PlaceState(str(values["state"]))})  # type: ignore[arg-type]
