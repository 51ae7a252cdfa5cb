"""The state of commands that survives a restart."""

import pytest

from edge_agent.control.inbox import DAY_MS, KEPT_GRANTS, KEPT_IDS, CommandState, SampleGrant
from wire.messages import Command


def grant(request: str, count: int = 2, budget_bytes: int = 100) -> SampleGrant:
    """Return a grant."""
    return SampleGrant(request=request, count=count, budget_bytes=budget_bytes, lane="audit")


@pytest.mark.parametrize(
    ("lengths", "left"), [([60], [(1, 40)]), ([60, 39], []), ([99], [(1, 1)]), ([100], []), ([150], [])]
)
def test_a_grant_ends_with_its_count_or_its_bytes(lengths: list[int], left: list[tuple[int, int]]) -> None:
    """The first limit that is reached counts; the other grants keep their rest."""
    ledger = CommandState().granting(grant("other"), 0).granting(grant("r"), 0)
    for length in lengths:
        ledger = ledger.sampled("r", length)
    assert [(item.count, item.budget_bytes) for item in ledger.open] == [(2, 100), *left]


def test_a_day_counts_its_own_grants() -> None:
    """Yesterday's grants are not part of today's budget."""
    ledger = CommandState().granting(grant("a"), 5 * DAY_MS).granting(grant("b"), 5 * DAY_MS + 1)
    assert (ledger.left(300, 5 * DAY_MS), ledger.left(300, 6 * DAY_MS)) == (100, 300)
    assert ledger.granting(grant("c"), 6 * DAY_MS).left(300, 6 * DAY_MS) == 200


def test_a_second_grant_of_a_request_takes_the_place_of_the_first() -> None:
    """As in the child: one reservoir a request."""
    ledger = CommandState().granting(grant("r"), 0).granting(grant("s"), 0).granting(grant("r", 9), 0)
    assert [(item.request, item.count) for item in ledger.open] == [("s", 2), ("r", 9)]


def test_the_ledger_stays_small() -> None:
    """Endless requests fill no disk: only the latest are kept."""
    ledger = CommandState()
    for number in range(200):
        ledger = ledger.granting(grant(str(number)), 0).remember(Command(id=str(number)))
    assert (len(ledger.open), ledger.open[-1].request) == (KEPT_GRANTS, "199")
    assert (len(ledger.seen), ledger.seen[-1]) == (KEPT_IDS, "199")


@pytest.mark.parametrize(
    ("lengths", "days", "left"), [([60], 0, 100), ([60, 30], 0, 110), ([60, 30], 1, 200), ([150], 0, 100)]
)
def test_what_a_filled_request_did_not_need_is_free_again(lengths: list[int], days: int, left: int) -> None:
    """Only on its own day, once all its inputs are sent: the next request is not refused for bytes nobody used."""
    ledger = CommandState().granting(grant("r"), 0)
    if days:
        ledger = ledger.granting(grant("s", budget_bytes=0), days * DAY_MS)
    for length in lengths:
        ledger = ledger.sampled("r", length)
    assert ledger.left(200, days * DAY_MS) == left
