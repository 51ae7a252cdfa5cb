"""What is older than the retention goes, in every table that grows; acts, and what decides something, stay."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

import server
from server.app.retention import RULES, Deleted, Housekeeping, Merged, Stays
from server.drift.ledger import Finding
from server.drift.places import NewPlace, PlaceState
from server.drift.suspects import SuspectDevice, SuspectState
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.registry.events import RECORDS, Origin, event_row
from server.retraining.policy import RetrainingPhase, Trigger
from server.store.certificates import CERTIFICATES
from server.store.database import declared_tables
from server.store.events import EVENTS, insert_events
from server.store.fleet import CLAIMS, COMMANDS
from server.store.monitoring.evidence import EVIDENCE, POOLS, VERDICTS, replace_slot
from server.store.monitoring.ingest import BATCHES
from server.store.places import PLACES
from server.store.retraining import SAMPLES
from server.store.rollouts import PAUSED, note_paused_for
from server.store.suspects import SUSPECTS
from wire.messages import Severity

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

DAY_MS = 86_400_000
OLD_MS, NOW_MS = 10 * DAY_MS, 200 * DAY_MS


def _clean(fleet: MemoryFleet, now_ms: int = NOW_MS, governance_days: float = 90.0) -> None:
    Housekeeping(
        database=fleet.app.parts.database, retention_days=90.0, governance_days=governance_days
    ).turn(now_ms)  # fmt: skip


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


@pytest.mark.stores
def test_a_database_that_was_never_cleaned_is_cleaned_bit_by_bit(fleet: MemoryFleet) -> None:
    """The oldest first, so many rows a turn, until nothing is left: nobody waits for a lock of minutes."""
    _slots(fleet, *range(OLD_MS, OLD_MS + 5))
    housekeeping = Housekeeping(database=fleet.app.parts.database, retention_days=90.0, portion=2)
    for left, pools in ((3, 5), (1, 5), (0, 3), (0, 1), (0, 0)):
        housekeeping.turn(NOW_MS)
        assert _left(fleet, EVIDENCE, "start_ms") == list(range(OLD_MS + 5 - left, OLD_MS + 5))
        assert len(_left(fleet, POOLS, "start_ms")) == pools


def test_every_table_has_a_rule() -> None:
    """A table that only grows fills the disk in years: whoever adds one says what becomes of its rows."""
    assert sorted(RULES) == sorted(declared_tables().tables)
    for rules in RULES.values():
        words = [getattr(one, {Deleted: "when", Merged: "into", Stays: "because"}[type(one)]) for one in rules]
        assert words
        assert all(words)


def test_every_kind_of_event_is_an_act_or_telemetry() -> None:
    """Who adds a kind of event says whether it is deleted."""
    used = set()
    for file in Path(server.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("events.add", "event_row")):
                of_kind = call.args[1] if len(call.args) > 1 else None  # a page's rows have one argument
                if (
                    isinstance(of_kind, ast.Constant)
                    and call.args[0] is not None
                    and "fault" not in ast.unparse(call.func)
                ):
                    used.add(of_kind.value)
    assert used == RECORDS.keys()


def _event(fleet: MemoryFleet, kind: str, code: str, *, boot: str = "", routine: bool = False) -> None:
    row = event_row(OLD_MS, kind, code, Severity.INFO, "text", origin=Origin(boot=boot), routine=routine)
    with fleet.app.parts.database.begin() as connection:
        insert_events(connection, [row])


def test_acts_stay_when_telemetry_goes(fleet: MemoryFleet) -> None:
    """What people and the server decided is asked for years later; a device's event of the same name is telemetry."""
    _event(fleet, "rollout", "rollout_started")
    _event(fleet, "rollout", "by_a_device", boot="ab" * 8)
    _event(fleet, "ingest", "message_invalid")
    _event(fleet, "device", "certificate_renewed")
    _event(fleet, "verdict", "fault", routine=True)
    _clean(fleet, governance_days=0)
    assert _left(fleet, EVENTS, "code") == ["rollout_started"]
    assert [one["code"] for one in fleet.client().get("/api/events?record=act").json()["events"]] == ["rollout_started"]
    acts = fleet.app.parts.events.latest(record="act")
    assert [one.code for one in acts] == ["rollout_started"]
    _clean(fleet)
    assert _left(fleet, EVENTS, "code") == []


