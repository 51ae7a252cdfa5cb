"""When a group is good enough, too bad, and how large a canary must be."""

from __future__ import annotations

import pytest

from server.errors import RolloutRefusedError
from server.rollout.model import Group, Member, MemberStanding, Rollout
from server.rollout.thresholds import MAX_CANARIES, _replaced, canary_size, count_members, outcome


def members(**counts: int) -> tuple[Member, ...]:
    """Return members by standing."""
    standings = [MemberStanding(name) for name, count in counts.items() for _ in range(count)]
    return tuple(Member(device=f"d{number}", group=0, standing=standing) for number, standing in enumerate(standings))


@pytest.mark.parametrize(("defect_ratio", "size"), [(0.5, 5), (0.1, 29), (0.05, 59), (0.01, 299), (1.0, 1)])
def test_canary_size_shows_the_defect_with_95_percent(defect_ratio: float, size: int) -> None:
    """The rule of three, exactly: one canary fewer would see it with less."""
    assert canary_size(defect_ratio) == size
    assert 1 - (1 - defect_ratio) ** size >= 0.95


def test_canary_size_is_one_that_a_fleet_can_have() -> None:
    """Just below the limit it is a number; beyond it, and at an overflow, it is refused with a text."""
    assert canary_size(2.9958e-6) <= MAX_CANARIES
    for ratio in (2.9957e-6, 5e-324):
        with pytest.raises(RolloutRefusedError, match=f"{MAX_CANARIES} canaries would show, got {ratio}"):
            canary_size(ratio)


@pytest.mark.parametrize("defect_ratio", [0.0, -0.1, 1.1])
def test_canary_size_refuses_an_impossible_ratio(defect_ratio: float) -> None:
    """A defect that never shows needs infinitely many canaries."""
    with pytest.raises(RolloutRefusedError):
        canary_size(defect_ratio)


def test_success_is_reached_at_its_ratio_and_errors_above_theirs() -> None:
    """Success counts >=, errors count >, and a stuck device counts as a failed one."""
    counts, group = (
        count_members(members(committed=8, failed=1, stuck=1)),
        Group(name="canary", success_ratio=0.8, error_ratio=0.2),
    )
    assert counts.success_reached(group)
    assert not counts.errors_exceeded(group)
    assert not count_members(members(committed=7, failed=1, stuck=2)).success_reached(group)
    assert count_members(members(committed=7, failed=1, stuck=2)).errors_exceeded(group)


@pytest.mark.parametrize("others", [{}, {"cancelled": 3}, {"pending": 3}, {"waiting": 1}, {"failed": 1}])
def test_nobody_committed_is_never_success(others: dict[str, int]) -> None:
    """With an empty denominator the ratio proves nothing."""
    assert not count_members(members(**others)).success_reached(
        Group(name="canary", success_ratio=0.0, error_ratio=1.0)
    )
    assert count_members(members(committed=1, **others)).success_reached(
        Group(name="canary", success_ratio=0.0, error_ratio=1.0)
    )


def test_a_tolerated_failure_pauses_no_more_and_counts_against_success() -> None:
    """A person has accepted it; the release failed there all the same."""
    failed = Member(device="d1", group=0, standing=MemberStanding.FAILED, tolerated=True)
    counts, group = (
        count_members((Member(device="d0", group=0, standing=MemberStanding.COMMITTED), failed)),
        Group(name="canary", success_ratio=0.6, error_ratio=0.0),
    )
    assert not counts.errors_exceeded(group)
    assert not counts.success_reached(group)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"committed": 2, "failed": 1, "stuck": 1}, "2 of 4 devices committed; 1 of 4 failed; 1 of 4 was stuck"),
        (
            {"failed": 2, "stuck": 2, "cancelled": 1},
            "0 of 4 devices committed; 2 of 4 failed; 2 of 4 were stuck; 1 left out",
        ),
        ({"cancelled": 1}, "no device tried it; 1 left out"),
    ],
)
def test_the_outcome_names_each_kind_of_failure(counts: dict[str, int], text: str) -> None:
    """One and many read alike to a person."""
    assert outcome(Rollout(id="r", release="m-1", groups=(), members=members(**counts))) == text


def test_who_can_not_be_told_yet_is_counted_apart() -> None:
    """Offline devices neither fail nor hold up the others, and those under way are awaited."""
    counts = count_members(members(committed=1, pending=68, failed=0))
    assert (counts.pending, counts.judged, counts.failed, counts.stuck) == (68, 1, 0, 0)
    assert counts.success_reached(Group(name="canary", success_ratio=0.9, error_ratio=0.2))
    assert not count_members(members(committed=1, assigned=1)).success_reached(
        Group(name="canary", success_ratio=0.9, error_ratio=0.2)
    )


def test_cancelled_devices_leave_the_denominator() -> None:
    """Two of two committed is complete, regardless of withdrawn devices."""
    counts = count_members(members(committed=2, cancelled=8))
    assert (counts.total, counts.awaited) == (2, 0)
    assert counts.success_reached(Group(name="canary", success_ratio=1.0, error_ratio=0.0))


def test_a_ratio_met_exactly_is_met() -> None:
    """0.07 of 100 is a little more than 7 in floating point."""
    assert count_members(members(committed=7, failed=93)).success_reached(
        Group(name="canary", success_ratio=0.07, error_ratio=1.0)
    )
    assert not count_members(members(committed=93, failed=7)).errors_exceeded(
        Group(name="canary", success_ratio=0.5, error_ratio=0.07)
    )


def test_success_is_possible_while_enough_may_still_commit() -> None:
    """Both sides of the bound: one failure of two, and one device that may come back."""
    group = Group(name="canary", success_ratio=0.5, error_ratio=1.0)
    assert count_members(members(failed=1, pending=1)).success_possible(group)
    assert count_members(members(failed=1, assigned=1)).success_possible(group)
    assert not count_members(members(failed=2, pending=1)).success_possible(group)
    assert not count_members(members(cancelled=1)).success_possible(group)


@pytest.mark.parametrize(
    ("replaced_by", "text"),
    [
        (("",), ""),
        (("anna",), " and was replaced by anna"),
        (("anna", "anna"), " and were replaced by anna"),
        (("anna", ""), ", 1 of them replaced by anna"),
        (("anna", "", "bo"), ", 2 of them replaced by anna, bo"),
    ],
)
def test_who_replaced_a_device_is_named(replaced_by: tuple[str, ...], text: str) -> None:
    """Of some, how many; of all, no number."""
    found = [Member(device=f"d{number}", group=0, replaced_by=name) for number, name in enumerate(replaced_by)]
    assert _replaced(found) == text
