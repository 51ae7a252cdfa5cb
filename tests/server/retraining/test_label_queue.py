"""Whose turn an image is, and what two people make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from server.errors import LabelRefusedError, LabelTakenError
from server.people import Actor, ActorKind
from server.retraining.labels.queue import LEASE_MS, LabelQueue, LabelScope
from server.retraining.policy import Trigger
from server.retraining.samples import BROKEN

from .conftest import CONFIG, Site, sample

SCOPE = LabelScope(model="model")
ANNA, BEN, CY = (Actor(account=name, kind=ActorKind.USER) for name in ("anna", "ben", "cy"))


def queue_of(site: Site, *, share: float = 0.0, images: int = 3) -> LabelQueue:
    """Return a queue of images that one device sent, a share of them for two people."""
    samples = site.service.samples
    for number in range(images):
        samples.accept("d1", sample(number), 50)
    samples = replace(samples, config=replace(CONFIG, second_person=share))
    return LabelQueue(database=samples.database, samples=samples, triggers=site.service.triggers)


def number(queue: LabelQueue, person: str, now_ms: int = 60, skipped: tuple[int, ...] = ()) -> int:
    """Return the id of the image that a person is given, 0 for none."""
    turn = queue.take(SCOPE, person, now_ms, skipped)
    return turn.sample.id if turn.sample else 0


def test_two_people_are_given_different_images(site: Site) -> None:
    """Who looks away for too long loses the image to another; who asks again keeps it."""
    queue = queue_of(site, images=2)
    assert [number(queue, "anna"), number(queue, "ben"), number(queue, "cy")] == [1, 2, 0]
    assert number(queue, "anna", 70) == 1
    assert number(queue, "ben", 71, skipped=(2,)) == 0
    assert number(queue, "cy", 72 + LEASE_MS) == 1
    queue.leave("cy")
    assert number(queue, "ben", 73 + LEASE_MS) == 1


def test_what_is_left_counts_down_and_ends(site: Site) -> None:
    """Skipped, marked and labelled images are no more in it."""
    queue = queue_of(site)
    assert queue.take(SCOPE, "anna", 60).left == 3
    queue.samples.label(1, "0", "anna", 61)
    queue.samples.mark(2, BROKEN, "anna", 61)
    turn = queue.take(SCOPE, "anna", 62)
    assert (turn.left, turn.sample and turn.sample.id) == (1, 3)
    assert queue.take(SCOPE, "anna", 62, skipped={3}).left == 0
    queue.samples.mark(2, "", "anna", 63)
    assert queue.take(SCOPE, "anna", 64).left == 2
    assert queue.scopes() == ((SCOPE, 2),)


def test_a_retraining_has_the_images_of_its_devices_alone(site: Site) -> None:
    """And none from before its verdict."""
    queue = queue_of(site)
    queue.samples.accept("d2", replace(sample(9), at_ms=5), 50)
    trigger = Trigger(id=0, model="model", cause="c", words="w", verdict=1, devices=("d1",), since_ms=41,
                      release="model-1", opened_ms=1)  # fmt: skip
    known = queue.triggers.add(trigger)
    scope = queue.of_trigger(known.id)
    assert scope is not None
    turn = queue.take(scope, "anna", 60)
    assert (turn.left, turn.sample and turn.sample.device) == (2, "d1")  # the first is of before
    assert [(one.trigger, left) for one, left in queue.scopes()] == [(known.id, 2), (0, 4)]
    assert queue.of_trigger(known.id + 1) is None


def test_a_marked_image_has_a_reason_and_a_name_and_gets_a_label_all_the_same(site: Site) -> None:
    """A label takes the mark off; an image with a label gets none."""
    queue = queue_of(site, images=1)
    with pytest.raises(LabelRefusedError, match="unsure, broken"):
        queue.samples.mark(1, "ugly", "anna", 60)
    queue.samples.mark(1, BROKEN, "anna", 60)
    assert number(queue, "ben") == 0
    queue.samples.label(1, "0", "ben", 61)
    with pytest.raises(LabelRefusedError, match="labelled '0'"):
        queue.samples.mark(1, BROKEN, "anna", 62)
    assert queue.samples.take_back(1, "ben", 63).label == ""
    assert number(queue, "anna") == 1  # the mark has gone with the label
    assert [one.new_label for one in queue.samples.changes(1)] == [""]


def test_a_label_of_one_of_two_people_is_not_used_yet(site: Site) -> None:
    """The second one is asked without the first one's; equal ones become the label, with both names."""
    queue = queue_of(site, share=1.0, images=1)
    assert [number(queue, "anna"), number(queue, "ben"), number(queue, "cy")] == [1, 1, 0]
    assert queue.samples.label(1, "0", ANNA, 61).label == ""
    assert queue.samples.latest()[0].label == ""
    assert queue.take(SCOPE, "ben", 62).why == "a second person is wanted"
    assert number(queue, "anna", 62) == 0
    assert queue.samples.label(1, "0", ANNA, 62).label == ""  # the same person again is no second one
    found = queue.samples.label(1, "0", BEN, 63)
    assert (found.label, found.label_by) == ("0", "anna, ben")
    assert number(queue, "cy", 64 + LEASE_MS) == 0


