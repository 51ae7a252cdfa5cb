#!/usr/bin/env python3
"""Prints how often the canary test pauses an allowed release, and how soon another: ``canary.py [--quick]``.

Rollouts of 100 devices of which 20 % may fail, looked at after every failure; failures settle before commits, which
wait for their probation. The devices are assigned all at once, or five at a time. Beside it the error ratio, which
pauses when more than 20 of these 100 have failed, and a fixed-sample binomial test at the same level that is asked at
each look. Last, devices of one site that fail together, which the promise excludes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import numpy.typing as npt

from scripts.bench.rows import Row, told
from server.betting import log_highest
from server.rollout.figures.sequential import RISK

DEVICES, ALLOWED, WAVE = 100, 0.2, 5
_ORDER = np.random.default_rng(1)
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Outcome:
    """In which share of rollouts a pause came, and after how many failures on average where it did."""

    paused: float
    failures: float


def main() -> int:
    """Print the rows; exit 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 rollouts a row instead of 1,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args()
    runs, chance, rows = 50 if options.quick else 1000, np.random.default_rng(0), []
    for rate in (0.1, ALLOWED, 0.3, 0.4, 0.6, 0.9):
        for wave in (DEVICES, WAVE):
            rows += _rows(rate, wave, runs, chance)
    for length in (5, 10):
        found = [_by_site(chance, length) for _ in range(runs)]
        what = f"20 % of sites of {length} fail whole (not promised), at once: paused, against a fixed test"
        ours, fixed = _outcome(found, DEVICES, _surely), _outcome(found, DEVICES, _binomial)
        rows.append(Row(what, ours.paused, fixed.paused))
    return told(rows, options.json)


def _rows(rate: float, wave: int, runs: int, chance: np.random.Generator) -> list[Row]:
    """Return what the tests do in ``runs`` rollouts to releases that fail on a share ``rate`` of devices."""
    found = [chance.random(DEVICES) < rate for _ in range(runs)]
    ours, fixed, ratio = (_outcome(found, wave, test) for test in (_surely, _binomial, _ratio))
    how = "at once" if wave == DEVICES else f"{wave} at a time"
    head, promise = f"{rate:.0%} fail, {how}: share of rollouts paused", rate <= ALLOWED
    limit, met = (f"<= {RISK:g}", ours.paused <= RISK) if promise else ("", None)
    rows = [Row(f"{head}, against a fixed test", ours.paused, fixed.paused, limit, met)]
    rows.append(Row(f"{head}, against the error ratio", ours.paused, ratio.paused))
    if not promise:
        rows.append(Row("  failures at the pause, against the error ratio", ours.failures, ratio.failures))
    return rows


def _by_site(chance: np.random.Generator, length: int) -> Flags:
    found: Flags = np.repeat(chance.random(DEVICES // length) < ALLOWED, length)
    return found


def _outcome(found: list[Flags], wave: int, pauses: Callable[[Flags, Flags], bool]) -> Outcome:
    """Return in how many rollouts a test pauses, of devices that fail where ``found`` says so."""
    firsts = [_first(bad, wave, pauses) for bad in found]
    paused = [failures for failures in firsts if failures]
    return Outcome(len(paused) / len(firsts), float(np.mean(paused)) if paused else 0.0)


def _first(bad: Flags, wave: int, pauses: Callable[[Flags, Flags], bool]) -> int:
    """Return how many devices had failed at the first look that pauses, 0 if none does.

    Devices are assigned in their order, ``wave`` at a time, and in a wave those that fail settle first, in any
    order.
    """
    settled: Flags = np.zeros(len(bad), dtype=bool)
    for start in range(0, len(bad), wave):
        assigned = slice(0, start + wave)
        for at in start + _ORDER.permutation(np.flatnonzero(bad[start : start + wave])):
            settled[at] = True
            if pauses(bad[assigned], settled[assigned]):
                return int((bad & settled).sum())
        settled[assigned] = True
    return 0


def _surely(bad: Flags, settled: Flags) -> bool:
    return log_highest((bad & settled).astype(float), ALLOWED) >= -math.log(RISK)


def _ratio(bad: Flags, settled: Flags) -> bool:
    return bool((bad & settled).sum() > ALLOWED * DEVICES)  # devices that are not assigned yet are of the group too


def _binomial(bad: Flags, settled: Flags) -> bool:
    n, failed = int(settled.sum()), int((bad & settled).sum())
    tail = sum(math.comb(n, k) * ALLOWED**k * (1 - ALLOWED) ** (n - k) for k in range(failed, n + 1))
    return tail <= RISK


if __name__ == "__main__":
    sys.exit(main())
