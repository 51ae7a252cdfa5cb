"""A device that kept another model and returns begins a new baseline there; what it only tried changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from server.app.retention import Housekeeping
from server.drift.service import DriftService
from server.registry.events import EventLog
from server.registry.lineage import note_model, note_transition
from server.store.commissions import model_changes
from server.store.database import Database
from server.store.fleet import insert_device
from server.store.monitoring.checkpoints import BASELINES
from tests.server.drift.conftest import NEW, OLD, WINDOW_MS, Shelf
from tests.server.drift.test_commissions import MOVED, _own, _same
from wire.messages import InstalledRelease, Reported, UpdatePhase, UpdateStatus

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

Restart = Callable[["FleetWorld"], DriftService]
RELEASES = {OLD: "model-1", NEW: "other-2"}


def _report(
    database: Database, device: str, older: Reported | None, release: str, now_ms: int, *, tried: bool = False
) -> Reported:
    """Let a device report the release that it has; ``tried``: in its probation."""
    phase = UpdatePhase.PROBATION if tried else UpdatePhase.COMMITTED
    newer = Reported(current=InstalledRelease(release), update=UpdateStatus(phase=phase, release=release), at_ms=now_ms)
    with database.begin() as connection:
        note_model(connection, device, older, newer, now_ms)
        note_transition(connection, device, older, newer, now_ms)
    return newer


def _changes(database: Database) -> list[tuple[str, str, int]]:
    with database.begin() as connection:
        return model_changes(connection)


class Moves:
    """Gives ``d4`` other releases as an update does: first in probation, for a window, then kept or rolled back."""

    def __init__(self, world: FleetWorld, restarted: Restart) -> None:
        """Nothing is reported yet but the first release, as at an installation."""
        self.world, self.restarted = world, restarted
        cast("Shelf", world.service.references).model = "other"
        self.reported = _report(world.database, "d4", None, RELEASES[OLD], 1)

    def to(self, key: tuple[str, str], *, kept: bool = True) -> None:
        """Switch to ``key``; after a window in probation it is kept, or the release before runs again."""
        before = self.world.keys.get("d4", OLD)
        self.world.keys = {"d4": key}
        self._say(key, tried=True)
        self.world.live(1)
        if not kept:
            self.world.keys = {"d4": before}
        self._say(key if kept else before)

    def _say(self, key: tuple[str, str], *, tried: bool = False) -> None:
        now_ms = self.world.slot * WINDOW_MS + 1
        self.reported = _report(self.world.database, "d4", self.reported, RELEASES[key], now_ms, tried=tried)

    def restart(self, *, checkpoint: bool) -> None:
        """Start the server again, from its checkpoint or from the windows alone."""
        if not checkpoint:
            self.world.service._checkpoints.drop(0)
        older, self.world.service = self.world.service, self.restarted(self.world)
        cast("Shelf", self.world.service.references).model = "other"
        self.world.service.turn(self.world.slot * WINDOW_MS + 1_000)
        _same(older, self.world.service)
        assert older._moment.state.committed == self.world.service._moment.state.committed


@pytest.fixture(params=[False, True], ids=["of six", "alone"])
def moves(world: FleetWorld, restarted: Restart, request: pytest.FixtureRequest) -> Moves:
    """``d4`` has a baseline of its model, among six devices or alone."""
    if request.param:
        world.absent = set(world.devices) - {"d4"}
    found = Moves(world, restarted)
    world.live(15)
    return found


def _kinds(moves: Moves) -> set[str]:
    return {one.kind.value for one in moves.world.service.verdicts.open() if one.devices == ("d4",)} - {"device_fault"}


def test_after_a_return_the_first_windows_are_a_new_baseline(moves: Moves) -> None:
    """What it sees there is its usual, what changes later is drift; no window of the earlier life counts."""
    moves.to(NEW)
    moves.world.live(3)
    assert _own(moves.world, "d4")["stage"] == 0  # from when the other model was kept, not from the return on
    moves.world.shifts = {"d4": MOVED}
    moves.to(OLD)
    moves.world.live(3)
    assert _own(moves.world, "d4")["windows"] == 4
    moves.world.live(20)
    assert (_kinds(moves), _own(moves.world, "d4")["stage"]) == (set(), 3)
    moves.world.shifts = {}
    moves.world.live(4)
    (verdict,) = [one for one in moves.world.service.verdicts.open() if one.kind.value == "device_local"]
    assert (verdict.devices, verdict.cause, verdict.model) == (("d4",), "less noisy", "model")


def test_what_was_only_tried_changes_nothing(moves: Moves) -> None:
    """Rolled back within its probation: the baseline of before judges the first window."""
    moves.to(NEW, kept=False)
    assert _own(moves.world, "d4")["stage"] == 3
    moves.world.shifts = {"d4": MOVED}
    moves.world.live(1)
    assert "d4" in moves.world.service._outcome.log_values
    moves.world.live(3)
    assert _kinds(moves) == {"device_local"}
    assert [model for _, model, _ in _changes(moves.world.database)] == ["model"]


@pytest.mark.parametrize("checkpoint", [True, False])
def test_it_outlasts_a_restart(moves: Moves, checkpoint: bool) -> None:  # noqa: FBT001
    """While it is away, while the new baseline is collected, and once it is complete."""
    moves.to(NEW)
    moves.restart(checkpoint=checkpoint)
    moves.world.live(3)
    moves.to(OLD)
    moves.world.shifts = {"d4": MOVED}
    for windows in (4, 12):
        moves.world.live(windows)
        moves.restart(checkpoint=checkpoint)
    moves.world.live(3)
    assert (_kinds(moves), _own(moves.world, "d4")["stage"]) == (set(), 3)


def test_windows_that_come_late_belong_to_their_stay(moves: Moves) -> None:
    """One of the earlier life does not enter the new baseline, and is compared with that of then."""
    away = moves.world.slot
    moves.to(NEW)
    moves.world.live(3)
    moves.to(OLD)
    moves.world.live(16)
    own = _own(moves.world, "d4")
    late = replace(moves.world.report("d4", away - 2), boot="11" * 8)
    moves.world.arrive("d4", replace(late, window_start_ms=late.window_start_ms + 1), moves.world.slot * WINDOW_MS)
    moves.world.absent = set(moves.world.devices)
    moves.world.live(1)
    assert _own(moves.world, "d4") == own
    moves.restart(checkpoint=False)


def test_every_return_is_one(moves: Moves) -> None:
    """To either model, also before a baseline there is complete: each begins at its first window."""
    for key in (NEW, OLD, NEW, OLD):
        moves.to(key)
        moves.world.live(4)
        assert _own(moves.world, "d4", key)["windows"] == 5
    moves.restart(checkpoint=False)


def test_a_change_that_was_processed_already_is_computed_again(moves: Moves) -> None:
    """The clock of the server was set back: the slots from then on are processed once more."""
    moves.to(NEW)
    moves.world.live(3)
    moves.world.keys, now_ms = {}, (moves.world.slot - 2) * WINDOW_MS
    moves.world.live(2)
    _report(moves.world.database, "d4", moves.reported, RELEASES[OLD], now_ms)
    moves.world.live(1)
    assert _own(moves.world, "d4", NEW)["windows"] == 2  # those after the moment, of four
    moves.restart(checkpoint=False)


@pytest.mark.parametrize("moves", [False], indirect=True, ids=["of six"])
def test_others_are_judged_as_before(moves: Moves) -> None:
    """Their baselines stay, and a fault of one of them is found while the device is away."""
    moves.to(NEW)
    moves.world.shifts = {"d1": MOVED}
    moves.world.live(4)
    assert [one.devices for one in moves.world.service.verdicts.open()] == [("d1",)]


def test_the_retention_keeps_what_applies(moves: Moves) -> None:
    """The newest change to each model, and the baselines since; an earlier stay's goes with its windows."""
    for key in (NEW, OLD, NEW, OLD):
        moves.to(key)
        moves.world.live(14)
    Housekeeping(database=moves.world.database, retention_days=0.0).turn(moves.world.slot * WINDOW_MS + 1_000)
    changes = {model: from_ms for _, model, from_ms in _changes(moves.world.database)}
    assert len(_changes(moves.world.database)) == 2
    with moves.world.database.begin() as connection:
        rows = connection.execute(BASELINES.select().where(BASELINES.c.device == "d4")).mappings().all()
    newest = {row["since_ms"] for row in rows if row["ref_id"] == OLD[0]}
    assert newest == {changes["other"]}
    moves.world.service._checkpoints.drop(0)
    moves.world.service = moves.restarted(moves.world)
    cast("Shelf", moves.world.service.references).model = "other"
    moves.world.live(3)
    assert (_kinds(moves), _own(moves.world, "d4")["stage"]) == (set(), 3)


