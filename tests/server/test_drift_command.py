"""``fleet-server drift explore`` on a state directory without a server."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.app.state_directory import StateDirectory, init_state
from server.cli import main
from server.store.database import open_database
from server.store.fleet import insert_device
from server.store.monitoring.evidence import replace_slot

HOUR_MS = 3_600_000
AT_MS = 490_000 * HOUR_MS  # 2025-11-24T16:00


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """A fleet of three devices, one of which has no window; the newest window and the one before."""
    made = init_state(tmp_path / "state")
    database = open_database(made.database_url)
    with database.begin() as connection:
        for name, site in (("d1", "north"), ("d2", "south\twest"), ("d3", "east")):
            insert_device(connection, {"device": name, "site": site, "attributes": {"lens": "tele"},
                                       "password_hash": "", "enrolled_ms": 0, "state": "ready"})  # fmt: skip
        for at_ms, value in ((AT_MS, 8.0), (AT_MS - HOUR_MS, 1.0)):
            replace_slot(connection, at_ms, at_ms + HOUR_MS, [
                {"device": name, "start_ms": at_ms, "ref_id": "a" * 32, "n": 60, "phase": "judged", "log_value": value,
                 "training_log_value": None, "log_threshold": 10.0, "flagged": False, "fault": "", "cause": "",
                 "streams": [{"stream": "luma", "shape": "up", "words": "brighter", "share_ratio": 0.5}],
                 "summaries": {}}
                for name in ("d1", "d2")
            ], [])  # fmt: skip
    database.close()
    return made


def explore(state: StateDirectory, *words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["drift", "explore", str(state.path), *words])


def test_a_line_for_each_cohort_and_stream(state: StateDirectory) -> None:
    """TSV with a header; a site without a window has empty figures, and the window is told apart from the rows."""
    done = explore(state)
    header, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert [row["cohort"] for row in rows] == ["north", "south west", "east"]
    assert (rows[0]["stream"], rows[0]["evidence_ratio"], rows[0]["words"]) == ("luma", "0.4", "brighter")
    assert (rows[2]["windows"], rows[2]["largest_ratio"], rows[2]["stream"]) == ("0", "", "")
    assert done.stderr == "window from 2025-11-24T16:00 UTC, against 1 references\n"


def test_other_windows_and_cohorts(state: StateDirectory) -> None:
    """By a time, or by how long before the newest; as JSON with every field; of some devices alone."""
    for at in ("1h", "2025-11-24T15:30", "2025-11-24T16:30+01:00"):
        (row, *_) = json.loads(explore(state, "--at", at, "--by", "lens", "--json").stdout)
        assert (row["cohort"], row["largest_ratio"], row["cells"][0]["devices"]) == ("tele", 0.1, 2)
    (row,) = json.loads(explore(state, "--by", "device", "--having", "site=north", "--json").stdout)
    assert row["cohort"] == "d1"


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--at", "yesterday"), 2, "Expected a UTC time such as 2026-11-30T14:00"),
    (("--at", "1960-01-01"), 2, "Expected a time since 1970"),
    (("--having", "north"), 2, "Expected ATTRIBUTE=VALUE"),
    (("--release", "no-1"), 1, "error [unknown_release]: Expected a release of the registry, got 'no-1'"),
])  # fmt: skip
def test_what_can_not_be_asked_is_refused(state: StateDirectory, words: tuple[str, ...], code: int, said: str) -> None:
    """With the next step, and no row."""
    done = explore(state, *words)
    assert (done.exit_code, said in done.output, done.stdout) == (code, True, "")
