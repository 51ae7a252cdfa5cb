"""An alarm is derived again bit for bit from what is pinned with its verdict, whatever became of all else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from scripts.bench import fleet as fleet_bench
from server.app.retention import Housekeeping
from server.app.state_directory import init_state
from server.cli import main
from server.drift.alarms import records
from server.drift.alarms.records import AlarmReplay
from server.drift.ledger import StoredVerdict
from server.drift.service import DriftService
from server.errors import UnknownVerdictError
from server.ingest.packed_counts import pack, unpack
from server.ingest.window_spans import WindowSpans
from server.store.backup import back_up_sqlite
from server.store.database import open_database
from server.store.monitoring.alarms import ALARMS, PATHS, SHARES
from server.store.monitoring.evidence import EVIDENCE, VERDICTS
from server.store.monitoring.spans import PINNED
from server.store.monitoring.windows import WINDOWS

from .conftest import FleetWorld, drift_service

Restart = Callable[[FleetWorld], DriftService]
DAY_MS = 86_400_000


def _alarm(world: FleetWorld, device: str = "d4", *, quiet: int = 30) -> int:
    """Let ``device`` drift after ``quiet`` windows; return the id of its verdict."""
    world.live(quiet)
    world.shifts = {device: {"luma_mean": 2.0, "noise": 1.0}}
    while not world.service.verdicts.open():
        world.live(1)
    (verdict,) = world.service.verdicts.open()
    assert verdict.devices == (device,)
    return verdict.id


def _value(world: FleetWorld, device: str) -> float:
    """Return the log value of a device in the memory of the service."""
    return world.service._outcome.log_values[device]


def _one(replay: AlarmReplay) -> records.ReplayedPath:
    (path,) = replay.paths
    return path


def _left(world: FleetWorld, table: sa.Table) -> int:
    with world.database.begin() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_an_alarm_is_derived_again_to_the_bit(world: FleetWorld) -> None:
    """From the baseline on, window by window; the last value is that which alarmed."""
    verdict = _alarm(world)
    found = world.service.alarms.replay(verdict)
    path = _one(found)
    assert found.same
    assert path.since_baseline
    assert path.log_values[-1] == path.log_value == _value(world, "d4") >= found.log_threshold
    assert len(path.log_values) == world.slot - path.from_ms // 10_000 > 15
    assert (found.judged, found.decided["flagged"]) == (6, 1)


def test_a_fleet_of_one_device_has_a_path_too(tmp_path: Path) -> None:
    """Nothing is shared there."""
    database = open_database(f"sqlite:///{tmp_path / 'fleet.db'}")
    world = FleetWorld(database, drift_service(database), devices={"d0": "north"}).enrol()
    verdict = _alarm(world, "d0")
    assert world.service.alarms.replay(verdict).same


def test_fleets_that_share_weather_are_derived_too(tmp_path: Path) -> None:
    """What eight devices and more share is taken off: it is recorded for each slot."""
    database = open_database(f"sqlite:///{tmp_path / 'fleet.db'}")
    devices = {f"d{i}": "north" if i < 5 else "south" for i in range(10)}
    world = FleetWorld(database, drift_service(database), devices=devices).enrol()
    verdicts: tuple[StoredVerdict, ...] = ()
    for hour in range(60):
        weather = {"noise": float(np.sin(hour))}  # of all devices, also in their baselines
        world.shifts = dict.fromkeys(devices, weather)
        if hour > 24:
            world.shifts["d4"] = {**weather, "luma_mean": 3.0}
        world.live(1)
        verdicts = tuple(one for one in world.service.verdicts.open() if one.devices == ("d4",))
        if verdicts:
            break
    path = _one(world.service.alarms.replay(verdicts[0].id))
    with database.begin() as connection:
        commons = (
            connection.execute(sa.select(SHARES.c.common).where(SHARES.c.start_ms >= path.from_ms)).scalars().all()
        )
    assert any(np.frombuffer(one, "<f8").any() for one in commons)
    assert path.same


@pytest.mark.stores
def test_merging_and_the_retention_leave_an_alarm_derivable(world: FleetWorld, restarted: Restart) -> None:
    """Years later the windows of others are days, evidence is gone, and the same bits come out."""
    verdict = _alarm(world)
    before = world.service.alarms.replay(verdict)
    world.shifts = {}
    world.live(40)
    assert not world.service.verdicts.open()
    spans = WindowSpans(database=world.database, hourly_ms=DAY_MS, daily_ms=10 * DAY_MS)
    housekeeping = Housekeeping(database=world.database, retention_days=90.0)
    for _ in range(4):
        spans.turn(400 * DAY_MS)
        housekeeping.turn(400 * DAY_MS)
    assert (_left(world, WINDOWS), _left(world, EVIDENCE)) == (0, 0)
    assert _left(world, SHARES) == _left(world, PINNED) == len(_one(before).log_values)
    assert restarted(world).alarms.replay(verdict) == before


def test_what_was_pinned_goes_with_its_verdict(world: FleetWorld) -> None:
    """A governance that forgets verdicts forgets what they rested on."""
    _alarm(world)
    world.shifts = {}
    world.live(40)
    WindowSpans(database=world.database, hourly_ms=DAY_MS, daily_ms=10 * DAY_MS).turn(400 * DAY_MS)
    Housekeeping(database=world.database, retention_days=90.0, governance_days=90.0).turn(400 * DAY_MS)
    Housekeeping(database=world.database, retention_days=90.0, governance_days=90.0).turn(400 * DAY_MS)
    for table in (VERDICTS, ALARMS, PATHS, SHARES, PINNED):
        assert _left(world, table) == 0


@pytest.mark.parametrize("restart", [False, True])
def test_a_path_that_began_long_ago_starts_at_a_checkpoint(
    world: FleetWorld, restarted: Restart, monkeypatch: pytest.MonkeyPatch, *, restart: bool
) -> None:
    """The windows since the baseline are merged: a recorded state of the detectors stands for them."""
    monkeypatch.setattr(records, "DEPTH", 20)
    world.live(60)
    if restart:
        world.service = restarted(world)
    verdict = _alarm(world, quiet=1)
    path = _one(world.service.alarms.replay(verdict))
    assert path.same
    assert not path.since_baseline
    assert 2 <= len(path.log_values) <= 20


def test_many_alarms_at_once_do_not_hold_up_the_next_slot(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many paths are sought a slot; of the other verdicts it is recorded that there is none."""
    monkeypatch.setattr(records, "_PATHS_A_SLOT", 0)
    found = world.service.alarms.replay(_alarm(world))
    assert (found.paths, found.same, found.decided["flagged"]) == ((), False, 1)
    assert found.missing