def test_only_models_that_are_kept_are_changes(world: FleetWorld) -> None:
    """Not the first one, not another version, not a trial; a stay from before this was noted is when it ends."""
    database, older = world.database, None
    for number, (release, tried) in enumerate([("tags-1", False), ("tags-2", True), ("tags-2", False)]):
        older = _report(database, "d1", older, release, number, tried=tried)
    assert _changes(database) == []
    older = _report(database, "d1", older, "odd-1", 4, tried=True)
    assert _changes(database) == []
    older = _report(database, "d1", older, "odd-1", 5)
    older = _report(database, "d1", older, "odd-2", 6)
    older = _report(database, "d1", older, "tags-2", 7)
    assert _changes(database) == [("d1", "odd", 5), ("d1", "tags", 7)]
    assert [one.text for one in EventLog(database).latest(5) if one.code == "model_kept"][-1] == (
        "d1: keeps odd after tags: returning to another model, it begins a new baseline there"
    )
    with database.begin() as connection:
        insert_device(connection, {"device": "e", "site": "x", "attributes": {}, "password_hash": "", "enrolled_ms": 0})
        for older_one, newer in (("", "tags-1"), ("tags-1", "odd-1")):  # as a server of before noted them
            before = Reported(current=InstalledRelease(older_one)) if older_one else None
            note_transition(connection, "e", before, Reported(current=InstalledRelease(newer)), 1)
    _report(database, "e", Reported(current=InstalledRelease("odd-1")), "tags-1", 9, tried=True)
    assert _changes(database)[2:] == [("e", "odd", 9)]
