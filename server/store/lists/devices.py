"""Queries of lists of devices: filtered, searched, sorted and counted by the database, a page at a time.

What a device reports is one JSON document; a query reads single fields of it. Ten thousand of them take some 20 ms.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from server.store.commissions import COMMISSIONS
from server.store.fleet import DEVICES
from server.store.lists.paging import Order, Page, SortKey, read_page
from server.store.monitoring.evidence import EVIDENCE
from server.store.rollouts import MEMBERS, ROLLOUTS
from wire.messages import ANSWERS_NOTHING, DeviceState, UpdatePhase

AWAY = (DeviceState.LOST.value, DeviceState.DISCONNECTED.value)
_RESTS = (UpdatePhase.IDLE, UpdatePhase.COMMITTED, UpdatePhase.DEFERRED)
_FAILED = (UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK)
_CALM = tuple(phase.value for phase in (*_RESTS, *_FAILED))
_SETTLED = ("committed", "cancelled")
_NUL = "\\u0000"
_ROUNDED = 0.001  # shares are rounded before they are compared


class FleetCondition(StrEnum):
    """What may hold for a device, and a person may want to see the list of."""

    CONNECTED = "connected"  # it reports
    LOST = "lost"
    DISCONNECTED = "disconnected"
    SILENT = "silent"  # connected by its state, but it sends nothing
    NEVER_CONNECTED = "never_connected"
    UPDATING = "updating"  # it is there, and its update is under way
    FAILING = "failing"  # refused or rolled back, degraded, in safe mode, or it answers no input
    DRIFTING = "drifting"  # flagged by its newest evidence
    COMMISSIONING = "commissioning"  # its baseline is being collected
    PAUSED = "paused"  # in a rollout that is paused, and without the release
    MUTED = "muted"  # nothing is told of it for a while


class DeviceSort(StrEnum):
    """By what a list of devices is sorted; devices that are alike in it are by id."""

    DEVICE = "device"
    SITE = "site"
    STATE = "state"
    RELEASE = "release"
    PHASE = "phase"
    EVIDENCE = "evidence"  # as a share of its threshold; none is less than 0
    SEEN = "seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFilter:
    """Which devices; a filter that is "" or None is not set. All that are set hold.

    ``search``: each of its words is part of the id, the name, the tags, the site, the release or the attributes of the
    registry, in any case. ``release``: the one that it reports. ``tag``: one of its tags. ``ended``: those that left
    the fleet instead. ``retired``: of those the ones that were retired.
    """

    search: str = ""
    site: str = ""
    state: str = ""
    release: str = ""
    tag: str = ""
    condition: FleetCondition | None = None
    ended: bool = False
    retired: bool = False


@dataclass(frozen=True, slots=True)
class _Fields:
    """The values that a query reads, at ``now_ms``; a device without a message for ``silent_ms`` is silent."""

    dialect: str
    now_ms: int
    silent_ms: int

    def reported(self, *path: str) -> sa.ColumnElement[str]:
        """Return a field of what the device reports as text, "" if it has none."""
        text = DEVICES.c.reported
        if self.dialect == "sqlite":
            found: sa.ColumnElement[Any] = sa.cast(sa.func.json_extract(text, "$." + ".".join(path)), sa.Text)
        else:  # PostgreSQL reads no document that has this character anywhere: such a device has no fields here
            found = sa.case(
                (text.contains(_NUL, autoescape=True), None),
                else_=sa.func.json_extract_path_text(sa.cast(text, sa.JSON), *path, type_=sa.Text),
            )
        return sa.func.coalesce(found, "", type_=sa.Text)

    @property
    def release(self) -> sa.ColumnElement[str]:
        """The release that it runs."""
        return self.reported("current", "release")

    @property
    def phase(self) -> sa.ColumnElement[str]:
        """The phase of its update."""
        return self.reported("update", "phase")

    def newest(self, value: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        """Return ``value`` of its newest evidence, NULL without any."""
        of_device = sa.select(value).where(EVIDENCE.c.device == DEVICES.c.device)
        return of_device.order_by(EVIDENCE.c.start_ms.desc()).limit(1).correlate(DEVICES).scalar_subquery()

    @property
    def commissioned_ms(self) -> sa.ColumnElement[int]:
        """From when on its baseline began anew, 0 for never."""
        newest = sa.select(sa.func.max(COMMISSIONS.c.from_ms)).where(COMMISSIONS.c.device == DEVICES.c.device)
        return sa.func.coalesce(newest.correlate(DEVICES).scalar_subquery(), 0)

    @property
    def ratio(self) -> sa.ColumnElement[float]:
        """The newest evidence as a share of its threshold, 0 and above; -1 without any."""
        column = EVIDENCE.c
        value = sa.case((column.phase == "judged", column.log_value), else_=column.training_log_value)
        share = sa.case((value > 0, value / column.log_threshold), (value <= 0, 0.0))
        counts = sa.and_(column.log_threshold > 0, column.start_ms >= self.commissioned_ms)
        return sa.func.coalesce(self.newest(sa.case((counts, share))), -1.0)

    @property
    def drifts(self) -> sa.ColumnElement[bool]:
        """Whether a row of evidence, the newest of its device, is an alarm."""
        return sa.and_(EVIDENCE.c.flagged, EVIDENCE.c.start_ms >= self.commissioned_ms)

    @property
    def begins(self) -> sa.ColumnElement[bool]:
        """Whether a row of evidence, the newest of its device, is of before its baseline."""
        return sa.or_(EVIDENCE.c.phase == "commissioning", EVIDENCE.c.start_ms < self.commissioned_ms)

    def holds(self, condition: FleetCondition) -> sa.ColumnElement[bool]:
        """Return whether ``condition`` holds for a device."""
        seen, state = DEVICES.c.last_seen_ms > 0, DEVICES.c.state
        recent = DEVICES.c.last_seen_ms >= self.now_ms - self.silent_ms
        there = sa.and_(seen, state.not_in(AWAY), recent)
        fails = sa.or_(
            state == DeviceState.DEGRADED.value, self.phase.in_([phase.value for phase in _FAILED]),
            self.reported("safe_mode").in_(["1", "true"]), self.reported("reason") == ANSWERS_NOTHING,
        )  # fmt: skip
        waits = sa.exists().where(
            MEMBERS.c.device == DEVICES.c.device, MEMBERS.c.rollout == ROLLOUTS.c.id,
            ROLLOUTS.c.phase == "paused", MEMBERS.c.standing.not_in(_SETTLED),
        )  # fmt: skip
        known: dict[FleetCondition, sa.ColumnElement[bool]] = {
            FleetCondition.CONNECTED: there, FleetCondition.LOST: sa.and_(seen, state == DeviceState.LOST.value),
            FleetCondition.DISCONNECTED: sa.and_(seen, state == DeviceState.DISCONNECTED.value),
            FleetCondition.SILENT: sa.and_(seen, state.not_in(AWAY), ~recent), FleetCondition.NEVER_CONNECTED: ~seen,
            FleetCondition.UPDATING: sa.and_(there, self.phase.not_in(["", *_CALM])),
            FleetCondition.FAILING: sa.and_(seen, fails), FleetCondition.PAUSED: waits,
            FleetCondition.MUTED: sa.and_(
                DEVICES.c.muted_ms > 0,
                sa.or_(DEVICES.c.muted_until_ms == 0, DEVICES.c.muted_until_ms > self.now_ms),
            ),
            FleetCondition.DRIFTING: sa.func.coalesce(self.newest(sa.case((self.drifts, 1), else_=0)), 0) == 1,
            FleetCondition.COMMISSIONING: sa.func.coalesce(self.newest(sa.case((self.begins, 1), else_=0)), 0) == 1,
        }  # fmt: skip
        return known[condition]

    def where(self, wanted: DeviceFilter) -> list[sa.ColumnElement[bool]]:
        """Return the conditions of ``wanted``."""
        gone = DEVICES.c.ended == "retired" if wanted.retired else DEVICES.c.ended != ""
        found = [gone if wanted.ended or wanted.retired else DEVICES.c.ended == ""]
        if wanted.site:
            found.append(DEVICES.c.site == wanted.site)
        if wanted.state:
            found.append(DEVICES.c.state == wanted.state)
        if wanted.release:
            found.append(self.release == wanted.release)
        if wanted.tag:
            found.append(DEVICES.c.tags.contains(f" {wanted.tag} ", autoescape=True))
        if wanted.condition is not None:
            found.append(self.holds(wanted.condition))
        found += [self._has(word) for word in wanted.search.split()]
        if "\0" in f"{wanted.search}{wanted.site}{wanted.state}{wanted.release}{wanted.tag}":
            found.append(sa.false())  # no stored text has it: SQLite would end a word there, PostgreSQL refuses it
        return found

    def _has(self, word: str) -> sa.ColumnElement[bool]:
        attributes, escaped = sa.cast(DEVICES.c.attributes, sa.Text), json.dumps(word)[1:-1]
        return sa.or_(
            DEVICES.c.device.icontains(word, autoescape=True), DEVICES.c.title.icontains(word, autoescape=True),
            DEVICES.c.tags.icontains(word, autoescape=True), DEVICES.c.site.icontains(word, autoescape=True),
            self.release.icontains(word, autoescape=True), attributes.icontains(escaped, autoescape=True),
        )  # fmt: skip

    def order(self, sort: DeviceSort, *, descending: bool) -> Order:
        """Return the order of a list."""
        values: dict[DeviceSort, tuple[sa.ColumnElement[Any], type]] = {
            DeviceSort.SITE: (DEVICES.c.site, str), DeviceSort.STATE: (DEVICES.c.state, str),
            DeviceSort.RELEASE: (self.release, str), DeviceSort.PHASE: (self.phase, str),
            DeviceSort.EVIDENCE: (self.ratio, float), DeviceSort.SEEN: (DEVICES.c.last_seen_ms, int),
        }  # fmt: skip
        name, last = f"devices by {sort.value}{' descending' if descending else ''}", SortKey(DEVICES.c.device, str)
        if sort is DeviceSort.DEVICE:
            return Order(name, (SortKey(DEVICES.c.device, str, descending),))
        return Order(name, (SortKey(*values[sort], descending), last))


ENDED_ORDER = Order(
    "ended devices", (SortKey(DEVICES.c.ended_ms, int, descending=True), SortKey(DEVICES.c.device, str))
)


def device_page(  # noqa: PLR0913 - a filter, an order and a place in it
    connection: sa.Connection, wanted: DeviceFilter, *, sort: DeviceSort, descending: bool, limit: int,
    cursor: str | None, now_ms: int, silent_ms: int,
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of devices; those that left the fleet come newest first, whatever ``sort``.

    Raises:
        CursorRefusedError: If ``cursor`` is of another order.
    """
    fields = _Fields(connection.dialect.name, now_ms, silent_ms)
    order = ENDED_ORDER if wanted.ended or wanted.retired else fields.order(sort, descending=descending)
    query = sa.select(*DEVICES.c).where(*fields.where(wanted))
    return read_page(connection, query, order, limit, cursor, asked=wanted)


