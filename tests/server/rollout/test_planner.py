"""The next actions of a rollout, as data: devices' reports in, actions out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import RolloutRefusedError
from server.rollout.model import (
    IN_VAIN,
    REMOVED,
    UNPROVEN,
    Assign,
    DeviceStatus,
    Finish,
    Group,
    Hold,
    Member,
    MemberStanding,
    OpenGroup,
    Pause,
    Rollout,
    RolloutPhase,
    SetBack,
    Settle,
)
from server.rollout.planner import NEVER, apply_settlements, due_ms, left_out, passed, plan, settled, so_far, stop
from server.rollout.resuming import How, foresee, resumed, skipped, to_replace
from server.rollout.thresholds import count_members, outcome
from wire.messages import UpdatePhase, UpdateStatus
from wire.shadow import ShadowCounts

NEW, OLD = "meter-2", "meter-1"
GROUPS = (
    Group(name="canary", success_ratio=1.0, error_ratio=0.0),
    Group(name="rest", success_ratio=0.5, error_ratio=0.4),
)


def status(device: str, phase: UpdatePhase = UpdatePhase.IDLE, **changes: object) -> DeviceStatus:
    """Return a device that was assigned the new release as gen 5 and reports its progress."""
    update = UpdateStatus(phase=phase, gen=5, release=NEW, done_bytes=900, fetched_bytes=77)
    return replace(DeviceStatus(device=device, desired_release=NEW, desired_gen=5, update=update), **changes)  # type: ignore[arg-type]


def rollout(*standings: MemberStanding, opened: int = 1, phase: RolloutPhase = RolloutPhase.RUNNING) -> Rollout:
    """Return a rollout whose first device is the canary."""
    members = tuple(
        Member(device=f"d{number}", group=min(number, 1), standing=standing, gen=5, assigned_ms=1000)
        for number, standing in enumerate(standings)
    )
    return Rollout(id="r", release=NEW, groups=GROUPS, members=members, phase=phase, opened=opened, deadline_s=60)


def known(count: int = 2) -> dict[str, DeviceStatus]:
    """Return devices that still run the old release."""
    return {f"d{number}": DeviceStatus(device=f"d{number}", desired_release=OLD) for number in range(count)}


def test_tells_only_the_canary_first() -> None:
    """The rest waits until the canary committed."""
    assert plan(rollout(*[MemberStanding.WAITING] * 3, opened=0), known(3), 0) == (OpenGroup(0), Assign("d0"))


def test_a_device_that_is_away_keeps_what_its_try_before_cost() -> None:
    """Tried again while it is offline, it is pending, with the code and the bytes of its failure."""
    away = {"d0": replace(known()["d0"], reachable=False)}
    going = rollout(MemberStanding.WAITING)
    going = replace(going, members=(replace(going.members[0], code="error_rate", air_bytes=77),))
    settle = Settle(device="d0", standing=MemberStanding.PENDING, code="error_rate", air_bytes=77)
    assert [(one, one.air_bytes) for one in plan(going, away, 2000)] == [(settle, 77)]


def test_an_outcome_replaces_all_that_the_try_before_left() -> None:
    """The tolerance of an operator and the standing before a retry belong to that try."""
    failed = MemberStanding.FAILED
    member = Member(device="d0", group=0, standing=failed, code="old", air_bytes=7, tolerated=True, retried_from=failed)
    outcomes = (MemberStanding.COMMITTED, MemberStanding.PENDING)
    going = [settled(member, Settle(device="d0", standing=one, code="new", air_bytes=9), 50) for one in outcomes]
    expected = replace(member, code="new", air_bytes=9, tolerated=False, settled_ms=50)
    assert going == [
        replace(expected, standing=outcomes[0], retried_from=None), replace(expected, standing=outcomes[1]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gen", "fetched_bytes", "air_bytes", "bundle_bytes"),
    [(5, 30, 130, 7), (6, 30, 130, 7), (5, 0, 100, 7), (5, None, 101, 900), (4, 30, 101, 7)],
)
def test_an_attempt_costs_what_its_device_counted(
    gen: int, fetched_bytes: int | None, air_bytes: int, bundle_bytes: int
) -> None:
    """On top of earlier attempts; an older agent's figure is kept apart, and a report about another is none."""
    member = Member(device="d0", group=0, gen=5, air_bytes=101, earlier_bytes=100, bundle_bytes=7)
    update = UpdateStatus(gen=gen, release=NEW, done_bytes=900, fetched_bytes=fetched_bytes)
    found = so_far(member, update, NEW)
    assert (found.air_bytes, found.bundle_bytes) == (air_bytes, bundle_bytes)
    assert so_far(member, update, OLD) == member


@pytest.mark.parametrize("desired_release", [NEW, OLD])
def test_who_is_left_out_has_fetched_all_the_same(desired_release: str) -> None:
    """A device that is assigned another release, or leaves the fleet, in the middle of a download."""
    away = {
        "d0": status("d0", UpdatePhase.DOWNLOADING, desired_release=desired_release, removed=desired_release == NEW)
    }
    (settle,) = (one for one in plan(rollout(MemberStanding.ASSIGNED), away, 2000) if isinstance(one, Settle))
    assert (settle.standing, settle.air_bytes) == (MemberStanding.CANCELLED, 77)


