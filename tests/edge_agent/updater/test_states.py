"""The table of transitions."""

import itertools
from dataclasses import replace

import pytest

from edge_agent.errors import TransitionError
from edge_agent.updater.states import (
    IN_FLIGHT,
    TRANSITIONS,
    Signal,
    UpdateRecord,
    follow,
    same_attempt,
    too_late,
    window_open,
)
from wire.codec import decode, encode
from wire.messages import Desired, UpdatePhase, UpdateStatus


def test_every_phase_in_flight_leads_to_an_end() -> None:
    """From everywhere a terminal phase can be reached."""
    for start in IN_FLIGHT:
        reached, size = {start}, 0
        while size != len(reached):
            size = len(reached)
            reached |= {target for (source, _), target in TRANSITIONS.items() if source in reached}
        assert reached & {UpdatePhase.COMMITTED, UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED}


def test_only_probation_can_commit_or_roll_back() -> None:
    """No release is committed untried, except the current one."""
    ends = {(source, signal) for (source, signal), target in TRANSITIONS.items() if target is UpdatePhase.COMMITTED}
    assert ends == {(UpdatePhase.PROBATION, Signal.HEALTHY), (UpdatePhase.OFFERED, Signal.PRESENT)}


def test_knows_no_other_transition() -> None:
    """A signal that the phase doesn't know is a fault, not a guess."""
    for phase, signal in itertools.product(UpdatePhase, Signal):
        record = UpdateRecord(phase=phase)
        if (phase, signal) in TRANSITIONS:
            assert follow(record, signal, 5).since_ms == 5
        else:
            with pytest.raises(TransitionError):
                follow(record, signal, 5)


def test_the_record_survives_the_disk() -> None:
    """The record that is read equals the one that was written, ``desired`` included."""
    record = UpdateRecord(
        phase=UpdatePhase.PROBATION,
        desired=Desired(gen=3, release="m-1", config={"sample_bytes_per_day": 9}),
        code="child_hung",
    )
    assert decode(UpdateRecord, encode(record)) == record


@pytest.mark.parametrize(("now_ms", "is_open", "is_late"), [(9, 0, 0), (10, 1, 0), (20, 1, 0), (21, 0, 1)])
def test_judges_the_window_on_the_device(now_ms: int, is_open: int, is_late: int) -> None:
    """Both bounds belong to the window."""
    desired = Desired(not_before_ms=10, not_after_ms=20)
    assert (window_open(desired, now_ms), too_late(desired, now_ms)) == (is_open, is_late)


def test_a_deadline_is_judged_with_or_without_a_window() -> None:
    """The earlier of the two ends it; without either it never ends, and the window is always open."""
    assert not too_late(Desired(deadline_ms=20), 20)
    assert too_late(Desired(deadline_ms=20), 21)
    assert too_late(Desired(deadline_ms=20, not_after_ms=30), 25)
    assert (too_late(Desired(), 10**15), window_open(Desired(), 0)) == (False, True)


def test_a_status_says_all_that_the_record_knows() -> None:
    """The operator's view of an update, with the downloaded and total bytes."""
    desired = Desired(gen=3, release="m-1")
    record = UpdateRecord(
        phase=UpdatePhase.DOWNLOADING, desired=desired, code="c", text="t", since_ms=5, length_bytes=9, fetched_bytes=0
    )
    said = UpdateStatus(
        phase=UpdatePhase.DOWNLOADING, gen=3, release="m-1", code="c", text="t", since_ms=5, done_bytes=4, total_bytes=9
    )
    assert record.status(4, 3) == replace(said, fetched_bytes=3)
    assert replace(record, fetched_bytes=None).status(4, 3) == said, "an attempt that an older agent began"


@pytest.mark.parametrize(
    ("held", "offered", "same"),
    [
        (Desired(gen=1, release="m-1", sha256="a", attempt=1), {"gen": 2, "config": {"x": 1}}, True),
        (Desired(gen=1, release="m-1", sha256="a", attempt=1), {"gen": 2, "attempt": 2}, False),
        (Desired(gen=1, release="m-1", sha256="a", attempt=1), {"gen": 2, "deadline_ms": 9}, False),
        (Desired(gen=1, release="m-1", sha256="a"), {"gen": 2}, False),
        (Desired(gen=1), {"gen": 2, "config": {"x": 1}}, True),
    ],
)
def test_only_other_settings_are_the_same_attempt(held: Desired, offered: dict[str, object], *, same: bool) -> None:
    """Of an assignment with a number, or of no release at all."""
    assert same_attempt(UpdateRecord(desired=held), replace(held, **offered)) is same
