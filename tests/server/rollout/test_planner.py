"""What a rollout does next, as data: devices' reports in, actions out."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from server.rollout.model import (
    Assign,
    DeviceStatus,
    Finish,
    Group,
    Member,
    OpenGroup,
    Pause,
    Phase,
    Rollout,
    SetBack,
    Settle,
    Standing,
)
from server.rollout.planner import apply_settlements, plan
from wire.messages import UpdatePhase, UpdateStatus

NEW, OLD = "meter-2", "meter-1"
GROUPS = (Group("canary", 1.0, 0.0), Group("rest", 0.5, 0.4))


def status(device: str, phase: UpdatePhase = UpdatePhase.IDLE, **changes: object) -> DeviceStatus:
    """Return a device that was told the new release as gen 5 and says how far it is."""
    update = UpdateStatus(phase=phase, gen=5, release=NEW, done_bytes=77)
    return replace(DeviceStatus(device, NEW, 5, update), **changes)  # type: ignore[arg-type]


def rollout(*standings: Standing, opened: int = 1, phase: Phase = Phase.RUNNING) -> Rollout:
    """Return a rollout whose first device is the canary."""
    members = tuple(
        Member(f"d{number}", min(number, 1), standing, gen=5, assigned_ms=1000)
        for number, standing in enumerate(standings)
    )
    return Rollout("r", NEW, GROUPS, members, phase, opened=opened, deadline_s=60)


def known(count: int = 2) -> dict[str, DeviceStatus]:
    """Return devices that still run the old release."""
    return {f"d{number}": DeviceStatus(f"d{number}", OLD) for number in range(count)}


def test_tells_only_the_canary_first() -> None:
    """The rest waits until the canary committed."""
    assert plan(rollout(*[Standing.WAITING] * 3, opened=0), known(3), 0) == (OpenGroup(0), Assign("d0"))


def test_success_is_committed_and_nothing_else() -> None:
    """Neither probation nor an old gen nor another release counts."""
    going = rollout(Standing.ASSIGNED, Standing.WAITING)
    for update in (
        UpdateStatus(UpdatePhase.PROBATION, 5, NEW),
        UpdateStatus(UpdatePhase.COMMITTED, 4, NEW),
        UpdateStatus(UpdatePhase.COMMITTED, 5, OLD),
    ):
        assert plan(going, known() | {"d0": status("d0", update=update)}, 2000) == ()


def test_a_committed_canary_opens_the_rest() -> None:
    """The next group is opened and told in the same turn; what was downloaded is noted."""
    actions = plan(
        rollout(Standing.ASSIGNED, Standing.WAITING), known() | {"d0": status("d0", UpdatePhase.COMMITTED)}, 2000
    )
    assert actions == (Settle("d0", Standing.COMMITTED, "", 77), OpenGroup(1), Assign("d1"))


def test_a_later_gen_of_the_same_release_counts_too() -> None:
    """A change of settings in between raises gen without changing the release."""
    update = UpdateStatus(UpdatePhase.COMMITTED, 9, NEW)
    actions = plan(rollout(Standing.ASSIGNED), {"d0": status("d0", update=update, desired_gen=9)}, 2000)
    assert actions[0] == Settle("d0", Standing.COMMITTED)


def test_a_canary_that_rolled_back_pauses_with_its_code() -> None:
    """The reason the device gave reaches the operator, and nobody else is told."""
    update = UpdateStatus(UpdatePhase.ROLLED_BACK, 5, NEW, "child_crashed")
    settle, pause = plan(
        rollout(Standing.ASSIGNED, Standing.WAITING), known() | {"d0": status("d0", update=update)}, 2000
    )
    assert settle == Settle("d0", Standing.FAILED, "child_crashed")
    assert isinstance(pause, Pause)
    assert (pause.code, "child_crashed" in pause.text) == ("error_threshold", True)


def test_a_silent_canary_is_stuck_after_its_deadline_and_that_is_an_error() -> None:
    """No answer is an outcome."""
    going = rollout(Standing.ASSIGNED, Standing.WAITING)
    statuses = known() | {"d0": status("d0", UpdatePhase.DOWNLOADING)}
    assert plan(going, statuses, 61_000) == ()
    assert plan(going, statuses, 61_001)[0] == Settle("d0", Standing.FAILED, "stuck", 77)


def test_who_was_stuck_and_commits_later_counts_as_committed() -> None:
    """A device that slept for a week is no failure of the release."""
    going = rollout(Standing.FAILED, Standing.WAITING, phase=Phase.PAUSED)
    going = replace(going, members=(replace(going.members[0], code="stuck"), going.members[1]))
    statuses = known() | {"d0": status("d0", UpdatePhase.COMMITTED)}
    assert plan(going, statuses, 99_000) == (Settle("d0", Standing.COMMITTED, "", 77),)


def test_a_device_told_otherwise_since_is_cancelled_and_without_evidence_it_pauses() -> None:
    """When nobody tried the release, the rest must not get it."""
    settle, pause = plan(rollout(Standing.ASSIGNED, Standing.WAITING), known(), 2000)
    assert settle == Settle("d0", Standing.CANCELLED, "superseded")
    assert isinstance(pause, Pause)
    assert pause.code == "no_evidence"


def test_resuming_over_a_failure_goes_on() -> None:
    """What an operator has seen and resumed over is not counted again."""
    going = rollout(Standing.FAILED, Standing.WAITING)
    going = replace(going, members=(replace(going.members[0], tolerated=True), going.members[1]))
    assert plan(going, known(), 2000) == (OpenGroup(1), Assign("d1"))


def test_finishes_when_nobody_is_under_way() -> None:
    """All groups open, all settled, thresholds held."""
    going = rollout(*[Standing.COMMITTED] * 3, opened=2)
    assert plan(going, known(3), 2000) == (Finish(Phase.SUCCEEDED),)


def test_abort_sets_back_who_did_not_commit() -> None:
    """Committed devices stay, those under way and those that failed go back, waiting ones are cancelled."""
    going = rollout(
        Standing.COMMITTED, Standing.ASSIGNED, Standing.FAILED, Standing.WAITING, opened=2, phase=Phase.ABORTING
    )
    statuses = {name: status(name, UpdatePhase.PROBATION) for name in ("d0", "d1", "d2")} | {
        "d3": DeviceStatus("d3", OLD)
    }
    assert plan(going, statuses, 2000) == (SetBack("d1"), SetBack("d2"), Settle("d3", Standing.CANCELLED, "aborted"))


def test_abort_is_over_when_nothing_is_left_to_set_back() -> None:
    """Then, and only then, the rollout is aborted."""
    going = rollout(Standing.COMMITTED, Standing.CANCELLED, phase=Phase.ABORTING)
    assert plan(going, known(), 2000) == (Finish(Phase.ABORTED),)


def test_tells_only_some_in_one_turn() -> None:
    """The rate ramp."""
    actions = plan(rollout(Standing.COMMITTED, *[Standing.WAITING] * 9, opened=2), known(10), 2000, limit=4)
    assert actions == tuple(Assign(f"d{number}") for number in range(1, 5))


REPORTS = st.sampled_from([None, UpdatePhase.COMMITTED, UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED])
COMMANDS = st.sampled_from(["", "", "", "pause", "resume", "abort"])
TURNS = st.lists(st.tuples(st.lists(REPORTS, min_size=9, max_size=9), COMMANDS), max_size=25)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    success_ratio=st.floats(0, 1),
    error_ratio=st.floats(0, 1),
    turns=TURNS,
)
def test_no_device_outside_the_opened_groups_ever_gets_the_release(
    sizes: list[int], success_ratio: float, error_ratio: float, turns: list[tuple[list[UpdatePhase | None], str]]
) -> None:
    """Whatever devices report, in whatever order, and whatever operators do."""
    groups = tuple(Group(f"g{index}", success_ratio, error_ratio) for index in range(len(sizes)))
    owners = [index for index, size in enumerate(sizes) for _ in range(size)]
    members = tuple(Member(f"d{number}", group) for number, group in enumerate(owners))
    going = Rollout("r", NEW, groups, members, Phase.RUNNING)
    statuses = {member.device: DeviceStatus(member.device, OLD, 1) for member in members}
    for now_ms, (reports, command) in enumerate(turns):
        going = command_to(going, command)
        may = going.phase is Phase.RUNNING
        for action in plan(going, statuses, now_ms):
            going, statuses = carry_out(going, statuses, action, now_ms)
            if isinstance(action, Assign):
                assert may, "told while not running"
                group = next(member.group for member in members if member.device == action.device)
                assert group < going.opened, "told outside the opened groups"
        for number, phase in zip(range(len(members)), reports, strict=False):
            statuses = report(statuses, f"d{number}", phase)
    holders = {name for name, device in statuses.items() if device.desired_release == NEW}
    assert holders <= {member.device for member in members if member.group < going.opened}


def command_to(going: Rollout, command: str) -> Rollout:
    """Return the rollout after an operator's command."""
    if command == "pause" and going.phase is Phase.RUNNING:
        return replace(going, phase=Phase.PAUSED)
    if command == "resume" and going.phase is Phase.PAUSED:
        failed = {Standing.FAILED, Standing.CANCELLED}
        members = tuple(replace(member, tolerated=member.standing in failed) for member in going.members)
        return replace(going, phase=Phase.RUNNING, members=members)
    if command == "abort" and going.phase in {Phase.RUNNING, Phase.PAUSED}:
        return replace(going, phase=Phase.ABORTING)
    return going


