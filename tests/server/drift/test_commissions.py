"""A device that is commissioned again has a new baseline from its next window on; windows from before don't count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.app.retention import Housekeeping
from server.drift.detection.pools import FLEET
from server.drift.latest import newest_evidence
from server.drift.places import NewPlace, PlaceState
from server.drift.service import DriftService
from server.errors import CommissionRefusedError, DeviceEndedError, UnknownDeviceError
from server.registry.events import EventLog
from server.store.commissions import all_commissions
from server.store.fleet import update_device
from server.store.monitoring.checkpoints import BASELINES
from server.store.monitoring.evidence import evidence_of
from tests.server.drift.conftest import NEW, OLD, WINDOW_MS
from wire.messages import DriftState

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

Restart = Callable[["FleetWorld"], DriftService]
MOVED = {"noise": 2.0}


def _commission(world: FleetWorld, *devices: str, why: str = "lens replaced") -> int:
    """Commission devices again while a window is open; return the slot of the first that counts."""
    for device in devices:
        world.service.commissions.begin(device, why, now_ms=world.slot * WINDOW_MS + 1, by="Ada")
    return world.slot + 1


def _own(world: FleetWorld, device: str, key: tuple[str, str] = OLD) -> Mapping[str, object]:
    """Return how far the baseline of a device is, and its evidence."""
    bank = world.service._moment.state.banks[key]
    row = bank.rows[device]
    return {"windows": bank.commissioning[row].windows, "stage": int(bank.stage[row]), "log_m": bank.log_m[row].max()}


def _same(one: DriftService, other: DriftService) -> None:
    """Both have the same detectors and baselines, device by device."""
    for key, bank in one._moment.state.banks.items():
        again = other._moment.state.banks[key]
        order = [again.rows[device] for device in bank.devices]
        for name in ("stage", "log_m", "usual", "memory", "n_effective", "training_m", "place", "aged"):
            assert np.array_equal(getattr(bank, name), getattr(again, name)[order]), name
        assert [part.windows for part in bank.commissioning] == [again.commissioning[row].windows for row in order]
    assert one._moment.state.commissioned == other._moment.state.commissioned


@pytest.fixture
def moved(world: FleetWorld) -> FleetWorld:
    """The camera of d4 was moved: it alarms against the world before."""
    world.live(15)
    world.shifts = {"d4": MOVED}
    world.live(5)
    assert world.kinds() == {"device_local"}
    return world


def test_an_alarm_ends_and_the_baseline_begins_anew(moved: FleetWorld) -> None:
    """What it sees since then is its usual; what changes later is found against that."""
    first = _commission(moved, "d4")
    assert moved.kinds() == set()
    told = newest_evidence(moved.database)["d4"]
    assert (told["phase"], told["flagged"], told["threshold_ratio"], told["cause"]) == (
        "commissioning",
        False,
        None,
        "",
    )
    assert newest_evidence(moved.database, "d3")["d3"]["phase"] == "judged"
    moved.live(1)  # the window in which it was said: it is of both worlds, and opens nothing
    assert (moved.kinds(), _own(moved, "d4")["stage"]) == (set(), 3)
    moved.live(1)
    assert _own(moved, "d4") == {"windows": 1, "stage": 0, "log_m": -np.inf}
    assert moved.slot == first + 1
    moved.live(30)
    assert (moved.kinds(), _own(moved, "d4")["stage"]) == (set(), 3)
    moved.shifts = {}
    moved.live(4)
    (verdict,) = moved.service.verdicts.open()
    assert (verdict.kind, verdict.devices, verdict.cause) == ("device_local", ("d4",), "less noisy")


def test_without_it_the_alarm_stands(moved: FleetWorld) -> None:
    """The control: a moved camera is never a usual by itself."""
    moved.live(32)
    assert moved.kinds() == {"device_local"}


def test_who_and_why_stand_in_the_events_and_the_ledger(moved: FleetWorld) -> None:
    """Beside the alarm that ended."""
    _commission(moved, "d4")
    texts = [event.text for event in EventLog(moved.database).latest(2, device="d4")]
    assert any(text.startswith("Ended after 5 windows, commissioned again by Ada (lens replaced): ") for text in texts)
    assert any("d4: commissioned again by Ada (lens replaced): its baseline begins anew with" in text for text in texts)
    (one,) = moved.service.commissions.all()
    assert (one.device, one.from_ms, one.decided_by, one.why) == ("d4", 21 * WINDOW_MS + 1_000_000, "Ada", one.why)


def test_others_are_judged_as_before(moved: FleetWorld) -> None:
    """Neither their baselines nor their evidence change, and a fault of another one is found."""
    before = moved.service._moment.state.banks[OLD]
    usual = before.usual[before.rows["d1"]].copy()
    _commission(moved, "d4")
    moved.live(3)
    after = moved.service._moment.state.banks[OLD]
    assert np.array_equal(after.usual[after.rows["d1"]], usual)
    moved.shifts = {"d4": MOVED, "d1": MOVED}
    moved.live(4)
    assert [one.devices for one in moved.service.verdicts.open()] == [("d1",)]


@pytest.mark.parametrize("checkpoint", [True, False])
def test_it_outlasts_a_restart(moved: FleetWorld, restarted: Restart, checkpoint: bool) -> None:  # noqa: FBT001
    """From a checkpoint, and from the windows alone; also while the baseline is collected."""
    _commission(moved, "d4")
    for windows in (4, 12):
        moved.live(windows)
        if not checkpoint:
            moved.service._checkpoints.drop(0)
        again = restarted(moved)
        again.turn(moved.slot * WINDOW_MS + 1_000)
        _same(moved.service, again)
    assert _own(moved, "d4")["stage"] == 3
    moved.service = again
    moved.live(2)
    assert moved.kinds() == set()


@pytest.mark.parametrize("age", [2, 9])
def test_a_late_window_from_before_does_not_enter_the_new_baseline(
    moved: FleetWorld, restarted: Restart, age: int
) -> None:
    """It is folded where it belongs, against the baseline of then, and everything since comes out the same."""
    first = _commission(moved, "d4")
    moved.live(18)
    own, evidence = _own(moved, "d4"), _evidence(moved, first - 1)
    late = replace(moved.report("d4", first - age), boot="11" * 8)
    moved.arrive("d4", replace(late, window_start_ms=late.window_start_ms + 1), moved.slot * WINDOW_MS)
    moved.absent = set(moved.devices)
    moved.live(1)
    assert _own(moved, "d4") == own
    assert _evidence(moved, first - 1)["flagged"] == evidence["flagged"] == True  # noqa: E712 - of the store
    again = restarted(moved)
    again.turn(moved.slot * WINDOW_MS + 1_000)
    _same(moved.service, again)


def _evidence(world: FleetWorld, slot: int) -> Mapping[str, object]:
    with world.database.begin() as connection:
        rows = evidence_of(connection, "d4", 200)
    return next(row for row in rows if row["start_ms"] // WINDOW_MS == slot)


def test_a_late_window_of_the_new_world_enters_it(moved: FleetWorld) -> None:
    """It counts in its slot."""
    first = _commission(moved, "d4")
    moved.live(2)
    moved.absent = {"d4"}
    moved.live(1)
    moved.absent = set()
    moved.live(2)
    moved.arrive("d4", moved.report("d4", first + 1), moved.slot * WINDOW_MS)
    moved.live(1)
    assert _own(moved, "d4")["windows"] == moved.slot - first


def test_a_device_is_commissioned_twice(moved: FleetWorld, restarted: Restart) -> None:
    """While its baseline is collected, and again once it is complete: each time from the first window on."""
    _commission(moved, "d4")
    moved.live(6)
    first = _commission(moved, "d4", why="moved again")
    moved.live(4)
    assert _own(moved, "d4")["windows"] == moved.slot - first
    moved.live(12)
    assert _own(moved, "d4")["stage"] == 3
    first = _commission(moved, "d4", why="and again")
    _commission(moved, "d4", why="said twice")
    moved.live(5)
    assert _own(moved, "d4") == {"windows": moved.slot - first, "stage": 0, "log_m": -np.inf}
    moved.service._checkpoints.drop(0)
    again = restarted(moved)
    again.turn(moved.slot * WINDOW_MS + 1_000)
    _same(moved.service, again)
    assert [one.why for one in again.commissions.all()] == ["said twice", "and again", "moved again", "lens replaced"]


def test_a_fleet_of_one(world: FleetWorld, restarted: Restart) -> None:
    """It has no pools, and nothing is left of how it moved."""
    world.absent = set(world.devices) - {"d4"}
    world.live(15)
    world.shifts = {"d4": MOVED}
    world.live(5)
    assert "device_local" in world.kinds()
    _commission(world, "d4")
    world.live(2)
    assert "device_local" not in world.kinds()
    bank = world.service._moment.state.banks[OLD]
    assert (bank.fleet.pair_devices == 0).all()
    assert (bank.fleet.lag_devices == 0).all()
    world.live(14)
    assert _own(world, "d4")["stage"] == 3
    world.service = restarted(world)
    world.live(6)
    assert "device_local" not in world.kinds()


def test_the_fleet_moves_as_if_it_had_never_been_there(moved: FleetWorld) -> None:
    """What the fleet learned from how it moved is taken off, and added once for the new baseline."""

    def learned() -> np.ndarray:
        return moved.service._moment.state.banks[OLD].fleet.pair_devices.copy()

    before = learned()
    _commission(moved, "d4")
    moved.live(2)
    assert learned()[0] == before[0] - 1
    moved.live(12)
    assert np.array_equal(learned(), before)


def test_a_pool_goes_on_without_the_member_until_it_has_a_baseline(moved: FleetWorld) -> None:
    """As with a newcomer."""
    members = lambda: moved.service._moment.state.pools[OLD, FLEET].members  # noqa: E731
    _commission(moved, "d4")
    moved.live(3)
    assert members() == 5
    moved.live(12)
    assert members() == 6


def test_the_pool_of_a_site_that_is_commissioned_again_begins_again(world: FleetWorld) -> None:
    """Its evidence was of the world before, and nobody is left to say otherwise; what it learned goes too."""
    world.live(16)
    south = ("site", "south")
    assert (OLD, south) in world.service._moment.state.pools
    now_ms = world.slot * WINDOW_MS + 1
    begun = world.service.commissions.begin_all(*south, "new lamps", now_ms=now_ms, by="Ada")
    assert [(one.device, one.attribute, one.value) for one in begun] == [(one, *south) for one in ("d3", "d4", "d5")]
    world.live(1)
    world.shifts = dict.fromkeys(("d3", "d4", "d5"), MOVED)
    world.live(1)
    state = world.service._moment.state
    assert (OLD, south) not in state.pools
    assert south not in state.movement[OLD]
    assert ("site", "north") in state.movement[OLD]
    assert state.pools[OLD, FLEET].members == 3
    world.live(20)
    assert world.kinds() == set()
    assert world.service._moment.state.pools[OLD, south].members == 3


def test_all_devices_at_once(world: FleetWorld) -> None:
    """By an attribute that all have; the fleet's pool begins again too."""
    world.live(15)
    world.shifts = dict.fromkeys(world.devices, MOVED)
    world.live(5)
    assert world.kinds()
    for site in ("north", "south"):
        world.service.commissions.begin_all("site", site, "repainted", now_ms=world.slot * WINDOW_MS + 1, by="Ada")
    assert world.kinds() == set()
    world.live(2)
    assert world.service._moment.state.pools == {}
    world.live(25)
    assert world.kinds() == set()
    assert world.service._moment.state.pools[OLD, FLEET].members == 6


