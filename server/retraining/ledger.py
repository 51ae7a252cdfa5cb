"""Triggers in the store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

import sqlalchemy as sa

from server.access.audit_log import Also, nothing_else
from server.drift.verdicts import VerdictKind
from server.errors import TriggerPhaseError, UnknownTriggerError
from server.retraining.policy import APPROVABLE, OVER, RetrainingPhase, Trigger
from server.store import retraining as store
from server.store.database import Database
from server.store.lists import learning as lists
from server.store.lists.paging import Page

_KEPT = 1_000
_OPEN = tuple(one.value for one in RetrainingPhase if one not in OVER)


@dataclass(frozen=True, slots=True)
class Triggers:
    """All triggers of one server. Safe to share between threads."""

    database: Database

    def all(self, limit: int = _KEPT) -> tuple[Trigger, ...]:
        """Return the newest ``limit`` triggers, newest first."""
        with self.database.begin() as connection:
            return tuple(_trigger(row) for row in store.all_triggers(connection, limit))

    def page(
        self, *, model: str = "", phase: str = "", limit: int = _KEPT, cursor: str | None = None,
        open_first: bool = False,
    ) -> Page[Trigger]:  # fmt: skip
        """Return a page of triggers, newest first; "" for any; ``open_first``: those that are not over before them.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            found = lists.trigger_page(
                connection, model=model, phase=phase, limit=limit, cursor=cursor,
                first=_OPEN if open_first else (),
            )  # fmt: skip
        return found.of(_trigger)

    def of_verdicts(self, verdicts: Collection[int]) -> dict[int, Trigger]:
        """Return the trigger of each of ``verdicts`` (ids) that has one: the newest, if none is still open."""
        with self.database.begin() as connection:
            found = [_trigger(row) for row in store.triggers_of(connection, verdicts)]
        return {one.verdict: one for one in sorted(found, key=lambda one: (one.phase not in OVER, one.id))}

    def count(self) -> int:
        """Return how many triggers there are."""
        with self.database.begin() as connection:
            return store.count_triggers(connection)

    def open(self) -> tuple[Trigger, ...]:
        """Return the triggers that are not over, oldest first."""
        with self.database.begin() as connection:
            return tuple(_trigger(row) for row in store.triggers_in(connection, _OPEN))

    def trigger(self, trigger: int) -> Trigger:
        """Return one trigger.

        Raises:
            UnknownTriggerError: If there is none of that id.
        """
        for known in self.all():
            if known.id == trigger:
                return known
        message = f"Expected the id of a retraining, got {trigger}: see GET /api/retraining"
        raise UnknownTriggerError(message)

    def made_for(self) -> dict[str, tuple[str, ...]]:
        """Return by release the devices whose drift it was retrained for.

        It has passed the gates on samples of them that it did not learn from. Not for a drift of the whole fleet: the
        gates show then that it is better on the average, not at each site.
        """
        return {
            one.result: one.devices for one in reversed(self.all())
            if one.result and not one.cause.startswith(VerdictKind.FLEET)
        }  # fmt: skip

    def add(self, trigger: Trigger) -> Trigger:
        """Store a new trigger; return it with its id."""
        with self.database.begin() as connection:
            return replace(trigger, id=store.insert_trigger(connection, _row(trigger)))

    def put(self, trigger: Trigger, also: Also = nothing_else) -> None:
        """Store a changed trigger, and what else belongs to it; an approval given meanwhile is kept."""
        row = _row(trigger)
        if not trigger.approved and trigger.approvable:
            row.pop("approved")
        with self.database.begin() as connection:
            store.update_trigger(connection, trigger.id, row)
            also(connection)

    def approve(self, trigger: int, also: Also = nothing_else) -> Trigger:
        """Record a person's approval of training without proof of harm, or of the rollout, and what else belongs to it.

        Raises:
            UnknownTriggerError: If there is none of that id.
            TriggerPhaseError: If it awaits no approval.
        """
        known = self.trigger(trigger)
        if not known.approvable:
            names = " or ".join(sorted(phase.value for phase in APPROVABLE))
            message = f"Expected a retraining that is {names}, got {known.phase}"
            raise TriggerPhaseError(message)
        with self.database.begin() as connection:
            store.update_trigger(connection, trigger, {"approved": True})
            also(connection)
        return self.trigger(trigger)


def _row(trigger: Trigger) -> dict[str, object]:
    row: dict[str, object] = asdict(trigger)
    row.pop("id")
    return row | {"devices": list(trigger.devices), "phase": trigger.phase.value}


def _trigger(row: sa.RowMapping) -> Trigger:
    values = {name: row[name] for name in Trigger.__dataclass_fields__}
    return Trigger(**{**values, "devices": tuple(row["devices"]), "phase": RetrainingPhase(row["phase"])})
