"""The shadow of an update: its judgement, its phases, and what survives a restart."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from edge_agent.device.last_end import LastEnd
from edge_agent.updater.probation import judge_shadow, longest_s
from wire.messages import UpdatePhase
from wire.shadow import ShadowCounts, ShadowOrder

ORDER = ShadowOrder(60.0, 0.1)
ENOUGH = ShadowCounts(seconds=60.0, n=100, disagreed=10)


@pytest.mark.parametrize(
    ("counts", "code"),
    [
        (ENOUGH, ""),
        (replace(ENOUGH, disagreed=11), "shadow_disagreement"),
        (replace(ENOUGH, n=19, disagreed=19), ""),  # too few to judge
        (replace(ENOUGH, n=95, errors=5, disagreed=9), ""),
        (replace(ENOUGH, n=94, errors=6, seconds=1.0), "shadow_errors"),
        (replace(ENOUGH, disagreed=0, differences={"x": {"9": 100}}), ""),
    ],
)
def test_a_shadow_is_judged_by_its_counts(counts: ShadowCounts, code: str) -> None:
    """Both sides of each bound; numbers have no labels to disagree on."""
    found = judge_shadow(ORDER, counts, 0.05, too_long=False)
    assert (found.over, found.code) == (True, code)


def test_disagreement_is_judged_only_at_the_end() -> None:
    """A short scene can't refuse a release; when the phase lasts too long, what there is is judged."""
    counts = replace(ENOUGH, seconds=59.9, disagreed=100)
    assert not judge_shadow(ORDER, counts, 0.05, too_long=False).over
    assert judge_shadow(ORDER, counts, 0.05, too_long=True).code == "shadow_disagreement"


def test_a_required_shadow_needs_inputs() -> None:
    """19 inputs are too few, 20 are enough."""
    required = replace(ORDER, required=True)
    found = [judge_shadow(required, replace(ENOUGH, n=n, disagreed=0), 0.05, too_long=False).code for n in (19, 20)]
    assert found == ["shadow_too_few", ""]


@pytest.fixture
def shadowing(device: object, release: Callable) -> object:
    """A device that runs m-1 and compares m-2 with it."""
    device.install(release(1))
    second = device.publish(release(2))
    device.phases.clear()
    device.offer(replace(second.desired, shadow=ORDER))
    device.work()
    assert device.updater.record.phase is UpdatePhase.SHADOW
    return device


def test_a_release_is_compared_before_it_is_switched_to(shadowing: object) -> None:
    """The champion serves on; after the period the bundle is checked again, then it is switched to."""
    assert (shadowing.current(), shadowing.compared[-1].release) == ("m-1", "m-2")
    shadowing.updater.compared(ENOUGH, shadowing.now_s)
    shadowing.pass_time(1.0)
    shadowing.work()
    assert shadowing.compared[-1] is None
    expected = ["offered", "downloading", "verifying", "shadow", "verifying", "staged", "probation"]
    assert shadowing.phases == expected
    assert (shadowing.current(), shadowing.updater.status.shadow.disagreed) == ("m-2", 10)


def test_too_much_disagreement_refuses_it_before_it_ever_answered(shadowing: object) -> None:
    """The reason has a code, the counts stay in the report, the bundle is reclaimed."""
    served = len(shadowing.served)
    shadowing.updater.compared(replace(ENOUGH, disagreed=50), shadowing.now_s)
    shadowing.pass_time(1.0)
    status = shadowing.updater.status
    assert (status.phase, status.code, status.shadow.disagreed) == (UpdatePhase.REFUSED, "shadow_disagreement", 50)
    assert (len(shadowing.served), shadowing.compared[-1]) == (served, None)


def test_counts_survive_a_restart_and_the_period_goes_on(shadowing: object) -> None:
    """The agent is killed: what was written is added to, and the challenger is loaded again."""
    shadowing.updater.compared(replace(ENOUGH, seconds=30.0), shadowing.now_s)
    shadowing.restart()
    assert (shadowing.updater.record.phase, shadowing.compared[-1].release) == (UpdatePhase.SHADOW, "m-2")
    shadowing.updater.compared(replace(ENOUGH, seconds=30.0), shadowing.now_s)
    shadowing.pass_time(1.0)
    assert (shadowing.updater.record.shadow.n, shadowing.updater.record.phase) == (200, UpdatePhase.VERIFYING)


def test_counts_are_written_once_in_a_while(shadowing: object) -> None:
    """A heartbeat a second must not wear the flash: the first at once, the next after 45 s."""
    updater = shadowing.updater
    assert [updater.compared(ENOUGH, at_s) for at_s in (1000.0, 1044.9, 1045.0)] == [True, False, True]