def test_a_release_after_it_is_not_compared_with_the_world_before(moved: FleetWorld) -> None:
    """Neither by the baseline under the old release, nor when the device returns to that release."""
    _commission(moved, "d4")
    moved.live(3)
    moved.keys = {"d4": NEW}
    moved.live(4)
    assert moved.kinds() == set()
    moved.live(12)
    assert _own(moved, "d4", NEW)["stage"] == 3
    moved.keys = {}
    moved.live(3)
    assert moved.kinds() == set()
    assert _own(moved, "d4")["windows"] == 5  # two whole ones before the new release, and three now


def test_a_device_that_is_judged_by_the_release_before_is_so_no_more(world: FleetWorld, restarted: Restart) -> None:
    """It came with a baseline of the old release, and alarmed against that; also after a restart."""
    world.live(15)
    world.keys = {"d4": NEW}
    world.live(1)
    world.shifts = {"d4": MOVED}
    world.live(4)
    assert world.kinds() == {"device_local"}
    _commission(world, "d4")
    world.live(2)
    state = world.service._moment.state
    assert "d4" not in state.carried[NEW].origins
    assert (state.current["d4"].previous, state.carried_bank("d4")) == (None, None)
    world.service = restarted(world)
    world.live(14)
    assert (world.kinds(), _own(world, "d4", NEW)["stage"]) == (set(), 3)


