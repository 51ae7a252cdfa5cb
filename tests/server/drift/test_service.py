"""Drift detection on a stored fleet: which verdicts are given, when, and that a restart changes none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from server.drift.ledger import Finding
from server.drift.service import DriftService
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.errors import UnknownBlobError
from server.store.monitoring import evidence as store
from tests.server.drift.conftest import WINDOW_MS
from wire.messages import DriftState

if TYPE_CHECKING:
    from server.registry.versions import Release
    from tests.server.drift.conftest import FleetWorld

NEW = ("a2" * 16, "b2" * 16)
DARK_AND_BLURRY = {"luma_mean": -1.5, "laplacian_log": -2.0, "confidence": -1.0}


def test_a_steady_fleet_is_quiet(world: FleetWorld) -> None:
    """Without drift there is no verdict."""
    world.live(80)
    assert world.service.verdicts.latest() == ()


def test_a_drifted_site_is_named_with_its_cause(world: FleetWorld) -> None:
    """Three devices of one site with darker, blurrier images result in one site verdict in words."""
    world.live(15)
    world.shifts = dict.fromkeys(("d3", "d4", "d5"), DARK_AND_BLURRY)
    world.live(4)
    (verdict,) = [verdict for verdict in world.service.verdicts.open() if verdict.kind == "site"]
    assert verdict.devices == ("d3", "d4", "d5")
    assert verdict.attributes == {"site": "south"}
    assert verdict.windows >= 3
    assert verdict.cause == "darker, blurrier; less confident"
    assert (verdict.model, verdict.release) == ("model", "model-1")
    assert world.kinds() == {"site"}


def test_the_cause_of_inputs_that_are_no_pictures_has_no_words_of_a_camera(world: FleetWorld) -> None:
    """Rows of features and sounds have the same measures, of numbers; the shares of the page say so too."""
    world.service.has_pictures = lambda _release: False
    world.live(15)
    world.shifts = dict.fromkeys(("d3", "d4", "d5"), DARK_AND_BLURRY)
    world.live(3)
    assert [verdict.cause for verdict in world.service.verdicts.open()] == [
        "values lower, smoother values; less confident"
    ]
    with world.database.begin() as connection:
        (row,) = store.evidence_of(connection, "d4", 1)
    assert {"values lower", "smoother values"} <= {share["words"] for share in row["streams"]}


def test_no_verdict_advises_samples_that_no_device_is_asked_for(world: FleetWorld) -> None:
    """What can be asked of its release decides; the event says the same. A fault's advice stays."""
    world.service.not_asked = lambda _release: "answers of the task 'multi_label': a label here is one class"
    world.live(15)
    world.shifts, world.constant = dict.fromkeys(("d3", "d4", "d5"), DARK_AND_BLURRY), {"d1"}
    world.live(4)
    found = {verdict.kind.value: verdict.action for verdict in world.service.verdicts.open()}
    assert found["site"].startswith("collect inputs at the site yourself, label them elsewhere")
    assert found["site"].endswith("of a release with answers of the task 'multi_label': a label here is one class")
    assert found["device_fault"] == "look at the device"
    assert any(event.text.endswith(found["site"]) for event in world.service.events.after(0))


def test_a_bundle_that_is_gone_is_a_fault_of_its_devices_and_ends_no_turn(world: FleetWorld) -> None:
    """Its reference may be known from before; the devices of other releases are judged."""

    def gone(_release: Release) -> bool:
        raise UnknownBlobError("Expected a bundle, got none")

    world.service.has_pictures = gone
    world.live(1)
    found = {(verdict.kind, verdict.detail) for verdict in world.service.verdicts.open()}
    assert found == {("device_fault", "unknown_blob")}


