"""Names in sentences."""

import pytest

from server.wording import listed


@pytest.mark.parametrize(
    ("names", "text"),
    [((), ""), (("a", "b"), "a, b"), (("a", "b", "c"), "a, b and 1 more"), ("abcde", "a, b and 3 more")],
)
def test_a_long_list_is_cut_and_says_how_many_are_left_out(names: tuple[str, ...], text: str) -> None:
    """Both sides of the number of names that are shown."""
    assert listed(names, 2) == text