def count_devices(connection: sa.Connection, now_ms: int, silent_ms: int) -> dict[FleetCondition | None, int]:
    """Return for how many devices of the fleet each condition holds, and under None how many there are.

    The newest evidence of a device is looked up once for all conditions.
    """
    fields = _Fields(connection.dialect.name, now_ms, silent_ms)
    known = {one: fields.holds(one) for one in FleetCondition}
    known |= {FleetCondition.DRIFTING: fields.drifts, FleetCondition.COMMISSIONING: fields.begins}
    sums = [sa.func.coalesce(sa.func.sum(sa.case((held, 1), else_=0)), 0) for held in known.values()]
    query = sa.select(sa.func.count(), *sums).select_from(DEVICES.outerjoin(EVIDENCE, _is_newest()))
    found = connection.execute(query.where(DEVICES.c.ended == "")).one()
    return dict(zip((None, *known), map(int, found), strict=True))


def running_counts(connection: sa.Connection, releases: Collection[str]) -> list[tuple[str, str, int]]:
    """Return release, site and the number of devices of the fleet there that report running it, the most first."""
    release, count = _Fields(connection.dialect.name, 0, 0).release, sa.func.count()
    query = sa.select(release, DEVICES.c.site, count).where(DEVICES.c.ended == "", release.in_(releases))
    rows = connection.execute(query.group_by(release, DEVICES.c.site).order_by(count.desc(), DEVICES.c.site))
    return [(str(name), str(site), int(found)) for name, site, found in rows]


