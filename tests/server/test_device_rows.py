"""A batch leaves what its messages leave one by one: of devices, of what ran, of boots and of events."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.store.events import EVENTS
from server.store.fleet import DEVICES, RAN
from server.store.monitoring.ingest import BOOTS
from tests.server.conftest import make_report
from wire.codec import encode
from wire.drift_report import encode_report
from wire.messages import DeviceState, Get, InstalledRelease, Reported, State, UpdatePhase, UpdateStatus
from wire.transport import Incoming

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

LEFT = {
    DEVICES: ("state", "reported", "clock_skew_ms", "last_seen_ms"),
    RAN: ("from_ms", "release", "sha256", "gen", "received_ms"),
    BOOTS: ("boot", "place"),
    EVENTS: ("at_ms", "kind", "code", "severity", "text"),
}


def said(dice: random.Random, now_ms: int) -> list[tuple[str, bytes, bool]]:
    """Return some messages of one device: topic below its own, payload, whether the broker had kept it."""
    boots = ["aa" * 8, "bb" * 8][: dice.choice((1, 2))]
    found: list[tuple[str, bytes, bool]] = []
    for number in range(dice.randrange(2, 9)):
        at_ms = now_ms + dice.choice((0, 0, -50, -9_000_000, 9_000_000))
        boot = boots[0] if number < 4 else boots[-1]
        kind = dice.choice(("state", "state", "reported", "reported", "reported", "get", "tele/drift"))
        if kind == "state":
            message: object = State(
                state=dice.choice((DeviceState.READY, DeviceState.DEGRADED)), at_ms=at_ms, boot=boot
            )
        elif kind == "reported":
            release = dice.choice(("m-1", "m-2", "n-1", ""))
            current = InstalledRelease(release, f"{len(release):064x}") if release else None
            phase = dice.choice((UpdatePhase.COMMITTED, UpdatePhase.PROBATION))
            update = UpdateStatus(phase=phase, release=release)
            message = Reported(gen=number % 2, at_ms=at_ms, boot=boot, current=current, update=update)
        else:
            message = Get(at_ms=at_ms)
        payload = encode_report(make_report(number)) if kind == "tele/drift" else encode(message)
        found += [(kind, payload, dice.random() < 0.2)] * dice.choice((1, 1, 2))
    return found


def left_of(fleet: MemoryFleet, device: str) -> dict[str, list[tuple[object, ...]]]:
    """Return what the database has of ``device``, without its name."""
    found: dict[str, list[tuple[object, ...]]] = {}
    with fleet.app.parts.database.begin() as connection:
        for table, names in LEFT.items():
            query = sa.select(*(table.c[name] for name in names)).where(table.c.device == device)
            rows = connection.execute(query.order_by(*table.primary_key))
            found[table.name] = [tuple(str(value).replace(device, "") for value in row) for row in rows]
    return found


@pytest.mark.stores
def test_a_batch_leaves_what_its_messages_leave_one_by_one(fleet: MemoryFleet) -> None:
    """States, reports and requests of two boots, clocks that are off and right again, some twice, some retained."""
    dice, ingest, now_ms = random.Random(4), fleet.app.parts.ingest, fleet.clock()  # noqa: S311 - drawn messages
    for name in ("aone", "bone"):
        fleet.enrol(name)
    for turn in range(25):
        messages = said(dice, now_ms + turn)
        batch = [Incoming(f"tf/1/berlin/aone/{leaf}", payload, kept) for leaf, payload, kept in messages]
        ingest.handle(batch, now_ms + turn)
        for leaf, payload, kept in messages:
            ingest.handle([Incoming(f"tf/1/berlin/bone/{leaf}", payload, kept)], now_ms + turn)
        assert left_of(fleet, "aone") == left_of(fleet, "bone"), (turn, messages)
