"""The settings of rollouts, each with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from server.rollout.thresholds import MAX_CANARIES
from wire.settings import Bound

MAX_TIME_S = 366 * 86_400  # a probation or deadline of more than a year is a typing error

Time: TypeAlias = Annotated[float, Bound(0, MAX_TIME_S, above=True)]
Count: TypeAlias = Annotated[int, Bound(0, 10**6, above=True)]
Bytes: TypeAlias = Annotated[int, Bound(0, 10**15)]
Share: TypeAlias = Annotated[float, Bound(0, 1)]
People: TypeAlias = Annotated[int, Bound(0, 20)]
Canary: TypeAlias = Annotated[int, Bound(1, MAX_CANARIES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """Defaults of a rollout.

    probation_s: how long a new release must stay healthy on a device before it is committed; ten minutes.
    deadline_s: a device that neither commits nor fails within this time is stuck, which counts as an error; a day,
    because devices sleep.
    success_ratio: share of a group that must commit before the next opens (>=).
    error_ratio: share of failures in a group above which the rollout pauses (>); 0.2: one of five may fail.
    canary: devices in the first group.
    assignments_a_turn: devices assigned in one turn (twice a second), which limits the rate: 1,000 devices in 10 s.
    approvers: so many people, other than the one who created a rollout, must approve it; 0: one approval, of anybody
    who may. Above 0 only people with a name count, because nobody knows who holds a program's token.
    """

    probation_s: Time = 600.0
    deadline_s: Time = 86_400.0
    success_ratio: Share = 0.9
    error_ratio: Share = 0.2
    canary: Canary = 1
    assignments_a_turn: Count = 50
    approvers: People = 0
