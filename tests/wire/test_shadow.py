"""Counts of a shadow: bins, bounds, and that merging loses nothing."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from wire.codec import decode, encode
from wire.errors import MessageError
from wire.shadow import (
    MAX_PAIRS,
    MAX_SHADOW_S,
    ShadowCounts,
    ShadowOrder,
    ShadowPair,
    difference_bin,
    kept_pairs,
    merge_shadow,
    run_step,
    shortened,
)


def test_parts_merge_to_the_counts_of_the_whole_in_any_order() -> None:
    """Ten windows of random pairs, merged in two orders and in two steps, are the same counts."""
    rng = np.random.default_rng(5)
    parts = [
        ShadowCounts(
            seconds=1.0, n=9, disagreed=2, errors=1, skipped=3, run_steps={run_step(rng.uniform(1, 9)): 9},
            pairs=(ShadowPair(str(rng.choice(["a", "b"])), str(rng.choice(["c", "d"])), 2),),
            differences={"x": {difference_bin(0.3): 1}},
        )
        for _ in range(10)
    ]  # fmt: skip
    whole = merge_shadow(parts)
    assert whole == merge_shadow(reversed(parts)) == merge_shadow([merge_shadow(parts[:3]), merge_shadow(parts[3:])])
    assert (whole.n, whole.disagreed, sum(pair.n for pair in whole.pairs)) == (90, 20, 20)


def test_pairs_beyond_the_bound_are_counted_but_not_named() -> None:
    """49 pairs: the rarest is in ``other_pairs``; 48: none is."""
    counted = {("a", str(index)): 2 + index for index in range(MAX_PAIRS + 1)}
    pairs, others = kept_pairs(counted)
    assert (len(pairs), others, pairs[0].n) == (MAX_PAIRS, 2, MAX_PAIRS + 2)
    del counted["a", "0"]
    assert kept_pairs(counted)[1] == 0


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (0.0, "0"),
        (1.0, "33"),
        (1.001, "34"),
        (-2.0, "-34"),
        (1e-99, "1"),
        (float("-inf"), "-65"),
        (float("nan"), "nan"),
    ],
)
def test_a_difference_is_counted_by_its_octave_and_sign(difference: float, expected: str) -> None:
    """Both sides of an edge, and the values that have no octave."""
    assert difference_bin(difference) == expected


def test_the_time_of_a_share_of_the_runs_is_the_upper_edge_of_its_bin() -> None:
    """95 runs of 1 ms and 5 of 8 ms: p50 and p95 are 1 ms, p96 is 8 ms; without runs it is 0."""
    counts = ShadowCounts(run_steps={run_step(1.0): 95, run_step(8.0): 5})
    assert [counts.run_ms(share) for share in (0.5, 0.95, 0.96)] == [1.0, 1.0, 8.0]
    assert ShadowCounts().run_ms(0.95) == 0.0


def test_the_ratio_is_of_labels_compared() -> None:
    """None without inputs, and None for numbers, which differ without disagreeing."""
    assert ShadowCounts().disagreement_ratio is None
    assert ShadowCounts(n=4, disagreed=1).disagreement_ratio == 0.25
    assert ShadowCounts(n=4, differences={"x": {"0": 4}}).disagreement_ratio is None


def test_counts_survive_the_wire_with_fields_of_a_later_version() -> None:
    """Unknown keys are kept, and bins that this version does not know end in the last one."""
    data = b'{"n": 3, "differences": {"x": {"1": 2}}, "run_steps": {"new": 1}, "later": 1}'
    counts = decode(ShadowCounts, data)
    assert decode(ShadowCounts, encode(counts)) == counts
    assert counts.extra == {"later": 1}
    assert counts.run_ms(0.5) == 2.0**20


@pytest.mark.parametrize("wrong", [{"seconds": -1.0}, {"seconds": MAX_SHADOW_S + 1.0}, {"max_ratio": 1.1}])
def test_an_impossible_order_is_refused(wrong: dict[str, float]) -> None:
    """Both ends of both numbers; the ends themselves are possible."""
    ShadowOrder(MAX_SHADOW_S, 0.0)
    with pytest.raises(MessageError, match="Expected"):
        ShadowOrder(**wrong)


@pytest.mark.parametrize(("classes", "limit_bytes"), [(10, 700), (100, 700), (100, 300), (10, 10_000)])
def test_shortened_counts_keep_the_frequent_pairs_and_every_input(classes: int, limit_bytes: int) -> None:
    """Of 64 inputs that all have two labels: as many pairs as fit, the rest is counted; what fits is not touched."""
    rng = np.random.default_rng(classes)
    labels = [f"digit {label}" for label in range(classes)]
    counted = Counter((str(left), str(right)) for left, right in rng.choice(labels, (64, 2)))
    pairs, others = kept_pairs(counted)
    steps = Counter(run_step(value) for value in rng.lognormal(1, 0.3, 64))
    counts = ShadowCounts(seconds=1.234, n=64, disagreed=64, pairs=pairs, other_pairs=others, run_steps=steps)
    found = shortened(counts, limit_bytes)
    assert len(encode(found)) <= limit_bytes
    assert sum(pair.n for pair in found.pairs) + found.other_pairs == 64
    assert found.pairs == counts.pairs[: len(found.pairs)]
    assert found == counts or len(encode(found)) > limit_bytes - 150
    assert replace(found, pairs=pairs, other_pairs=others) == counts
