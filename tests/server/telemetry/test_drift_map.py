"""The heat map of a window: cohorts and streams."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from server.errors import UnknownReleaseError
from server.registry.versions import Versions
from server.store.database import Database, open_database
from server.store.fleet import DEVICES, insert_device
from server.store.monitoring.evidence import replace_slot
from server.telemetry.drift_map import DriftExplorer, DriftMap

HOUR_MS = 3_600_000
AT_MS = 400_000 * HOUR_MS
HOSTILE = "\"'] </td><script> $.x % _"


@pytest.fixture
def explorer(store_url: str) -> DriftExplorer:
    """Return an explorer of an empty fleet, on each kind of store."""
    database = open_database(store_url)
    return DriftExplorer(database=database, versions=Versions(database, None), window_ms=HOUR_MS)  # type: ignore[arg-type]


def device(database: Database, name: str, site: str, reported: object = None, **attributes: str) -> None:
    """Add a device; ``reported``: its document."""
    row = {"device": name, "site": site, "attributes": attributes, "password_hash": "", "enrolled_ms": 0}
    with database.begin() as connection:
        insert_device(connection, row | {"state": "ready"})
        if reported is not None:
            changed = DEVICES.update().where(DEVICES.c.device == name).values(reported=json.dumps(reported))
            connection.execute(changed)


def evidence(name: str, value: float | None, *streams: tuple[str, str, float], **changes: object) -> dict[str, object]:
    """Return a row of evidence with a threshold of 10; ``streams``: name, words, share."""
    parts = [{"stream": one, "shape": "up", "words": words, "share_ratio": share} for one, words, share in streams]
    return {
        "device": name, "start_ms": AT_MS, "ref_id": "a" * 32, "n": 60, "phase": "judged", "log_value": value,
        "training_log_value": None, "log_threshold": 10.0, "flagged": False, "fault": "", "cause": "",
        "streams": parts, "summaries": {},
    } | changes  # fmt: skip


def judged(database: Database, *rows: Mapping[str, object], at_ms: int = AT_MS) -> None:
    """Store the evidence of one slot."""
    with database.begin() as connection:
        replace_slot(connection, at_ms, at_ms + HOUR_MS, [{**row, "start_ms": at_ms} for row in rows], [])


def table(found: DriftMap) -> dict[str, dict[str, float]]:
    """Return the mean evidence by cohort and stream."""
    return {row.cohort: {one.stream: round(one.evidence_ratio, 3) for one in row.cells} for row in found.rows}


def names(found: DriftMap) -> Sequence[str]:
    """Return the cohorts in their order."""
    return [row.cohort for row in found.rows]


def test_a_fleet_without_evidence_has_no_map(explorer: DriftExplorer) -> None:
    """No window, and no row."""
    device(explorer.database, "d1", "north")
    assert (explorer.explore().at_ms, explorer.explore().rows) == (None, ())


def test_one_device_is_a_map(explorer: DriftExplorer) -> None:
    """Its evidence, by stream."""
    device(explorer.database, "d1", "north")
    judged(explorer.database, evidence("d1", 8.0, ("luma", "darker", 0.5), ("noise", "noisier", 0.25)))
    found = explorer.explore()
    assert table(found) == {"north": {"luma": 0.4, "noise": 0.2}}
    assert (found.at_ms, found.streams, found.rows[0].largest_ratio) == (AT_MS, ("luma", "noise"), 0.8)


def test_means_are_over_the_devices_with_a_window(explorer: DriftExplorer) -> None:
    """Who does not name a stream counts with nothing in its mean, and the devices that name it are counted."""
    for name in ("d1", "d2", "d3"):
        device(explorer.database, name, "north")
    judged(
        explorer.database, evidence("d1", 10.0, ("luma", "darker", 0.5), flagged=True),
        evidence("d2", 2.0, ("luma", "brighter", 0.5)),
    )  # fmt: skip
    (row,) = explorer.explore().rows
    assert (row.devices, row.windows, row.flagged) == (3, 2, 1)
    (cell,) = row.cells
    assert (cell.evidence_ratio, cell.largest_ratio, cell.devices) == (pytest.approx(0.3), pytest.approx(0.5), 2)
    assert cell.words == ("brighter", "darker")


def test_empty_is_not_zero(explorer: DriftExplorer) -> None:
    """A site without a window has none; a stream that nobody names has no cell; evidence of 0 has one."""
    for name, site in (("d1", "north"), ("d2", "south"), ("d3", "east")):
        device(explorer.database, name, site)
    judged(explorer.database, evidence("d1", -3.0, ("luma", "darker", 0.5)), evidence("d2", 4.0))
    found = explorer.explore()
    rows = {row.cohort: row for row in found.rows}
    assert (rows["east"].windows, rows["east"].largest_ratio, rows["east"].cells) == (0, None, ())
    assert (rows["south"].largest_ratio, rows["south"].cell("luma")) == (0.4, None)
    cell = rows["north"].cell("luma")
    assert cell is not None
    assert (cell.evidence_ratio, cell.devices) == (0.0, 1)
    assert names(found) == ["south", "north", "east"]


def test_cohorts_are_of_any_attribute(explorer: DriftExplorer) -> None:
    """Of the claim first, then as reported; also with a name that is hostile to paths, and the release."""
    current = {"current": {"release": "cam-2"}}
    device(explorer.database, "d1", "north", {"attributes": {"lens": "told", HOSTILE: "b"}, **current}, lens="wide")
    device(explorer.database, "d2", "north", {"attributes": {"lens": "tele"}})
    device(explorer.database, "d3", "north", {"attributes": {"lens": "tele"}})
    judged(explorer.database, *(evidence(name, 5.0, ("luma", "darker", 1.0)) for name in ("d1", "d2", "d3")))
    assert sorted(names(explorer.explore("lens"))) == ["tele", "wide"]
    assert sorted(names(explorer.explore("release"))) == ["", "cam-2"]
    assert sorted(names(explorer.explore("device"))) == ["d1", "d2", "d3"]
    assert names(explorer.explore("no such attribute")) == [""]
    assert names(explorer.explore("\0")) == [""]
    assert names(explorer.explore("device", within=("lens", "wide"))) == ["d1"]
    assert names(explorer.explore("device", within=("lens", HOSTILE + "\0"))) == []


def test_a_hostile_name_of_an_attribute_is_compared(explorer: DriftExplorer) -> None:
    """It is no path, whatever characters it has."""
    name = "\"'] $.x % _ \\"
    device(explorer.database, "d1", HOSTILE, **{name: "<b>"})
    judged(explorer.database, evidence("d1", 5.0, (name, "<i>", 1.0)))
    assert table(explorer.explore(name)) == {"<b>": {name: 0.5}}
    assert names(explorer.explore()) == [HOSTILE]


def test_a_device_that_learns_counts_against_training(explorer: DriftExplorer) -> None:
    """It has no other evidence yet; faults and learners are counted apart."""
    device(explorer.database, "d1", "north")
    learning = {"phase": "commissioning", "training_log_value": 6.0, "fault": "stuck"}
    judged(explorer.database, evidence("d1", None, ("luma", "darker", 1.0), **learning))
    (row,) = explorer.explore().rows
    assert (row.learning, row.faulty, row.largest_ratio, table(explorer.explore())["north"]["luma"]) == (1, 1, 0.6, 0.6)


def test_references_do_not_mix_unseen(explorer: DriftExplorer) -> None:
    """Each device is against its own; how many there are is told, and an unknown release is refused."""
    for name in ("d1", "d2"):
        device(explorer.database, name, "north")
    judged(
        explorer.database, evidence("d1", 5.0, ("luma", "darker", 1.0)),
        evidence("d2", 5.0, ("luma", "darker", 1.0), ref_id="b" * 32),
    )  # fmt: skip
    assert explorer.explore().references == 2
    with pytest.raises(UnknownReleaseError, match="cam-9"):
        explorer.explore(release="cam-9")


def test_windows_before_and_devices_that_left_are_apart(explorer: DriftExplorer) -> None:
    """A window is looked at alone, and who left the fleet is in no cohort."""
    for name in ("d1", "d2"):
        device(explorer.database, name, name)
    with explorer.database.begin() as connection:
        connection.execute(DEVICES.update().where(DEVICES.c.device == "d2").values(ended="removed"))
    row = evidence("d1", 5.0, ("luma", "darker", 1.0))
    judged(explorer.database, {**row, "log_value": 1.0}, at_ms=AT_MS - HOUR_MS)
    judged(explorer.database, row, {**row, "device": "d2"})
    assert table(explorer.explore()) == {"d1": {"luma": 0.5}}
    assert table(explorer.explore(at_ms=AT_MS - 1)) == {"d1": {"luma": 0.1}}
    assert explorer.explore(at_ms=0).rows[0].windows == 0


def test_rows_and_columns_are_bounded(explorer: DriftExplorer) -> None:
    """Those with most evidence, or with most of the stream that is asked for; the rest is counted."""
    for number in range(6):
        device(explorer.database, f"d{number}", f"s{number}")
    judged(explorer.database, *(
        evidence(f"d{number}", 1.0 + number, ("x", "w", 0.5), *(((f"y{number}", "w", 0.25),)), ("z", "w", 0.1 * number))
        for number in range(6)
    ))  # fmt: skip
    found = explorer.explore(cohorts=2, streams=1)
    assert (names(found), found.cohorts, found.streams, found.all_streams) == (["s5", "s4"], 6, ("x",), 4)
    by_one = explorer.explore(stream="y0", cohorts=1, streams=2)
    assert (names(by_one), by_one.streams[0]) == (["s0"], "y0")


def test_a_map_is_kept_for_some_seconds(explorer: DriftExplorer) -> None:
    """Whoever asks for the same meanwhile gets the same; another question and a later one are looked up."""
    now_s = [0.0]
    kept = replace(explorer, kept_s=5.0, clock=lambda: now_s[0], _kept={})
    device(explorer.database, "d1", "north")
    judged(explorer.database, evidence("d1", 1.0))
    assert kept.explore().rows[0].largest_ratio == 0.1
    judged(explorer.database, evidence("d1", 2.0))
    assert (kept.explore().rows[0].largest_ratio, kept.explore("device").rows[0].largest_ratio) == (0.1, 0.2)
    now_s[0] = 5.0
    assert kept.explore().rows[0].largest_ratio == 0.2
    assert len(kept._kept) == 1
