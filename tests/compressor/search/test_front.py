"""The selection among variants, on synthetic points."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.search.pareto import FP32, OWN, SAMPLED, TrialFigures, Tried, chosen, dominates, feasible, front

ALLOWED = 0.01


def point(number: int, ratio: float, size: int, drop: float, *, integer: bool = True, name: str = "") -> Tried:
    """Return a trial with these figures; number 0 is the float model."""
    figures = TrialFigures(
        drop=drop,
        drop_lower=drop - 0.004,
        drop_upper=drop + 0.004,
        accuracy=0.9 - drop,
        n=500,
        size_bytes=size,
        latency_p50_ms=ratio,
        float_latency_p50_ms=1.0,
    )
    origin = (FP32, OWN)[number] if number < 2 else SAMPLED
    return Tried(
        number=number,
        name=name or f"form {number}",
        key=f"key {number}",
        origin=origin,
        integer=integer and number > 0,
        measured=figures,
    )


def test_no_form_of_the_front_dominates_another() -> None:
    """Of 200 random forms, none on the front is beaten, and every other feasible one is."""
    rng = np.random.default_rng(0)
    rows = zip(rng.uniform(0.2, 2, 200), rng.integers(1, 50, 200), rng.uniform(-0.01, 0.02, 200), strict=True)
    tried = [point(i, float(ratio), int(size), float(drop)) for i, (ratio, size, drop) in enumerate(rows)]
    best = front(tried, ALLOWED)
    assert not any(dominates(a.measured, b.measured) for a, b in permutations(best, 2) if a.measured and b.measured)
    rest = [item for item in tried if feasible(item, ALLOWED) and item not in best]
    beaten = {
        b.number for a, b in product(best, rest) if a.measured and b.measured and dominates(a.measured, b.measured)
    }
    assert beaten == {item.number for item in rest}


def test_equal_figures_do_not_dominate_each_other() -> None:
    """A form is not beaten by its equal, so both stay unless their steps are the same."""
    first, second = point(2, 0.5, 10, 0), point(3, 0.5, 10, 0)
    assert front([first, second], ALLOWED) == (first, second)


def test_the_same_steps_are_on_the_front_once() -> None:
    """Two hosts that measured one variant add one point."""
    first = point(2, 0.5, 10, 0)
    again = Tried(
        number=9, name=first.name, key=first.key, origin=SAMPLED, integer=first.integer, measured=first.measured
    )
    assert front([first, again], ALLOWED) == (first,)


def test_an_infeasible_form_is_never_chosen() -> None:
    """The fastest and smallest form is left when it loses more than allowed."""
    tried = [point(0, 1.0, 100, 0), point(2, 0.1, 1, 0.02)]
    assert chosen(tried, ALLOWED).tried.number == 0
    assert [item.number for item in front(tried, ALLOWED)] == [0]


def test_the_fastest_is_chosen() -> None:
    """A smaller form that is more than 5 % slower stays."""
    tried = [point(0, 1.0, 100, 0), point(2, 0.50, 40, 0.001), point(3, 0.53, 20, 0.001)]
    choice = chosen(tried, ALLOWED)
    assert choice.tried.number == 2
    assert "It is the fastest of 3 forms that lose no more than 1.00 points." in choice.reason


def test_the_smallest_within_five_percent_of_the_fastest_is_chosen() -> None:
    """Latencies that near differ by chance; the reason names both."""
    tried = [point(0, 1.0, 100, 0), point(2, 0.50, 40, 0.001), point(3, 0.52, 20, 0.001)]
    choice = chosen(tried, ALLOWED)
    assert choice.tried.number == 3
    assert "The fastest" in choice.reason[1]
    assert "form 2 at 0.50 x; this one is within 5 % of it and smaller: 20 against 40 bytes." in choice.reason[1]


def test_a_slower_int8_is_said_and_fp32_kept() -> None:
    """If int8 is slower than fp32 on this host, the reason states it."""
    tried = [point(0, 1.0, 100, 0, name="fp32"), point(2, 1.14, 30, 0, name="static_int8")]
    choice = chosen(tried, ALLOWED)
    assert choice.tried.name == "fp32"
    assert any("int8 is slower than fp32 here: the quickest, static_int8" in text for text in choice.reason)
    assert any(text.endswith("so fp32 is kept.") for text in choice.reason)


def test_int8_that_is_slower_than_a_pruned_float_form_is_said() -> None:
    """If pruning made both faster than fp32, int8 is compared with the float variant that is selected."""
    tried = [
        point(0, 1.0, 100, 0, name="fp32"), point(2, 0.8, 15, 0, name="prune 0.5 + static_int8"),
        point(3, 0.6, 50, 0, integer=False, name="prune 0.5"),
    ]  # fmt: skip
    said = chosen(tried, ALLOWED).reason
    assert any(
        text.startswith(
            "int8 is slower than prune 0.5 here: the quickest, prune 0.5 + static_int8, takes 0.80 x against"
        )
        for text in said
    )


def test_float16_is_kept_as_well() -> None:
    """A float16 variant that is as fast as fp32 and smaller is selected."""
    tried = [point(0, 1.0, 100, 0, name="fp32"), point(2, 1.2, 30, 0), point(3, 1.0, 50, 0, integer=False, name="half")]
    choice = chosen(tried, ALLOWED)
    assert choice.tried.name == "half"
    assert choice.reason[-2].endswith("so half is kept.") or choice.reason[-1].endswith("so half is kept.")


def test_int8_that_loses_too_much_is_said() -> None:
    """The reason names the least loss of any integer form."""
    tried = [point(0, 1.0, 100, 0, name="fp32"), point(2, 0.4, 30, 0.5, name="static_int8")]
    said = " ".join(chosen(tried, ALLOWED).reason)
    assert "Every integer form loses too much, the least of them 50.00 points (static_int8): fp32 is kept." in said


def test_too_few_rows_for_the_bound_are_said() -> None:
    """A drop that is allowed by its estimate but not by its bound is left to the gate."""
    assert "the gate split has to" in chosen([point(0, 1.0, 100, 0), point(2, 0.5, 10, 0.009)], ALLOWED).reason[-1]


def test_nothing_feasible_is_an_error_that_names_the_failures() -> None:
    """A search without any usable form fails closed."""
    failed = Tried(number=0, name="fp32", key="key", origin=FP32, integer=False, measured=None, error="it broke")
    with pytest.raises(MeasureError, match="fp32: it broke"):
        chosen([failed], ALLOWED)
