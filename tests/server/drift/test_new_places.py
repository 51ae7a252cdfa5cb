"""A device is at a new place if no context of training, nor a mixture, explains what it sees; a person may accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.access.audit_log import AuditLog
from server.drift.detection.detector_bank import DetectorSettings, Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.places import LOG_LIMIT, LOOK_WINDOWS
from server.drift.detection.reference import training_profile
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot
from server.drift.places import NewPlace, PlaceState
from server.errors import NoNewPlaceError, UnknownDeviceError
from server.registry.events import EventLog
from server.store.fleet import update_device
from server.store.monitoring.evidence import evidence_of
from tests.server.drift.conftest import EDGES, NEW
from wire.histogram import BINS
from wire.messages import DriftState
from wire.reference import Context, Reference, StreamSpec

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

STREAMS = 6
KEY = ("ef" * 16, "cd" * 16)
SETTINGS = DetectorSettings(
    baseline_windows=48, z=4.0, epsilon=0.0, log_alpha=float(np.log(0.05 / 24)), window_ms=3_600_000
)
NORTH, SOUTH, ELSEWHERE = (0.0,) * STREAMS, (0.8, -0.5, 0.0, 0.4, 0.0, 0.0), (0.0, 0.0, 0.9, 0.0, 0.0, 0.0)
SITES = {"north": NORTH, "south": SOUTH}


def _counts(values: np.ndarray) -> np.ndarray:
    """Return the counts (S, 16) of samples (N, S)."""
    return np.stack([np.bincount(np.searchsorted(EDGES, column), minlength=BINS) for column in values.T])


def _reference(names: Sequence[str] = ("north", "south"), n: int = 600) -> Reference:
    dice = np.random.default_rng(1)
    counts = {name: _counts(dice.standard_normal((n, STREAMS)) + SITES.get(name, NORTH)) for name in names}
    return Reference(
        artifact_sha256="cd" * 32,
        streams=tuple(StreamSpec(name=f"s{i}", kind="input") for i in range(STREAMS)),
        contexts=tuple(
            Context(name=name, n=n, n_effective=n, counts=tuple(int(v) for v in found.reshape(-1)))
            for name, found in counts.items()
        ),
        classes=1, confidence_bins=1, table_right=(1,), table_seen=(1,), edges=(tuple(EDGES),) * STREAMS,
    )  # fmt: skip


def _window(place: Sequence[float], dice: np.random.Generator, frames: int) -> np.ndarray:
    return _counts(np.repeat(dice.standard_normal((60 // frames, STREAMS)), frames, axis=0) + place)


def _live(
    places: Mapping[str, Sequence[float] | str], windows: int, *, frames: int = 1,
    joined: Mapping[str, int] | None = None,
) -> tuple[FoldState, list[SlotOutcome]]:  # fmt: skip
    """Let devices at ``places`` (``mixed``: now north, now south) send ``windows``; some join later."""
    dice = np.random.default_rng(7)
    state = FoldState()
    state.open_bank(KEY, ScoreColumns(STREAMS), training_profile(_reference()))
    outcomes = []
    for slot in range(windows):
        seen = []
        for device, place in places.items():
            here = (NORTH, SOUTH)[slot % 2] if place == "mixed" else place
            counts = _window(here, dice, frames)  # type: ignore[arg-type]
            if slot >= (joined or {}).get(device, 0):
                seen.append(Observation(device, counts))
        outcomes.append(fold_slot(state, slot, {KEY: seen}, {one: {"site": one} for one in places}, SETTINGS))
    return state, outcomes


@pytest.mark.parametrize("frames", [1, 5])
def test_devices_at_training_sites_and_between_are_ordinary_a_foreign_one_is_not(frames: int) -> None:
    """Over 60 windows, also if five frames in a row show one scene; the mark stays when the baseline is complete."""
    places = {"n": NORTH, "s": SOUTH, "both": "mixed", "far": ELSEWHERE}
    state, outcomes = _live(places, 60, frames=frames)
    assert {device for outcome in outcomes for device in outcome.new_places} == {"far"}
    assert outcomes[LOOK_WINDOWS - 2].new_places == frozenset()
    assert outcomes[-1].new_places == {"far"}
    assert not outcomes[-1].flagged
    assert state.banks[KEY].place[state.banks[KEY].rows["far"]] > LOG_LIMIT


def test_one_device_alone_is_judged() -> None:
    """A fleet of one, at a training site and elsewhere."""
    assert _live({"d": SOUTH}, 48, frames=5)[1][-1].new_places == frozenset()
    assert _live({"d": ELSEWHERE}, 36)[1][-1].new_places == {"d"}


def test_a_device_that_joins_later_is_judged_by_its_own_windows() -> None:
    """It joins in window 30, far off: known in window 42, not before."""
    _, outcomes = _live({"n": NORTH, "s": SOUTH, "far": (2.0,) * STREAMS}, 44, joined={"far": 30})
    assert next(slot for slot, outcome in enumerate(outcomes) if outcome.new_places) == 41


def test_windows_too_far_apart_to_know_their_memory_decide_nothing() -> None:
    """Twelve windows, each two days after the last: how much its frames depend on each other is unknown."""
    state, dice = FoldState(), np.random.default_rng(3)
    state.open_bank(KEY, ScoreColumns(STREAMS), training_profile(_reference()))
    for number in range(12):
        seen = [Observation("far", _window(ELSEWHERE, dice, 1))]
        outcome = fold_slot(state, 48 * number, {KEY: seen}, {}, SETTINGS)
    assert outcome.new_places == frozenset()


def test_a_reference_for_all_rows_knows_no_places() -> None:
    """One context without a name of a site says nothing about single sites."""
    assert training_profile(_reference(("default",))).places is None
    assert training_profile(_reference(("north",))).places is not None
    assert training_profile(_reference(("default", "retrained"))).places is None


def _elsewhere(world: FleetWorld) -> FleetWorld:
    """Return the world with a reference of two sites, and d4 at neither."""
    world.service.references = replace(world.service.references, sites={"north": 0.0, "south": 1.0})  # type: ignore[type-var]
    world.shifts = {"d3": {"luma_mean": 1.0}, "d4": {"noise": 1.5}}
    return world


def test_a_new_place_has_a_verdict_of_its_own_and_is_told(world: FleetWorld, restarted: Callable) -> None:
    """Its cause, its action, the device's state; it stays when the device is judged, and after a restart."""
    assert _elsewhere(world).live(11)
    assert world.kinds() == set()
    now_ms = world.live(3)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.devices, verdict.release) == ("new_place", ("d4",), "model-1")
    assert verdict.action == "label the samples that it was asked for, or accept the place"
    assert verdict.cause == "noisier"
    with world.database.begin() as connection:
        (row, *_) = evidence_of(connection, "d4", 1)
    assert (row["phase"], row["cause"]) == ("judged", "training does not know this place: noisier")
    assert row["streams"][0]["words"] == "noisier"  # beside its cause, not what holds the evidence against its usual
    assert world.service.states.of("d4", now_ms) is DriftState.NEW_PLACE
    assert world.service.states.of("d3", now_ms) is DriftState.QUIET
    world.service = restarted(world)
    _elsewhere(world).live(20)
    assert [one.id for one in world.service.verdicts.open()] == [verdict.id]


