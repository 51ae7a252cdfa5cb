"""The members of a rollout as figures, for pages and lists that name few of them. Pure.

Those of a rollout that is over come from the database as such (``RolloutLedger.figures``), without its members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from server.rollout.figures.forecast import Forecast, total
from server.rollout.figures.sequential import DeviceRate, disagreeing, failing
from server.rollout.model import Group, Member, Rollout
from server.rollout.thresholds import (
    MemberCounts,
    count_members,
    removed_count,
    replaced_count,
    unanswered_count,
    waiting,
)
from wire.shadow import ShadowCounts

FIRST = 20
"""How many members of a group are kept as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFigures:
    """Figures of some members. ``size``: how many they are, cancelled ones included; ``first``: some of them.

    ``removed``: left the fleet before an outcome. ``replaced``: in whose place others try. ``unanswered``: committed
    without having answered an input. ``forecast``: of all together, None if an older server began with one.
    ``waiting``: by the code why. ``shadow`` and ``replay``: of those that have any.
    """

    size: int
    counts: MemberCounts
    removed: int
    replaced: int
    unanswered: int
    air_bytes: int
    bundle_bytes: int
    forecast: Forecast | None
    waiting: Mapping[str, int]
    shadow: tuple[ShadowCounts, ...]
    replay: tuple[ShadowCounts, ...]
    first: tuple[Member, ...]

    @classmethod
    def of(cls, members: Sequence[Member]) -> MemberFigures:
        """Return the figures of ``members``."""
        return cls(
            size=len(members), counts=count_members(members), removed=removed_count(members),
            replaced=replaced_count(members), unanswered=unanswered_count(members),
            air_bytes=sum(one.air_bytes for one in members), bundle_bytes=sum(one.bundle_bytes for one in members),
            forecast=total(members), waiting=waiting(members),
            shadow=tuple(one.shadow for one in members if one.shadow),
            replay=tuple(one.replay for one in members if one.replay), first=tuple(members[:FIRST]),
        )  # fmt: skip

    @classmethod
    def together(cls, parts: Sequence[MemberFigures]) -> MemberFigures:
        """Return the figures of all members of ``parts``."""
        waits: Counter[str] = sum((Counter(part.waiting) for part in parts), Counter())
        counts = {one.name: sum(getattr(part.counts, one.name) for part in parts) for one in fields(MemberCounts)}
        return cls(
            size=sum(part.size for part in parts), counts=MemberCounts(**counts),
            removed=sum(part.removed for part in parts), replaced=sum(part.replaced for part in parts),
            unanswered=sum(part.unanswered for part in parts), air_bytes=sum(part.air_bytes for part in parts),
            bundle_bytes=sum(part.bundle_bytes for part in parts),
            forecast=_together(part.forecast for part in parts), waiting=dict(waits.most_common()),
            shadow=tuple(one for part in parts for one in part.shadow),
            replay=tuple(one for part in parts for one in part.replay),
            first=tuple(one for part in parts for one in part.first)[:FIRST],
        )  # fmt: skip

    def unproven(self, group: Group) -> bool:
        """Return whether devices of ``group``, whose figures these are, committed, and none answered an input."""
        return not group.skipped_by and self.unanswered == self.counts.committed > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFigures:
    """The figures of each group of a rollout, in order, of all members, and of what they show of the release."""

    groups: tuple[MemberFigures, ...]
    whole: MemberFigures
    failing: DeviceRate
    disagreeing: DeviceRate | None

    @classmethod
    def of(cls, rollout: Rollout) -> RolloutFigures:
        """Return the figures of a rollout that has its members."""
        by_group: list[list[Member]] = [[] for _ in rollout.groups]
        for member in rollout.members:
            by_group[member.group].append(member)
        groups = tuple(MemberFigures.of(members) for members in by_group)
        return cls.grouped(groups, failing(rollout), disagreeing(rollout))

    @classmethod
    def grouped(
        cls, groups: tuple[MemberFigures, ...], fails: DeviceRate, differs: DeviceRate | None = None
    ) -> RolloutFigures:  # fmt: skip
        """Return the figures of a rollout with those of its groups."""
        return cls(groups=groups, whole=MemberFigures.together(groups), failing=fails, disagreeing=differs)


def _together(forecasts: Iterable[Forecast | None]) -> Forecast | None:
    """Return the sum of forecasts, None if one is not known."""
    found = Forecast(0)
    for one in forecasts:
        if one is None:
            return None
        found = Forecast(found.air_bytes + one.air_bytes, found.upper + one.upper)
    return found