def test_the_baseline_of_another_release_from_before_is_gone_too(world: FleetWorld, restarted: Restart) -> None:
    """The device had one under both releases; after the commission neither applies, also after a restart."""
    world.live(15)
    world.keys = {"d4": NEW}
    world.live(15)
    _commission(world, "d4")
    world.live(2)
    world.keys, world.shifts = {}, {"d4": MOVED}
    world.service = restarted(world)
    world.live(4)
    assert (world.kinds(), _own(world, "d4")["windows"]) == (set(), 4)


def test_an_acceptance_of_the_place_before_does_not_hold(world: FleetWorld) -> None:
    """The new place is judged by its own windows; the device hears that it is learning meanwhile."""
    world.service.references = replace(world.service.references, sites={"north": 0.0, "south": 1.0})  # type: ignore[type-var]
    world.shifts = {"d4": {"noise": 1.5}}
    world.live(14)
    (verdict,) = world.service.verdicts.open()
    world.service.places.add(NewPlace(verdict=verdict.id, device="d4", site="south", model="model", release="model-1"))
    world.service.places.accept("d4", now_ms=1, by="Ada")
    world.live(3)
    assert world.kinds() == set()
    _commission(world, "d4")
    (place,) = world.service.places.all()
    assert (place.state, place.why, place.words) == (
        PlaceState.COMMISSIONED, "lens replaced", "new to training, before it was commissioned again; no labels yet"
    )  # fmt: skip
    now_ms = world.live(1)
    assert world.service.states.of("d4", now_ms) is DriftState.LEARNING
    world.live(11)
    assert world.kinds() == set()
    world.live(3)
    assert world.kinds() == {"new_place"}


