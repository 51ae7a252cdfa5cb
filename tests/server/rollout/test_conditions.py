"""When a group is good enough, too bad, and how large a canary must be."""

from __future__ import annotations

import pytest

from server.errors import RolloutRefusedError
from server.rollout.conditions import canary_size, tally
from server.rollout.model import Group, Member, Standing


def members(**counts: int) -> tuple[Member, ...]:
    """Return members by standing."""
    standings = [Standing(name) for name, count in counts.items() for _ in range(count)]
    return tuple(Member(f"d{number}", 0, standing) for number, standing in enumerate(standings))


@pytest.mark.parametrize(("defect_ratio", "size"), [(0.5, 5), (0.1, 29), (0.05, 59), (0.01, 299), (1.0, 1)])
def test_canary_size_shows_the_defect_with_95_percent(defect_ratio: float, size: int) -> None:
    """The rule of three, exactly: one canary fewer would see it with less."""
    assert canary_size(defect_ratio) == size
    assert 1 - (1 - defect_ratio) ** size >= 0.95


@pytest.mark.parametrize("defect_ratio", [0.0, -0.1, 1.1])
def test_canary_size_refuses_an_impossible_ratio(defect_ratio: float) -> None:
    """A defect that never shows needs infinitely many canaries."""
    with pytest.raises(RolloutRefusedError):
        canary_size(defect_ratio)


def test_success_is_reached_at_its_ratio_and_errors_above_theirs() -> None:
    """Success counts >=, errors count >."""
    counts, group = tally(members(committed=8, failed=2)), Group("canary", 0.8, 0.2)
    assert counts.success_reached(group)
    assert not counts.errors_exceeded(group)
    assert tally(members(committed=7, failed=3)).errors_exceeded(group)


def test_cancelled_devices_leave_the_denominator() -> None:
    """Two of two committed is all, whoever was withdrawn."""
    counts = tally(members(committed=2, cancelled=8))
    assert (counts.total, counts.complete) == (2, True)
    assert counts.success_reached(Group("canary", 1.0, 0.0))
