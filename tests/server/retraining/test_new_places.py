"""A device at a new place is asked for labels once; they show harm, or none, with bounds that hold at any look."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.drift.ledger import Finding
from server.drift.places import NewPlace, Places, PlaceState
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.retraining.asking import ASKS, SAMPLES
from server.retraining.config import AuditConfig, RetrainingConfig
from server.retraining.new_places import NewPlaces
from server.retraining.policy import RetrainingPhase
from tests.server.retraining.conftest import sample

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site

DAY_MS = 86_400_000


def _new_place(site: Site, windows: int = 4) -> NewPlaces:
    """Return the service that follows new places, after d1 was found at one."""
    verdict = DriftVerdict(kind=VerdictKind.NEW_PLACE, devices=("d1",))
    for window in range(windows):
        finding = Finding(verdict=verdict, cause="noisier", release="model-1", model="model")
        site.service.verdicts.note([finding], window * 10, window * 10, quiet_ms=20, judged=True)
    return NewPlaces(
        places=Places(site.service.verdicts), audit=site.audit, samples=site.service.samples,
        versions=site.service.versions, config=site.service.config,
    )  # fmt: skip


def _turn(new: NewPlaces, now_ms: int) -> NewPlace:
    """Return the place after a turn at ``now_ms``."""
    new._next_ms = 0
    new.turn(now_ms)
    (place,) = new.places.all()
    return place


def test_the_device_is_asked_once_for_uniform_samples(site: Site) -> None:
    """Thirty in the lane of the audit; not again while samples wait for labels, nor by a restarted server."""
    new = _new_place(site)
    place = _turn(new, 100)
    assert (place.state, place.site, place.asks, place.risk) == (PlaceState.OPEN, "west", 1, "no labels yet")
    site.service.samples.accept("d1", replace(sample(0), request=place.request), 50)
    for now_ms in (200, 2 * DAY_MS):
        assert _turn(replace(new), now_ms).asks == 1
    (command,) = site.commands()
    assert (command.arguments["lane"], command.arguments["count"]) == ("audit", SAMPLES)


def test_a_device_that_sent_none_is_asked_again_once_a_day(site: Site) -> None:
    """It was away for longer than a request lives, or refused: without that the place stays open for ever."""
    new = _new_place(site)
    _turn(new, 100)
    assert (_turn(new, DAY_MS + 99).text, len(site.commands())) == ("", 1)
    place = _turn(new, DAY_MS + 100)
    assert (place.asks, len(site.commands()), "owner" in place.risk) == (1, 2, True)
    site.service.samples.accept("d1", replace(sample(0), request=place.request), 50)
    assert (_turn(new, 3 * DAY_MS).risk, len(site.commands())) == ("no labels yet", 2)


def test_labels_that_show_no_harm_decide_the_place(site: Site) -> None:
    """One of thirty wrong: open, and asked again a day later; one of sixty shows a risk below 15 %, in training 5 %."""
    new = _new_place(site)
    assert _turn(new, 100).decided_ms == 0
    site.upload(30, wrong=1)
    place = _turn(new, 200)
    assert (place.state, place.audited, place.wrong, place.decided_ms) == (PlaceState.OPEN, 30, 1, 0)
    assert place.risk == "1 of 30 labelled scenes wrong: risk between 0% and 21%, in training 5%"
    assert _turn(new, 100 + DAY_MS).asks == 2
    site.upload(30, wrong=0, start=30)
    place = _turn(new, 300 + DAY_MS)
    assert (place.state, place.decided_by, place.decided_ms) == (PlaceState.HARMLESS, "labels", 300 + DAY_MS)
    assert site.service.events.latest(1)[0].code == "place_harmless"


def test_samples_chosen_by_doubt_and_of_other_devices_do_not_count(site: Site) -> None:
    """Only uniform ones show the risk of the place."""
    new = _new_place(site)
    _turn(new, 100)
    site.upload(30, wrong=30, lane="drift")
    assert _turn(new, 200).audited == 0


def test_harm_at_a_new_place_starts_a_retraining(site: Site) -> None:
    """Without labels nothing is retrained; fifteen wrong of thirty start it, with an event."""
    new = _new_place(site)
    _turn(new, 100)
    site.service.turn(150)
    assert site.service.triggers.all() == ()
    site.upload(30, wrong=15)
    place = _turn(new, 200)
    assert place.state is PlaceState.HARMFUL
    assert place.lower_risk > 0.2
    assert site.service.events.latest(1)[0].code == "place_harmful"
    for now_ms in range(300, 310):
        site.service.turn(now_ms)
    (trigger,) = site.service.triggers.all()
    assert (trigger.cause, trigger.phase) == ("new_place:d1:", RetrainingPhase.PROPOSED)


def test_a_server_that_may_not_ask_says_so_and_asks_when_it_may(site: Site) -> None:
    """The reason stands with the place; an hour after somebody allowed it, the device is asked."""
    new = _new_place(site)
    off = replace(site.audit, config=AuditConfig(), retraining=RetrainingConfig())
    place = _turn(replace(new, audit=off), 100)
    assert place.asks == 0
    assert "sample_bytes_per_day" in place.risk
    assert _turn(new, 3_600_099).asks == 0
    assert (_turn(new, 3_600_100).asks, new.places.all()[0].text) == (1, "")


def test_it_asks_at_most_four_times(site: Site) -> None:
    """Labels near the limit stay undecided: a person decides."""
    new = _new_place(site)
    _turn(new, 100)
    for number in range(6):
        site.upload(30, wrong=3, start=30 * number)
        place = _turn(new, 200 + (number + 1) * DAY_MS)
    assert (place.asks, place.state, place.audited) == (ASKS, PlaceState.OPEN, 180)


def test_what_a_person_decided_meanwhile_is_kept(site: Site) -> None:
    """A turn that began before does not undo it, and no more labels are asked for."""
    new = _new_place(site)
    before = _turn(new, 100)
    accepted = new.places.accept("d1", "seen it", now_ms=150, by="Ada")
    new.places.note(replace(before, state=PlaceState.HARMFUL), 160)
    assert new.places.all() == (accepted,)
    assert _turn(new, 100 + DAY_MS) == accepted
    assert accepted.words == "new to training, accepted by Ada; no labels yet"


@pytest.mark.usefixtures("without_labels")
def test_no_place_is_harmful_to_a_release_that_was_made_without_labels(site: Site) -> None:
    """Its error rate is not known anywhere: half wrong here may be half wrong there."""
    new = _new_place(site)
    _turn(new, 100)
    site.upload(30, wrong=15)
    place = _turn(new, 200)
    assert (place.state, place.risk.endswith("in training not known")) == (PlaceState.OPEN, True)
