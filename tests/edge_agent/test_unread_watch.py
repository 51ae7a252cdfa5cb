"""Whether a device answers any of its inputs: when it is in doubt, for how long, and what is said."""

from dataclasses import replace

import pytest

from edge_agent.telemetry.unread_watch import DOUBT, QUIET_BEATS, UnreadWatch
from wire.messages import UnreadInputs

NOTHING = UnreadInputs()


def lying(count: int) -> UnreadInputs:
    """Return files that the release does not read."""
    return UnreadInputs(ignored=count, names=("a.csv",), text="they hold rows")


def beats(
    watch: UnreadWatch,
    times: int,
    *,
    left: UnreadInputs = NOTHING,
    artifact: str = "a",
    proven: bool = False,
    never: bool = False,
    **counts: int,
) -> list[bool]:
    """Return which of some heartbeats had news."""
    left = replace(left, never=never)
    given = {"n": 0, "errors": 0, "dropped": 0, **counts}
    return [watch.beat(artifact, left=left, proven=proven, **given) for _ in range(times)]


def test_one_file_is_enough_for_a_release_that_has_answered_nothing() -> None:
    """After a few heartbeats, because an input may be under way; told once, and ended by the first answer."""
    watch = UnreadWatch()
    assert beats(watch, 3 * QUIET_BEATS, left=lying(1)).count(True) == 1
    assert watch.current == lying(1)
    assert beats(watch, 1, left=lying(1), n=1) == [True]
    assert watch.current is None
    assert not any(beats(watch, 3 * QUIET_BEATS, left=lying(1), proven=True))


@pytest.mark.parametrize(("count", "doubted"), [(DOUBT - 1, False), (DOUBT, True)])
def test_a_release_that_has_answered_is_in_doubt_after_many_inputs(count: int, doubted: bool) -> None:  # noqa: FBT001
    """A stray file is no doubt; a camera that was exchanged for another sensor is."""
    watch = UnreadWatch()
    beats(watch, 1, left=lying(3), n=5)
    beats(watch, 3 * QUIET_BEATS, left=lying(3 + count), proven=True)
    assert (watch.current is not None) is doubted


def test_a_source_that_gives_nothing_is_never_in_doubt() -> None:
    """Silence is no input."""
    watch = UnreadWatch()
    assert not any(beats(watch, 100))


def test_inputs_that_are_refused_or_lost_count_too() -> None:
    """Each file is no picture, or nothing is fast enough: no answer either way."""
    for kind in ("errors", "dropped"):
        watch = UnreadWatch()
        assert any(beats(watch, QUIET_BEATS, **{kind: 1}))
        assert watch.current.total == QUIET_BEATS


def test_what_a_stream_passes_over_counts_with_its_reason() -> None:
    """A microphone of another rate is told once, and never counted by heartbeats."""
    watch = UnreadWatch()
    watch.passed_over("source_format", "Expected PCM, got 44100 Hz")
    watch.passed_over("source_missing", "away")
    beats(watch, QUIET_BEATS)
    assert (watch.current.refused, watch.current.text) == (1, "Expected PCM, got 44100 Hz")


def test_growth_is_news_when_it_has_doubled() -> None:
    """A folder that fills up must not send a document with each file."""
    watch = UnreadWatch()
    beats(watch, QUIET_BEATS, left=lying(2))
    assert [beats(watch, 1, left=lying(count))[0] for count in (3, 4, 5, 7, 8)] == [False, True, False, False, True]


def test_files_that_are_moved_away_end_the_doubt() -> None:
    """The folder is empty: the source is silent, and nothing is unread."""
    watch = UnreadWatch()
    beats(watch, QUIET_BEATS, left=lying(2))
    assert beats(watch, 1) == [True]
    assert watch.current is None


def test_another_release_begins_anew() -> None:
    """What the one before refused is not its fault."""
    watch = UnreadWatch()
    beats(watch, QUIET_BEATS, errors=1)
    assert beats(watch, 1, artifact="b") == [True]
    assert watch.current is None


def test_a_restart_keeps_the_doubt() -> None:
    """Refused files are not in the folder any more; only an answer ends it."""
    before, watch = UnreadInputs(refused=3, text="no pictures"), UnreadWatch()
    watch.restore(before)
    assert not any(beats(watch, 2 * QUIET_BEATS))
    assert watch.current == before
    assert beats(watch, 1, n=1) == [True]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (UnreadInputs(ignored=1, names=("a.csv",)), "ignores 1 file (a.csv)"),
        (UnreadInputs(ignored=2, refused=1, names=("a", "b")), "ignores 2 files, refused 1 input (a, b)"),
        (UnreadInputs(unreadable=9, names=("a",)), "can't open 9 files (a, …)"),
        (UnreadInputs(dropped=2), "lost 2 inputs"),
        (UnreadInputs(), ""),
    ],
)
def test_the_numbers_are_said_in_words(found: UnreadInputs, words: str) -> None:
    """One and many, and whether more than the named ones are there."""
    assert found.words == words


def test_a_release_that_has_never_answered_is_said_to_have_none() -> None:
    """In its probation, over the next attempt and a start of the agent; the first answer or another model ends it."""
    watch = UnreadWatch()
    beats(watch, QUIET_BEATS, left=lying(DOUBT), proven=True, never=True)
    assert watch.current == replace(lying(DOUBT), never=True)
    again = UnreadWatch()
    again.restore(watch.current)
    for one in (watch, again):
        beats(one, 1, left=lying(3 * DOUBT), proven=True)
        assert (one.current.total, one.current.never) == (3 * DOUBT, True)
    beats(watch, 1, left=lying(1), n=1, never=True)
    beats(again, 1, artifact="b", proven=True)
    for one in (watch, again):
        beats(one, QUIET_BEATS, errors=DOUBT, artifact="b" if one is again else "a", proven=True)
        assert (one.current.refused > 0, one.current.never) == (True, False)
