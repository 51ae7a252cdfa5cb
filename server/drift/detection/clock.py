"""The hours of the day: what a whole fleet does at the same hours every day is neither movement nor drift.

The fleet's pool has no other fleet to compare with, so under one sun its mean moves, and a pool that takes that for
memory hears little. While baselines are collected, this module learns the fleet's *rhythm*: how its devices differ from
one hour to the next, the mean over the days, added up over a day. It only uses differences within a device, so it does
not matter which devices send windows at which hours, and which join later. A stream has a rhythm if the differences
between batches depend on the hour far more than on the day.

Decides in which streams there is one, how large it is, and what of the movement between batches is left without it.
Windows of another length than an hour, and fewer than three days, have none.

Source: one-way analysis of variance with random effects and its shrinkage 1 - 1/F; S. Searle, G. Casella, C. McCulloch,
Variance Components (1992), chapter 3; ``docs/explanation/drift.md``, "Pools".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.movement import LENGTHS, Pairs, ScoreColumns
from server.drift.detection.reference import Floats
from wire.histogram import BINS

HOURS = LENGTHS[-1]
_PHASES = tuple(HOURS // length for length in LENGTHS)  # batches of each length in a day
_FIRST = tuple(sum(_PHASES[:place]) for place in range(len(LENGTHS)))
_SHOWING = {0: 2.6, 2: 5.2}
"""By the place of a length, from which variance between hours over that within them on there is a rhythm: batches of an
hour show changes at an hour, those of four hours, of which there are fewer, slow ones."""
_DAYS = 2.5  # pairs of batches for each hour of the day: of three days, the first and the last have one pair less
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlySums:
    """Sums over a fleet's pairs of adjacent batches by the hour of the later one: the phases of each length in turn.

    A pair of N samples a batch that differs by d standard deviations of a sample adds N^2 d to ``moved`` and N^2 to
    ``weight`` (52, K each), and 1 to ``pairs`` (52,). ``steps`` (24, S, 16): the differences of the shares of bins to
    the hour before, times their ``samples`` (24, S).
    """

    moved: Floats
    weight: Floats
    pairs: Floats
    steps: Floats
    samples: Floats

    @classmethod
    def empty(cls, columns: ScoreColumns) -> HourlySums:
        """Return the sums over no pair."""
        each = (sum(_PHASES), columns.count)
        return cls(
            moved=np.zeros(each), weight=np.zeros(each), pairs=np.zeros(each[0]),
            steps=np.zeros((HOURS, columns.streams, BINS)), samples=np.zeros((HOURS, columns.streams)),
        )  # fmt: skip

    def after(self, pairs: Pairs, difference: Floats, size: Floats, members: NDArray[np.bool_]) -> HourlySums:
        """Return the sums with the ``pairs`` of a fleet's ``members`` (R,).

        Together they differ by ``difference`` (K,) standard deviations, with ``size`` (K,) samples a batch.
        """
        phase = _FIRST[pairs.length] + pairs.number % _PHASES[pairs.length]
        moved, weight, seen = self.moved.copy(), self.weight.copy(), self.pairs.copy()
        moved[phase] += size**2 * difference
        weight[phase] += size**2
        seen[phase] += 1
        found = replace(self, moved=moved, weight=weight, pairs=seen)
        if pairs.steps is None or pairs.step_samples is None:
            return found
        steps, samples, hour = self.steps.copy(), self.samples.copy(), pairs.number % HOURS
        steps[hour] += np.einsum("rs,rsb->sb", pairs.step_samples[members], pairs.steps[members], dtype=np.float64)
        samples[hour] += pairs.step_samples[members].sum(axis=0, dtype=np.float64)
        return replace(found, steps=steps, samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """A fleet's rhythm. ``level`` (24, S, 16): by how much the shares of bins differ from their mean at each hour.

    ``known`` (24, S): at which hours that is known; ``used`` (S,): the streams that have a rhythm. ``excess`` (7, K):
    that of the pool's movement which is left without it. ``wider`` (K,): by how much a pool's memory grows because the
    rhythm is an estimate of so many days.
    """

    level: Floats
    known: NDArray[np.bool_]
    used: NDArray[np.bool_]
    excess: Floats
    wider: Floats

    def apart(self, hour: int, hours: Floats, n: Floats) -> Floats:
        """Return by how many counts (S, 16) windows of ``n`` (S,) samples differ at ``hour`` from the usual ones.

        ``hours`` (S, 24): at which hours the samples of the devices' baselines were taken, times ``n``.
        """
        usual = np.einsum("sh,hsb->sb", hours, self.level)
        return np.asarray(np.where(self.known[hour][:, None], n[:, None] * self.level[hour] - usual, 0.0))


def rhythm(clock: HourlySums, excess: Floats, weight: Floats, pairs: Floats, columns: ScoreColumns) -> Rhythm:
    """Return the rhythm of a fleet whose movement between batches, (7, K) and (7,), is that of ``PoolMovement``."""
    left, f = excess.copy(), np.zeros((len(_SHOWING), columns.count))
    enough = True
    for place in range(len(LENGTHS) - 1):
        phases = slice(_FIRST[place], _FIRST[place] + _PHASES[place])
        several, groups = clock.pairs[phases].sum(), int((clock.pairs[phases] > 0).sum())
        enough = enough and groups > 1 and several >= _DAYS * groups
        if not enough:
            break
        chance = np.sqrt(pairs[place] * weight[place])  # the sum of the squares that independent samples would give
        explained = (clock.moved[phases] ** 2 / np.maximum(2 * clock.weight[phases], _TINY)).sum(axis=0)
        rest = np.maximum(excess[place] + chance - explained, 0.0)
        left[place] = rest * several / (several - groups) - chance
        if place in _SHOWING:
            shown = list(_SHOWING).index(place)
            f[shown] = explained / groups / np.maximum(rest / (several - groups), _TINY)
    of_stream, shows = np.zeros(columns.streams), np.zeros(columns.streams, np.bool_)
    np.maximum.at(of_stream, columns.stream, f.max(axis=0))
    np.logical_or.at(shows, columns.stream, (f > np.array(list(_SHOWING.values()))[:, None]).any(axis=0))
    level, known, whole = _levels(clock)
    used = shows & whole & enough
    level *= np.where(used, 1 - 1 / np.maximum(of_stream, 1.0), 0.0)[:, None]
    days = max(float(clock.pairs[: _PHASES[0]].sum()) / HOURS, 1.0)
    return Rhythm(
        level=level, known=known | ~used, used=used, excess=np.where(used[columns.stream], left, excess),
        wider=np.where(used[columns.stream], 1 + 1 / days, 1.0),
    )  # fmt: skip


def _levels(clock: HourlySums) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the levels (24, S, 16) that the mean steps add up to, where they are known, and the streams that have any.

    If there are steps to every hour, what they add up to in a day is no rhythm and is taken off each. If not, they must
    lead from one hour to the last without a gap. The mean over the samples is 0.
    """
    linked = clock.samples > 0
    steps = clock.steps / np.maximum(clock.samples, _TINY)[..., None]
    begins = linked & ~np.roll(linked, 1, axis=0)
    round_the_clock: NDArray[np.bool_] = np.asarray(linked.all(axis=0))
    steps = steps - np.where(round_the_clock[:, None], steps.mean(axis=0), 0.0)
    turn = (begins.argmax(axis=0) + np.arange(HOURS)[:, None]) % HOURS  # (24, S): the hours from the first step on
    level = np.zeros_like(steps)
    np.put_along_axis(level, turn[..., None], np.take_along_axis(steps, turn[..., None], axis=0).cumsum(axis=0), axis=0)
    before = np.roll(linked, -1, axis=0) & ~linked  # the hour from which the first step leads
    level[before] = 0.0
    known = linked | before
    weight = np.where(before, np.roll(clock.samples, -1, axis=0), clock.samples)[..., None]
    level -= (weight * level).sum(axis=0) / np.maximum(weight.sum(axis=0), _TINY)
    return np.where(known[..., None], level, 0.0), known, (begins.sum(axis=0) == 1) | round_the_clock