def test_success_is_committed_and_nothing_else() -> None:
    """Neither probation nor an old gen nor another release counts."""
    going = rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING)
    for update in (
        UpdateStatus(phase=UpdatePhase.PROBATION, gen=5, release=NEW),
        UpdateStatus(phase=UpdatePhase.COMMITTED, gen=4, release=NEW),
        UpdateStatus(phase=UpdatePhase.COMMITTED, gen=5, release=OLD),
    ):
        assert plan(going, known() | {"d0": status("d0", update=update)}, 2000) == ()


def test_a_committed_canary_opens_the_rest() -> None:
    """The next group is opened and assigned in the same turn; downloads are recorded."""
    actions = plan(
        rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING),
        known() | {"d0": status("d0", UpdatePhase.COMMITTED)},
        2000,
    )
    assert actions == (
        Settle(device="d0", standing=MemberStanding.COMMITTED, code="", air_bytes=77),
        OpenGroup(1),
        Assign("d1"),
    )


def committed(answered: int | None) -> dict[str, DeviceStatus]:
    """Return a fleet whose canary has committed and reports how many inputs the release has answered."""
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, gen=5, release=NEW, answered=answered)
    return known() | {"d0": status("d0", update=update)}


@pytest.mark.parametrize(("answered", "opens"), [(0, False), (1, True), (None, True)])
def test_a_canary_that_answered_no_input_keeps_the_rest_closed(answered: int | None, *, opens: bool) -> None:
    """Golden vectors alone don't show that it reads the device's inputs; an older agent does not say how many."""
    settle, *then = plan(rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING), committed(answered), 2000)
    assert settle == Settle(device="d0", standing=MemberStanding.COMMITTED, answered=answered)
    assert [type(action) for action in then] == ([OpenGroup, Assign] if opens else [Hold])


def test_a_held_rollout_says_so_once_and_goes_on_with_the_first_answer_or_a_skip() -> None:
    """It is still running; the text has both ways on."""
    going = rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING)
    _, hold = plan(going, committed(0), 2000)
    assert isinstance(hold, Hold)
    assert "no device of it has answered an input with meter-2 yet" in hold.text
    assert "or when a person skips canary" in hold.text
    held = replace(apply_settlements(going, plan(going, committed(0), 2000)[:1], 2000), code=UNPROVEN)  # type: ignore[arg-type]
    assert plan(held, committed(0), 3000) == ()
    assert plan(held, known(), 3000) == ()
    proof = Settle(device="d0", standing=MemberStanding.COMMITTED, answered=3)
    assert plan(held, committed(3), 3000) == (proof, OpenGroup(1), Assign("d1"))
    after = skipped(held, "canary", "ada", 3000)
    assert plan(after, committed(0), 3000) == (OpenGroup(1), Assign("d1"))
    assert foresee(held, after, committed(0), 3000).opens == ("rest",)


def test_the_first_answer_leaves_when_and_with_how_many_bytes_a_device_committed() -> None:
    """A later gen of the same release counts the bytes of an attempt anew."""
    going = rollout(MemberStanding.COMMITTED, MemberStanding.WAITING)
    first = replace(going.members[0], answered=0, settled_ms=2000, air_bytes=900)
    going = replace(going, members=(first, going.members[1]))
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, gen=9, release=NEW, answered=3, fetched_bytes=0)
    proof, *_ = plan(going, known() | {"d0": status("d0", update=update, desired_gen=9)}, 9000)
    assert isinstance(proof, Settle)
    assert apply_settlements(going, (proof,), 9000).members[0] == replace(first, answered=3)


def test_one_device_that_answered_is_enough_for_its_group() -> None:
    """Others may stand at places where nothing comes by."""
    going = rollout(MemberStanding.COMMITTED, MemberStanding.COMMITTED, MemberStanding.WAITING)
    members = [replace(one, group=0, answered=0) for one in going.members[:2]]
    going = replace(going, members=(*members, going.members[2]))
    assert [type(action) for action in plan(going, known(3), 2000)] == [Hold]
    proven = replace(going, members=(members[0], replace(members[1], answered=1), going.members[2]))
    assert plan(proven, known(3), 2000) == (OpenGroup(1), Assign("d2"))


def test_a_rollout_in_which_nobody_waits_ends_without_an_answer() -> None:
    """A fleet of one device that sees something twice a day is not held for ever."""
    settle, opening = plan(rollout(MemberStanding.ASSIGNED), committed(0), 2000)
    assert (settle, opening) == (Settle(device="d0", standing=MemberStanding.COMMITTED, answered=0), OpenGroup(1))


def test_a_later_gen_of_the_same_release_counts_too() -> None:
    """A change of settings in between raises gen without changing the release."""
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, gen=9, release=NEW)
    actions = plan(rollout(MemberStanding.ASSIGNED), {"d0": status("d0", update=update, desired_gen=9)}, 2000)
    assert actions[0] == Settle(device="d0", standing=MemberStanding.COMMITTED)


