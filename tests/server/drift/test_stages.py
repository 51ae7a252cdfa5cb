"""Commissioning in stages: provisional verdicts of devices, none of the fleet, and a baseline that is final at last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scripts.bench.dependence import KEY, DependentFleet, DependentRun
from server.drift.config import DriftConfig
from server.drift.detection.baseline import FINAL
from server.drift.detection.pools import FLEET
from server.drift.service import DriftService
from server.store.database import open_database
from server.store.monitoring.evidence import evidence_of, latest_evidence, latest_pools
from server.store.monitoring.windows import WINDOWS
from tests.server.drift.conftest import FleetWorld, drift_service

KNOWN = ("a1" * 16, "b1" * 16)
Restart = Callable[["FleetWorld"], DriftService]
STAGED = {"baseline_windows": 32, "provisional_windows": 12}


@pytest.fixture
def staged(store_url: str) -> FleetWorld:
    """Nine devices on one site, with verdicts from twelve windows and baselines of thirty-two."""
    database = open_database(store_url)
    devices = {f"d{i}": "north" for i in range(9)}
    world = FleetWorld(database, drift_service(database), devices=devices).enrol()
    world.service.config = replace(world.service.config, **STAGED)
    return world


def _run(devices: int, *, seed: int = 3) -> DependentRun:
    fleet = DependentFleet(kind="independent", devices=devices, streams=2, seed=seed)
    return DependentRun(fleet=fleet, windows=336, provisional=72)


def test_three_stages_lead_to_a_baseline() -> None:
    """Three, seven and fourteen days by default; a baseline that is no longer than the first stage has only itself."""
    assert DriftConfig().settings.stages == (72, 168, 336)
    assert DriftConfig(baseline_windows=12).settings.stages == (12,)
    assert DriftConfig(baseline_windows=100, provisional_windows=0).settings.stages == (100,)
    assert DriftConfig(baseline_windows=100).settings.stages == (72, 100)


def test_an_early_alarm_is_provisional_and_starts_no_retraining(staged: FleetWorld) -> None:
    """It has a verdict, an event and evidence that say so; with the whole baseline it counts."""
    staged.live(14)
    staged.shifts = {"d4": {"noise": 2.0}}
    staged.live(3)
    (verdict,) = staged.service.verdicts.open()
    assert (verdict.devices, verdict.kind, verdict.provisional) == (("d4",), "device_local", True)
    with staged.database.begin() as connection:
        rows = {str(row["device"]): row for row in latest_evidence(connection)}
    assert all(row["provisional"] and row["phase"] == "judged" for row in rows.values())
    assert (rows["d0"]["baseline_windows"], rows["d0"]["wanted_windows"]) == (17, 32)


@pytest.mark.parametrize(("windows", "kinds"), [(14, set[str]()), (34, {"site"})])
def test_the_whole_fleet_is_judged_once_baselines_are_complete(
    staged: FleetWorld, windows: int, kinds: set[str]
) -> None:
    """Before, its pool is shown as collecting and opens nothing, and no healthy device is blamed.

    All of this one is at one site, which is what is named.
    """
    staged.live(windows)
    staged.shifts = {device: {"noise": 1.0} for device in staged.devices}
    staged.live(3)
    with staged.database.begin() as connection:
        (fleet,) = [row for row in latest_pools(connection) if not row["attribute"]]
    assert (fleet["collecting"], fleet["alarm"]) == (not kinds, bool(kinds))
    assert staged.kinds() == kinds
    assert not any(verdict.provisional for verdict in staged.service.verdicts.open())


@pytest.mark.parametrize(("eighth_from", "windows", "said", "judged"), [
    (16, 14, (14, 32), False), (16, 18, (18, 12), False), (16, 30, (30, 32), True), (0, 36, (32, 32), True),
])  # fmt: skip
def test_evidence_says_what_a_device_waits_for(
    staged: FleetWorld, eighth_from: int, windows: int, said: tuple[int, int], *, judged: bool
) -> None:
    """Its whole baseline; beside an eighth that is new, the others; at last nothing. Only then shifts are told."""
    staged.absent = {"d7", "d8"} if eighth_from else set()
    staged.live(min(windows, eighth_from))
    staged.absent = {"d8"} if eighth_from else set()
    staged.live(windows - min(windows, eighth_from))
    with staged.database.begin() as connection:
        (row,) = evidence_of(connection, "d0", 1)
    assert (row["baseline_windows"], row["wanted_windows"]) == said
    assert any("least_sd" in figures for figures in row["summaries"].values()) is judged


def test_windows_with_an_alarm_are_not_part_of_a_baseline(staged: FleetWorld) -> None:
    """The drifted device waits for its own; the others are complete."""
    staged.live(14)
    staged.shifts = {"d4": {"noise": 2.0}}
    staged.live(24)
    bank = staged.service._moment.state.banks[KNOWN]
    assert {name for name, row in bank.rows.items() if bank.stage[row] < FINAL} == {"d4"}
    assert bank.commissioning[bank.rows["d4"]].windows < 20
    assert staged.kinds() == {"device_local"}


def test_fewer_than_eight_devices_are_judged_with_their_whole_baseline() -> None:
    """Nothing is known of what they share; the eighth makes the verdicts of all provisional."""
    run = _run(8)
    for _ in range(73):
        outcome = run.window(only=range(7))
    assert not outcome.log_values
    for _ in range(72):
        outcome = run.window()
    assert len(outcome.provisional) == len(outcome.log_values) == 8


@pytest.mark.parametrize(("drifted", "found"), [(4, 4), (28, 0)])
def test_a_change_of_most_devices_in_the_first_days_accuses_no_healthy_one(drifted: int, found: int) -> None:
    """Of 40 devices, 4 by half a standard deviation are found; 28 are the fleet, which is not judged yet."""
    run = _run(40)
    for _ in range(96):
        run.window()
    shift = np.zeros((40, 2))
    shift[:drifted, 0] = 0.5
    flagged = frozenset[str]().union(*(run.window(shift).flagged for _ in range(24)))
    assert flagged == {f"d{i:05d}" for i in range(found)}


def test_a_restart_in_any_stage_gives_the_same_bits(staged: FleetWorld, restarted: Restart) -> None:
    """From the checkpoint, and from the windows alone; also a device that was drifted while it was commissioned."""
    for windows in (14, 8, 12):
        staged.live(windows)
        staged.shifts = {"d4": {"noise": 2.0}} if windows == 14 else {}
        for lost in (False, True):
            if lost:
                staged.service._checkpoints.drop(0)
            again = restarted(staged)
            again.config = staged.service.config
            again.turn(staged.slot * 10_000 + 1_000)
            one, other = (service._moment.state.banks[KNOWN] for service in (staged.service, again))
            for name in ("log_m", "class_m", "aged", "log_z", "ordinary", "usual", "stage"):
                assert np.array_equal(getattr(one, name), getattr(other, name)), (windows, lost, name)


def test_a_provisional_baseline_outlasts_its_windows(staged: FleetWorld, restarted: Restart) -> None:
    """A device that needs longer than the horizon for its baseline is still compared with how it began."""
    staged.live(14)
    before = staged.service._moment.state.banks[KNOWN].usual.copy()
    staged.service._checkpoints.drop(0)
    with staged.database.begin() as connection:
        connection.execute(WINDOWS.delete())
    staged.service = restarted(staged)
    staged.service.config = replace(staged.service.config, **STAGED)
    staged.shifts = {"d4": {"noise": 2.0}}
    staged.live(3)
    bank = staged.service._moment.state.banks[KNOWN]
    assert np.array_equal(bank.usual, before)
    assert bank.commissioning[bank.rows["d0"]].windows == 12 + 3
    assert staged.kinds() == {"device_local"}


def test_a_device_that_joins_late_is_judged_by_what_its_fleet_knows() -> None:
    """After its own three days, provisionally, with the movement that the others showed in fourteen."""
    run = _run(9)
    for _ in range(336):
        run.window(only=range(8))
    for _ in range(72):
        outcome = run.window()
    assert outcome.provisional == {"d00008"}
    assert not outcome.flagged
    assert (KEY, FLEET) not in outcome.collecting
    shift = np.zeros((9, 2))
    shift[8, 0] = 1.0
    assert "d00008" in [run.window(shift).flagged for _ in range(6)][-1]
