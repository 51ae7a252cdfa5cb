"""The table of transitions."""

import itertools

import pytest

from edge_agent.errors import TransitionError
from edge_agent.updater.states import IN_FLIGHT, TRANSITIONS, Signal, UpdateRecord, follow, too_late, window_open
from wire.codec import decode, encode
from wire.messages import Desired, UpdatePhase


def test_every_phase_in_flight_leads_to_an_end() -> None:
    """From everywhere a terminal phase can be reached."""
    for start in IN_FLIGHT:
        reached, size = {start}, 0
        while size != len(reached):
            size = len(reached)
            reached |= {target for (source, _), target in TRANSITIONS.items() if source in reached}
        assert reached & {UpdatePhase.COMMITTED, UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED}


def test_only_probation_can_commit_or_roll_back() -> None:
    """Nothing is committed untried, but what is current already."""
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
    """What is persisted is what is read, ``desired`` included."""
    record = UpdateRecord(
        phase=UpdatePhase.PROBATION,
        desired=Desired(gen=3, release="m-1", config={"sample_bytes_per_day": 9}),
        code="child_hung",
    )
    assert decode(UpdateRecord, encode(record)) == record


@pytest.mark.parametrize(("now_ms", "is_open", "is_late"), [(9, 0, 0), (10, 1, 0), (21, 0, 1)])
def test_judges_the_window_on_the_device(now_ms: int, is_open: int, is_late: int) -> None:
    """Both bounds belong to the window."""
    desired = Desired(not_before_ms=10, not_after_ms=20)
    assert (window_open(desired, now_ms), too_late(desired, now_ms)) == (is_open, is_late)