def carry_out(
    going: Rollout, statuses: dict[str, DeviceStatus], action: object, now_ms: int
) -> tuple[Rollout, dict[str, DeviceStatus]]:
    """Return rollout and devices after an action, as the service would leave them."""
    match action:
        case Assign(name):
            gen = statuses[name].desired_gen + 1
            going = change(going, name, standing=Standing.ASSIGNED, gen=gen, assigned_ms=now_ms)
            return going, statuses | {name: replace(statuses[name], desired_release=NEW, desired_gen=gen)}
        case SetBack(name):
            gen = statuses[name].desired_gen + 1
            going = change(going, name, standing=Standing.CANCELLED)
            return going, statuses | {name: replace(statuses[name], desired_release=OLD, desired_gen=gen)}
        case Settle():
            return apply_settlements(going, [action], now_ms), statuses
        case OpenGroup(index):
            return replace(going, opened=index + 1), statuses
        case Finish(phase):
            return replace(going, phase=phase), statuses
    return replace(going, phase=Phase.PAUSED), statuses


def change(going: Rollout, device: str, **changes: object) -> Rollout:
    """Return the rollout with one member changed."""
    members = tuple(
        replace(member, **changes) if member.device == device else member  # type: ignore[arg-type]
        for member in going.members
    )
    return replace(going, members=members)


def report(statuses: dict[str, DeviceStatus], name: str, phase: UpdatePhase | None) -> dict[str, DeviceStatus]:
    """Return the devices after one reported how far it is with what it shall run."""
    if phase is None:
        return statuses
    device = statuses[name]
    update = UpdateStatus(phase=phase, gen=device.desired_gen, release=device.desired_release)
    return statuses | {name: replace(device, update=update)}
