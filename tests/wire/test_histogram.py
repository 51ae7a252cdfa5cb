"""The merge of counters is a commutative monoid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import HistogramError
from wire.histogram import BINS, Counters, Shape, empty, merge

SHAPE = Shape(2, 3, 4)
COUNTERS = st.builds(
    lambda n, values: Counters(SHAPE, n, tuple(values)),
    st.integers(0, 10**9),
    st.lists(st.integers(0, 10**9), min_size=SHAPE.total, max_size=SHAPE.total),
)


@given(COUNTERS, COUNTERS)
def test_merge_is_commutative(left: Counters, right: Counters) -> None:
    """The order of two windows doesn't matter."""
    assert merge(left, right) == merge(right, left)


@given(COUNTERS, COUNTERS, COUNTERS)
def test_merge_is_associative(a: Counters, b: Counters, c: Counters) -> None:
    """Windows may be folded in any grouping."""
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(COUNTERS)
def test_empty_counters_are_the_identity(counters: Counters) -> None:
    """Merging nothing changes nothing."""
    assert merge(counters, empty(SHAPE)) == counters


def test_refuses_to_merge_different_shapes() -> None:
    """Counters of different references never meet."""
    with pytest.raises(HistogramError, match="one shape"):
        merge(empty(SHAPE), empty(Shape(2, 3, 5)))


def test_refuses_a_wrong_number_of_counters() -> None:
    """The shape defines the number of counters."""
    with pytest.raises(HistogramError):
        Counters(SHAPE, 0, (0,) * (SHAPE.total - 1))


def test_parts_cover_all_counters_once() -> None:
    """Bins, invalid counts and table are one after the other."""
    counters = Counters(SHAPE, 1, tuple(range(SHAPE.total)))
    parts = counters.bins(0) + counters.bins(1) + counters.invalid + counters.table
    assert parts == counters.values
    assert (len(counters.bins(0)), len(counters.invalid), len(counters.table)) == (BINS, 2, 12)