def test_what_devices_are_told_follows_their_evidence(world: FleetWorld, restarted: Callable) -> None:
    """Learning, then quiet, then drift of the one that drifts; a restart knows the same, and old evidence is none."""
    told = lambda now_ms: {world.service.states.of(device, now_ms) for device in ("d0", "d4")}  # noqa: E731
    assert told(world.live(5)) == {DriftState.LEARNING}
    assert told(world.live(10)) == {DriftState.QUIET}
    world.shifts, world.constant = {"d4": {"noise": 2.0}}, {"d1"}
    now_ms = world.live(4)
    assert told(now_ms) == {DriftState.QUIET, DriftState.DRIFT}
    assert world.service.states.of("d1", now_ms) is DriftState.FAULT
    again = restarted(world)
    again.turn(now_ms)
    assert [again.states.of(device, now_ms) for device in world.devices] == [
        world.service.states.of(device, now_ms) for device in world.devices
    ]
    last_ms = now_ms - WINDOW_MS + again.states.kept_ms
    assert [again.states.of("d4", at_ms) for at_ms in (last_ms - 1, last_ms)] == [DriftState.DRIFT, None]
    assert again.states.of("nobody", now_ms) is None


def test_one_drifted_device_is_local(world: FleetWorld) -> None:
    """One device of six is its own affair, and the pools stay quiet."""
    world.live(15)
    world.shifts = {"d4": {"noise": 2.0}}
    world.live(4)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.devices, verdict.cause) == ("device_local", ("d4",), "noisier")


def test_a_drift_of_all_devices_is_the_fleets(world: FleetWorld) -> None:
    """When every device sees the change it is one fleet verdict."""
    world.live(15)
    world.shifts = {device: {"luma_mean": 1.0} for device in world.devices}
    world.live(6)
    assert "fleet" in world.kinds()
    assert "cohort" not in world.kinds()


def test_a_verdict_closes_when_the_world_is_as_before(world: FleetWorld) -> None:
    """Evidence is capped, so a device that is well again becomes quiet."""
    world.live(15)
    world.shifts = {"d4": {"noise": 2.0}}
    world.live(20)
    world.shifts = {}
    world.live(30)
    assert world.service.verdicts.open() == ()


def test_a_new_release_starts_with_a_new_baseline(world: FleetWorld) -> None:
    """Drifted devices under a new reference collect a new baseline, and their verdict closes."""
    world.live(15)
    world.shifts = dict.fromkeys(("d3", "d4", "d5"), DARK_AND_BLURRY)
    world.live(4)
    world.keys = dict.fromkeys(("d3", "d4", "d5"), NEW)
    world.live(20)
    assert world.service.verdicts.open() == ()


def test_a_device_that_swaps_within_a_window_is_in_the_newer_bank(world: FleetWorld) -> None:
    """Of two reports of one window, under the old and the new reference, the new one decides."""
    now_ms = world.live(15)
    world.arrive("d1", replace(world.report("d1", world.slot), ref_id=NEW[0], artifact=NEW[1]), now_ms)
    world.live(1)
    current = world.service._moment.state.current
    assert (current["d1"].key, current["d1"].was_quiet) == (NEW, True)
    assert current["d0"].since_slot == 100


def test_a_release_that_breaks_outputs_is_a_regression(world: FleetWorld) -> None:
    """Inputs as before, outputs suddenly less sure with the release: the release is to blame, not the world."""
    world.live(15)
    world.keys = dict.fromkeys(("d0", "d1"), NEW)
    world.shifts = {device: {"confidence": -1.5} for device in ("d0", "d1")}
    world.live(3)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.devices, verdict.detail) == ("release_regression", ("d0", "d1"), "model-2")


def test_a_frozen_camera_is_a_fault_and_no_drift(world: FleetWorld) -> None:
    """Inputs that never change are detected at once and left out of the statistics."""
    world.live(15)
    world.constant = {"d1"}
    world.live(1)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.detail) == ("device_fault", "stuck")


def test_different_inputs_that_are_all_far_off_are_no_frozen_camera(world: FleetWorld) -> None:
    """Bright noise: each value is beyond all training, in an end bin, and no input repeats; it drifts."""
    world.live(15)
    world.shifts = {"d1": {"luma_mean": 40.0, "laplacian_log": 40.0, "noise": -40.0}}
    world.live(3)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.devices) == ("device_local", ("d1",))


def test_silence_becomes_a_fault(world: FleetWorld) -> None:
    """A device without reports for some windows gets a verdict, the others continue."""
    world.live(15)
    world.absent = {"d2"}
    world.live(6)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.devices, verdict.detail) == ("device_fault", ("d2",), "silent")


