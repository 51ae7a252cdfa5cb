"""Keys of classes, progress and pace of one person's labelling."""

from __future__ import annotations

import pytest

from server.dashboard.pages.label.session import GivenAnswer, LabelSession, class_keys, typed
from server.retraining.labelling import NOTHING, LabelForm
from server.retraining.labels.queue import Turn
from server.retraining.samples import BROKEN, StoredSample


def sample(number: int) -> StoredSample:
    """Return a sample."""
    return StoredSample(
        id=number, device="d", sha256=str(number), media_type="image/png", length_bytes=1, lane="audit",
        inclusion_ratio=1.0, predicted=0, confidence=0.5, artifact_sha256="a", at_ms=1, received_ms=1, label="",
        label_by="", model="m",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "first", "last"), [(1, "0", "0"), (10, "0", "9"), (11, "00", "10"), (100, "00", "99"), (101, "", "")]
)
def test_each_class_has_a_key_of_one_or_two_digits(count: int, first: str, last: str) -> None:
    """More than a hundred are searched by name."""
    keys = list(class_keys(LabelForm(classes=tuple(f"c{one}" for one in range(count)))))
    assert (keys[:1], keys[-1:]) == ([first] * bool(first), [last] * bool(last))


def test_digits_have_their_own_keys_and_nothing_has_none() -> None:
    """The key N is that of "none of these"."""
    keys = class_keys(LabelForm(classes=(*"0123456789", NOTHING)))
    assert keys == {digit: digit for digit in "0123456789"}


def test_two_digits_are_typed_one_after_the_other() -> None:
    """A digit that begins no class is dropped."""
    keys = ["00", "01", "10"]
    assert typed("", "0", keys) == ("", "0")
    assert typed("0", "1", keys) == ("01", "")
    assert typed("", "7", keys) == ("", "")
    assert typed("1", "9", keys) == ("", "")


def test_progress_counts_what_was_skipped_apart() -> None:
    """A mark is an answer."""
    session = LabelSession()
    session.show(Turn(sample=sample(4), left=5), 0.0)
    for given in (
        GivenAnswer(sample=sample(1), label="a"),
        GivenAnswer(sample=sample(2)),
        GivenAnswer(sample=sample(3), mark=BROKEN),
    ):
        session.add(given, 2.0)
    assert session.progress == "2 of 8, 1 skipped"
    assert session.pace == "2.0 s each, about 1 minute left"
    session.add(GivenAnswer(sample=sample(5), label="a"), 500.0)
    assert session.seconds == [2.0] * 3  # nobody labels for eight minutes
    assert session.forget() == GivenAnswer(sample=sample(5), label="a")
    session.forget()
    assert session.forget() == GivenAnswer(sample=sample(2))
    assert session.progress == "1 of 6"


def test_a_person_goes_back_and_on_within_what_was_given() -> None:
    """Not beyond the first, nor the image of now."""
    session = LabelSession(turn=Turn(sample=sample(3), left=1), given=[GivenAnswer(sample=sample(1), label="a")])
    session.step(1)
    session.step(1)
    assert session.earlier == GivenAnswer(sample=sample(1), label="a")
    assert session.shown == sample(1)
    session.step(-9)
    assert (session.earlier, session.shown) == (None, sample(3))