def test_where_two_people_differ_a_third_decides_or_one_of_the_two(site: Site) -> None:
    """Until then the image has no label; a later change of one of them takes it off again."""
    queue = queue_of(site, share=1.0, images=2)
    samples = queue.samples
    for one in (1, 2):
        samples.label(one, "0", ANNA, 61)
        assert samples.label(one, "1", BEN, 62).label == ""
    turn = queue.take(SCOPE, "cy", 63)
    assert (turn.why, turn.left) == ("people differ: a third one decides", 2)
    assert samples.label(1, "1", CY, 64).label_by == "ben, cy"
    assert samples.label(2, "1", ANNA, 65).label_by == "anna, ben"
    with pytest.raises(LabelTakenError):
        samples.label(1, "0", BEN, 66)
    assert samples.label(1, "0", BEN, 66, replaces="1").label == "0"  # anna and ben
    assert samples.take_back(1, BEN, 67).label == ""
    assert [(one.label, one.new_label) for one in samples.changes(1)] == [("1", "0"), ("0", "")]


def test_a_name_that_nobody_proved_is_no_second_person(site: Site) -> None:
    """Whoever has the operator's token could be both."""
    queue = queue_of(site, share=1.0, images=1)
    with pytest.raises(LabelRefusedError, match="log in by name"):
        queue.samples.label(1, "0", "anna", 60)
    assert queue.samples.answers(queue.samples.sample(1)) == ()


def test_a_label_of_before_the_policy_is_the_first_of_two(site: Site) -> None:
    """Another one takes it off, and keeps it."""
    queue = queue_of(site, images=1)
    queue.samples.label(1, "0", "anna", 60)
    both = replace(queue.samples, config=replace(CONFIG, second_person_models={"model": 1.0}))
    assert both.label(1, "1", BEN, 61, replaces="0").label == ""
    assert [(one.person, one.label, one.first_label) for one in both.answers(both.sample(1))] == [
        ("anna", "0", "0"), ("ben", "1", ""),
    ]  # fmt: skip


def test_what_a_person_has_labelled_does_not_expire(site: Site, tmp_path: Path) -> None:
    """The second person may come a week later."""
    queue = queue_of(site, share=1.0)
    queue.samples.label(1, "0", ANNA, 61)
    few = replace(queue.samples, config=replace(CONFIG, max_waiting=1))
    assert few.expire(70) == 1
    assert [one.id for one in few.latest(unlabelled=True)] == [1, 3]
    assert len(list((tmp_path / "samples").iterdir())) == 2


def test_numbers_are_labelled_by_one_person(site: Site) -> None:
    """Two people rarely read the same number."""
    site.release(2, model=b"another", name="meter", labels=(), values=("flow",))
    queue = queue_of(site, share=1.0, images=1)
    queue.samples.accept("d1", sample(5, model=b"another"), 50)
    assert queue.samples.label(2, "3.5", "anna", 60).label == "3.5"
