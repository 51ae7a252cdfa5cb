"""Lists of devices, a page at a time, on every database."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from server.drift.latest import NotableEvidence, newest_evidence, notable
from server.errors import CursorRefusedError
from server.fleet.device_list import DeviceList
from server.store.commissions import insert_commissions
from server.store.database import Database, open_database
from server.store.fleet import insert_device, update_device
from server.store.lists.devices import DeviceFilter, DeviceSort, FleetCondition, largest_ratio, notable_evidence
from server.store.monitoring.evidence import replace_slot
from server.store.rollouts import insert_rollout
from wire.codec import encode
from wire.messages import ANSWERS_NOTHING, InstalledRelease, Reported, UpdatePhase, UpdateStatus

NOW_MS = 1_800_000_000_000
COUNT = 7


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    """A database of seven devices: d0 to d6, two a site, all there and with m-1 but for what a test changes."""
    database = open_database(empty_url)
    for index in range(COUNT):
        add(database, f"d{index}", site=f"s{index // 2}")
    yield database
    database.close()


def add(database: Database, device: str, **changes: object) -> None:
    """Add a device that reports m-1 as committed."""
    report = Reported(
        gen=1, current=InstalledRelease("m-1", "0" * 64), update=UpdateStatus(phase=UpdatePhase.COMMITTED)
    )  # fmt: skip
    row = {
        "device": device, "site": "s", "attributes": {"lens": "Weitwinkel"}, "password_hash": "", "enrolled_ms": 1,
        "last_seen_ms": NOW_MS - 1_000, "state": "ready", "reported": encode(report).decode(),
    }  # fmt: skip
    with database.begin() as connection:
        insert_device(connection, row | changes)


def change(database: Database, device: str, **changes: object) -> None:
    """Change columns of a device."""
    with database.begin() as connection:
        update_device(connection, device, changes)


def listing(database: Database) -> DeviceList:
    """Return the list at ``NOW_MS``; silent after ten seconds."""
    return DeviceList(database=database, clock=lambda: NOW_MS, silent_s=10)


def names(database: Database, **filters: object) -> list[str]:
    """Return the ids of the devices that a filter names."""
    return [one.device for one in listing(database).all(DeviceFilter(**filters))]  # type: ignore[arg-type]


def judge(database: Database, device: str, start_ms: int, **changes: object) -> None:
    """Add the evidence of one slot of one device, without an alarm unless ``changes`` say so."""
    row = {
        "device": device, "start_ms": start_ms, "ref_id": "r", "n": 9, "phase": "judged", "log_value": 1.0,
        "training_log_value": None, "log_threshold": 10.0, "flagged": False, "new_place": False, "fault": "",
        "cause": "", "provisional": False, "baseline_windows": 1, "wanted_windows": 1, "streams": [], "summaries": {},
    }  # fmt: skip
    with database.begin() as connection:
        replace_slot(connection, start_ms, start_ms + 1, [row | changes], [])


def test_pages_have_each_device_once_in_every_order(database: Database) -> None:
    """Also where most of them are alike in what they are sorted by."""
    judge(database, "d3", 1_000, log_value=5.0)
    every = [f"d{index}" for index in range(COUNT)]
    for sort in DeviceSort:
        up, down = in_order(database, sort, descending=False), in_order(database, sort, descending=True)
        assert (sorted(up), sorted(down)) == (every, every)
    assert in_order(database, DeviceSort.EVIDENCE, descending=True)[0] == "d3"
    assert in_order(database, DeviceSort.EVIDENCE, descending=False)[-1] == "d3"
    assert in_order(database, DeviceSort.SITE, descending=True) == ["d6", "d4", "d5", "d2", "d3", "d0", "d1"]


def in_order(database: Database, sort: DeviceSort, *, descending: bool) -> list[str]:
    """Return the ids of all devices, read two at a time."""
    pages = [listing(database).page(sort=sort, descending=descending, limit=2)]
    assert (pages[0].total, pages[0].previous) == (COUNT, None)
    while pages[-1].next is not None:
        pages.append(listing(database).page(sort=sort, descending=descending, limit=2, cursor=pages[-1].next))
        back = listing(database).page(sort=sort, descending=descending, limit=2, cursor=pages[-1].previous)
        assert (len(pages[-1].rows) <= 2, pages[-1].total) == (True, None)
        assert (back.rows, back.next, back.previous is None) == (
            pages[-2].rows, pages[-2].next, len(pages) == 2,
        )  # fmt: skip
    return [one.device for page in pages for one in page.rows]


def test_one_device_is_a_whole_page(empty_url: str) -> None:
    """And none is an empty one."""
    database = open_database(empty_url)
    assert listing(database).page(limit=1) == listing(database).page(limit=5)
    add(database, "alone")
    page = listing(database).page(limit=1)
    assert ([one.device for one in page.rows], page.next, page.total) == (["alone"], None, 1)
    database.close()


def test_a_device_that_comes_or_goes_moves_no_other(database: Database) -> None:
    """The next page begins after the last one, whatever stands before it now."""
    first = listing(database).page(limit=3)
    add(database, "a-new-one")
    change(database, "d0", ended="removed", ended_ms=5)
    change(database, "d2", ended="removed", ended_ms=6)  # the very row at which the page ended
    second = listing(database).page(limit=3, cursor=first.next)
    assert [one.device for one in second.rows] == ["d3", "d4", "d5"]
    assert names(database, ended=True) == ["d2", "d0"]


def test_each_condition_names_its_devices_and_counts_them(database: Database) -> None:
    """The figures of the overview and the lists behind them are one."""
    busy = Reported(update=UpdateStatus(phase=UpdatePhase.DOWNLOADING))
    failed = Reported(update=UpdateStatus(phase=UpdatePhase.ROLLED_BACK))
    change(database, "d0", state="lost")
    change(database, "d1", last_seen_ms=NOW_MS - 10_001, reported=encode(busy).decode())
    change(database, "d2", last_seen_ms=0, state="init", reported=None)
    change(database, "d3", state="updating", reported=encode(busy).decode())
    change(database, "d4", reported=encode(failed).decode())
    change(database, "d5", reported=encode(Reported(reason=ANSWERS_NOTHING)).decode())
    change(database, "d6", state="disconnected", reported=encode(Reported(safe_mode=True)).decode())
    change(database, "d0", muted_ms=1)
    change(database, "d3", muted_ms=1, muted_until_ms=NOW_MS + 1)
    change(database, "d4", muted_ms=1, muted_until_ms=NOW_MS)  # over
    judge(database, "d0", 1_000, flagged=True)
    judge(database, "d1", 1_500, flagged=True)
    judge(database, "d1", 2_000)  # not any more
    judge(database, "d3", 3_000, phase="commissioning")
    wanted = {
        FleetCondition.CONNECTED: ["d3", "d4", "d5"],
        FleetCondition.LOST: ["d0"],
        FleetCondition.DISCONNECTED: ["d6"],
        FleetCondition.SILENT: ["d1"], FleetCondition.NEVER_CONNECTED: ["d2"], FleetCondition.UPDATING: ["d3"],
        FleetCondition.FAILING: ["d4", "d5", "d6"],
        FleetCondition.DRIFTING: ["d0"],
        FleetCondition.COMMISSIONING: ["d3"],
        FleetCondition.PAUSED: [],
        FleetCondition.MUTED: ["d0", "d3"],
    }  # fmt: skip
    assert {one: names(database, condition=one) for one in FleetCondition} == wanted
    counts = listing(database).counts()
    assert counts == {None: COUNT, **{one: len(found) for one, found in wanted.items()}}


def test_silence_begins_after_its_time_not_at_it(database: Database) -> None:
    """At ten seconds a device is there; after it, silent."""
    change(database, "d0", last_seen_ms=NOW_MS - 10_000)
    change(database, "d1", last_seen_ms=NOW_MS - 10_001)
    assert names(database, condition=FleetCondition.SILENT) == ["d1"]


def test_a_device_that_was_commissioned_again_drifts_no_more(database: Database) -> None:
    """Its evidence is of before; it is commissioning, and last by evidence."""
    judge(database, "d0", 1_000, flagged=True, log_value=20.0)
    row = {"device": "d0", "from_ms": 1_001, "attribute": "", "value": "", "decided_ms": 1, "decided_by": "Ada"}
    with database.begin() as connection:
        insert_commissions(connection, [row | {"why": "moved"}])
    assert names(database, condition=FleetCondition.DRIFTING) == []
    assert names(database, condition=FleetCondition.COMMISSIONING) == ["d0"]
    judge(database, "d1", 900, log_value=0.1)
    assert in_order(database, DeviceSort.EVIDENCE, descending=True)[0] == "d1"


def test_devices_of_a_paused_rollout_are_paused_until_they_have_it(database: Database) -> None:
    """A committed one has it, and one that was left out gets none."""
    rollout = {
        "id": "r", "release": "m-2", "groups": [], "phase": "paused", "probation_s": 1.0, "deadline_s": 1.0,
        "dynamic": False, "created_ms": 1, "updated_ms": 1,
    }  # fmt: skip
    standings = ("waiting", "committed", "cancelled", "failed")
    members = [
        {"rollout": "r", "device": f"d{index}", "group": 0, "standing": standing}
        for index, standing in enumerate(standings)
    ]
    with database.begin() as connection:
        insert_rollout(connection, rollout, members)
    assert names(database, condition=FleetCondition.PAUSED) == ["d0", "d3"]


def test_words_are_found_in_id_site_release_and_attributes(database: Database) -> None:
    """In any case, all of them, and no character of theirs is a pattern."""
    change(database, "d1", attributes={"lens": "100%_Übersicht"})
    change(database, "d2", reported=encode(Reported(current=InstalledRelease("Cam-9", "0" * 64))).decode())
    assert names(database, search="S1") == ["d2", "d3"]
    assert names(database, search="  cam-9   D2 ") == ["d2"]
    assert names(database, search="weitwinkel d0") == ["d0"]
    assert names(database, search="100%_") == ["d1"]
    assert names(database, search="Übersicht") == ["d1"]
    assert names(database, search="0%0") == []
    assert names(database, release="Cam-9") == ["d2"]
    assert names(database, release="cam-9") == []
    assert names(database, site="s0", state="ready") == ["d0", "d1"]


def test_one_report_with_a_nul_hides_no_other_device(database: Database) -> None:
    """PostgreSQL reads no document with it; the device is listed all the same."""
    odd = Reported(agent_version="\0", current=InstalledRelease("m-1", "0" * 64))
    change(database, "d0", reported=encode(odd).decode())
    assert "d1" in names(database, release="m-1")
    assert len(names(database)) == COUNT


def test_refuses_a_cursor_that_it_did_not_give(database: Database) -> None:
    """Whatever a person typed, and of the right list, but made by hand."""
    values: list[list[object]] = [[], ["d1"], ["beside", "d1"], [1, "d1"]]
    values += [["after", *some] for some in (["d1", "d2"], [1], [None], [["d1"]], [True])]  # type: ignore[misc]
    made = [base64.urlsafe_b64encode(json.dumps(["devices by device", *some]).encode()).decode() for some in values]
    for odd in ("", "x", "é", "=", "A" * 2_500, "W10", "[1]", *made):
        with pytest.raises(CursorRefusedError, match="leave cursor out"):
            listing(database).page(cursor=odd)


def test_refuses_the_cursor_of_another_filter(database: Database) -> None:
    """The clock goes on between two pages: a filter that asks for who is there stays the same."""
    later = replace(listing(database), clock=lambda: NOW_MS + 5)
    there = DeviceFilter(condition=FleetCondition.CONNECTED)
    first = listing(database).page(there, limit=1)
    assert len(later.page(there, limit=1, cursor=first.next).rows) == 1
    for other in (DeviceFilter(), DeviceFilter(condition=FleetCondition.CONNECTED, search="c")):
        with pytest.raises(CursorRefusedError, match="of others"):
            listing(database).page(other, limit=1, cursor=first.next)


def test_refuses_the_cursor_of_another_order(database: Database) -> None:
    """A place in one order is none in another."""
    first = listing(database).page(limit=2)
    with pytest.raises(CursorRefusedError):
        listing(database).page(limit=2, sort=DeviceSort.SITE, cursor=first.next)
    with pytest.raises(CursorRefusedError):
        listing(database).page(limit=2, descending=True, cursor=first.next)


def test_notable_evidence_is_what_all_evidence_has_for_people(database: Database) -> None:
    """Each device by its newest window, at both sides of every bound; a quiet one is not even read."""
    cases: list[dict[str, object]] = [
        {"log_value": 5.98}, {"log_value": 6.0}, {"log_value": 5.9996}, {"flagged": True, "log_value": 11.0},
        {"fault": "stuck"}, {"phase": "commissioning", "log_value": None, "training_log_value": 7.0},
        {"log_threshold": 0.0}, {"log_value": None}, {"log_value": -3.0}, {"fault": "stuck", "flagged": True}, {},
    ]  # fmt: skip
    for index, changes in enumerate(cases):
        add(database, f"e{index:02}")
        judge(database, f"e{index:02}", 100 + index, flagged=True)
        judge(database, f"e{index:02}", 1_000 + index, **changes)
    change(database, "e10", ended="removed")
    row = {"from_ms": 1_005, "attribute": "", "value": "", "decided_ms": 1, "decided_by": "Ada", "why": "moved"}
    with database.begin() as connection:
        insert_commissions(connection, [row | {"device": device} for device in ("e03", "e04", "e05", "e08")])
    every = newest_evidence(database)
    ratios = {name: one["threshold_ratio"] for name, one in every.items()}
    found = notable(database, near_ratio=0.6, late_ms=1_007, there_since_ms=NOW_MS - 10_000)
    assert found.faulty == tuple(sorted(name for name, one in every.items() if one["fault"])) == ("e04", "e09")
    assert found.flagged == tuple(sorted(name for name, one in every.items() if one["flagged"])) == ("e09",)
    near = {name for name, ratio in ratios.items() if isinstance(ratio, float) and ratio >= 0.6}
    assert found.near == tuple(sorted(near - set(found.flagged)))
    assert {"e01", "e02"} <= set(found.near)
    judged = {name for name, one in every.items() if one["phase"] == "judged"}
    assert found.unjudged == {f"d{index}" for index in range(COUNT)} | (set(every) - judged)
    assert found.late == {name for name in judged if int(str(every[name]["window_start_ms"])) < 1_007}
    change(database, "e00", last_seen_ms=NOW_MS - 10_001)  # away: that it sends no windows is no news
    with database.begin() as connection:
        read = notable_evidence(connection, near_ratio=0.6, late_ms=1_007, there_since_ms=NOW_MS - 10_000)
        largest = largest_ratio(connection)
    assert {"e00", "e07", "e10"} & {one[0] for one in read} == set()
    assert round(largest, 4) == max(ratio for ratio in ratios.values() if isinstance(ratio, float))


def test_without_evidence_nothing_is_near_and_all_are_unjudged(empty_url: str) -> None:
    """No device, and one."""
    database = open_database(empty_url)
    asked = {"near_ratio": 0.6, "late_ms": 1, "there_since_ms": 0}
    assert notable(database, **asked) == NotableEvidence()  # type: ignore[arg-type]
    add(database, "alone")
    assert notable(database, **asked).unjudged == {"alone"}  # type: ignore[arg-type]
    with database.begin() as connection:
        assert largest_ratio(connection) == 0.0
    database.close()