def test_a_canary_that_rolled_back_pauses_with_its_code() -> None:
    """The operator sees the reason that the device reported, and no other device is assigned."""
    update = UpdateStatus(phase=UpdatePhase.ROLLED_BACK, gen=5, release=NEW, code="child_crashed")
    settle, pause = plan(
        rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING), known() | {"d0": status("d0", update=update)}, 2000
    )
    assert settle == Settle(device="d0", standing=MemberStanding.FAILED, code="child_crashed")
    assert isinstance(pause, Pause)
    assert (pause.code, "child_crashed" in pause.text) == ("error_threshold", True)


def test_a_silent_canary_is_stuck_after_its_deadline_and_that_is_an_error() -> None:
    """No answer is an outcome."""
    going = rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING)
    statuses = known() | {"d0": status("d0", UpdatePhase.DOWNLOADING)}
    assert plan(going, statuses, 61_000) == ()
    assert plan(going, statuses, 61_001)[0] == Settle(
        device="d0", standing=MemberStanding.STUCK, code="stuck", air_bytes=77
    )


def test_who_was_stuck_and_commits_later_counts_as_committed() -> None:
    """A device that was off for a week is not a failure of the release."""
    going = rollout(MemberStanding.STUCK, MemberStanding.WAITING, phase=RolloutPhase.PAUSED)
    statuses = known() | {"d0": status("d0", UpdatePhase.COMMITTED)}
    assert plan(going, statuses, 99_000) == (
        Settle(device="d0", standing=MemberStanding.COMMITTED, code="", air_bytes=77),
    )


def test_a_device_told_otherwise_since_is_cancelled_and_without_evidence_it_pauses() -> None:
    """If no device has tried the release, the others must not get it."""
    settle, pause = plan(rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING), known(), 2000)
    assert settle == Settle(device="d0", standing=MemberStanding.CANCELLED, code="superseded")
    assert isinstance(pause, Pause)
    assert pause.code == "no_evidence"


@pytest.mark.parametrize("standing", [MemberStanding.PENDING, MemberStanding.ASSIGNED])
def test_a_rollout_of_which_every_device_left_the_fleet_has_failed(standing: MemberStanding) -> None:
    """Nobody can try it any more, so that no way to resume could lead on."""
    settle, end = plan(rollout(standing), {}, 2000)
    assert settle == Settle(device="d0", standing=MemberStanding.CANCELLED, code="device_removed")
    assert end == Finish(RolloutPhase.FAILED)


def test_a_refusal_to_resume_names_only_ways_that_lead_on() -> None:
    """An old pause without a device that is left: skip or abort. With one that waits, another may try instead."""
    going = change(rollout(MemberStanding.CANCELLED, phase=RolloutPhase.PAUSED), "d0", code=REMOVED)
    more = replace(going, members=(*going.members, Member(device="d1", group=1)))
    for how in (How.RETRY, How.TOLERATE):
        with pytest.raises(RolloutRefusedError, match=r"to try the release: skip the group, .* or abort the rollout"):
            resumed(going, how, gone={"d0"})
        with pytest.raises(RolloutRefusedError, match="to try the release: replace, skip the group, "):
            resumed(more, how, gone={"d0"})
    with pytest.raises(RolloutRefusedError, match=r"1 too few: skip the group or abort the rollout$"):
        resumed(going, How.REPLACE, gone={"d0"})
    failed = rollout(MemberStanding.FAILED, phase=RolloutPhase.PAUSED)
    with pytest.raises(RolloutRefusedError, match="1 too few: retry, skip the group or abort the rollout"):
        resumed(failed, How.REPLACE)


def test_an_aborted_rollout_says_who_was_set_back() -> None:
    """A device in its probation had tried it; one that was not told had not."""
    going = change(rollout(MemberStanding.CANCELLED, MemberStanding.CANCELLED), "d0", code="aborted")
    going = change(going, "d1", code="aborted", gen=0)
    assert outcome(going) == "no device committed it; 1 device was set back; 1 left out"
    assert outcome(change(going, "d0", gen=0)) == "no device tried it; 2 left out"


def test_a_tolerated_failure_of_every_canary_does_not_open_the_rest() -> None:
    """0 of 1 committed is no success, even if a person accepted the failure."""
    going = rollout(MemberStanding.FAILED, MemberStanding.WAITING)
    going = replace(going, members=(replace(going.members[0], tolerated=True), going.members[1]))
    (pause,) = plan(going, known(), 2000)
    assert (pause.code, pause.text) == ("success_threshold", "only 0 of 1 in canary committed")


def test_a_removed_canary_pauses_and_only_a_skip_goes_past_it() -> None:
    """No device is left to try the release; the person who decides so is named."""
    going = rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING)
    statuses = {"d1": DeviceStatus(device="d1", desired_release=OLD)}
    settle, pause = plan(going, statuses, 2000)
    assert settle == Settle(device="d0", standing=MemberStanding.CANCELLED, code="device_removed")
    assert pause.code == "no_evidence"
    past = skipped(apply_settlements(going, [settle], 2000), "canary", "ada", 2000)
    assert plan(past, statuses, 2000) == (OpenGroup(1), Assign("d1"))


