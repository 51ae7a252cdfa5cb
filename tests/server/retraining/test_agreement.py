"""What two people's labels make, and how far they agree: by hand, and where kappa means nothing."""

from __future__ import annotations

import pytest

from server.retraining.labels.agreement import MIN_IMAGES, LabelAnswer, agreement, agreements, for_two, settled

PAIR = ("anna", "ben")


@pytest.mark.parametrize(
    ("labels", "label"),
    [((), ""), (("a",), ""), (("a", "b"), ""), (("a", "a"), "a"), (("a", "b", "a"), "a"), (("a", "a", "b", "b"), "")],
)
def test_a_label_is_what_two_have_given_and_no_other_two(labels: tuple[str, ...], label: str) -> None:
    """One person decides nothing alone; two against two decide nothing."""
    assert settled(labels) == label


def test_kappa_is_that_of_cohen() -> None:
    """The example of his table: 20 yes yes, 5 yes no, 10 no yes, 15 no no give 0.4."""
    labels = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = agreement(PAIR, labels)
    assert (found.images, found.agreed, found.why_not) == (50, 0.7, "")
    assert found.kappa == pytest.approx(0.4)
    assert found.low == pytest.approx(0.5625, abs=5e-4)
    assert found.kappa_low is not None
    assert found.kappa_high is not None
    assert found.kappa_low == pytest.approx((found.low - 0.5) / 0.5)
    assert found.kappa_low < 0.4 < found.kappa_high


def test_two_who_always_agree_have_an_interval_and_no_point() -> None:
    """Cohen's standard error would be 0."""
    found = agreement(PAIR, [("a", "a"), ("b", "b")] * 20)
    assert (found.kappa, found.kappa_high) == (1.0, 1.0)
    assert found.kappa_low is not None
    assert 0.7 < found.kappa_low < 0.9


@pytest.mark.parametrize(
    ("labels", "why"),
    [([("a", "b")] * (MIN_IMAGES - 1), "too few"), ([("a", "b"), ("a", "a")] * MIN_IMAGES, "the same label")],
)
def test_kappa_is_not_given_where_it_means_nothing(labels: list[tuple[str, str]], why: str) -> None:
    """The share is given all the same."""
    found = agreement(PAIR, labels)
    assert found.kappa is None
    assert why in found.why_not
    assert 0 <= found.low <= found.agreed <= found.high <= 1


def answer(person: str, label: str, at_ms: int, first: str | None = None) -> LabelAnswer:
    """Return an answer."""
    return LabelAnswer(
        person=person, label=label, first_label=label if first is None else first, seen=False, at_ms=at_ms
    )


def test_agreement_counts_the_first_two_and_what_they_gave_blind() -> None:
    """A third person is asked where two differ, and a change comes after the other's was seen."""
    images = [
        [answer("ben", "b", 1), answer("anna", "b", 2, "a"), answer("cy", "b", 3)],
        [answer("ben", "b", 1), answer("anna", "b", 2)],
        [answer("ben", "b", 1), answer("anna", "b", 2, "")],
        [answer("ben", "b", 1)],
    ]
    (found,) = agreements(images)
    assert (found.people, found.images, found.agreed) == (("anna", "ben"), 2, 0.5)


def test_a_share_of_the_images_is_for_two_and_always_the_same_ones() -> None:
    """None at 0, all at 1, and a larger share has those of a smaller one."""
    images = [f"{number:064x}" for number in range(2000)]
    chosen = {share: {one for one in images if for_two("m", one, share)} for share in (0.0, 0.2, 0.5, 1.0)}
    assert [len(chosen[share]) for share in (0.0, 1.0)] == [0, 2000]
    assert 0.17 < len(chosen[0.2]) / 2000 < 0.23
    assert chosen[0.2] < chosen[0.5]