def test_a_late_window_is_said_not_guessed(world: FleetWorld) -> None:
    """Its slot was judged again: the record is of what alarmed."""
    world.absent = {"d4"}
    world.live(1)
    late = world.report("d4", world.slot - 1)
    world.absent = set()
    verdict = _alarm(world)
    assert world.service.alarms.replay(verdict).same
    inside = dataclasses.replace(late, window_start_ms=(world.slot - 2) * 10_000)
    world.arrive("d4", inside, world.slot * 10_000)
    found = world.service.alarms.replay(verdict)
    assert not found.same
    assert "one came late" in found.missing[0]


def test_other_code_is_said(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits are those of the code that made them."""
    verdict = _alarm(world)
    monkeypatch.setattr(records, "code_digest", lambda: "f" * 64)
    found = world.service.alarms.replay(verdict)
    assert not found.same
    assert "this is ffffffffffff" in found.missing[0]
    assert _one(found).same


def test_other_settings_of_today_change_nothing(world: FleetWorld) -> None:
    """The settings are recorded with the verdict."""
    verdict = _alarm(world)
    world.service.config = dataclasses.replace(world.service.config, z=1.0, budget_per_day=3.0)
    assert world.service.alarms.replay(verdict).same


def test_a_changed_count_is_found(world: FleetWorld) -> None:
    """A path is derived from the counts, so other counts are told."""
    verdict = _alarm(world)
    with world.database.begin() as connection:
        newest = WINDOWS.c.start_ms == (world.slot - 1) * 10_000
        data = connection.execute(sa.select(WINDOWS.c["values"]).where(newest, WINDOWS.c.device == "d4")).scalar_one()
        other = bytearray(data)
        other[3], other[4] = other[4] + 1, other[3]
        connection.execute(WINDOWS.update().where(newest, WINDOWS.c.device == "d4").values({"values": bytes(other)}))
    assert "not those that alarmed" in world.service.alarms.replay(verdict).missing[0]


def test_what_was_not_recorded_is_said(world: FleetWorld) -> None:
    """A verdict of an older version, and one that does not exist."""
    verdict = _alarm(world)
    with world.database.begin() as connection:
        connection.execute(ALARMS.delete())
    assert "nothing was recorded" in world.service.alarms.replay(verdict).missing[0]
    with pytest.raises(UnknownVerdictError):
        world.service.alarms.replay(verdict + 1)


def test_the_command_derives_an_alarm_again(world: FleetWorld, tmp_path: Path) -> None:
    """A line for each device, whatever the windows' length is today; without its inputs the exit code is 1, and why."""
    verdict = _alarm(world)
    state = init_state(tmp_path / "state")
    back_up_sqlite(tmp_path / "fleet.db", state.path / "fleet.db")
    result = CliRunner().invoke(main, ["verdicts", "replay", str(state.path), str(verdict)])
    assert result.exit_code == 0, result.output
    header, line = result.stdout.splitlines()
    assert dict(zip(header.split("\t"), line.split("\t"), strict=True))["same"] == "True"
    database = open_database(f"sqlite:///{state.path / 'fleet.db'}")
    with database.begin() as connection:
        connection.execute(SHARES.delete())
    database.close()
    result = CliRunner().invoke(main, ["verdicts", "replay", str(state.path), str(verdict)])
    assert result.exit_code == 1
    assert "its windows are not those that alarmed: 0" in result.stderr


@pytest.mark.nightly
def test_the_place_of_a_device_among_a_thousand_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays are worked through in blocks of 1,024; 23 streams, one of classes: alone the bits are the same."""
    made = fleet_bench._reference()
    streams = tuple(dataclasses.replace(one, categorical=one.name == "predicted") for one in made.streams)
    monkeypatch.setattr(fleet_bench, "_reference", lambda: dataclasses.replace(made, streams=streams))
    database = open_database(f"sqlite:///{tmp_path / 'thousand.db'}")
    site = fleet_bench.Site(1_101, database)
    site.enrol()
    service, drifted = site.service(), ("cam-00007", "cam-01050", "cam-01100")
    for hour in range(9):
        now_ms = site.report()
        newest = (WINDOWS.c.start_ms == (site.hour - 1) * 3_600_000) & WINDOWS.c.device.in_(drifted)
        with database.begin() as connection:
            for number, data in connection.execute(sa.select(WINDOWS.c.id, WINDOWS.c["values"]).where(newest)).all():
                counts = unpack(data, 23 * 17 + 1).astype(np.uint32)
                for stream in (0, 22) if hour == 8 else ():
                    counts[16 * stream : 16 * stream + 16] = [0] * 15 + [60]
                values = {"values": pack(counts.tobytes())}
                connection.execute(WINDOWS.update().where(WINDOWS.c.id == number).values(values))
        service.turn(now_ms)
    verdicts = service.verdicts.open()
    assert sorted(one.devices[0] for one in verdicts) == sorted(drifted)
    assert all(service.alarms.replay(one.id).same for one in verdicts)
    database.close()