def notable_evidence(
    connection: sa.Connection, *, near_ratio: float, late_ms: int, there_since_ms: int
) -> list[tuple[Any, ...]]:
    """Return the newest evidence of the devices of the fleet of which it may concern somebody.

    Left out are those that are judged, without fault and alarm, and below ``near_ratio`` of the threshold, unless the
    window began before ``late_ms`` and the device is there, by a message since ``there_since_ms``. A row: device, start
    of the window (None: no evidence at all), phase, fault, flagged, log value, that against training, log threshold,
    and whether the device was commissioned again after it.
    """
    column, below = EVIDENCE.c, near_ratio - _ROUNDED
    anew = sa.exists().where(COMMISSIONS.c.device == DEVICES.c.device, COMMISSIONS.c.from_ms > column.start_ms)
    there = sa.and_(DEVICES.c.last_seen_ms >= there_since_ms, DEVICES.c.state.not_in(AWAY))
    notable = sa.or_(
        column.id.is_(None), column.fault != "", column.flagged, column.phase != "judged",
        column.log_value >= below * column.log_threshold, sa.and_(column.start_ms < late_ms, there), anew,
    )  # fmt: skip
    query = sa.select(
        DEVICES.c.device, column.start_ms, column.phase, column.fault, column.flagged, column.log_value,
        column.training_log_value, column.log_threshold, anew,
    ).select_from(DEVICES.outerjoin(EVIDENCE, _is_newest())).where(DEVICES.c.ended == "", notable)  # fmt: skip
    return [tuple(row) for row in connection.execute(query)]


