"""Which release ran on a device at a given time, from the transitions that devices reported; which model it kept.

A device keeps a model with the first release of it that is not in probation: what it rolls back in probation it only
tried. What drift detection learned of it under another model counts no more from then on (``drift.service``).
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from server.registry.events import event_row
from server.store import commissions
from server.store import fleet as store
from server.store.database import Database
from server.store.events import insert_events
from wire.codec import decode
from wire.manifest import model_in
from wire.messages import Desired, Reported, Severity, UpdatePhase


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """``release`` (its bundle: ``sha256``) runs on ``device`` from ``from_ms`` on; "" means nothing ran."""

    device: str
    from_ms: int
    release: str
    sha256: str
    gen: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """The history of every device. Safe to share between threads."""

    database: Database

    def ran_at(self, device: str, at_ms: int) -> Ran | None:
        """Return what ran on ``device`` at ``at_ms``; None before its first report."""
        with self.database.begin() as connection:
            row = store.ran_at(connection, device, at_ms)
        return None if row is None else _ran(row)

    def history(self, device: str) -> tuple[Ran, ...]:
        """Return every transition of ``device``, oldest first."""
        with self.database.begin() as connection:
            return tuple(_ran(row) for row in store.ran_history(connection, device))


def served_by(connection: sa.Connection, device: str, at_ms: int) -> tuple[str, str, str]:
    """Return the releases that a device ran at ``at_ms`` (UTC), runs by its last report, is assigned; "" for none."""
    found = (at_ms, store.latest_from_ms(connection, device))
    ran, last = (store.ran_at(connection, device, moment) for moment in found)
    text = store.desired_texts(connection, [device]).get(device, "")
    desired = decode(Desired, text.encode()) if text else Desired()
    return ran["release"] if ran else "", last["release"] if last else "", desired.release


def note_transition(
    connection: sa.Connection, device: str, older: Reported | None, newer: Reported, now_ms: int
) -> bool:
    """Record that the release on ``device`` changed, if it did; return whether it did.

    ``newer.at_ms`` is used unless it is in the future or before the previous transition: reports may arrive hours
    late, but in the order in which the transitions happened.
    """
    before = older.current if older else None
    if older is not None and before == newer.current:
        return False
    row = {
        "device": device,
        "from_ms": max(min(newer.at_ms or now_ms, now_ms), store.latest_from_ms(connection, device)),
        "release": newer.current.release if newer.current else "",
        "sha256": newer.current.sha256 if newer.current else "",
        "gen": newer.gen,
        "received_ms": now_ms,
    }
    store.insert_ran(connection, row)
    return True


def note_model(connection: sa.Connection, device: str, older: Reported | None, newer: Reported, now_ms: int) -> bool:
    """Record that ``device`` keeps another model than before, if it does; return whether it does.

    Call it before ``note_transition``. The first model of a device is no change. Also noted is the model that it
    leaves, if a server before this table did not: then it is known that those before it had ended.
    """
    kept, noted = (_kept_model(older), _kept_model(newer)), False
    if kept[0] == kept[1]:
        return False
    ran = {model_in(row["release"]) for row in store.ran_history(connection, device)} - {""}
    for model in dict.fromkeys(filter(None, kept)):
        last = commissions.newest_model(connection, device)
        if model == last or not ran - {model}:
            continue
        commissions.insert_model_change(connection, {"device": device, "model": model, "from_ms": now_ms})
        noted = model == kept[1]
        if noted:
            others = ", ".join(sorted(ran - {model}))
            text = f"{device}: keeps {model} after {others}: returning to another model, it begins a new baseline there"
            insert_events(connection, [event_row(now_ms, "drift", "model_kept", Severity.INFO, text, device=device)])
    return noted


def _kept_model(reported: Reported | None) -> str:
    """Return the model of the release that a device keeps, "" for none, and while the release is in probation."""
    if reported is None or reported.current is None:
        return ""
    update = reported.update
    if update.phase is UpdatePhase.PROBATION and update.release == reported.current.release:
        return ""
    return model_in(reported.current.release)


def _ran(row: sa.RowMapping) -> Ran:
    return Ran(
        device=row["device"], from_ms=row["from_ms"], release=row["release"], sha256=row["sha256"], gen=row["gen"]
    )
