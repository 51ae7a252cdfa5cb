"""Verdicts of probation, from facts alone."""

from dataclasses import replace

import pytest

from edge_agent.updater.probation import Health, Outputs, ProbationLimits, Tries, judge
from wire.messages import UnreadInputs

LIMITS = ProbationLimits(probation_s=60.0, max_error_ratio=0.05, latency_p95_ms=5.0, latency_slack_ratio=1.5)
GOOD = Health(beats=10, inferences=1000, p95_ms=(4.0,) * 10, alive=True)


@pytest.mark.parametrize(
    ("health", "elapsed_s", "over", "code"),
    [
        (GOOD, 59.0, False, ""),
        (GOOD, 60.0, True, ""),
        (Health(), 600.0, False, ""),
        (Health(beats=3, alive=True), 60.0, True, ""),
        (Health().without_source(), 59.0, False, ""),
        (Health().without_source(), 60.0, True, ""),
        (GOOD.without_source().crashed(), 60.0, True, "child_crashed"),
        (Health(alive=True).left_alone(), 1.0, True, "inputs_unread"),
        (GOOD.left_alone(), 60.0, True, ""),
        (GOOD.crashed(), 1.0, True, "child_crashed"),
        (GOOD.hung(), 1.0, True, "child_hung"),
        (replace(GOOD, errors=60), 1.0, True, "error_rate"),
        (replace(GOOD, errors=50), 1.0, False, ""),
        (Health(inferences=1, errors=9, alive=True), 1.0, False, ""),
        (replace(GOOD, p95_ms=(8.0,) * 10), 1.0, True, "latency_over_budget"),
        (replace(GOOD, p95_ms=(7.5,) * 10), 1.0, False, ""),
        (replace(GOOD, p95_ms=(7.51,) * 5), 1.0, True, "latency_over_budget"),
        (replace(GOOD, p95_ms=(99.0,) * 4), 1.0, False, ""),
        (replace(GOOD, p95_ms=(4.0,) * 6 + (99.0,) * 4), 1.0, False, ""),
    ],
)
def test_judges(health: Health, elapsed_s: float, over: object, code: str) -> None:
    """Healthy to the end, or over at once with a code; too few facts decide nothing."""
    verdict = judge(health, LIMITS, elapsed_s)
    assert (verdict.over, verdict.code) == (over, code)


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (Health().without_source(), "the source was missing"),
        (Health(beats=3, alive=True), "the source gave no inputs"),
        (
            Health(beats=3, alive=True, left=UnreadInputs(ignored=2, names=("a.csv", "b.csv"))),
            "no inferences in probation: 2 files ignored (a.csv, b.csv); kept",
        ),
        (
            Health(beats=3, errors=4, alive=True, left=UnreadInputs(ignored=1, unreadable=3)),
            "1 file ignored, 3 files not to be opened, the source gave 4 inputs, none served; kept",
        ),
        (Health(beats=3, errors=9, alive=True), "the source gave 9 inputs, none served"),
        (GOOD, ""),
    ],
)
def test_a_release_that_is_kept_without_an_inference_says_so(health: Health, words: str) -> None:
    """It was loaded and passed its golden vectors, no more; before the end there is no statement."""
    assert words in judge(health, LIMITS, 60.0).text
    assert ("no inferences" in judge(health, LIMITS, 60.0).text) is bool(words)
    assert judge(health, LIMITS, 59.0).text == ""


def test_errors_that_the_release_before_had_too_are_the_sources() -> None:
    """A camera with a loose cable spoils a third of the pictures under any release; more than that is the new one's."""
    limits = replace(LIMITS, usual_error_ratio=Tries().add(70, 30).error_ratio)
    assert judge(Health(inferences=65, errors=35, alive=True), limits, 1.0).code == ""
    assert judge(Health(inferences=64, errors=36, alive=True), limits, 1.0).code == "error_rate"
    assert Tries().add(0, 19).error_ratio == 0.0
    failed = Tries().add(5000, 0)
    for _ in range(80):
        failed = failed.add(0, 10)
    assert failed.error_ratio > 0.95, "it counts what came lately"
    assert judge(Health(errors=1000, alive=True), replace(LIMITS, usual_error_ratio=1.0), 1.0).code == ""


def test_latency_without_a_budget_is_not_judged() -> None:
    """A budget of 0 means that there is none."""
    assert not judge(replace(GOOD, p95_ms=(999.0,) * 10), replace(LIMITS, latency_p95_ms=0.0), 1.0).over


def test_a_child_that_ended_is_not_alive_until_it_beats_again() -> None:
    """However it ended; each kind of end is counted apart."""
    ends = [GOOD.crashed(), GOOD.hung(), GOOD.without_source()]
    assert [(end.crashes, end.hangs, end.away, end.alive) for end in ends] == [
        (1, 0, False, False), (0, 1, False, False), (0, 0, True, False),
    ]  # fmt: skip
    again = ends[2].beat(n=1, errors=0, p95_ms=1.0)
    assert (again.alive, again.away) == (True, False)


def test_a_beat_without_inferences_says_nothing_of_latency() -> None:
    """Only beats that served count for p95."""
    assert Health().beat(n=0, errors=0, p95_ms=0.0).p95_ms == ()


def seen(*classes: int, n: int | None = None) -> Health:
    """Return a good health that saw these classes."""
    return GOOD.beat(n=sum(classes) if n is None else n, errors=0, p95_ms=4.0, classes=classes)


EVEN = replace(LIMITS, class_shares=(0.3, 0.3, 0.4))


@pytest.mark.parametrize(
    ("health", "limits", "code"),
    [
        (seen(99, 1, 0), EVEN, "output_distribution"),
        (seen(95, 3, 2), EVEN, ""),
        (seen(59, 0, 0), EVEN, ""),
        (seen(99, 1, 0), replace(EVEN, class_shares=(0.6, 0.2, 0.2)), ""),
        (seen(99, 1, 0), replace(EVEN, usual_shares=(0.98, 0.01, 0.01)), ""),
        (seen(99, 1, 0), replace(EVEN, usual_shares=(0.2, 0.5, 0.3)), "output_distribution"),
        (seen(99, 1, 0), LIMITS, ""),
        (seen(99, 1), EVEN, ""),
    ],
)
def test_one_class_alone_is_breakage_unless_it_was_usual(health: Health, limits: ProbationLimits, code: str) -> None:
    """Compared with the reference and the previous release on this device; a camera on one scene sees one class."""
    assert judge(health, limits, 59.0).code == ""
    assert judge(health, limits, 60.0).code == code


def test_outputs_that_are_no_numbers_are_breakage_at_once() -> None:
    """A prediction that no class was counted for is invalid."""
    health = Health().beat(n=40, errors=0, p95_ms=1.0, classes=(5, 5, 5))
    assert judge(health, LIMITS, 1.0).code == "output_distribution"
    assert judge(Health().beat(n=40, errors=0, p95_ms=1.0, classes=()), LIMITS, 1.0).code == ""
    half = Health().beat(n=40, errors=0, p95_ms=1.0, classes=(20, 0, 0))
    assert judge(half, LIMITS, 1.0).code == "", "half of them may be invalid, and no more"


def test_outputs_fade_and_start_again_with_other_labels() -> None:
    """Old answers, or answers under other labels, count little."""
    outputs = Outputs().add((4000, 0), 4000).add((0, 2000), 2000)
    assert outputs.classes == (2000, 1000)
    assert outputs.add((1, 1, 1), 3).classes == (1, 1, 1)