def _noted(world: FleetWorld) -> None:
    """Add the place of the open verdict, as those who ask for labels do."""
    (verdict,) = world.service.verdicts.open()
    world.service.places.add(NewPlace(
        verdict=verdict.id, device="d4", site=world.devices["d4"], model="model", release="model-1"
    ))  # fmt: skip


def test_an_accepted_place_ends_its_verdict_and_stays_accepted(world: FleetWorld) -> None:
    """With a line in the events; under the next release too, to which the place is as new."""
    _elsewhere(world).live(13)
    _noted(world)
    place = world.service.places.accept("d4", "a new hall", now_ms=1, by="Ada")
    assert (place.state, place.decided_by, place.why) == (PlaceState.ACCEPTED, "Ada", "a new hall")
    world.live(4)
    assert world.kinds() == set()
    texts = [event.text for event in EventLog(world.database).latest(10, device="d4")]
    assert "d4: its place was accepted by Ada: a new hall" in texts
    world.keys = dict.fromkeys(world.devices, NEW)
    world.live(16)
    assert world.service._outcome.new_places == {"d4"}
    assert world.kinds() == set()


def test_an_accepted_place_is_not_accepted_at_another_site(world: FleetWorld) -> None:
    """The device moves: what was accepted was the other site."""
    _elsewhere(world).live(13)
    _noted(world)
    world.service.places.accept("d4", now_ms=1)
    world.live(4)
    assert world.kinds() == set()
    with world.database.begin() as connection:
        update_device(connection, "d4", {"site": "east"})
    world.devices = {**world.devices, "d4": "east"}
    world.live(2)
    assert world.kinds() == {"new_place"}


