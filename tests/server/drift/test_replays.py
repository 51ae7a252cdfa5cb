"""A release that answers kept inputs of the one before otherwise than the gates of both allow is a regression."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.drift.detection.replays import allowed_ratio, binomial_tail, error_bound, exceeds
from server.drift.places import NewPlace, PlaceState
from server.drift.suspects import SuspectDevice, SuspectState
from server.store.fleet import update_device
from tests.server.drift.conftest import NEW, Shelf
from wire.codec import encode
from wire.messages import Reported, UpdatePhase, UpdateStatus
from wire.reference import Context, Reference
from wire.shadow import ShadowCounts

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld


def test_the_binomial_tail_is_exact() -> None:
    """By hand: two or three of three at a half, and both ends."""
    assert binomial_tail(2, 3, 0.5) == pytest.approx(0.5)
    assert [binomial_tail(*one) for one in ((0, 3, 0.1), (4, 3, 0.1), (1, 3, 0.0), (3, 3, 1.0))] == [1, 0, 0, 1]


def test_the_error_rate_is_bounded_as_by_clopper_and_pearson() -> None:
    """None wrong of 59: below 5 % at 95 %; without classes, rows or labels nothing is known."""
    known = Reference(classes=3, contexts=(Context(n=59, n_effective=59),), table_seen=(59, 0, 0))
    assert error_bound(known) == pytest.approx(1 - 0.05 ** (1 / 59), abs=1e-6)
    assert error_bound(Reference(classes=3)) == error_bound(Reference(contexts=known.contexts)) == 1.0
    assert error_bound(replace(known, table_seen=(0, 0, 0))) == 1.0


def test_twice_what_both_gates_allow_is_ordinary() -> None:
    """At least a tenth, at most all."""
    assert [allowed_ratio(*one) for one in ((0.01, 0.02), (0.06, 0.08), (0.5, 0.5))] == [0.1, pytest.approx(0.28), 1.0]


@pytest.mark.parametrize(
    ("disagreed", "errors", "found"), [(20, 0, False), (48, 0, True), (0, 48, True), (64, 0, True)]
)
def test_only_far_more_other_answers_are_evidence(disagreed: int, errors: int, *, found: bool) -> None:
    """Of 64 inputs where 28 % are allowed for, at the risk of one device of 100 in one window."""
    assert exceeds(ShadowCounts(n=64 - errors, disagreed=disagreed, errors=errors), 0.28, -10.8) is found


def test_numbers_have_no_labels_and_are_not_judged() -> None:
    """The differences of a regression are shown only."""
    assert not exceeds(ShadowCounts(n=64, errors=64, differences={"a": {"1": 64}}), 0.1, -10.8)


@pytest.mark.parametrize(("disagreed", "release", "shelf", "kinds"), [
    (50, "model-2", Shelf(), {"release_regression"}), (50, "model-1", Shelf(), set()), (10, "model-2", Shelf(), set()),
    (50, "model-2", Shelf(model="other"), set()), (50, "model-2", Shelf(classes=2), set()),
])  # fmt: skip
def test_a_replay_is_evidence_at_once(
    world: FleetWorld, disagreed: int, release: str, shelf: Shelf, kinds: set[str]
) -> None:
    """In the first window, with outputs as before; not about another release, of another model, or with a new class."""
    world.service.references, world.classes = shelf, shelf.classes
    world.live(15)
    world.keys = {"d0": NEW}
    counts = ShadowCounts(n=64, disagreed=disagreed)
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, release=release, replay=counts)
    with world.database.begin() as connection:
        update_device(connection, "d0", {"reported": encode(Reported(update=update)).decode()})
    world.live(1)
    found = world.service.verdicts.open()
    assert {verdict.kind.value for verdict in found} == kinds
    for verdict in found:
        assert verdict.cause.startswith(f"answers {disagreed} of 64 kept inputs otherwise than model-1")


def _answers_otherwise(world: FleetWorld, disagreed: int = 50) -> None:
    """Let d0 get the second release, and answer most of its kept inputs otherwise."""
    world.keys = {"d0": NEW}
    counts = ShadowCounts(n=64, disagreed=disagreed)
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, release="model-2", replay=counts)
    with world.database.begin() as connection:
        update_device(connection, "d0", {"reported": encode(Reported(update=update)).decode()})


@pytest.mark.parametrize("moved", [{}, {"confidence": -2.0}])
def test_a_release_that_was_made_for_a_site_is_meant_to_answer_otherwise_there(
    world: FleetWorld, moved: dict[str, float]
) -> None:
    """Of a retraining with samples of another device at the site: neither the replay nor the outputs are evidence."""
    world.live(15)
    world.service.made_for = lambda: {"model-2": ("d1",)}
    _answers_otherwise(world)
    world.shifts = {"d0": moved}
    world.live(16)
    assert world.service.verdicts.open() == ()


def test_a_release_that_was_made_for_another_site_is_judged(world: FleetWorld) -> None:
    """d5 stands in the south."""
    world.live(15)
    world.service.made_for = lambda: {"model-2": ("d5",), "model-1": ("d0",)}
    _answers_otherwise(world)
    world.live(1)
    assert world.kinds() == {"release_regression"}


@pytest.mark.parametrize(
    ("state", "release", "kinds"),
    [
        (PlaceState.HARMFUL, "model-1", set()), (PlaceState.OPEN, "model-1", {"release_regression"}),
        (PlaceState.HARMFUL, "model-0", {"release_regression"}),
    ],
)  # fmt: skip
def test_where_the_release_before_was_shown_to_be_bad_other_answers_are_no_fault(
    world: FleetWorld, state: PlaceState, release: str, kinds: set[str]
) -> None:
    """Not where nobody knows, nor where it was an older release."""
    world.live(15)
    place = NewPlace(verdict=9, device="d0", site="north", model="model", release=release, state=state)
    world.service.places.add(place)
    _answers_otherwise(world)
    world.live(1)
    assert world.kinds() == kinds


@pytest.mark.parametrize("disagreed", [50, 0])
def test_labels_end_a_verdict_for_good(world: FleetWorld, disagreed: int) -> None:
    """The device collects a baseline of the release, and what moves after that is judged; another release is, too."""
    world.live(15)
    _answers_otherwise(world, disagreed)
    world.shifts = {"d0": {"confidence": -2.0}}
    now_ms = world.live(4)
    (verdict,) = world.service.verdicts.open()
    suspect = SuspectDevice(verdict=verdict.id, device="d0", release="model-2", audited=30, upper_risk=0.14)
    world.service.suspects.put(suspect, now_ms, told=True)
    world.live(1)
    assert "d0: not decided, 0 of 30 labelled scenes wrong" in world.service.verdicts.open()[0].cause
    world.service.suspects.put(replace(suspect, state=SuspectState.HARMLESS), now_ms, told=True)
    world.live(12)
    assert world.service.verdicts.open() == ()
    world.live(4)
    world.shifts = {"d0": {"confidence": -2.0, "luma_mean": 2.0}}
    world.live(6)
    assert world.kinds() == {"device_local"}
