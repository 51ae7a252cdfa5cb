"""Stores and loads rollouts; converts between rows and values. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import sqlalchemy as sa

from server.access.audit_log import Also, nothing_else
from server.errors import UnknownRolloutError
from server.rollout.figures.forecast import Forecast
from server.rollout.figures.members import FIRST, MemberFigures, RolloutFigures
from server.rollout.figures.sequential import failing_by, judged_limit
from server.rollout.model import OPEN_PHASES, REMOVED, Group, Member, MemberStanding, Rollout, RolloutPhase
from server.rollout.scope import Scope
from server.rollout.thresholds import MemberCounts
from server.store import rollouts as store
from server.store.database import Database
from server.store.lists import member_figures as counts
from server.store.lists import rollouts as lists
from server.store.lists.paging import Page
from server.store.lists.rollouts import MemberFilter
from wire.codec import decode, encode
from wire.messages import MaintenanceWindow
from wire.shadow import ShadowCounts, ShadowOrder

_KEPT = 16


@dataclass(frozen=True, slots=True)
class RolloutLedger:
    """All rollouts. Safe to share between threads.

    Of a rollout only the members are read again that have changed: one that is not over may have thousands.
    """

    database: Database
    _kept: dict[str, tuple[int, Rollout]] = field(default_factory=dict, compare=False)

    def all(self) -> tuple[Rollout, ...]:
        """Return every rollout, newest first."""
        with self.database.begin() as connection:
            return _rollouts(connection, store.all_rollouts(connection))

    def page(
        self, *, phase: str = "", release: str = "", limit: int, cursor: str | None = None, open_first: bool = False
    ) -> Page[Rollout]:  # fmt: skip
        """Return a page of rollouts, newest first, without members; ``phase`` and ``release``: "" for any.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            found = lists.rollout_page(
                connection, phase=phase, release=release, limit=limit, cursor=cursor,
                first=OPEN_PHASES if open_first else (),
            )  # fmt: skip
        return found.of(lambda row: _rollout(row, ()))

    def whole(self, rollouts: Sequence[Rollout]) -> tuple[Rollout, ...]:
        """Return ``rollouts``, as they are now, with all their members."""
        if not rollouts:
            return ()
        with self.database.begin() as connection:
            rows = {row["id"]: row for row in store.rollouts_named(connection, [one.id for one in rollouts])}
            over = [row for row in rows.values() if RolloutPhase(row["phase"]) not in OPEN_PHASES]
            found = {one.id: one for one in _rollouts(connection, over)}
            return tuple(
                found.get(one.id) or self._current(connection, rows[one.id]) for one in rollouts if one.id in rows
            )

    def figures(self, rollouts: Sequence[Rollout]) -> tuple[tuple[Rollout, RolloutFigures], ...]:
        """Return each of ``rollouts``, which are over and may lack their members, with the figures of these.

        The database counts them. Of a rollout whose shadow judges, the members are read: their order counts there.
        """
        judged = [one for one in rollouts if judged_limit(one) is not None]
        found = {one.id: (one, RolloutFigures.of(one)) for one in self.whole(judged)}
        others = [one for one in rollouts if one.id not in found]
        if others:
            with self.database.begin() as connection:
                found |= {one.id: (one, figures) for one, figures in _counted(connection, others)}
        return tuple(found[one.id] for one in rollouts if one.id in found)

    def members(
        self, rollout: str, wanted: MemberFilter, *, limit: int, cursor: str | None = None
    ) -> tuple[Rollout, Page[Member]]:  # fmt: skip
        """Return a rollout that has the members of a page alone, and that page, by group and device.

        Raises:
            UnknownRolloutError: If there is none of that id.
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        missing = _unknown(rollout)
        row = self.database.row(lambda connection: store.one_rollout(connection, rollout), missing)
        with self.database.begin() as connection:
            found = lists.member_page(connection, rollout, wanted, limit=limit, cursor=cursor)
        page = found.of(lambda one: _member({name: one[name] for name in _MEMBER_COLUMNS}))
        return _rollout(row, page.rows), page

    def open(self) -> tuple[Rollout, ...]:
        """Return the rollouts that are not over, oldest first."""
        with self.database.begin() as connection:
            rows = store.rollouts_in(connection, sorted(OPEN_PHASES))
            return tuple(self._current(connection, row) for row in rows)

    def _current(self, connection: sa.Connection, row: sa.RowMapping) -> Rollout:
        """Return the rollout of ``row``, which was read before its members: they are at least as new as its number."""
        number, known = self._kept.get(row["id"], (-1, None))
        if known is not None and number == row["change"]:
            return known
        if known is None or number > row["change"]:
            (known,) = _rollouts(connection, [row])
        else:
            news = [_of_row(one) for one in store.members_changed(connection, row["id"], number)]
            known = _rollout(row, _merged(known.members, news))
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[row["id"]] = (row["change"], known)
        return known

    def newest(self) -> Rollout | None:
        """Return the rollout that was created last, None before the first."""
        with self.database.begin() as connection:
            row = store.newest_rollout(connection)
            return self._current(connection, row) if row is not None else None

    def get(self, rollout: str) -> Rollout:
        """Return one rollout.

        Raises:
            UnknownRolloutError: If there is none of that id.
        """

        def read(connection: sa.Connection) -> Rollout | None:
            row = store.one_rollout(connection, rollout)
            return self._current(connection, row) if row is not None else None

        return self.database.row(read, _unknown(rollout))

    def add(self, rollout: Rollout, also: Also = nothing_else) -> None:
        """Store a new rollout, and what else belongs to it."""
        documents = {"window": as_text(rollout.window), "shadow": as_text(rollout.shadow)}
        documents |= {"cautions": json.dumps(dict(rollout.cautions)) if rollout.cautions else ""}
        documents |= {"approvals": json.dumps(rollout.approvals) if rollout.approvals else ""}
        scope = {name: value for name, value in asdict(rollout.scope).items() if value}
        documents |= {"scope": json.dumps(scope) if scope else ""}
        row = {**asdict(rollout), "phase": rollout.phase.value, **documents}
        del row["members"]
        with self.database.begin() as connection:
            store.insert_rollout(connection, row, [_row(rollout.id, member) for member in rollout.members])
            also(connection)

    def add_members(self, rollout: str, members: Iterable[Member]) -> None:
        """Add members to a rollout."""
        with self.database.begin() as connection:
            store.insert_members(connection, [_row(rollout, member) for member in members])

    def change(self, rollout: str, changes: Mapping[str, object], now_ms: int, also: Also = nothing_else) -> None:
        """Change columns of a rollout, and what else belongs to it."""
        with self.database.begin() as connection:
            store.update_rollout(connection, rollout, {**changes, "updated_ms": now_ms})
            also(connection)

    def change_member(self, rollout: str, device: str, changes: Mapping[str, object]) -> None:
        """Change columns of a member."""
        with self.database.begin() as connection:
            store.update_member(connection, rollout, device, changes)

    def rewrite(self, before: Rollout, after: Rollout, now_ms: int, also: Also = nothing_else) -> None:
        """Write the differences between ``before`` and ``after``, and what else belongs to it, in one transaction."""
        known = {member.device: member for member in before.members}
        with self.database.begin() as connection:
            for member in after.members:
                if member != known.get(member.device):
                    store.update_member(connection, after.id, member.device, _row(after.id, member))
            changes = {"phase": after.phase.value, "code": after.code, "text": after.text, "updated_ms": now_ms}
            groups = [asdict(group) for group in after.groups]
            store.update_rollout(connection, after.id, {**changes, "groups": groups})
            also(connection)


def as_text(document: object) -> str:
    """Return a document of the wire as its column holds it: JSON, "" for None."""
    return "" if document is None else encode(document).decode()


def _row(rollout: str, member: Member) -> dict[str, object]:
    retried_from = member.retried_from.value if member.retried_from else ""
    row = {"rollout": rollout, **asdict(member), "standing": member.standing.value, "retried_from": retried_from}
    del row["waits_for"]
    return {**row, "shadow": as_text(member.shadow), "replay": as_text(member.replay)}


def _standing(standing: str, code: str) -> MemberStanding:
    """Return the standing of a device; older rows store stuck as a failure with the code ``stuck``."""
    known = _STANDINGS.get(standing) or MemberStanding(standing)
    return MemberStanding.STUCK if known is MemberStanding.FAILED and code == MemberStanding.STUCK else known


def _unknown(rollout: str) -> UnknownRolloutError:
    message = f"Expected the id of a rollout, got {rollout[:80]!r}: fleet-server rollouts list prints them"
    return UnknownRolloutError(message)


def _rollouts(connection: sa.Connection, rows: Sequence[sa.RowMapping]) -> tuple[Rollout, ...]:
    members: dict[str, list[Member]] = {row["id"]: [] for row in rows}
    if not members:
        return ()
    for row in store.members_of(connection, list(members)):
        members[row[0]].append(_of_row(row))
    return tuple(_rollout(row, tuple(members[row["id"]])) for row in rows)


def _counted(connection: sa.Connection, rollouts: Sequence[Rollout]) -> Iterator[tuple[Rollout, RolloutFigures]]:
    names = [one.id for one in rollouts]
    counted = {(row["rollout"], row["group"]): row for row in counts.counted_members(connection, names, REMOVED)}
    outcomes: dict[str, list[tuple[int, MemberStanding]]] = {name: [] for name in names}
    for name, group, standing in counts.outcomes_in_order(connection, names):
        outcomes[name].append((group, _STANDINGS[standing]))
    shadows: dict[tuple[str, int], list[ShadowCounts]] = {}
    replays: dict[tuple[str, int], list[ShadowCounts]] = {}
    for name, group, shadow, replay in counts.compared_members(connection, names):
        for kept, text in ((shadows, shadow), (replays, replay)):
            if text:
                kept.setdefault((name, group), []).append(decode(ShadowCounts, text.encode()))
    for one in rollouts:
        groups = []
        for index in range(len(one.groups)):
            row, key = counted.get((one.id, index)), (one.id, index)
            if row is None:
                groups.append(MemberFigures.of(()))
                continue
            first = counts.first_members(connection, one.id, index, FIRST)
            members = MemberCounts(
                committed=row["committed"], failed=row["failed"], stuck=row["stuck"], awaited=row["awaited"],
                pending=row["pending"], tolerated=row["tolerated"], replaced=row["judged_without"],
            )  # fmt: skip
            groups.append(
                MemberFigures(
                    size=row["size"], counts=members, removed=row["removed"], replaced=row["replaced"],
                    unanswered=row["unanswered"], air_bytes=row["air_bytes"], bundle_bytes=row["bundle_bytes"],
                    forecast=None if row["blind"] else Forecast(row["forecast_bytes"], row["forecast_upper"]),
                    waiting={}, shadow=tuple(shadows.get(key, ())), replay=tuple(replays.get(key, ())),
                    first=tuple(_of_row(member) for member in first),
                )
            )  # fmt: skip
        yield one, RolloutFigures.grouped(tuple(groups), failing_by(outcomes[one.id], one))


def _of_row(row: sa.Row[Any]) -> Member:
    return _member(dict(zip(_MEMBER_COLUMNS, row[1:], strict=True)))


def _merged(members: tuple[Member, ...], news: Sequence[Member]) -> tuple[Member, ...]:
    """Return ``members``, by group and device, with ``news`` in the place of those of the same devices, or added."""
    if not news:
        return members
    by_device = {one.device: one for one in members}
    moved = any(one.device not in by_device or by_device[one.device].group != one.group for one in news)
    by_device |= {one.device: one for one in news}
    found = tuple(by_device.values())  # one that is known keeps its place
    return tuple(sorted(found, key=lambda one: (one.group, one.device))) if moved else found


def _member(values: dict[str, Any]) -> Member:
    """Return the member with the values of its columns, which it takes; a rollout may have thousands."""
    values["standing"] = _standing(values["standing"], values["code"])
    values["retried_from"] = MemberStanding(values["retried_from"]) if values["retried_from"] else None
    for name in ("shadow", "replay"):
        values[name] = decode(ShadowCounts, values[name].encode()) if values[name] else None
    return Member(**values)


def _rollout(row: sa.RowMapping, members: tuple[Member, ...]) -> Rollout:
    values = {name: row[name] for name in _ROLLOUT_COLUMNS}
    values["groups"] = tuple(Group(**group) for group in row["groups"])
    values["phase"] = RolloutPhase(row["phase"])
    values["approvals"] = tuple(json.loads(row["approvals"])) if row["approvals"] else ()
    values["window"] = decode(MaintenanceWindow, row["window"].encode()) if row["window"] else None
    values["shadow"] = decode(ShadowOrder, row["shadow"].encode()) if row["shadow"] else None
    values["scope"] = Scope.of(json.loads(row["scope"])) if row["scope"] else Scope()
    values["cautions"] = json.loads(row["cautions"]) if row["cautions"] else {}
    return Rollout(**values, members=members)


_MEMBER_COLUMNS = tuple(column.name for column in store.MEMBERS.c if column.name not in {"rollout", "change"})
_STANDINGS = {one.value: one for one in MemberStanding}
_ROLLOUT_COLUMNS = tuple(one.name for one in fields(Rollout) if one.name in store.ROLLOUTS.c)