@pytest.mark.parametrize(
    ("phase", "standing"),
    [
        (UpdatePhase.COMMITTED, MemberStanding.COMMITTED), (UpdatePhase.ROLLED_BACK, MemberStanding.FAILED),
        (UpdatePhase.REFUSED, MemberStanding.FAILED), (UpdatePhase.PROBATION, MemberStanding.CANCELLED),
    ],
)  # fmt: skip
def test_what_a_device_reported_before_it_was_removed_counts(phase: UpdatePhase, standing: MemberStanding) -> None:
    """Both came within one turn: the known outcome on the device is not lost."""
    statuses = known() | {"d0": status("d0", phase, desired_release="", removed=True)}
    settle = plan(rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING), statuses, 2000)[0]
    assert isinstance(settle, Settle)
    assert (settle.device, settle.standing) == ("d0", standing)
    assert plan(rollout(standing, MemberStanding.WAITING, phase=RolloutPhase.PAUSED), statuses, 2000) == ()


def test_a_failure_stays_one_when_the_device_is_removed_or_told_otherwise() -> None:
    """A known outcome outlives the device; only awaited devices are cancelled."""
    going = rollout(
        MemberStanding.FAILED,
        MemberStanding.STUCK,
        MemberStanding.STUCK,
        MemberStanding.ASSIGNED,
        opened=2,
        phase=RolloutPhase.PAUSED,
    )
    statuses = {"d2": DeviceStatus(device="d2", desired_release=OLD)}
    assert plan(going, statuses, 2000) == (
        Settle(device="d3", standing=MemberStanding.CANCELLED, code="device_removed"),
    )
    assert stop(apply_settlements(going, plan(going, statuses, 2000), 2000)) is not None


def test_a_second_try_without_an_outcome_leaves_the_failure() -> None:
    """The device was assigned again, and then removed, assigned otherwise, set back or never online."""
    going = rollout(MemberStanding.FAILED, MemberStanding.WAITING, phase=RolloutPhase.PAUSED)
    going = replace(going, members=(replace(going.members[0], code="child_crashed"), going.members[1]))
    waits = resumed(going, How.RETRY)
    failed = Settle(device="d0", standing=MemberStanding.FAILED, code="child_crashed")
    assert plan(waits, {"d1": DeviceStatus(device="d1", desired_release=OLD)}, 2000)[0] == failed
    told = change(waits, "d0", standing=MemberStanding.ASSIGNED, gen=6, assigned_ms=2000)
    assert plan(told, known(), 2000)[0] == failed
    assert plan(replace(waits, phase=RolloutPhase.ABORTING), known(), 2000)[0] == failed
    assert apply_settlements(told, [failed], 2000).members[0].retried_from is None


def test_a_replaced_canary_stays_a_failure_and_its_group_can_still_be_good() -> None:
    """A replaced device no longer counts for its group's gate, but stays in every figure."""
    going = rollout(MemberStanding.STUCK, MemberStanding.WAITING, MemberStanding.WAITING, phase=RolloutPhase.PAUSED)
    replaced_ = resumed(going, How.REPLACE, ["d1"], by="alice")
    assert (replaced_.members[0].standing, replaced_.members[0].replaced_by) == (MemberStanding.STUCK, "alice")
    late = {"d0": status("d0", UpdatePhase.COMMITTED, desired_release=OLD)}
    assert plan(replaced_, known(3) | late, 2000) == (Assign("d1"),)
    good = change(replaced_, "d1", standing=MemberStanding.COMMITTED)
    assert plan(good, known(3), 2000) == (OpenGroup(1), Assign("d2"))
    assert outcome(good) == "1 of 2 devices committed; 1 of 2 was stuck and was replaced by alice"
    (again,) = plan(change(good, "d1", standing=MemberStanding.FAILED), known(3), 2000)
    assert isinstance(again, Pause)


def test_a_removed_canary_that_failed_is_not_told_again_but_others_are() -> None:
    """Trying it again would end in the same pause; replacing it is offered."""
    going = rollout(MemberStanding.FAILED, MemberStanding.WAITING, phase=RolloutPhase.PAUSED)
    with pytest.raises(RolloutRefusedError, match=": replace, skip the group, "):
        resumed(going, How.RETRY, gone={"d0"})
    after = resumed(going, How.REPLACE, ["d1"], by="alice", gone={"d0"})
    assert (
        foresee(going, after, {"d1": DeviceStatus(device="d1", desired_release=OLD)}, 2000).text
        == "1 device assigned now: d1"
    )


def test_a_device_that_can_not_be_told_is_pending_until_it_is_heard() -> None:
    """Offline or never seen: no failure and no pause, however long it takes."""
    going = rollout(MemberStanding.WAITING, MemberStanding.WAITING)
    away = known() | {"d0": DeviceStatus(device="d0", desired_release=OLD, reachable=False)}
    assert plan(going, away, 2000) == (Settle(device="d0", standing=MemberStanding.PENDING),)
    waits = apply_settlements(going, plan(going, away, 2000), 2000)
    assert plan(waits, away, 10**12) == ()
    assert plan(waits, known(), 10**12) == (Assign("d0"),)


