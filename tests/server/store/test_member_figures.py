"""Figures of rollouts that are over, counted by the database, are those that their members give."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from server.rollout.figures.members import RolloutFigures
from server.rollout.ledger import RolloutLedger
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from server.store.database import open_database
from wire.shadow import ShadowCounts, ShadowOrder

GROUPS = (
    Group(name="canary", success_ratio=0.9, error_ratio=0.2),
    Group(name="skipped", success_ratio=0.9, error_ratio=0.1, skipped_by="eve"),
    Group(name="rest", success_ratio=0.9, error_ratio=0.1),
    Group(name="nobody", success_ratio=0.9, error_ratio=0.1),
)


@pytest.fixture
def ledger(empty_url: str) -> Iterator[RolloutLedger]:
    """A ledger without rollouts, on each kind of database."""
    database = open_database(empty_url)
    yield RolloutLedger(database)
    database.close()


def member(drawn: random.Random, device: str) -> Member:
    """Return a member as no rollout has all of its kinds at once."""
    standing = drawn.choice(list(MemberStanding))
    return Member(
        device=device, group=drawn.randrange(3), standing=standing, gen=drawn.choice((0, 3)),
        code=drawn.choice(("", "device_removed", "not_healthy")), air_bytes=drawn.randrange(2**40),
        bundle_bytes=drawn.choice((0, 7)), tolerated=drawn.random() < 0.2, assigned_ms=drawn.randrange(5),
        replaced_by=drawn.choice(("", "", "eve")), answered=drawn.choice((None, 0, 4)),
        forecast_bytes=drawn.choice((None, 5, 2**40)), forecast_upper=drawn.random() < 0.3,
        shadow=drawn.choice((None, None, ShadowCounts(seconds=2.0, n=9, disagreed=3))),
        replay=drawn.choice((None, None, ShadowCounts(seconds=1.0, n=5, disagreed=1))),
    )  # fmt: skip


def rollout(drawn: random.Random, count: int, name: str) -> Rollout:
    """Return a rollout with ``count`` members, by group and device as the ledger has them."""
    members = sorted((member(drawn, f"d{index}") for index in range(count)), key=lambda one: (one.group, one.device))
    return Rollout(
        id=name, release="m-1", groups=GROUPS, members=tuple(members), phase=RolloutPhase.ABORTED, opened=4,
        shadow=drawn.choice((None, ShadowOrder(60.0), ShadowOrder(60.0, max_ratio=0.1))),
    )  # fmt: skip


def test_the_database_counts_as_the_members_do(ledger: RolloutLedger) -> None:
    """Of rollouts of none, one and some devices in every standing; the heads that are asked for lack their members."""
    drawn = random.Random(13)  # noqa: S311 - a draw of test data
    stored = [rollout(drawn, count, f"r{number}") for number, count in enumerate((0, 1, 1, 1, 2, 5, 30, 60, 90))]
    for one in stored:
        ledger.add(one)
    heads = [replace(one, members=()) for one in stored]
    found = ledger.figures(heads)
    assert [one.id for one, _ in found] == [one.id for one in stored]
    for known, (_, figures) in zip(stored, found, strict=True):
        assert figures == RolloutFigures.of(known)


def test_a_failure_that_an_older_server_stored_as_stuck_counts_as_stuck(ledger: RolloutLedger) -> None:
    """Its standing is failed and its code stuck."""
    old = Member(device="d0", group=0, standing=MemberStanding.FAILED, code="stuck", tolerated=True)
    one = Rollout(id="r", release="m-1", groups=GROUPS, members=(old,), phase=RolloutPhase.FAILED)
    ledger.add(one)
    ((_, figures),) = ledger.figures([replace(one, members=())])
    assert (figures.whole.counts.stuck, figures.whole.counts.failed, figures.whole.counts.tolerated) == (1, 0, 1)
    assert figures == RolloutFigures.of(ledger.get("r"))
