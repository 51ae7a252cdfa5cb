"""The state in the database: after a restart it continues with the same bits, and an invalid one is never used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.drift.checkpoints import SPANS, FleetMoment, is_due, wanted
from server.drift.service import DriftService
from server.store.monitoring.checkpoints import CHECKPOINTS, checkpoint_slots
from server.store.monitoring.evidence import EVIDENCE
from server.store.monitoring.windows import WINDOWS

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

NEW = ("a2" * 16, "b2" * 16)
DETECTORS = ("log_m", "recent", "training_m", "training_recent", "log_z", "memory", "usual", "n_effective", "stage")
Restart = Callable[["FleetWorld"], DriftService]


@pytest.fixture
def lived(world: FleetWorld) -> FleetWorld:
    """Two banks, one of them still commissioning; a drifted device, a silent one, a faulty one."""
    world.live(15)
    world.shifts = {"d4": {"noise": 2.0}}
    world.keys = dict.fromkeys(("d0", "d1"), NEW)
    world.absent, world.constant = {"d5"}, {"d2"}
    world.live(7)
    return world


def _assert_same(one: FleetMoment, other: FleetMoment) -> None:
    """Compare two states bit by bit."""
    assert (one.health, one.state.current, one.state.flagged) == (
        other.health,
        other.state.current,
        other.state.flagged,
    )
    assert (one.state.slot, set(one.state.banks)) == (other.state.slot, set(other.state.banks))
    for key, bank in one.state.banks.items():
        twin = other.state.banks[key]
        assert (bank.devices, [p.complete for p in bank.commissioning]) == (
            twin.devices, [p.complete for p in twin.commissioning]
        )  # fmt: skip
        for name in DETECTORS:
            assert np.array_equal(getattr(bank, name), getattr(twin, name)), name
    for name, pool in one.state.pools.items():
        assert np.array_equal(pool.log_m, other.state.pools[name].log_m)


def _slots(world: FleetWorld) -> list[int]:
    with world.database.begin() as connection:
        return checkpoint_slots(connection)


@pytest.mark.stores
def test_a_restart_goes_on_from_the_checkpoint(lived: FleetWorld, restarted: Restart) -> None:
    """The windows from before it are not needed any more, and the state is the same to the bit."""
    newest = _slots(lived)[0]
    with lived.database.begin() as connection:
        connection.execute(WINDOWS.delete().where(WINDOWS.c.start_ms < (newest + 1) * 10_000))
    again = restarted(lived)
    again.turn(lived.slot * 10_000 + 1_000)
    _assert_same(again._moment, lived.service._moment)
    assert again._outcome.log_values == lived.service._outcome.log_values


def test_windows_folded_again_give_the_bits_of_the_checkpoint(lived: FleetWorld, restarted: Restart) -> None:
    """Without a checkpoint all windows are read again."""
    lived.service._checkpoints.drop(0)
    again = restarted(lived)
    again.turn(lived.slot * 10_000 + 1_000)
    _assert_same(again._moment, lived.service._moment)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["stamp", "header", "block", "missing", "baseline", "unfinished"])
def test_a_checkpoint_that_does_not_fit_is_discarded(lived: FleetWorld, restarted: Restart, damage: str) -> None:
    """Other code or settings, damage, or a baseline that is not there: deleted, and folded again from the windows."""
    at, own = CHECKPOINTS.c.block, CHECKPOINTS.update()
    with lived.database.begin() as connection:
        if damage in {"stamp", "header"}:
            data = b"{}" if damage == "header" else CHECKPOINTS.c.data
            connection.execute(own.where(at == 0).values(data=data))
        elif damage == "block":
            connection.execute(own.where(at == 1).values(data=b"\0" * 7))
        elif damage != "baseline":
            connection.execute(CHECKPOINTS.delete().where(at == (0 if damage == "unfinished" else 1)))
    again = restarted(lived)
    if damage == "stamp":
        again.config = replace(again.config, epsilon=1e-9)
    if damage == "baseline":
        again._kept.banks["a1" * 16, "b1" * 16] = {}
    again.turn(lived.slot * 10_000 + 1_000)
    if damage in {"stamp", "baseline"}:
        assert again._moment.state.slot == lived.service._moment.state.slot
    else:
        _assert_same(again._moment, lived.service._moment)


@pytest.mark.stores
def test_a_window_that_came_late_while_the_server_was_down_is_folded_in(lived: FleetWorld, restarted: Restart) -> None:
    """The checkpoint is older news than the window: it is not used, and evidence is as if it had come in time."""
    late = replace(lived.report("d5", _slots(lived)[0] - 1), late=True)
    lived.arrive("d5", late, lived.slot * 10_000)
    once, twice = restarted(lived), restarted(lived)
    once.turn(lived.slot * 10_000 + 1_000)
    twice._checkpoints.drop(0)
    twice.turn(lived.slot * 10_000 + 1_000)
    _assert_same(once._moment, twice._moment)
    assert once._moment.health["d5"].last_slot == late.window_start_ms // 10_000


def test_late_windows_are_folded_together_with_the_next_slot(lived: FleetWorld) -> None:
    """However many late windows arrive and however often the service runs, nothing is computed before a slot is due."""
    before, slot = lived.service._moment, lived.slot - 1
    for _ in range(3):
        lived.arrive("d5", replace(lived.report("d5", slot), boot="11" * 8), lived.slot * 10_000)
        lived.service.turn(lived.slot * 10_000 + 1_000)
        slot -= 1
    assert lived.service._moment is before
    lived.live(1)
    with lived.database.begin() as connection:
        query = EVIDENCE.select().where(EVIDENCE.c.device == "d5").order_by(EVIDENCE.c.start_ms.desc()).limit(3)
        starts = [row.start_ms for row in connection.execute(query)]
    assert starts == [10_000 * (lived.slot - 1 - age) for age in (1, 2, 3)]


def test_a_turn_ends_after_a_slot_when_asked(lived: FleetWorld, restarted: Restart) -> None:
    """A server that stops does not wait for weeks of windows; the next turn continues."""
    lived.service._checkpoints.drop(0)
    again = restarted(lived)
    again.goes_on = lambda: False
    again.turn(lived.slot * 10_000 + 1_000)
    assert again._moment.state.slot == 100
    again.turn(lived.slot * 10_000 + 1_000)
    assert again._moment.state.slot == 101


def test_checkpoints_reach_far_back_and_stay_few() -> None:
    """A window that is late by some slots costs that many again and eight at most; by many, a few times as many."""
    slots: list[int] = []
    for slot in range(1, 1500):
        if is_due(slot, slot - 1, slot):
            slots = sorted(wanted([*slots, slot]))
        assert len(slots) <= 2 * len(SPANS)
    for age in (1, 5, 12, 30, 60, 200):
        assert any(1499 - 9 * (age + 8) <= slot < 1499 - age for slot in slots)


def test_far_behind_only_long_spans_are_worth_a_checkpoint() -> None:
    """Computing a month again is not slowed down by ninety checkpoints of it."""
    assert sum(is_due(slot, slot - 1, 720) for slot in range(1, 700)) == 10
    assert sum(is_due(slot, slot - 1, slot) for slot in range(1, 700)) == 87
