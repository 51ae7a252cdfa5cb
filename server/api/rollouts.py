"""``/api/rollouts``: create, watch, approve, pause, resume and abort rollouts; skip a group; foresee an act.

Failures stay in every figure: ``failed`` and ``stuck`` include devices that were replaced or removed later.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, computed_field

from server.api.auth import Auth, Caller, signed
from server.api.values import Cursor, Limit, Name, PageBody, Person, Search, ValueBody, Why, check_whole
from server.errors import RolloutRefusedError
from server.people import SOMEBODY
from server.rollout.config import MAX_TIME_S
from server.rollout.create import MAX_RATE, RolloutOptions, window_of
from server.rollout.figures.members import FIRST, RolloutFigures
from server.rollout.model import Member, MemberStanding, Rollout, RolloutPhase
from server.rollout.resuming import How
from server.rollout.scope import Scope
from server.rollout.service import RolloutService
from server.rollout.thresholds import MAX_CANARIES, canary_size
from server.store.lists.rollouts import MemberFilter
from wire.messages import MaintenanceWindow
from wire.shadow import MAX_SHADOW_S, ShadowCounts, ShadowOrder, merge_shadow

MAX_LISTED = 20_000  # devices in one request: twice the largest fleet that was tried
_SHOWN, _MEMBERS_SHOWN = 50, 500  # rollouts, and members of one, in an answer by default
_MEMBERS_IN_A_LIST = FIRST
Listed = Annotated[str, Field(min_length=1, max_length=200)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=MAX_TIME_S)]


class WindowBody(ValueBody, extra="forbid"):
    """A maintenance window: from ``start`` to ``end`` (``HH:MM``) on ``days`` (``mon`` to ``sun``; none: each day).

    ``time_zone``: an IANA name; empty: each device's own. An ``end`` at or before ``start`` is on the next day.
    """

    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    end: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(default_factory=list, max_length=7)
    time_zone: Annotated[str, Field(max_length=64)] = ""


class ShadowBody(ValueBody, extra="forbid"):
    """For ``seconds``, devices compare the release with the one that serves before they switch.

    ``max_ratio``: above this share of inputs with two labels a device refuses it; 1: never. ``required``: it also
    refuses it if it can't compare.
    """

    seconds: Annotated[float, Field(gt=0, le=MAX_SHADOW_S)]
    max_ratio: Ratio = 1.0
    required: bool = False


class ShadowPairBody(ValueBody):
    """How often the release that serves, the champion, answered one label and the new one another."""

    champion: str
    challenger: str
    n: int


class ShadowCountsBody(ValueBody):
    """What devices counted before they switched, or after. Disagreement is not error: it does not say which is right.

    ``n``: inputs compared; ``disagreed``: those with two labels, in ``pairs`` and ``other_pairs``. ``differences``: of
    numbers, by octave (``docs/reference/wire.md``). ``errors``: inputs that only the champion could answer;
    ``skipped``: not compared. ``p50_ms`` and ``p95_ms``: of the challenger's runs, at low priority.
    """

    devices: int
    seconds: float
    n: int
    disagreed: int
    disagreement_ratio: float | None
    pairs: list[ShadowPairBody]
    other_pairs: int
    differences: dict[str, dict[str, int]]
    errors: int
    skipped: int
    p50_ms: float
    p95_ms: float


class ScopeBody(ValueBody, extra="forbid"):
    """Which devices a rollout is for: those for which each filter that is set holds, by any of its values.

    ``attributes``: the value that each key must have. ``hardware``: as devices report it. ``releases`` and ``models``:
    what a device runs now. ``tags``: that people gave it. Without a filter: every device of the release's model. A
    blank device, which runs no model yet, joins if ``devices``, ``sites``, ``attributes`` or ``tags`` name it, or if
    the fleet has one model only. ``move``: devices that run another model get the release too; it needs a filter other
    than ``hardware``.
    """

    devices: Annotated[list[Listed], Field(max_length=MAX_LISTED)] = Field(default_factory=list)
    sites: Annotated[list[Listed], Field(max_length=MAX_LISTED)] = Field(default_factory=list)
    attributes: dict[str, str] = Field(default_factory=dict, max_length=100)
    hardware: Annotated[list[Listed], Field(max_length=MAX_LISTED)] = Field(default_factory=list)
    releases: Annotated[list[Listed], Field(max_length=MAX_LISTED)] = Field(default_factory=list)
    models: Annotated[list[Listed], Field(max_length=MAX_LISTED)] = Field(default_factory=list)
    tags: Annotated[list[Listed], Field(max_length=MAX_LISTED)] = Field(default_factory=list)
    move: bool = False


class RolloutRequest(BaseModel, extra="forbid"):
    """A new rollout. ``canary``: a number of devices, or a list; or ``defect_ratio``: the share of defects to detect.

    ``scope``: which devices it is for. ``newcomers``: devices of the scope that enrol while it runs join the rest.
    ``groups``: device lists between the canary and the rest. ``window``: devices switch inside of it only;
    ``deadline_s`` counts from the assignment, so it has to reach beyond the next opening. ``max_bytes_per_s``: how fast
    a device may download (0: no limit); a lower limit in its own ``agent.toml`` holds.
    """

    release: str
    canary: Annotated[int, Field(ge=1, le=MAX_CANARIES)] | list[str] | None = None
    defect_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    scope: ScopeBody = Field(default_factory=ScopeBody)
    newcomers: bool = False
    groups: list[list[str]] = Field(default_factory=list, max_length=100)
    probation_s: Seconds | None = None
    deadline_s: Seconds | None = None
    success_ratio: Ratio | None = None
    error_ratio: Ratio | None = None
    approved: bool = False
    by: Person = SOMEBODY
    window: WindowBody | None = None
    shadow: ShadowBody | None = None
    max_bytes_per_s: Annotated[int, Field(ge=0, le=MAX_RATE)] = 0


class ApproveRequest(BaseModel, extra="forbid"):
    """Who approves; ``only``: refused if other devices would be assigned at once."""

    by: Person = SOMEBODY
    only: list[str] | None = None


class StopRequest(BaseModel, extra="forbid"):
    """Who pauses or aborts, and why; both are recorded with the rollout."""

    by: Person = SOMEBODY
    why: Why = ""


class ResumeRequest(BaseModel, extra="forbid"):
    """How to resume. ``retry``: devices that failed or are stuck are assigned again. ``replace``: others try instead.

    ``tolerate``: failures no longer pause, but count. ``only``: refused if other devices would be assigned at once.
    """

    how: How = How.RETRY
    by: Person = SOMEBODY
    only: list[str] | None = None


class SkipRequest(BaseModel, extra="forbid"):
    """The group that missed its success ratio, or answered no input, and who decides that the next may open anyway."""

    group: str
    by: Person
    only: list[str] | None = None


class ForecastBody(ValueBody):
    """What devices will fetch. ``upper``: for how many the figure is an upper bound: nobody knows what they have."""

    air_bytes: int
    upper: int


class ForesightBody(ValueBody):
    """The immediate effects of an act.

    ``assigns``: devices that are assigned the release now; ``tells`` is its deprecated name, until release 0.3.
    ``later``: offline devices, assigned when they connect.
    ``sets_back``: devices that go back to their previous release. ``opens``: groups that open. ``unaffected``: devices
    that keep the release: under way when paused, committed when aborted. ``forecast``: what those assigned now or later
    will fetch. ``text``: all of it in words.
    """

    assigns: list[str]
    later: list[str]
    sets_back: list[str]
    opens: list[str]
    unaffected: list[str]
    forecast: ForecastBody
    text: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tells(self) -> list[str]:
        """The deprecated name of ``assigns``."""
        return self.assigns


class MemberBody(BaseModel):
    """One device of a rollout.

    ``code``: why it failed or was left out. ``replaced_by``: the person who let another device try in its place.
    ``retried_from``: its earlier outcome, failed or stuck, during a retry; ``code`` is that of the earlier one.
    ``air_bytes``: what it has fetched over the network so far, of the bundle and of patches, in all attempts, also what
    was thrown away (without the headers of the protocols). ``bundle_bytes``: of an older agent, which does not count
    that: how much of the bundle it had at last, however it came. ``waits_for``: the code why the device has put the
    update off, such as ``clock_behind``, ``window_closed`` or ``application_busy``, or ``away`` if it was assigned the
    release and is away now; "" if neither. ``answered``: how many inputs the release had answered when it was
    committed; 0: none yet; null: not committed, or not known.
    ``forecast_bytes``: what it was, or is, to fetch in all attempts, by what it had when each began: to be compared
    with ``air_bytes``; null: an older server assigned the release. ``forecast_upper``: it is an upper bound, because
    the device had not reported what it has.
    """

    device: str
    group: int
    standing: str
    code: str
    gen: int
    assigned_ms: int
    settled_ms: int
    air_bytes: int
    bundle_bytes: int
    replaced_by: str
    retried_from: str
    waits_for: str
    answered: int | None
    forecast_bytes: int | None
    forecast_upper: bool


class GroupBody(BaseModel):
    """One group, counted without cancelled devices.

    ``awaited``: under way or about to be assigned. ``pending``: offline or never seen, assigned on connecting.
    ``replaced``: those of ``failed`` and ``stuck`` in whose place others try. ``success_ratio`` is compared with
    ``committed`` / (``committed`` + ``failed`` + ``stuck`` - ``replaced`` + ``awaited``). ``skipped_by``: the person
    who let the next group open although this one did not reach it. ``unproven``: devices committed, and none of them
    has answered an input with the release: the next group waits for the first answer, or for a skip.
    ``forecast_bytes`` and ``air_bytes``: what its devices were to fetch, and have fetched so far, also those that were
    cancelled; ``forecast_upper``: for how many of them the forecast is an upper bound; null: an older server began it.
    """

    name: str
    open: bool
    success_ratio: float
    error_ratio: float
    total: int
    committed: int
    failed: int
    stuck: int
    awaited: int
    pending: int
    replaced: int
    success_reached: bool
    unproven: bool
    skipped_by: str
    skipped_ms: int
    forecast_bytes: int | None
    forecast_upper: int
    air_bytes: int


class DeviceRateBody(ValueBody):
    """A rate over devices with an outcome: ``mean`` of ``devices``, null before the first.

    Whenever one looks, it is at least ``at_least`` and at most ``at_most``, each with confidence 1 - ``risk``, if
    devices are independent (those of one site may not be). ``exceeded``: it is surely above ``allowed``, and pauses.
    """

    devices: int
    mean: float | None
    at_least: float
    at_most: float
    allowed: float
    exceeded: bool
    risk: float
    text: str


class RolloutBody(BaseModel):
    """One rollout. ``members``: null if there are more than an answer has (``…/members`` has them page by page).

    ``devices``: how many members there are.
    ``failed`` and ``stuck`` include devices that were replaced or removed later. ``replaced``: in whose place others
    try. ``removed``: left the fleet before the release had an outcome on them. ``committed_ratio``:
    ``committed`` / (``committed`` + ``failed`` + ``stuck``), null while all are 0. ``air_bytes``, ``bundle_bytes``: the
    sums over the members; ``forecast_bytes``, ``forecast_upper``: as of a group. ``failing``: how often the release
    fails on devices; ``disagreeing``: how far its answers differ, by device, null unless the shadow has a limit.
    ``shadow_counts``: of all devices so far, also of those under way; ``replay_counts``: of
    the inputs of the release before that they answered again after the switch. ``waiting``: how many
    devices have put the update off, by the code why, or are away. ``cautions``: devices that come last, and devices
    that don't get it although they could run it (they are not among the members), each with the reason. ``created_by``
    and ``approvals``: who created it, and who has approved it so far.
    """

    id: str
    release: str
    phase: str
    code: str
    text: str
    scope: ScopeBody
    newcomers: bool
    probation_s: float
    deadline_s: float
    window: WindowBody | None
    shadow: ShadowBody | None
    shadow_counts: ShadowCountsBody | None
    replay_counts: ShadowCountsBody | None
    max_bytes_per_s: int
    created_by: str
    approvals: list[str]
    created_ms: int
    updated_ms: int
    committed: int
    failed: int
    stuck: int
    pending: int
    replaced: int
    removed: int
    committed_ratio: float | None
    air_bytes: int
    bundle_bytes: int
    forecast_bytes: int | None
    forecast_upper: int
    failing: DeviceRateBody
    disagreeing: DeviceRateBody | None
    waiting: dict[str, int]
    cautions: dict[str, str]
    groups: list[GroupBody]
    devices: int
    members: list[MemberBody] | None


class MembersBody(PageBody):
    """Devices of a rollout, by group and id."""

    members: list[MemberBody]


class RolloutsBody(PageBody):
    """Rollouts, newest first."""

    rollouts: list[RolloutBody]


def router(auth: Auth, rollouts: RolloutService) -> APIRouter:
    """Return the routes for viewers; acts are for operators, and what lets a release go on for approvers."""
    routes = APIRouter(tags=["rollouts"], dependencies=[Depends(auth.view)])
    _add_lists(routes, rollouts)

    @routes.post("/api/rollouts", dependencies=[Depends(auth.operator)], status_code=201)
    def create(request: RolloutRequest, caller: Caller, http: Request) -> RolloutBody:
        """Create a rollout; it starts when approved, and only an approver may create one that is."""
        by = signed(caller if not request.approved else auth.approve(http), request.by)
        return _shown(rollouts, rollouts.create(_request(request), by=by))

    @routes.post("/api/rollouts/{rollout}/approve", dependencies=[Depends(auth.approve)])
    def approve(rollout: str, caller: Caller, request: ApproveRequest | None = None) -> RolloutBody:
        """Approve a rollout, so that it starts."""
        wanted = request or ApproveRequest()
        return _shown(rollouts, rollouts.approve(rollout, by=signed(caller, wanted.by), only=wanted.only))

    @routes.post("/api/rollouts/{rollout}/pause", dependencies=[Depends(auth.operator)])
    def pause(rollout: str, caller: Caller, request: StopRequest | None = None) -> RolloutBody:
        """Pause a rollout: no further device is assigned the release."""
        wanted = request or StopRequest()
        by = signed(caller, wanted.by)
        text = f"Paused by {by}" + (f": {wanted.why}" if wanted.why else "")
        return _shown(rollouts, rollouts.pause(rollout, text=text, by=by))

    @routes.get("/api/rollouts/{rollout}/foresight")
    def foresight(  # noqa: PLR0913 - one argument a parameter of the query
        rollout: str, act: Literal["approve", "pause", "resume", "skip", "abort"], caller: Caller, http: Request,
        how: How = How.RETRY, group: str = "", *, acting: bool = False,
    ) -> ForesightBody:  # fmt: skip
        """Return the immediate effects of an act, without performing it.

        With ``acting`` it is refused as the act of the caller would be, so that nobody is asked who may not.
        """
        if acting:
            (auth.operator if act in {"pause", "abort"} else auth.approve)(http)
        return ForesightBody.of(rollouts.foresee(rollout, act, how=how, group=group, by=caller if acting else None))

    @routes.post("/api/rollouts/{rollout}/resume", dependencies=[Depends(auth.approve)])
    def resume(rollout: str, caller: Caller, request: ResumeRequest | None = None) -> RolloutBody:
        """Resume a paused rollout: retry failures on the same devices or on others, or tolerate them."""
        wanted = request or ResumeRequest()
        return _shown(rollouts, rollouts.resume(rollout, wanted.how, by=signed(caller, wanted.by), only=wanted.only))

    @routes.post("/api/rollouts/{rollout}/skip", dependencies=[Depends(auth.approve)])
    def skip(rollout: str, request: SkipRequest, caller: Caller) -> RolloutBody:
        """Let the next group open although one missed its success ratio or answered no input; with a name."""
        return _shown(rollouts, rollouts.skip(rollout, request.group, by=signed(caller, request.by), only=request.only))

    @routes.post("/api/rollouts/{rollout}/abort", dependencies=[Depends(auth.operator)])
    def abort(rollout: str, caller: Caller, request: StopRequest | None = None) -> RolloutBody:
        """Abort a rollout; devices that have not committed are set back."""
        wanted = request or StopRequest()
        return _shown(rollouts, rollouts.abort(rollout, by=signed(caller, wanted.by), why=wanted.why))

    return routes


def _add_lists(routes: APIRouter, rollouts: RolloutService) -> None:
    kept: dict[tuple[str, int], RolloutBody] = {}

    @routes.get("/api/rollouts")
    def list_rollouts(
        *, phase: RolloutPhase | None = None, release: Name = "", limit: Limit = None, cursor: Cursor = None
    ) -> RolloutsBody:
        """Return rollouts, newest first, with their members if they have no more than 20.

        Without ``limit``, 422 ``page_needed`` if there are more than 50.
        """
        found = rollouts.ledger.page(
            phase=phase or "", release=release, limit=min(limit or _SHOWN, _SHOWN), cursor=cursor
        )  # fmt: skip
        check_whole(found, limit, cursor)
        shown = rollouts.described(found.rows, partial(_body, most=_MEMBERS_IN_A_LIST), kept)
        return RolloutsBody(rollouts=list(shown), next=found.next, total=found.total)

    @routes.get("/api/rollouts/{rollout}")
    def get(rollout: str) -> RolloutBody:
        """Return one rollout."""
        return _shown(rollouts, rollouts.get(rollout))

    @routes.get("/api/rollouts/{rollout}/members")
    def members(  # noqa: PLR0913 - one argument a parameter of the query
        rollout: str, *, standing: MemberStanding | None = None, code: Name = "", search: Search = "",
        group: Annotated[int | None, Query(ge=0, lt=2**31)] = None, limit: Limit = None, cursor: Cursor = None,
    ) -> MembersBody:  # fmt: skip
        """Return devices of a rollout, by group and id; ``search``: a part of the id."""
        wanted = MemberFilter(search=search, standing=standing or "", code=code, group=group)
        known, found = rollouts.ledger.members(rollout, wanted, limit=limit or _MEMBERS_SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        (shown,) = rollouts.up_to_date(known)
        return MembersBody(members=[_member(one) for one in shown.members], next=found.next, total=found.total)


def _request(body: RolloutRequest) -> RolloutOptions:
    canary = body.canary
    if body.defect_ratio is not None:
        if canary is not None:
            raise RolloutRefusedError("Expected canary or defect_ratio, got both")
        canary = canary_size(body.defect_ratio)
    return RolloutOptions(
        release=body.release, canary=canary, groups=body.groups, probation_s=body.probation_s,
        deadline_s=body.deadline_s, success_ratio=body.success_ratio, error_ratio=body.error_ratio,
        approved=body.approved, scope=Scope.of(body.scope.model_dump()), newcomers=body.newcomers,
        window=_window(body.window),
        shadow=ShadowOrder(**body.shadow.model_dump()) if body.shadow else None, max_bytes_per_s=body.max_bytes_per_s,
    )  # fmt: skip


def _window(body: WindowBody | None) -> MaintenanceWindow | None:
    return None if body is None else window_of(body.start, body.end, body.days, body.time_zone)


def _shown(rollouts: RolloutService, rollout: Rollout) -> RolloutBody:
    (shown,) = rollouts.up_to_date(rollout)
    return _body(shown, RolloutFigures.of(shown))


def _body(rollout: Rollout, figures: RolloutFigures, most: int | None = None) -> RolloutBody:
    """Return a rollout; ``most``: how many members it names, up to ``FIRST`` of one that is over and lacks them."""
    whole, differs = figures.whole, figures.disagreeing
    counts, likely, members = whole.counts, whole.forecast, rollout.members or whole.first
    return RolloutBody(
        id=rollout.id, release=rollout.release, phase=rollout.phase.value, code=rollout.code, text=rollout.text,
        scope=ScopeBody.of(rollout.scope), newcomers=rollout.dynamic,
        probation_s=rollout.probation_s, deadline_s=rollout.deadline_s,
        window=WindowBody.of(rollout.window) if rollout.window else None,
        shadow=ShadowBody.of(rollout.shadow) if rollout.shadow else None,
        shadow_counts=_counts(whole.shadow),
        replay_counts=_counts(whole.replay),
        max_bytes_per_s=rollout.max_bytes_per_s, created_by=rollout.created_by,
        approvals=list(rollout.approvals), created_ms=rollout.created_ms,
        updated_ms=rollout.updated_ms, committed=counts.committed, failed=counts.failed, stuck=counts.stuck,
        pending=counts.pending, replaced=whole.replaced, removed=whole.removed,
        committed_ratio=counts.committed_ratio, air_bytes=whole.air_bytes,
        bundle_bytes=whole.bundle_bytes,
        forecast_bytes=likely.air_bytes if likely else None, forecast_upper=likely.upper if likely else 0,
        failing=DeviceRateBody.of(figures.failing), disagreeing=DeviceRateBody.of(differs) if differs else None,
        waiting=dict(whole.waiting), cautions=dict(rollout.cautions), groups=_groups(rollout, figures),
        devices=whole.size,
        members=[_member(one) for one in members] if whole.size <= (most or _MEMBERS_SHOWN) else None,
    )  # fmt: skip


def _counts(found: Sequence[ShadowCounts]) -> ShadowCountsBody | None:
    if not found:
        return None
    total = merge_shadow(found)
    return ShadowCountsBody(
        devices=len(found), seconds=total.seconds, n=total.n, disagreed=total.disagreed,
        disagreement_ratio=total.disagreement_ratio, pairs=[ShadowPairBody.of(pair) for pair in total.pairs],
        other_pairs=total.other_pairs, differences={name: dict(bins) for name, bins in total.differences.items()},
        errors=total.errors, skipped=total.skipped, p50_ms=total.run_ms(0.5), p95_ms=total.run_ms(0.95),
    )  # fmt: skip


def _groups(rollout: Rollout, figures: RolloutFigures) -> list[GroupBody]:
    bodies = []
    for index, (group, of_group) in enumerate(zip(rollout.groups, figures.groups, strict=True)):
        counts, likely = of_group.counts, of_group.forecast
        bodies.append(
            GroupBody(
                name=group.name, open=index < rollout.opened, success_ratio=group.success_ratio,
                error_ratio=group.error_ratio, total=counts.total, committed=counts.committed, failed=counts.failed,
                stuck=counts.stuck, awaited=counts.awaited, pending=counts.pending,
                replaced=counts.replaced, success_reached=counts.success_reached(group),
                unproven=of_group.unproven(group), skipped_by=group.skipped_by,
                skipped_ms=group.skipped_ms, air_bytes=of_group.air_bytes,
                forecast_bytes=likely.air_bytes if likely else None, forecast_upper=likely.upper if likely else 0,
            )
        )  # fmt: skip
    return bodies


def _member(member: Member) -> MemberBody:
    return MemberBody(
        device=member.device, group=member.group, standing=member.standing.value, code=member.code, gen=member.gen,
        assigned_ms=member.assigned_ms, settled_ms=member.settled_ms, air_bytes=member.air_bytes,
        bundle_bytes=member.bundle_bytes, replaced_by=member.replaced_by,
        retried_from=member.retried_from.value if member.retried_from else "", waits_for=member.waits_for,
        answered=member.answered, forecast_bytes=member.forecast_bytes, forecast_upper=member.forecast_upper,
    )  # fmt: skip