def test_only_an_open_new_place_can_be_accepted(world: FleetWorld) -> None:
    """A device without one, or of another name, is refused in words."""
    _elsewhere(world).live(13)
    for device in ("d3", "d4"):  # the place of d4 is not noted yet
        with pytest.raises(NoNewPlaceError, match="open verdict new_place"):
            world.service.places.accept(device, now_ms=1)
    for decide in (world.service.places.accept, world.service.places.withdraw):
        with pytest.raises(UnknownDeviceError, match="registered device, got 'nobody'"):
            decide("nobody", now_ms=1)


def test_an_acceptance_that_is_taken_back_is_a_new_place_again(world: FleetWorld) -> None:
    """With a new verdict, to which labels begin anew; who took it back and why stays with the old one."""
    _elsewhere(world).live(13)
    _noted(world)
    world.service.places.accept("d4", "a new hall", now_ms=1, by="Ada")
    world.live(4)
    assert world.kinds() == set()
    place = world.service.places.withdraw("d4", "it was d3", now_ms=2, by="Bob")
    assert (place.state, place.decided_by, place.why, place.decided_ms) == (
        PlaceState.WITHDRAWN, "Bob", "it was d3", 2
    )  # fmt: skip
    assert place.words == "new to training, its acceptance was taken back by Bob; no labels yet"
    world.live(1)
    assert world.kinds() == {"new_place"}
    with pytest.raises(NoNewPlaceError, match="a person accepted"):
        world.service.places.withdraw("d4", now_ms=3)


def test_labels_decide_again_while_the_verdict_is_open(world: FleetWorld) -> None:
    """Taken back before the next window: what labels show is noted as before."""
    _elsewhere(world).live(13)
    _noted(world)
    accepted = world.service.places.accept("d4", now_ms=1, by="Ada")
    harmful = replace(accepted, state=PlaceState.HARMFUL, audited=30, decided_ms=0)
    world.service.places.note(harmful, 2)
    assert world.service.places.of("d4").state is PlaceState.ACCEPTED
    world.service.places.withdraw("d4", now_ms=3, by="Bob")
    world.service.places.note(harmful, 4)
    assert world.service.places.of("d4").state is PlaceState.HARMFUL
    acts = [(one.act, one.account, one.subject, one.at_ms) for one in AuditLog(world.database).latest(2)]
    assert acts == [("place.withdraw", "Bob", "d4", 3), ("place.accept", "Ada", "d4", 1)]
    world.live(2)
    assert world.kinds() == {"new_place"}


def test_all_acceptances_of_the_site_are_taken_back(world: FleetWorld) -> None:
    """Also an older one, which would count as well; not one of another site."""
    _elsewhere(world).live(13)
    _noted(world)
    (verdict,) = world.service.verdicts.open()
    first = NewPlace(verdict=verdict.id, device="d4", site="south", model="model", release="model-1", decided_ms=1,
                     decided_by="Ada", state=PlaceState.ACCEPTED)  # fmt: skip
    for number, site in enumerate(("south", "east"), start=50):
        world.service.places.add(replace(first, verdict=number, site=site))
    world.service.places.accept("d4", now_ms=1)
    world.service.places.withdraw("d4", now_ms=2, by="Bob")
    states = {place.verdict: place.state for place in world.service.places.all()}
    assert states == {51: PlaceState.WITHDRAWN, 50: PlaceState.ACCEPTED, verdict.id: PlaceState.ACCEPTED}
    world.service.places.withdraw("d4", now_ms=3, by="Bob")
    states = {place.verdict: place.state for place in world.service.places.all()}
    assert states == {51: PlaceState.WITHDRAWN, 50: PlaceState.WITHDRAWN, verdict.id: PlaceState.OPEN}
