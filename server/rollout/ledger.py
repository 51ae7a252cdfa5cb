"""Stores and loads rollouts; converts between rows and values. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import sqlalchemy as sa

from server.errors import UnknownRolloutError
from server.rollout.model import OPEN_PHASES, Group, Member, MemberStanding, Rollout, RolloutPhase
from server.rollout.scope import Scope
from server.store import rollouts as store
from server.store.database import Database
from wire.codec import decode, encode
from wire.messages import MaintenanceWindow
from wire.shadow import ShadowCounts, ShadowOrder

_KEPT = 16


@dataclass(frozen=True, slots=True)
class RolloutLedger:
    """All rollouts. Safe to share between threads.

    A rollout is read again only if it has changed: one that is not over may have thousands of members.
    """

    database: Database
    _kept: dict[str, tuple[int, Rollout]] = field(default_factory=dict, compare=False)

    def all(self) -> tuple[Rollout, ...]:
        """Return every rollout, newest first."""
        with self.database.begin() as connection:
            return _rollouts(connection, store.all_rollouts(connection))

    def open(self) -> tuple[Rollout, ...]:
        """Return the rollouts that are not over, oldest first."""
        with self.database.begin() as connection:
            rows = store.rollouts_in(connection, sorted(OPEN_PHASES))
            return tuple(self._current(connection, row) for row in rows)

    def _current(self, connection: sa.Connection, row: sa.RowMapping) -> Rollout:
        """Return the rollout of ``row``, which was read before its members: they are at least as new as its number."""
        number, known = self._kept.get(row["id"], (-1, None))
        if known is None or number != row["change"]:
            (known,) = _rollouts(connection, [row])
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
        message = f"Expected the id of a rollout, got {rollout[:80]!r}: fleet-server rollouts list prints them"
        missing = UnknownRolloutError(message)
        return self.database.row(
            lambda connection: _with_members(connection, store.one_rollout(connection, rollout)), missing
        )

    def add(self, rollout: Rollout) -> None:
        """Store a new rollout."""
        documents = {"window": as_text(rollout.window), "shadow": as_text(rollout.shadow)}
        documents |= {"cautions": json.dumps(dict(rollout.cautions)) if rollout.cautions else ""}
        scope = {name: value for name, value in asdict(rollout.scope).items() if value}
        documents |= {"scope": json.dumps(scope) if scope else ""}
        row = {**asdict(rollout), "phase": rollout.phase.value, **documents}
        del row["members"]
        with self.database.begin() as connection:
            store.insert_rollout(connection, row, [_row(rollout.id, member) for member in rollout.members])

    def add_members(self, rollout: str, members: Iterable[Member]) -> None:
        """Add members to a rollout."""
        with self.database.begin() as connection:
            store.insert_members(connection, [_row(rollout, member) for member in members])

    def change(self, rollout: str, changes: Mapping[str, object], now_ms: int) -> None:
        """Change columns of a rollout."""
        with self.database.begin() as connection:
            store.update_rollout(connection, rollout, {**changes, "updated_ms": now_ms})

    def change_member(self, rollout: str, device: str, changes: Mapping[str, object]) -> None:
        """Change columns of a member."""
        with self.database.begin() as connection:
            store.update_member(connection, rollout, device, changes)

    def rewrite(self, before: Rollout, after: Rollout, now_ms: int) -> None:
        """Write the differences between ``before`` and ``after`` in one transaction."""
        known = {member.device: member for member in before.members}
        with self.database.begin() as connection:
            for member in after.members:
                if member != known.get(member.device):
                    store.update_member(connection, after.id, member.device, _row(after.id, member))
            changes = {"phase": after.phase.value, "code": after.code, "text": after.text, "updated_ms": now_ms}
            groups = [asdict(group) for group in after.groups]
            store.update_rollout(connection, after.id, {**changes, "groups": groups})


def as_text(document: object) -> str:
    """Return a document of the wire as its column holds it: JSON, "" for None."""
    return "" if document is None else encode(document).decode()


def _with_members(connection: sa.Connection, row: sa.RowMapping | None) -> Rollout | None:
    return _rollouts(connection, [row])[0] if row is not None else None


def _row(rollout: str, member: Member) -> dict[str, object]:
    retried_from = member.retried_from.value if member.retried_from else ""
    row = {"rollout": rollout, **asdict(member), "standing": member.standing.value, "retried_from": retried_from}
    del row["waits_for"]
    return {**row, "shadow": as_text(member.shadow), "replay": as_text(member.replay)}


def _standing(row: sa.RowMapping) -> MemberStanding:
    """Return the standing of a device; older rows store stuck as a failure with the code ``stuck``."""
    stuck = row["standing"] == MemberStanding.FAILED and row["code"] == MemberStanding.STUCK
    return MemberStanding.STUCK if stuck else MemberStanding(row["standing"])


def _rollouts(connection: sa.Connection, rows: Sequence[sa.RowMapping]) -> tuple[Rollout, ...]:
    members: dict[str, list[Member]] = {row["id"]: [] for row in rows}
    for row in store.members_of(connection, list(members)):
        values = {str(key): value for key, value in row.items() if key != "rollout"}
        values["standing"] = _standing(row)
        values["retried_from"] = MemberStanding(row["retried_from"]) if row["retried_from"] else None
        for name in ("shadow", "replay"):
            values[name] = decode(ShadowCounts, row[name].encode()) if row[name] else None
        members[row["rollout"]].append(Member(**values))
    found = []
    for row in rows:
        values = {str(key): value for key, value in row.items() if key != "change"}
        values["groups"] = tuple(Group(**group) for group in row["groups"])
        values["phase"] = RolloutPhase(row["phase"])
        values["window"] = decode(MaintenanceWindow, row["window"].encode()) if row["window"] else None
        values["shadow"] = decode(ShadowOrder, row["shadow"].encode()) if row["shadow"] else None
        values["scope"] = Scope.of(json.loads(row["scope"])) if row["scope"] else Scope()
        values["cautions"] = json.loads(row["cautions"]) if row["cautions"] else {}
        found.append(Rollout(**values, members=tuple(members[row["id"]])))
    return tuple(found)
