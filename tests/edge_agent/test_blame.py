"""Whether the input or the release is at fault when a child ends on an input."""

import pytest

from edge_agent.control.supervisor import Suspicion


@pytest.mark.parametrize(
    ("served", "of_the_release"),
    [([0], False), ([0, 0], False), ([0, 0, 0], True), ([5, 99, 7], True), ([0, 100, 0], False), ([0, 0, 1000], False)],
)
def test_the_third_input_in_a_row_is_the_releases_fault(served: list[int], *, of_the_release: bool) -> None:
    """Inputs served in between, counted before each end, take suspicion off: one for each hundred."""
    suspicion = Suspicion()
    for count in served:
        suspicion = suspicion.after(count)
    assert suspicion.of_the_release is of_the_release
