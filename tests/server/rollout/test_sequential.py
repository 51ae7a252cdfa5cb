"""What canaries show, valid at any look: how often a pause is wrong, how soon it comes, and what few devices show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from server.betting import BETS, log_highest
from server.dashboard.progress import rollout_card
from server.rollout.figures.sequential import CAVEAT, RISK, disagreeing, failing, sure_stop
from server.rollout.model import Group, Member, MemberStanding, Pause, Rollout, RolloutPhase
from server.rollout.planner import stop
from server.rollout.resuming import How, resumed
from wire.shadow import ShadowCounts, ShadowOrder

_GOOD, _BAD, _GOING = MemberStanding.COMMITTED, MemberStanding.FAILED, MemberStanding.ASSIGNED
_LETTER = {"c": _GOOD, "f": _BAD, "a": _GOING, "w": MemberStanding.WAITING, "s": MemberStanding.STUCK}
_ALLOWED = 0.2


def _rollout(letters: str, *, allowed: float = _ALLOWED, canary: int = 0) -> Rollout:
    """Return a rollout with a device for each letter, assigned in this order; ``canary`` of them in a group before."""
    members = tuple(
        Member(device=f"d{at:03}", group=int(canary > 0 and at >= canary), standing=_LETTER[letter], gen=5,
               assigned_ms=1000 + at)
        for at, letter in enumerate(letters)
    )  # fmt: skip
    groups = [Group(name=name, success_ratio=0.5, error_ratio=allowed) for name in ("canary", "rest")]
    opened = 2 if canary else 1
    return Rollout(id="r", release="m-2", groups=tuple(groups), members=members, phase=RolloutPhase.RUNNING,
                   opened=opened)  # fmt: skip


def _looks(bad: np.ndarray, hasty: np.ndarray) -> Iterator[str]:
    """Yield every look at devices that were assigned at once and settle one by one in the order of ``hasty``."""
    state = ["a"] * len(bad)
    for at in np.argsort(hasty, kind="stable"):
        state[at] = "f" if bad[at] else "c"
        yield "".join(state)


def _false_pauses(runs: int, devices: int, rate: float, seed: int) -> tuple[float, float]:
    """Return in what share of runs any look pauses: by this test, and by one that looks at the settled ones alone.

    A device that fails settles at once, one that commits only after its probation.
    """
    chance, ours, naive = np.random.default_rng(seed), 0, 0
    for _ in range(runs):
        bad = chance.random(devices) < rate
        looks = list(_looks(bad, chance.random(devices) + ~bad))
        ours += any(sure_stop(_rollout(look)) for look in looks)
        naive += any(sure_stop(_rollout(look.replace("a", "w"))) for look in looks)
    return ours / runs, naive / runs


def test_whoever_looks_after_each_device_pauses_an_allowed_release_as_rarely_as_promised() -> None:
    """Failures settle first: those settled alone would say "surely" far too often."""
    ours, naive = _false_pauses(120, 40, _ALLOWED, seed=7)
    assert ours <= RISK
    assert naive > 3 * RISK


def test_a_release_that_fails_on_most_devices_is_paused() -> None:
    """Power: at 60 % failures where 20 % are allowed, with 40 devices."""
    found, _ = _false_pauses(20, 40, 0.6, seed=8)
    assert found > 0.9


@pytest.mark.parametrize(
    ("letters", "paused"),
    [("c", False), ("f", False), ("ff", False), ("fff", True), ("fffaaaaaaaaaaaaaaaaaaaaa", True), ("aaaafff", False),
     ("sss", True), ("", False), ("fcfcccccccc", False)],
)  # fmt: skip
def test_one_device_shows_little_and_three_in_a_row_enough(letters: str, *, paused: bool) -> None:
    """A stuck one counts as failed; devices assigned before, which may all commit, count as good until they settle."""
    assert (sure_stop(_rollout(letters)) is not None) is paused


def test_one_canary_is_told_honestly() -> None:
    """One that committed excludes next to nothing; before any outcome nothing is excluded."""
    none, one, going = failing(_rollout("")), failing(_rollout("c")), failing(_rollout("a"))
    assert (none.devices, none.mean, none.at_least, none.at_most) == (0, None, 0.0, 1.0)
    assert (going.devices, going.at_least, going.at_most) == (0, 0.0, 1.0)
    assert (one.devices, one.mean, one.at_least) == (1, 0.0, 0.0)
    assert one.at_most > 0.9
    twenty = failing(_rollout("c" * 20))
    assert twenty.at_most < 0.35
    assert rollout_card(_rollout("c"), 0).failing.startswith("failing: 0 % of 1, between 0 and 9")
    assert CAVEAT in rollout_card(_rollout("c"), 0).failing


def test_bounds_hold_the_mean_and_narrow() -> None:
    """Over a longer and longer row of the same pattern."""
    widths = []
    for times in (1, 4, 16):
        shown = failing(_rollout("cfccc" * times))
        assert shown.at_least <= 0.2 <= shown.at_most
        assert not shown.exceeded
        widths.append(shown.at_most - shown.at_least)
    assert widths == sorted(widths, reverse=True)


def test_groups_count_together_and_early() -> None:
    """Three failures of a group of 40 are not above its error ratio, and a pause all the same: the rest is spared."""
    pause = stop(_rollout("cfff" + "a" * 36, canary=1, allowed=0.1))
    assert isinstance(pause, Pause)
    assert pause.code == "error_evidence"
    assert "it surely fails on more devices than allowed: 75 % of 4, between" in pause.text
    assert stop(_rollout("cf" + "a" * 38, canary=1, allowed=0.1)) is None


@pytest.mark.parametrize("how", [How.RETRY, How.TOLERATE])
def test_a_person_leads_on(how: How) -> None:
    """What is tried again or tolerated is no evidence any more; a skipped group neither."""
    paused = replace(_rollout("cfff" + "a" * 36, canary=1, allowed=0.1), phase=RolloutPhase.PAUSED)
    assert resumed(paused, how).phase is RolloutPhase.RUNNING
    groups = tuple(replace(group, skipped_by="ada") for group in paused.groups)
    assert sure_stop(replace(paused, groups=groups)) is None


def test_the_wealth_is_that_of_the_definition() -> None:
    """Values between 0 and 1 too: the highest mean over the bets of the product, after any number of values."""
    values = np.random.default_rng(3).choice([0.0, 0.2, 0.9, 1.0], 50)
    for level in (0.05, 0.3, 0.7, 1.0):
        grown = np.cumprod(1 + np.outer((values - level) / level, BETS), axis=0).mean(axis=1)
        assert log_highest(values, level) == pytest.approx(max(0.0, float(np.log(grown.max()))))
    assert log_highest(values, 0.0) == np.inf
    assert log_highest(np.zeros(3), 0.0) == 0.0


@pytest.mark.parametrize("allowed", [0.0, 1.0])
def test_none_or_all_allowed_needs_no_evidence(allowed: float) -> None:
    """With 0 the ratio itself pauses at the first failure, with 1 nothing is too often."""
    assert sure_stop(_rollout("ffff", allowed=allowed)) is None
    assert failing(_rollout("ffff", allowed=allowed)).at_least > 0.2


def _shadowed(*shares: float, frames: int = 100) -> Rollout:
    """Return a rollout whose devices answered these shares of ``frames`` inputs otherwise, 2 % allowed."""
    found = _rollout("c" * len(shares))
    members = tuple(
        replace(one, shadow=ShadowCounts(n=frames, disagreed=round(share * frames)))
        for one, share in zip(found.members, shares, strict=True)
    )
    return replace(found, members=members, shadow=ShadowOrder(seconds=60, max_ratio=0.02))


def test_a_device_is_one_observation_of_disagreement_however_many_frames() -> None:
    """A thousand frames of one device say no more than a hundred; devices that disagree one after another do."""
    small, large = disagreeing(_shadowed(0.03, frames=100)), disagreeing(_shadowed(0.03, frames=100_000))
    assert small == large
    assert small is not None
    assert (small.devices, small.exceeded, small.risk) == (1, False, RISK / 2)
    pause = sure_stop(_shadowed(*[0.3] * 3))
    assert pause is not None
    assert pause.code == "disagreement_evidence"
    assert sure_stop(_shadowed(*[0.01] * 40)) is None
    assert rollout_card(_shadowed(0.03), 0).disagreeing.startswith("devices differ: 3 % of 1, between")


def test_without_a_limit_disagreement_is_no_reason() -> None:
    """Nor without labels, which two numbers have not."""
    free = replace(_shadowed(*[0.9] * 9), shadow=ShadowOrder(seconds=60))
    assert (disagreeing(free), sure_stop(free)) == (None, None)
    numbers = _shadowed(0.0)
    first = replace(numbers.members[0], shadow=ShadowCounts(n=9, differences={"v": {"3": 9}}))
    shown = disagreeing(replace(numbers, members=(first,)))
    assert shown is not None
    assert shown.devices == 0