def test_pending_devices_do_not_hold_a_rollout_open_for_ever() -> None:
    """One deadline after the last news they are left out, and then it has succeeded."""
    going = rollout(MemberStanding.COMMITTED, MemberStanding.COMMITTED, MemberStanding.PENDING, opened=2)
    away = known(3) | {"d2": DeviceStatus(device="d2", desired_release=OLD, reachable=False)}
    assert plan(going, away, 61_000) == ()
    left_out = plan(going, away, 61_001)
    assert left_out == (Settle(device="d2", standing=MemberStanding.CANCELLED, code="not_seen"),)
    assert plan(apply_settlements(going, left_out, 61_001), away, 61_002) == (Finish(RolloutPhase.SUCCEEDED),)


def test_a_rollout_in_which_nobody_committed_has_not_succeeded() -> None:
    """Skipping every group only ends it."""
    going = rollout(MemberStanding.CANCELLED, MemberStanding.FAILED, opened=2)
    for name in ("canary", "rest"):
        going = skipped(going, name, "ada", 2000)
    assert plan(going, known(), 2000) == (Finish(RolloutPhase.FAILED),)


def test_a_group_opens_when_each_one_before_it_holds() -> None:
    """A canary that started late and failed blocks the rollout, however good the next group is."""
    groups, waits = (
        (
            Group(name="a", success_ratio=1.0, error_ratio=1.0),
            Group(name="b", success_ratio=1.0, error_ratio=1.0),
            Group(name="c", success_ratio=1.0, error_ratio=1.0),
        ),
        MemberStanding.PENDING,
    )
    owners = [
        (0, MemberStanding.COMMITTED),
        (0, waits),
        (0, MemberStanding.FAILED),
        (1, MemberStanding.COMMITTED),
        (2, MemberStanding.WAITING),
    ]
    members = tuple(
        Member(device=f"d{n}", group=group, standing=standing) for n, (group, standing) in enumerate(owners)
    )
    statuses = {
        member.device: DeviceStatus(device=member.device, desired_release=OLD, reachable=False) for member in members
    }
    going = Rollout(
        id="r",
        release=NEW,
        groups=(replace(groups[0], success_ratio=0.6), *groups[1:]),
        members=members,
        phase=RolloutPhase.RUNNING,
        opened=2,
    )
    assert plan(going, statuses, 2000) == ()


def test_finishes_when_nobody_is_under_way() -> None:
    """All groups open, all settled, thresholds held."""
    going = rollout(*[MemberStanding.COMMITTED] * 3, opened=2)
    assert plan(going, known(3), 2000) == (Finish(RolloutPhase.SUCCEEDED),)


def test_abort_sets_back_who_did_not_commit() -> None:
    """Committed devices stay, those under way and those that failed go back, waiting ones are cancelled."""
    going = rollout(
        MemberStanding.COMMITTED,
        MemberStanding.ASSIGNED,
        MemberStanding.FAILED,
        MemberStanding.WAITING,
        opened=2,
        phase=RolloutPhase.ABORTING,
    )
    statuses = {name: status(name, UpdatePhase.PROBATION) for name in ("d0", "d1", "d2")} | {
        "d3": DeviceStatus(device="d3", desired_release=OLD)
    }
    assert plan(going, statuses, 2000) == (
        SetBack("d1"),
        SetBack("d2"),
        Settle(device="d3", standing=MemberStanding.CANCELLED, code="aborted"),
    )


def test_abort_is_over_when_nothing_is_left_to_set_back() -> None:
    """Then, and only then, the rollout is aborted."""
    going = rollout(MemberStanding.COMMITTED, MemberStanding.CANCELLED, phase=RolloutPhase.ABORTING)
    assert plan(going, known(), 2000) == (Finish(RolloutPhase.ABORTED),)


def test_tells_only_some_in_one_turn() -> None:
    """The rate ramp."""
    actions = plan(rollout(MemberStanding.COMMITTED, *[MemberStanding.WAITING] * 9, opened=2), known(10), 2000, limit=4)
    assert actions == tuple(Assign(f"d{number}") for number in range(1, 5))


def test_tells_fifty_in_one_turn_by_default() -> None:
    """A fleet of thousands does not begin to download in one second."""
    actions = plan(rollout(MemberStanding.COMMITTED, *[MemberStanding.WAITING] * 60, opened=2), known(61), 2000)
    assert len(actions) == 50


def test_a_pause_names_how_many_of_those_that_were_told_failed() -> None:
    """Devices under way count among them."""
    going = replace(
        rollout(MemberStanding.FAILED, MemberStanding.ASSIGNED),
        groups=(Group(name="canary", success_ratio=1.0, error_ratio=0.0),),
    )
    going = replace(going, members=tuple(replace(member, group=0, code="stuck") for member in going.members))
    pause = stop(going)
    assert pause is not None
    assert pause.text == "1 of 2 in canary failed: stuck 1x"


@pytest.mark.parametrize(("groups", "paused"), [(1, True), (2, False)])
def test_nobody_left_in_the_last_group_ends_a_rollout_unless_it_is_the_only_one(groups: int, *, paused: bool) -> None:
    """Without evidence a person decides; after a good canary an empty rest is no reason to wait."""
    standings = (MemberStanding.CANCELLED,) if groups == 1 else (MemberStanding.COMMITTED, MemberStanding.CANCELLED)
    going = replace(rollout(*standings, opened=groups), groups=GROUPS[:groups])
    assert (stop(going) is not None) is paused