def test_verdicts_stay_and_faults_go_while_governance_is_kept(fleet: MemoryFleet) -> None:
    """A large fleet has faults every day; an alarm is part of why something was done."""
    drifted = _verdict(fleet, "a", closed=True)
    verdicts = fleet.app.parts.drift.verdicts
    fault = Finding(
        verdict=DriftVerdict(kind=VerdictKind.DEVICE_FAULT, devices=("b",), detail="silent"), cause="silent"
    )
    verdicts.note([fault], OLD_MS, OLD_MS, quiet_ms=1 << 60, judged=True)
    verdicts.end(verdicts.open()[-1], OLD_MS + 1, "test")
    _clean(fleet, governance_days=0)
    assert _left(fleet, VERDICTS, "id") == [drifted]


@pytest.mark.stores
def test_what_has_expired_goes_and_the_newest_of_each_device_stays(fleet: MemoryFleet) -> None:
    """Claims, commands, certificates, and samples whose images are gone."""
    claim = {"site": "s", "device": "d", "attributes": {}}
    command = {"device": "d", "expires_ms": OLD_MS}
    certificate = {"device": "d", "serial": "1", "issued_ms": 0, "pem": ""}
    sample = {"device": "d", "boot": "", "sha256": "", "media_type": "", "length_bytes": 1, "request": "", "lane": "",
              "inclusion_ratio": 1.0, "predicted": 0, "confidence": 0.0, "artifact_sha256": "", "at_ms": OLD_MS,
              "received_ms": OLD_MS}  # fmt: skip
    claims = {"old": OLD_MS, "new": NOW_MS}
    commands = (("old", "a", 1), ("newest", "a", 2), ("other", "b", 1))
    samples = ((1, OLD_MS, None), (2, OLD_MS, "cat"), (3, 0, None))
    rows = {
        CLAIMS: [claim | {"claim_sha256": name, "expires_ms": at_ms} for name, at_ms in claims.items()],
        COMMANDS: [command | {"id": name, "verb": verb, "issued_ms": at_ms} for name, verb, at_ms in commands],
        CERTIFICATES: [certificate | {"sha256": name, "expires_ms": ms} for name, ms in (("old", 1), ("newest", 2))],
        SAMPLES: [sample | {"seq": seq, "expired_ms": at_ms, "label": label} for seq, at_ms, label in samples],
    }
    with fleet.app.parts.database.begin() as connection:
        for table, of_table in rows.items():
            connection.execute(table.insert(), of_table)
    _clean(fleet)
    assert _left(fleet, CLAIMS, "claim_sha256") == ["new"]
    assert _left(fleet, COMMANDS, "id") == ["newest", "other"]
    assert _left(fleet, CERTIFICATES, "sha256") == ["newest"]
    assert _left(fleet, SAMPLES, "seq") == [2, 3]


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


def test_measurements_go_sooner_and_never_later_than_other_telemetry(fleet: MemoryFleet) -> None:
    """They are most of a database; who wants telemetry gone after three days means them too."""
    row = {"device": "d", "stream": "hw", "t0_ms": 0, "n": 1, "rows": []}
    with fleet.app.parts.database.begin() as connection:
        connection.execute(BATCHES.insert(), [row | {"received_ms": NOW_MS - days * DAY_MS} for days in (15, 13, 2)])
    for telemetry_days, left in ((90.0, 2), (3.0, 1)):
        Housekeeping(database=fleet.app.parts.database, retention_days=telemetry_days).turn(NOW_MS)
        assert len(_left(fleet, BATCHES, "id")) == left