def test_a_late_window_gives_the_same_evidence_as_a_punctual_one(
    world: FleetWorld, restarted: Callable[[FleetWorld], DriftService]
) -> None:
    """The state depends on the windows, not on their arrival: after a restart it has the same values."""
    world.live(14)
    late = world.report("d2", world.slot)
    world.absent = {"d2"}
    world.live(2)
    world.absent = set()
    now_ms = world.live(1)
    world.arrive("d2", replace(late, late=True), now_ms)
    now_ms = world.live(3)
    once = _values(world)
    again = restarted(world)
    again.turn(now_ms + 1_000)
    assert np.array_equal(once, again._moment.state.banks["a1" * 16, "b1" * 16].log_m)
    assert again._moment.state.slot == world.service._moment.state.slot


def test_silent_evidence_is_no_news(world: FleetWorld) -> None:
    """A drifted device without new reports keeps its verdict until it counts as silent."""
    world.live(15)
    world.shifts = {"d4": {"noise": 2.0}}
    world.live(2)
    (before,) = world.service.verdicts.open()
    world.absent = {"d4"}
    world.live(2)
    (after,) = world.service.verdicts.open()
    assert (after.windows, after.last_window_ms) == (before.windows, before.last_window_ms)
    world.live(2)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.detail) == ("device_fault", "silent")
    told = [event.text for event in world.service.events.after(0, 100)]
    assert any(text.startswith("Unknown after 2 windows, its devices are silent: device_local: d4") for text in told)
    assert any("d4: no window for 30 s; look at the device" in text for text in told)


def test_a_verdict_that_fades_keeps_its_cause(world: FleetWorld) -> None:
    """Ten windows after a repair the alarm is still there, and the newest windows show chance alone."""
    world.service.config = replace(world.service.config, baseline_windows=60)
    world.live(62)
    world.shifts = {"d4": {"luma_mean": -2.0}}
    world.live(5)
    world.shifts = {}
    told = []
    while world.kinds() and len(told) < 40:
        world.live(1)
        told += [verdict.cause for verdict in world.service.verdicts.open()]
    assert told == ["darker"] * 10


def _values(world: FleetWorld) -> np.ndarray:
    return world.service._moment.state.banks["a1" * 16, "b1" * 16].log_m


def test_evidence_is_stored_for_every_device_and_window(world: FleetWorld) -> None:
    """The dashboard finds value, threshold and phase of each window."""
    world.live(14)
    with world.database.begin() as connection:
        rows = store.evidence_of(connection, "d0", 50)
    assert [row["phase"] for row in rows] == ["judged"] * 3 + ["commissioning"] * 11
    assert rows[0]["log_value"] < rows[0]["log_threshold"]
    assert set(rows[0]["summaries"]) == {"luma_mean", "laplacian_log", "noise", "confidence"}
    assert 0.1 < rows[0]["summaries"]["noise"]["least_sd"] < 1.0
    assert "least_sd" not in rows[-1]["summaries"]["noise"]


def test_an_outage_of_a_whole_fleet_is_noted_in_one_transaction(world: FleetWorld) -> None:
    """Each silent device has its own verdict; a commit for each would delay everything else for minutes."""
    commits: list[object] = []
    sa.event.listen(world.database.engine, "commit", commits.append)
    verdicts = [DriftVerdict(kind=VerdictKind.DEVICE_FAULT, devices=(f"d{i}",), detail="silent") for i in range(50)]
    findings = [Finding(verdict=verdict, cause="no window for 90 s") for verdict in verdicts]
    for window in range(3):
        world.service.verdicts.note(findings if window < 2 else [], window * 10, 1, quiet_ms=10, judged=True)
    assert len(commits) == 6  # each time the open ones are read and all changes are written
    latest = world.service.verdicts.latest(100)
    assert {(one.windows, one.closed_ms, one.cause) for one in latest} == {(2, 1, "no window for 90 s")}
    assert len(latest) == len(world.service.events.after(0, 1000)) // 2 == 50