def test_pending_devices_are_left_out_a_deadline_after_the_last_news_of_anybody() -> None:
    """The first device's news may be long ago."""
    going = rollout(MemberStanding.COMMITTED, MemberStanding.COMMITTED, MemberStanding.PENDING, opened=2)
    going = change(change(going, "d0", settled_ms=5000), "d1", settled_ms=9000)
    away = known(3) | {"d2": DeviceStatus(device="d2", desired_release=OLD, reachable=False)}
    assert plan(going, away, 69_000) == ()
    assert plan(going, away, 69_001) == (Settle(device="d2", standing=MemberStanding.CANCELLED, code="not_seen"),)


def test_abort_sets_back_a_device_whose_first_order_this_was() -> None:
    """An assignment of generation 1 is set back like any other; generation 0 was never sent."""
    going = rollout(MemberStanding.FAILED, MemberStanding.FAILED, opened=2, phase=RolloutPhase.ABORTING)
    going = change(change(going, "d0", gen=1), "d1", gen=0)
    statuses = {name: status(name, UpdatePhase.PROBATION, desired_gen=1) for name in ("d0", "d1")}
    assert plan(going, statuses, 2000) == (SetBack("d0"),)


def test_a_second_try_that_waits_for_the_device_is_still_one() -> None:
    """Pending is not an outcome: a device that never comes back has failed, as before."""
    going = rollout(MemberStanding.FAILED, MemberStanding.WAITING, phase=RolloutPhase.PAUSED)
    waits = resumed(going, How.RETRY)
    away = known() | {"d0": DeviceStatus(device="d0", desired_release=OLD, reachable=False)}
    pending = apply_settlements(waits, plan(waits, away, 2000), 2000).members[0]
    assert (pending.standing, pending.retried_from) == (MemberStanding.PENDING, MemberStanding.FAILED)


def test_the_outcome_tells_removed_devices_from_those_left_out() -> None:
    """One device left the fleet, one was assigned another release."""
    going = rollout(MemberStanding.COMMITTED, MemberStanding.CANCELLED, MemberStanding.CANCELLED)
    going = change(change(going, "d1", code=REMOVED), "d2", code="superseded")
    assert outcome(going) == "1 of 1 device committed; 1 removed; 1 left out"


REPORTS = st.sampled_from(
    [None, None, UpdatePhase.COMMITTED, UpdatePhase.COMMITTED, UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED]
)
COMMANDS = st.sampled_from(["", "", "", "pause", "retry", "retry", "replace", "replace", "tolerate", "skip", "abort"])
EVENTS = st.sampled_from(["", "", "", "", "away", "back", "removed", "told otherwise", "a day passes"])
TURNS = st.lists(st.tuples(st.lists(REPORTS, min_size=9, max_size=9), COMMANDS, EVENTS, st.integers(0, 8)), max_size=30)


@settings(max_examples=400, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3), min_size=2, max_size=3),
    success_ratio=st.floats(0, 1),
    error_ratio=st.floats(0, 1),
    turns=TURNS,
)
def test_after_any_history_groups_opened_on_success_and_nobody_outside_was_told(
    sizes: list[int], success_ratio: float, error_ratio: float,
    turns: list[tuple[list[UpdatePhase | None], str, str, int]],
) -> None:  # fmt: skip
    """For any reports, absences, removals, other assignments and operators' commands."""
    groups = tuple(
        Group(name=f"g{index}", success_ratio=success_ratio, error_ratio=error_ratio) for index in range(len(sizes))
    )
    owners = [index for index, size in enumerate(sizes) for _ in range(size)]
    going = Rollout(
        id="r",
        release=NEW,
        groups=groups,
        members=tuple(Member(device=f"d{n}", group=g) for n, g in enumerate(owners)),
        phase=RolloutPhase.RUNNING,
    )
    statuses = {
        member.device: DeviceStatus(device=member.device, desired_release=OLD, desired_gen=1)
        for member in going.members
    }
    now_ms, failures = 0, dict[str, str]()
    for reports, command, event, who in turns:
        now_ms += 90_000_000 if event == "a day passes" else 1_000
        statuses = happen(statuses, event, f"d{who}")
        promised = None
        failures |= failures_by_hand(going, statuses, now_ms)
        before, (going, statuses, promised) = going, command_to(going, statuses, command, now_ms)
        failures |= reported_late(going, statuses)
        may = going.phase is RolloutPhase.RUNNING
        told = set()
        for action in plan(going, statuses, now_ms):
            if isinstance(action, OpenGroup):
                check_opening(going, action.index)
            if isinstance(action, Assign):
                assert may, "told while not running"
                told.add(action.device)
                assert group_of(going, action.device) < going.opened, "told outside the opened groups"
            going, statuses = carry_out(going, statuses, action, now_ms)
        assert promised is None or told == promised, f"resuming {before} told others than it said"
        check_figures(going, failures)
        for number, phase in zip(range(len(owners)), reports, strict=False):
            statuses = report(statuses, f"d{number}", phase)
        holders = {name for name, device in statuses.items() if device.desired_release == NEW}
        assert holders <= {member.device for member in going.members if member.group < going.opened}


