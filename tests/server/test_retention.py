"""What is older than the retention goes, in every table of drift detection that grows; what decides something stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.app.retention import Housekeeping
from server.drift.ledger import Finding
from server.drift.places import NewPlace, PlaceState
from server.drift.suspects import SuspectDevice, SuspectState
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.retraining.policy import RetrainingPhase, Trigger
from server.store.monitoring import evidence
from server.store.monitoring.evidence import EVIDENCE, POOLS, VERDICTS, replace_slot
from server.store.places import PLACES
from server.store.rollouts import PAUSED, note_paused_for
from server.store.suspects import SUSPECTS

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

DAY_MS = 86_400_000
OLD_MS, NOW_MS = 10 * DAY_MS, 200 * DAY_MS


def _clean(fleet: MemoryFleet, now_ms: int = NOW_MS) -> None:
    Housekeeping(fleet.app.parts.database, retention_days=90).turn(now_ms)


def _left(fleet: MemoryFleet, table: sa.Table, column: str) -> list[object]:
    with fleet.app.parts.database.begin() as connection:
        return list(connection.execute(sa.select(table.c[column]).order_by(table.c[column])).scalars())


def _slots(fleet: MemoryFleet, *starts: int) -> None:
    row = {
        "device": "cam-1", "ref_id": "ef" * 16, "n": 60, "phase": "judged", "log_value": 7.0, "cause": "",
        "training_log_value": 1.0, "log_threshold": 14.0, "flagged": False, "fault": "", "streams": [],
        "summaries": {},
    }  # fmt: skip
    pool = {"ref_id": "ef" * 16, "attribute": "", "value": "", "members": 2, "log_value": 1.0, "log_threshold": 9.0,
            "alarm": False}  # fmt: skip
    with fleet.app.parts.database.begin() as connection:
        for start_ms in starts:
            slot = {"start_ms": start_ms}
            replace_slot(connection, start_ms, start_ms + 1, [{**row, **slot}], [{**pool, **slot}])


def test_evidence_goes_after_the_retention(fleet: MemoryFleet) -> None:
    """Of devices and of pools; the newest stays."""
    _slots(fleet, OLD_MS, NOW_MS - 91 * DAY_MS, NOW_MS - 89 * DAY_MS)
    _clean(fleet)
    for table in (EVIDENCE, POOLS):
        assert _left(fleet, table, "start_ms") == [NOW_MS - 89 * DAY_MS]


def test_a_database_that_was_never_cleaned_is_cleaned_bit_by_bit(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first, so many rows at a time: nobody waits for a lock of minutes."""
    monkeypatch.setattr(evidence, "_AT_ONCE", 2)
    _slots(fleet, *range(OLD_MS, OLD_MS + 5))
    for left in (3, 1, 0):
        _clean(fleet)
        assert _left(fleet, EVIDENCE, "start_ms") == list(range(OLD_MS + 5 - left, OLD_MS + 5))


def _verdict(fleet: MemoryFleet, device: str, *, closed: bool) -> int:
    """Return the id of a verdict of long ago."""
    finding = Finding(verdict=DriftVerdict(kind=VerdictKind.NEW_PLACE, devices=(device,)), cause="darker")
    verdicts = fleet.app.parts.drift.verdicts
    verdicts.note([finding], OLD_MS, OLD_MS, quiet_ms=1 << 60, judged=True)
    (found,) = (one for one in verdicts.open() if one.devices == (device,))
    if closed:
        verdicts.end(found, OLD_MS + 1, "test")
    return found.id


def test_closed_verdicts_go_open_ones_and_those_of_a_retraining_stay(fleet: MemoryFleet) -> None:
    """With what was recorded of them for rollouts."""
    closed, kept, used = _verdict(fleet, "a", closed=True), _verdict(fleet, "b", closed=False), 0
    used = _verdict(fleet, "c", closed=True)
    fleet.app.parts.retraining.triggers.add(Trigger(
        id=0, model="m", cause="new_place:c:", words="darker", verdict=used, devices=("c",), release="m-1",
        phase=RetrainingPhase.WITHDRAWN, opened_ms=OLD_MS, since_ms=OLD_MS,
    ))  # fmt: skip
    with fleet.app.parts.database.begin() as connection:
        for number in (closed, kept, used):
            note_paused_for(connection, number, OLD_MS)
    _clean(fleet, OLD_MS + DAY_MS)
    assert len(_left(fleet, VERDICTS, "id")) == 3
    _clean(fleet)
    assert _left(fleet, VERDICTS, "id") == _left(fleet, PAUSED, "verdict") == [kept, used]


def test_places_go_with_their_verdicts_unless_they_decide(fleet: MemoryFleet) -> None:
    """An acceptance counts as long as its device is in the fleet."""
    for device in ("cam-1", "cam-2", "cam-3"):
        fleet.enrol(device)
    states = {"cam-1": PlaceState.ACCEPTED, "cam-2": PlaceState.WITHDRAWN, "cam-3": PlaceState.HARMLESS,
              "gone": PlaceState.ACCEPTED, "open": PlaceState.OPEN}  # fmt: skip
    for device, state in states.items():
        number = _verdict(fleet, device, closed=device != "open")
        fleet.app.parts.drift.places.add(NewPlace(
            verdict=number, device=device, site="berlin", model="m", release="m-1", state=state,
            decided_ms=0 if device == "open" else OLD_MS,
        ))  # fmt: skip
    _clean(fleet)
    assert _left(fleet, PLACES, "device") == ["cam-1", "cam-3", "open"]


def test_suspects_go_with_their_verdicts_unless_they_decide(fleet: MemoryFleet) -> None:
    """One that labels showed to be harmless is not reported again, as long as its device is in the fleet."""
    for device in ("cam-1", "cam-2", "cam-3"):
        fleet.enrol(device)
    states = {"cam-1": SuspectState.HARMLESS, "cam-2": SuspectState.WORSE, "cam-3": SuspectState.OPEN,
              "gone": SuspectState.HARMLESS, "open": SuspectState.WORSE}  # fmt: skip
    for device, state in states.items():
        number, decided_ms = _verdict(fleet, device, closed=device != "open"), 0 if device == "cam-3" else OLD_MS
        suspect = SuspectDevice(verdict=number, device=device, release="m-1", state=state, decided_ms=decided_ms)
        fleet.app.parts.drift.suspects.put(suspect, OLD_MS, told=False)
    _clean(fleet, OLD_MS + DAY_MS)
    assert len(_left(fleet, SUSPECTS, "device")) == 5
    _clean(fleet)
    assert _left(fleet, SUSPECTS, "device") == ["cam-1", "open"]