def largest_ratio(connection: sa.Connection) -> float:
    """Return the largest newest evidence of a device of the fleet as a share of its threshold, 0 without any."""
    ratio = _Fields(connection.dialect.name, 0, 0).ratio
    found = connection.execute(sa.select(sa.func.max(ratio)).where(DEVICES.c.ended == "")).scalar_one()
    return max(float(found or 0.0), 0.0)


def _is_newest() -> sa.ColumnElement[bool]:
    """Return the condition that a row of evidence is the newest of its device."""
    other = EVIDENCE.alias()
    newest = sa.select(other.c.id).where(other.c.device == DEVICES.c.device).order_by(other.c.start_ms.desc()).limit(1)
    return EVIDENCE.c.id == newest.correlate(DEVICES).scalar_subquery()


def sites(connection: sa.Connection) -> tuple[str, ...]:
    """Return the sites of the fleet, by name."""
    query = sa.select(DEVICES.c.site).where(DEVICES.c.ended == "").distinct().order_by(DEVICES.c.site)
    return tuple(connection.execute(query).scalars())


def newest_evidence_rows(connection: sa.Connection, devices: Collection[str]) -> list[sa.RowMapping]:
    """Return the newest row of evidence of those of ``devices`` that have any, without details."""
    columns = [column for column in EVIDENCE.c if not isinstance(column.type, sa.JSON)]
    of_devices = sa.select(*columns).select_from(DEVICES.join(EVIDENCE, _is_newest()))
    of_devices = of_devices.where(DEVICES.c.device.in_(devices))
    return list(connection.execute(of_devices).mappings())