def check_opening(going: Rollout, index: int) -> None:
    """Check by hand that every group before ``index`` reached its success or was skipped by a person."""
    for before in range(index):
        standings = [member.standing for member in going.group_members(before)]
        good = standings.count(MemberStanding.COMMITTED)
        failed = [member for member in going.group_members(before) if member.standing in IN_VAIN]
        bad = sum(not member.replaced_by for member in failed)  # a person had others try in place of the rest
        ratio = going.groups[before].success_ratio
        assert going.groups[before].skipped_by or (good > 0 and good / (good + bad) >= ratio - 1e-9)


def failures_by_hand(going: Rollout, statuses: dict[str, DeviceStatus], now_ms: int) -> dict[str, str]:
    """Return how each assigned, present and uncommitted device failed: by its report, or by silence."""
    found = {}
    for member in going.members:
        device = statuses.get(member.device)
        if device is None or member.standing is not MemberStanding.ASSIGNED:
            continue
        answers = device.update.gen >= member.gen and device.update.release == NEW
        if answers and device.update.phase in {UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED}:
            found[member.device] = "failed"
        late = device.desired_release == NEW and now_ms > member.assigned_ms + going.deadline_s * 1000
        if late and not (answers and device.update.phase is UpdatePhase.COMMITTED):
            found.setdefault(member.device, "stuck")
    return found


def reported_late(going: Rollout, statuses: dict[str, DeviceStatus]) -> dict[str, str]:
    """Return the stuck devices, not replaced, that reported their failure late."""
    return {
        member.device: "failed"
        for member in going.members
        if member.standing is MemberStanding.STUCK and not member.replaced_by and member.device in statuses
        and statuses[member.device].update.release == NEW and statuses[member.device].update.gen >= member.gen
        and statuses[member.device].update.phase in {UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED}
    }  # fmt: skip


def check_figures(going: Rollout, failures: dict[str, str]) -> None:
    """Check that each device that ever failed is shown as failed or stuck, unless it committed or tries again."""
    members, shown = {member.device: member for member in going.members}, count_members(going.members)
    excused = {
        name for name in failures if members[name].standing is MemberStanding.COMMITTED or members[name].retried_from
    }
    assert shown.failed + shown.stuck == len(failures.keys() - excused)
    for name in failures.keys() - excused:
        assert members[name].standing in {MemberStanding.FAILED, MemberStanding.STUCK}, f"{name} left the count"
    assert all(member.standing.value == failures[name] for name, member in members.items() if member.replaced_by
               and name in failures)  # fmt: skip


def group_of(going: Rollout, device: str) -> int:
    """Return the group that a device is in now."""
    return next(member.group for member in going.members if member.device == device)


def happen(statuses: dict[str, DeviceStatus], event: str, name: str) -> dict[str, DeviceStatus]:
    """Return the devices after something happened to one of them."""
    if name not in statuses or not event:
        return statuses
    if event == "removed":
        return {other: status for other, status in statuses.items() if other != name}
    changes = {
        "away": {"reachable": False}, "back": {"reachable": True}, "a day passes": {},
        "told otherwise": {"desired_release": OLD, "desired_gen": statuses[name].desired_gen + 1},
    }[event]  # fmt: skip
    return statuses | {name: replace(statuses[name], **changes)}  # type: ignore[arg-type]


Commanded = tuple[Rollout, dict[str, DeviceStatus], set[str] | None]


def command_to(going: Rollout, statuses: dict[str, DeviceStatus], command: str, now_ms: int) -> Commanded:
    """Return rollout and devices after an operator's command, and the devices that it announced to assign."""
    if command == "pause" and going.phase is RolloutPhase.RUNNING:
        return replace(going, phase=RolloutPhase.PAUSED), statuses, None
    if command == "abort" and going.phase in {RolloutPhase.RUNNING, RolloutPhase.PAUSED}:
        return replace(going, phase=RolloutPhase.ABORTING), statuses, None
    if command not in {"skip", *How} or going.phase is not RolloutPhase.PAUSED:
        return going, statuses, None
    waiting = [member.device for member in going.members if member.group >= going.opened and member.device in statuses]
    others = [name for name in waiting if statuses[name].reachable][: sum(count for _, count in to_replace(going))]
    short = [group.name for index, group in enumerate(going.groups[: going.opened]) if not passed(going, index)]
    try:
        if command == "skip":
            after = skipped(going, short[0] if short else "", "ada", now_ms)
        else:
            gone = {member.device for member in going.members} - statuses.keys()
            after = resumed(going, How(command), others if command == "replace" else (), by="ada", gone=gone)
    except RolloutRefusedError:
        return going, statuses, None
    seen = foresee(going, after, statuses, now_ms)
    for name in (name for name in seen.sets_back if name in statuses):
        gen = statuses[name].desired_gen + 1
        statuses = statuses | {name: replace(statuses[name], desired_release=OLD, desired_gen=gen)}
    return after, statuses, set(seen.assigns)