def test_a_place_that_was_new_is_none_after_the_camera_was_moved_back(world: FleetWorld) -> None:
    """The windows of the bad place don't count: twelve good ones are enough."""
    world.service.references = replace(world.service.references, sites={"north": 0.0, "south": 1.0})  # type: ignore[type-var]
    world.shifts = {"d4": {"noise": 1.5}}
    world.live(14)
    assert world.kinds() == {"new_place"}
    _commission(world, "d4")
    world.shifts = {}
    world.live(20)
    assert world.kinds() == set()
    assert world.service._outcome.new_places == frozenset()


def test_it_needs_a_reason_a_name_and_devices(world: FleetWorld) -> None:
    """Refused in words, and nothing is written."""
    commissions = world.service.commissions
    for refused in (
        lambda: commissions.begin("d4", "  ", now_ms=1, by="Ada"),
        lambda: commissions.begin("d4", "why", now_ms=1, by=""),
        lambda: commissions.begin_all("site", "west", "why", now_ms=1, by="Ada"),
    ):
        with pytest.raises(CommissionRefusedError, match="Expected a"):
            refused()
    with pytest.raises(UnknownDeviceError):
        commissions.begin("nobody", "why", now_ms=1, by="Ada")
    with world.database.begin() as connection:
        update_device(connection, "d4", {"ended": "revoked"})
    with pytest.raises(DeviceEndedError):
        commissions.begin("d4", "why", now_ms=1, by="Ada")
    assert commissions.all() == ()


def test_a_moment_that_was_processed_already_is_computed_again(moved: FleetWorld) -> None:
    """The clock of the server was set back: the slots from then on are processed once more."""
    moved.service.commissions.begin("d4", "lens", now_ms=(moved.slot - 3) * WINDOW_MS, by="Ada")
    moved.live(1)
    assert _own(moved, "d4")["windows"] == 4
    moved.live(2)
    assert moved.kinds() == set()


def test_the_retention_keeps_what_applies(moved: FleetWorld, restarted: Restart) -> None:
    """The newest commission of each device and its baseline stay; what they replaced goes."""
    for _ in range(3):
        _commission(moved, "d4")
        moved.live(14)
    Housekeeping(database=moved.database, retention_days=0.0).turn(moved.slot * WINDOW_MS + 1_000)
    with moved.database.begin() as connection:
        kept = connection.execute(BASELINES.select().where(BASELINES.c.device == "d4")).mappings().all()
        (newest,) = all_commissions(connection)
        others = connection.execute(BASELINES.select().where(BASELINES.c.device != "d4")).all()
    assert [row["since_ms"] for row in kept] == [newest["from_ms"]]
    assert len(others) == 5
    moved.service._checkpoints.drop(0)
    moved.service = restarted(moved)
    moved.live(3)
    assert (moved.kinds(), _own(moved, "d4")["stage"]) == (set(), 3)