@pytest.mark.parametrize(
    ("ended", "phase"), [(LastEnd.AGENT, UpdatePhase.REFUSED), (LastEnd.IN_ORDER, UpdatePhase.SHADOW)]
)
def test_a_challenger_that_ends_the_agent_again_and_again_is_refused(
    shadowing: object, ended: LastEnd, phase: UpdatePhase
) -> None:
    """The fourth end in disorder; ends in order say nothing."""
    for _ in range(shadowing.config.max_boots):
        shadowing.restart(ended)
        assert shadowing.updater.record.phase is UpdatePhase.SHADOW
    shadowing.restart(ended)
    assert (shadowing.updater.record.phase, shadowing.current()) == (phase, "m-1")


@pytest.mark.parametrize("code", ["challenger_crashed", "challenger_hung", "challenger_out_of_memory"])
def test_a_challenger_that_fails_is_refused_with_the_reason(shadowing: object, code: str) -> None:
    """The slots are as they were."""
    shadowing.updater.challenger_ended(code, "SIGSEGV", shadowing.now_ms, shadowing.now_s)
    assert (shadowing.phases[-1], shadowing.current(), shadowing.slots.read("b")) == (code, "m-1", None)


@pytest.mark.parametrize(("required", "phase"), [(True, UpdatePhase.REFUSED), (False, UpdatePhase.VERIFYING)])
def test_without_room_for_two_models_it_is_skipped_or_refused_as_ordered(
    device: object, release: Callable, *, required: bool, phase: UpdatePhase
) -> None:
    """The server decides which; the record names the reason."""
    device.install(release(1))
    device.offer(replace(device.publish(release(2)).desired, shadow=replace(ORDER, required=required)))
    device.work()
    device.updater.challenger_ended("shadow_no_room", "Expected 9 bytes, got 8", device.now_ms, device.now_s)
    assert (device.updater.record.phase, device.updater.record.text[:17]) == (phase, "Expected 9 bytes,")


def test_a_newer_desired_state_ends_the_shadow(shadowing: object, release: Callable) -> None:
    """The challenger is unloaded, and late counts are dropped."""
    shadowing.offer(shadowing.publish(release(3)).desired)
    assert shadowing.compared[-1] is None
    assert not shadowing.updater.compared(ENOUGH, 1e9)


def test_a_shadow_that_never_compares_ends_by_itself(shadowing: object) -> None:
    """No source, so no counts: after twice the period and ten minutes it goes on, and names it."""
    shadowing.pass_time(longest_s(ORDER) - 1)
    assert shadowing.updater.record.phase is UpdatePhase.SHADOW
    shadowing.pass_time(1)
    assert shadowing.updater.record.text == "Expected at least 20 inputs in the shadow, got 0"


def test_the_first_release_of_a_device_has_nothing_to_be_compared_with(device: object, release: Callable) -> None:
    """It goes straight to probation."""
    device.offer(replace(device.publish(release(1)).desired, shadow=ORDER))
    device.work()
    assert "shadow" not in device.phases
    assert device.updater.record.phase is UpdatePhase.PROBATION


def test_a_replay_is_kept_over_commit_and_restart(device: object, release: Callable) -> None:
    """The first counts stay, until the next attempt; after a kill nothing is lost."""
    device.install(release(1))
    assert device.updater.status.replay is None  # the first release of a device has nothing before it
    device.offer(device.publish(release(2)).desired)
    device.work()
    assert device.updater.record.phase is UpdatePhase.PROBATION
    assert device.updater.replayed(ENOUGH)
    assert not device.updater.replayed(replace(ENOUGH, disagreed=9))
    device.restart()
    device.work()
    device.pass_time(1e4)
    assert device.updater.status.replay == ENOUGH


def test_a_device_that_kept_no_inputs_over_a_switch_says_so(device: object, release: Callable) -> None:
    """Counts of zero; those that come late, of a short probation, are taken."""
    device.install(release(1))
    device.install(release(2))
    assert device.updater.status.replay == ShadowCounts()
    assert device.updater.replayed(ENOUGH)
    assert device.updater.status.replay == ENOUGH


def test_a_release_that_is_assigned_again_keeps_its_replay(device: object, release: Callable) -> None:
    """Its inputs are gone by then; another release begins without."""
    device.install(release(1))
    device.install(release(2))
    device.updater.replayed(ENOUGH)
    wish = device.updater.record.desired
    device.offer(replace(wish, gen=wish.gen + 1, attempt=wish.gen + 1))
    device.work()
    assert device.updater.status.replay == ENOUGH
    device.offer(replace(device.publish(release(3)).desired, gen=wish.gen + 2))
    assert device.updater.status.replay is None