def carry_out(
    going: Rollout, statuses: dict[str, DeviceStatus], action: object, now_ms: int
) -> tuple[Rollout, dict[str, DeviceStatus]]:
    """Return rollout and devices after an action, as the service would leave them."""
    match action:
        case Assign(name):
            gen = statuses[name].desired_gen + 1
            going = change(going, name, standing=MemberStanding.ASSIGNED, gen=gen, assigned_ms=now_ms)
            return going, statuses | {name: replace(statuses[name], desired_release=NEW, desired_gen=gen)}
        case SetBack(name):
            gen = statuses[name].desired_gen + 1
            member = next(member for member in going.members if member.device == name)
            if member.standing not in {MemberStanding.FAILED, MemberStanding.STUCK}:
                going = apply_settlements(going, [left_out(member, "aborted")], now_ms)
            return going, statuses | {name: replace(statuses[name], desired_release=OLD, desired_gen=gen)}
        case Settle():
            return apply_settlements(going, [action], now_ms), statuses
        case OpenGroup(index):
            return replace(going, opened=index + 1), statuses
        case Finish(phase):
            return replace(going, phase=phase), statuses
    return replace(going, phase=RolloutPhase.PAUSED), statuses


def change(going: Rollout, device: str, **changes: object) -> Rollout:
    """Return the rollout with one member changed."""
    members = tuple(
        replace(member, **changes) if member.device == device else member  # type: ignore[arg-type]
        for member in going.members
    )
    return replace(going, members=members)


def report(statuses: dict[str, DeviceStatus], name: str, phase: UpdatePhase | None) -> dict[str, DeviceStatus]:
    """Return the devices after one has reported its progress on its assignment."""
    if phase is None or name not in statuses:
        return statuses
    device = statuses[name]
    update = UpdateStatus(phase=phase, gen=device.desired_gen, release=device.desired_release)
    return statuses | {name: replace(device, update=update)}


@pytest.mark.parametrize(("gen", "settled"), [(0, []), (1, [MemberStanding.COMMITTED])])
def test_the_first_generation_of_a_device_counts(gen: int, settled: list[MemberStanding]) -> None:
    """0 is that of a device that was never assigned anything: whatever it reports is not about this rollout."""
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, gen=gen, release=NEW)
    going = change(rollout(MemberStanding.ASSIGNED), "d0", gen=gen)
    actions = plan(going, {"d0": status("d0", update=update, desired_gen=gen)}, 2000)
    assert [one.standing for one in actions if isinstance(one, Settle)] == settled


def test_counts_of_a_shadow_and_a_replay_stay_until_newer_ones_come() -> None:
    """A report without them, such as that of the switch after a shadow, does not take them back."""
    (member, _) = rollout(MemberStanding.PENDING, MemberStanding.PENDING).members
    shadow, replay = ShadowCounts(n=30, disagreed=2), ShadowCounts(n=12, disagreed=1)
    silent = UpdateStatus(phase=UpdatePhase.PROBATION, gen=5, release=NEW)
    compared = so_far(member, replace(silent, shadow=shadow, replay=replay), NEW)
    assert (compared.shadow, compared.replay) == (shadow, replay)
    later = so_far(compared, silent, NEW)
    assert (later.shadow, later.replay) == (shadow, replay)
    newer = replace(shadow, n=60)
    assert so_far(compared, replace(silent, shadow=newer), NEW).shadow == newer


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_empty_plan_stays_empty_until_it_is_due(data: st.DataObject) -> None:
    """The passing of time alone changes nothing before, nor devices that fall silent; whatever the standings are."""
    standings = data.draw(st.lists(st.sampled_from(list(MemberStanding)), min_size=1, max_size=4))
    phase = data.draw(st.sampled_from([RolloutPhase.RUNNING, RolloutPhase.PAUSED, RolloutPhase.AWAITING_APPROVAL]))
    made = rollout(*standings, opened=data.draw(st.integers(0, 2)), phase=phase)
    times = st.integers(0, 150_000)
    members = tuple(
        replace(
            one,
            assigned_ms=data.draw(times),
            settled_ms=data.draw(times),
            answered=data.draw(st.sampled_from([None, 0, 3])),
        )
        for one in made.members
    )
    made = replace(made, members=members)
    phases = st.sampled_from([UpdatePhase.IDLE, UpdatePhase.DOWNLOADING, UpdatePhase.COMMITTED])
    statuses = {
        one.device: status(one.device, data.draw(phases), reachable=data.draw(st.booleans())) for one in members
    }
    now_ms, later_ms = data.draw(times), data.draw(st.integers(0, 400_000))
    if not plan(made, statuses, now_ms) and now_ms <= later_ms < due_ms(made, now_ms):
        fewer = {
            name: replace(one, reachable=one.reachable and data.draw(st.booleans())) for name, one in statuses.items()
        }
        assert plan(made, fewer, later_ms) == ()


def test_a_plan_is_due_when_a_deadline_is_over() -> None:
    """That of a device which was assigned it, and that of the last change; never where nothing has one."""
    told = rollout(MemberStanding.ASSIGNED, MemberStanding.WAITING)
    assert due_ms(told, 1_000) == 61_001
    assert plan(told, known_told(), 61_000) == ()
    assert plan(told, known_told(), 61_001) != ()
    assert due_ms(told, 61_001) == NEVER


def known_told() -> dict[str, DeviceStatus]:
    """Return devices that were assigned the new release and have not begun."""
    return {name: status(name) for name in ("d0", "d1")}
