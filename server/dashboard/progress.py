"""Rollouts as the page shows them; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.dashboard.views import Cut, Status, Tone, ago, clock_time
from server.rollout.figures.members import MemberFigures, RolloutFigures
from server.rollout.model import (
    IN_VAIN,
    NO_MODEL,
    OPEN_PHASES,
    REMOVED,
    REPLACED,
    SUPERSEDED,
    Member,
    MemberStanding,
    Rollout,
    RolloutPhase,
)
from server.rollout.planner import absent, held_by, passed, unproven
from server.rollout.thresholds import devices
from server.wording import in_bytes, listed
from wire.shadow import ShadowCounts, ShadowOrder, merge_shadow

_PHASES = {
    RolloutPhase.AWAITING_APPROVAL: Status("waits for approval", Tone.WARN),
    RolloutPhase.RUNNING: Status("running", Tone.BUSY),
    RolloutPhase.PAUSED: Status("paused", Tone.WARN),
    RolloutPhase.ABORTING: Status("aborting", Tone.BAD),
    RolloutPhase.ABORTED: Status("aborted", Tone.CALM),
    RolloutPhase.SUCCEEDED: Status("succeeded", Tone.GOOD),
    RolloutPhase.FAILED: Status("failed", Tone.BAD),
}
_STANDINGS = {
    MemberStanding.WAITING: Status("waiting", Tone.CALM),
    MemberStanding.PENDING: Status("pending: not connected", Tone.CALM),
    MemberStanding.ASSIGNING: Status("being assigned", Tone.BUSY),
    MemberStanding.ASSIGNED: Status("under way", Tone.BUSY),
    MemberStanding.COMMITTED: Status("committed", Tone.GOOD),
    MemberStanding.FAILED: Status("failed", Tone.BAD),
    MemberStanding.STUCK: Status("stuck: assigned, no answer", Tone.BAD),
    MemberStanding.CANCELLED: Status("left out", Tone.CALM),
}
_LEFT_OUT = {  # by code
    REMOVED: "removed", REPLACED: "replaced", SUPERSEDED: "assigned another release since",
    "not_seen": "left out: never connected",
    "aborted": "left out: aborted", "no_bundle_for_it": "left out: no bundle for it",
    NO_MODEL: "left out: no model yet, and the fleet has several",
}  # fmt: skip
_NAMED = 12


@dataclass(frozen=True, slots=True)
class MemberView:
    """One device of a group."""

    device: str
    standing: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """One group's progress and thresholds. Ratios are shares of the devices that count.

    ``states``: notes for a person beside the bar. ``may_skip``: whether only a skip or another try gets past the group.
    """

    name: str
    committed: int
    failed: int
    stuck: int
    total: int
    needs: str
    air: str
    states: tuple[Status, ...]
    may_skip: bool
    members: Cut[MemberView]

    @property
    def committed_ratio(self) -> float:
        """The share that committed."""
        return self.committed / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCard:
    """One rollout; ``actions`` are the buttons for its phase; ``held_by``: the verdicts that hold it, by id.

    ``failing`` and ``disagreeing``: what its devices show of both, with bounds; "" before the first outcome.
    """

    id: str
    release: str
    phase: Status
    reason: str
    created: str
    scope: str
    air: str
    shadow: str
    shadow_means: str
    replay: str
    cautions: tuple[str, ...]
    groups: tuple[GroupView, ...]
    actions: tuple[str, ...]
    open: bool
    held_by: tuple[int, ...] = ()
    failing: str = ""
    disagreeing: str = ""


def rollout_card(
    rollout: Rollout, now_ms: int, held_by: Sequence[int] = (), figures: RolloutFigures | None = None
) -> RolloutCard:  # fmt: skip
    """Return the card of one rollout; ``held_by``: the open regressions of its release, by id.

    ``figures``: of its members, which it may lack then if it is over; by default made of them.
    """
    figures = figures or RolloutFigures.of(rollout)
    fails, differs = figures.failing, figures.disagreeing
    return RolloutCard(
        id=rollout.id,
        release=rollout.release,
        phase=_PHASES[rollout.phase],
        reason=rollout.text,
        created=f"made {ago(rollout.created_ms, now_ms)}" + (f" by {rollout.created_by}" if rollout.created_by else ""),
        scope=_scope(rollout),
        air=_fetched(figures.whole),
        shadow=_shadow(figures.whole),
        shadow_means=_shadow_means(rollout.shadow),
        replay=replay_text(figures.whole.replay),
        cautions=_cautions(rollout.cautions),
        groups=tuple(_group(rollout, index, group) for index, group in enumerate(figures.groups)),
        actions=actions(rollout.phase),
        open=rollout.phase in OPEN_PHASES,
        failing=f"failing: {fails.text}" if fails.devices else "",
        disagreeing=f"devices differ: {differs.text}" if differs and differs.devices else "",
        held_by=tuple(held_by) if rollout.phase in {RolloutPhase.AWAITING_APPROVAL, RolloutPhase.PAUSED} else (),
    )


def actions(phase: RolloutPhase) -> tuple[str, ...]:
    """Return the actions that a person may take on a rollout in ``phase``."""
    first = {
        RolloutPhase.AWAITING_APPROVAL: "approve",
        RolloutPhase.RUNNING: "pause",
        RolloutPhase.PAUSED: "resume",
    }.get(phase)
    return (first, "abort") if first else ()


def _scope(rollout: Rollout) -> str:
    """Return for which devices it is, "" if for all that were there and run its model."""
    parts = [f"only {rollout.scope.text}"] if rollout.scope.text else []
    return "; ".join([*parts, *(["devices that enrol meanwhile join"] if rollout.dynamic else [])])


def _fetched(figures: MemberFigures) -> str:
    """Return what comes over the network by the forecast, and what came.

    Of older agents only how much of the bundle they had is known.
    """
    likely, air, bundles = figures.forecast, in_bytes(figures.air_bytes), in_bytes(figures.bundle_bytes)
    parts = (
        f"forecast {likely.text}" if likely and likely.text else "",
        f"{air} fetched" if air else "",
        f"{bundles} of bundles on devices that don't count" if bundles else "",
    )
    return ", ".join(filter(None, parts))


def _shadow(figures: MemberFigures) -> str:
    """Return what its devices counted before they switched; "" for nothing. It claims no error: nobody knows which."""
    total = merge_shadow(figures.shadow)
    if not total.n + total.errors:
        return ""
    text = f"in the shadow of {devices(len(figures.shadow))}: {total.n} inputs compared in {total.seconds:.0f} s"
    text += f" ({total.skipped} left out, to spare the processor)" if total.skipped else ""
    return text + _differences(total)


def replay_text(found: Sequence[ShadowCounts]) -> str:
    """Return how a release answered inputs of the one before, on devices that switched to it; "" if none told."""
    if not found:
        return ""
    total, kept = merge_shadow(found), sum(one.n + one.errors > 0 for one in found)
    if not kept:
        return f"{devices(len(found))} had kept no inputs of the release before to answer again"
    text = f"inputs of the release before, answered again on {devices(kept)}: {total.n}{_differences(total)}"
    return text + (f"; {len(found) - kept} had kept none" if kept < len(found) else "")


def _differences(total: ShadowCounts) -> str:
    text = ""
    if total.disagreement_ratio is not None:
        text += f", {total.disagreed} ({100 * total.disagreement_ratio:.1f} %) with two labels"
    if total.pairs:
        top = total.pairs[0]
        text += f", most often {top.champion or 'none'} → {top.challenger or 'none'} ({top.n})"
    return text + (f"; {total.errors} that only the release before could answer" if total.errors else "")


def _cautions(cautions: Mapping[str, str]) -> tuple[str, ...]:
    """Return each reason once, with the devices that come last or are left out because of it."""
    by_reason: dict[str, list[str]] = {}
    for device, why in cautions.items():
        by_reason.setdefault(why, []).append(device)
    return tuple(f"{listed(names, _NAMED)}: {why}" for why, names in by_reason.items())


def _shadow_means(order: ShadowOrder | None) -> str:
    if order is None:
        return ""
    limit = f"; a device refuses it above {100 * order.max_ratio:g} %" if order.max_ratio < 1 else ""
    return f"Two labels: the releases differ on an input, which of them is right is not known{limit}."


def _group(rollout: Rollout, index: int, figures: MemberFigures) -> GroupView:
    group, counts, removed = rollout.groups[index], figures.counts, figures.removed
    is_open = index < rollout.opened
    needs = f"needs {100 * group.success_ratio:.0f} % committed; pauses above {100 * group.error_ratio:.0f} % failed"
    states = (
        *((Status(f"{counts.failed} failed", Tone.BAD),) if counts.failed else ()),
        *((Status(f"{counts.stuck} stuck", Tone.BAD),) if counts.stuck else ()),
        *((Status(f"{counts.replaced} of them replaced", Tone.WARN),) if counts.replaced else ()),
        *(
            Status(f"{count} {'waits' if count == 1 else 'wait'}: {code.replace('_', ' ')}", _waits_tone(code))
            for code, count in figures.waiting.items()
        ),
        *((Status(f"{counts.pending} pending", Tone.CALM),) if counts.pending else ()),
        *((Status(f"{removed} removed", Tone.CALM),) if removed else ()),
        *((Status("no input answered yet", Tone.WARN),) if is_open and figures.unproven(group) else ()),
        *((Status("not open yet", Tone.CALM),) if not is_open else ()),
        *((Status(f"skipped by {group.skipped_by}", Tone.WARN),) if group.skipped_by else ()),
    )
    return GroupView(
        name=group.name,
        committed=counts.committed,
        failed=counts.failed,
        stuck=counts.stuck,
        total=counts.total,
        needs=needs,
        air=_fetched(figures),
        states=states,
        may_skip=is_open and rollout.phase in OPEN_PHASES and _may_skip(rollout, index),
        members=Cut(tuple(_member(one) for one in figures.first[:_NAMED]), max(figures.size - _NAMED, 0)),
    )


def _may_skip(rollout: Rollout, index: int) -> bool:
    """Return whether only a skip gets past an open group, or opens the next one now."""
    if rollout.phase is RolloutPhase.PAUSED:
        return not passed(rollout, index) or unproven(rollout, index)
    if absent(rollout, index):
        return index + 1 < len(rollout.groups)  # past the last one there is nothing to open
    return rollout.phase is RolloutPhase.RUNNING and held_by(rollout) is not None and unproven(rollout, index)


def _waits_tone(code: str) -> Tone:
    return Tone.CALM if code == "window_closed" else Tone.WARN  # a closed window opens by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """One device of a rollout as a row of a table."""

    device: str
    group: str
    standing: Status
    fetched: str
    settled: str


def member_row(member: Member, group: str) -> MemberRow:
    """Return the row of a device in ``group``."""
    return MemberRow(
        device=member.device, group=group, standing=_member(member).standing,
        fetched=in_bytes(member.air_bytes or member.bundle_bytes), settled=clock_time(member.settled_ms),
    )  # fmt: skip


def _member(member: Member) -> MemberView:
    status = _STANDINGS[member.standing]
    text = status.text
    if member.standing is MemberStanding.FAILED and member.code:
        text = f"failed: {member.code.replace('_', ' ')}"
    elif member.standing is MemberStanding.CANCELLED:
        text = _LEFT_OUT.get(member.code, text)
    elif member.waits_for:
        text = f"{text.partition(':')[0]}, waits: {member.waits_for.replace('_', ' ')}"
        status = Status(text, _waits_tone(member.waits_for) if member.standing not in IN_VAIN else status.tone)
    elif member.retried_from and member.standing not in IN_VAIN:
        text = f"{text}, {member.retried_from.value} before"
    if member.replaced_by:
        alone = text.removesuffix(": assigned, no answer").removesuffix("replaced")
        text = f"{alone}, replaced by {member.replaced_by}"
    return MemberView(member.device, Status(text.removeprefix(", "), status.tone))


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyLine:
    """One rollout that is not over, in short: how it stands, its groups, and what its devices show so far."""

    id: str
    release: str
    phase: Status
    safe: Status
    groups: tuple[str, ...]
    figures: tuple[str, ...]


def safety_line(card: RolloutCard) -> SafetyLine:
    """Return whether an update is safe by what is known, from the card of its rollout; no figure is left out."""
    groups = tuple(
        f"{one.name}: {one.committed} of {one.total} committed"
        + (f", {one.failed} failed" if one.failed else "")
        + (f", {one.stuck} stuck" if one.stuck else "")
        + (f" ({one.needs})" if one.needs else "")
        for one in card.groups
    )
    figures = tuple(text for text in (card.failing, card.disagreeing, card.shadow, card.reason) if text)
    return SafetyLine(
        id=card.id, release=card.release, phase=card.phase, safe=_safe(card), groups=groups, figures=figures
    )


def _safe(card: RolloutCard) -> Status:
    if card.held_by:
        numbers = listed([str(one) for one in card.held_by], 4)
        return Status(f"held: a release made it worse (verdict {numbers})", Tone.BAD)
    failed = sum(one.failed + one.stuck for one in card.groups)
    committed = sum(one.committed for one in card.groups)
    if failed:
        return Status(f"{failed} failed or stuck, {committed} committed", Tone.WARN)
    if committed:
        return Status(f"none failed of {committed} so far", Tone.BUSY)  # not good: the bounds beside it say how sure
    return Status("no device has an outcome yet", Tone.CALM)
