"""What people should look at again: disputes, labels that are likely wrong, and marked images."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from server.people import Actor, ActorKind
from server.retraining.labels.doubts import MIN_DOUBT, MIN_LABELS, LabelledAnswer, doubts
from server.retraining.labels.review import LabelReview
from server.retraining.samples import UNSURE

from .conftest import CONFIG, Site, sample

ANNA, BEN = (Actor(account=name, kind=ActorKind.USER) for name in ("anna", "ben"))


def labelled(
    count: int, noise: float, *, right: float = 0.95, seed: int = 3
) -> tuple[list[LabelledAnswer], list[bool]]:
    """Return labels of ten classes of a model that is sure, and which of them are wrong."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    rows, wrong = [], []
    for _ in range(count):
        true, off = dice.randrange(10), dice.random() > right
        confidence = dice.uniform(0.3, 0.6) if off else dice.uniform(0.85, 0.999)
        flipped = dice.random() < noise
        label = (true + dice.randrange(1, 10)) % 10 if flipped else true
        predicted = (true + dice.randrange(1, 10)) % 10 if off else true
        rows.append(LabelledAnswer(label=str(label), predicted=str(predicted), confidence=confidence))
        wrong.append(flipped)
    return rows, wrong


def test_most_wrong_labels_are_doubted_and_few_right_ones() -> None:
    """At 5 % of the labels flipped."""
    rows, wrong = labelled(800, 0.05)
    chances, why = doubts(rows, 10)
    doubted = chances >= MIN_DOUBT
    found = sum(is_wrong for is_wrong, one in zip(wrong, doubted, strict=True) if one)
    assert why == ""
    assert found >= 0.85 * sum(wrong)
    assert found >= 0.9 * doubted.sum()


def test_right_labels_are_not_doubted() -> None:
    """A sure model that is wrong now and then is no reason."""
    rows, _ = labelled(400, 0.0)
    assert (doubts(rows, 10)[0] >= MIN_DOUBT).sum() <= 4


@pytest.mark.parametrize(
    ("rows", "why"),
    [(labelled(MIN_LABELS - 1, 0.1)[0], "30 are needed"), (labelled(200, 0.0, right=0.4)[0], "it can't judge them")],
)
def test_a_model_that_can_not_judge_doubts_nothing(rows: list[LabelledAnswer], why: str) -> None:
    """A drifted one is sure of what is wrong."""
    chances, said = doubts(rows, 10)
    assert not chances.any()
    assert why in said


def test_what_people_should_look_at_again_is_listed(site: Site) -> None:
    """With who said what; a settled dispute is no more in it."""
    samples = replace(site.service.samples, config=replace(CONFIG, second_person=1.0))
    review = LabelReview(database=samples.database, samples=samples)
    for number in range(4):
        samples.accept("d1", sample(number), 50)
    for one in (1, 2):
        samples.label(one, "0", ANNA, 60)
        samples.label(one, "1", BEN, 61)
    samples.label(3, "0", ANNA, 62)
    samples.mark(4, UNSURE, BEN, 63)
    found = review.of("model")
    assert [(one.sample, one.answers) for one in found.disputed] == [
        (1, (("anna", "0"), ("ben", "1"))), (2, (("anna", "0"), ("ben", "1"))),
    ]  # fmt: skip
    assert (found.one_answer, found.share) == (1, 1.0)
    assert [(one.sample, one.mark, one.person) for one in found.marked] == [(4, "unsure", "ben")]
    (pair,) = found.agreement
    assert (pair.people, pair.images, pair.agreed, pair.kappa) == (("anna", "ben"), 2, 0.0, None)
    samples.label(1, "1", ANNA, 64)
    assert [one.sample for one in review.of("model").disputed] == [2]
    assert review.of("model").agreement == found.agreement  # what was given blind stays
    assert review.of("another").disputed == ()


def test_a_label_that_a_sure_model_contradicts_is_doubted(site: Site) -> None:
    """The model of the samples says class 0 and is sure; nothing is changed by a doubt."""
    samples = site.service.samples
    for number in range(40):
        samples.accept("d1", replace(sample(number), confidence=0.99), 50)
        samples.label(number + 1, "1" if number == 7 else "0", "anna", 60)
    found = LabelReview(database=samples.database, samples=samples).of("model")
    assert [(one.sample, one.label, one.label_by, one.predicted) for one in found.doubted] == [(8, "1", "anna", "0")]
    assert samples.sample(8).label == "1"
