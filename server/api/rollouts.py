"""``/api/rollouts``: make, watch, approve, pause, resume and abort rollouts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from server.api.auth import Auth
from server.errors import RolloutRefusedError
from server.rollout.conditions import canary_size, tally
from server.rollout.drafting import Request
from server.rollout.model import Member, Rollout, Standing
from server.rollout.service import RolloutService

Ratio = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]


class RolloutRequest(BaseModel):
    """What to roll out. ``canary``: how many devices, or which; or ``defect_ratio``: the defect one wants to see.

    ``groups``: device lists between canary and rest.
    """

    release: str
    canary: Annotated[int, Field(ge=1)] | list[str] | None = None
    defect_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    groups: list[list[str]] = Field(default_factory=list, max_length=100)
    probation_s: Seconds | None = None
    deadline_s: Seconds | None = None
    success_ratio: Ratio | None = None
    error_ratio: Ratio | None = None
    approved: bool = False


class MemberBody(BaseModel):
    """One device of a rollout."""

    device: str
    group: int
    standing: str
    code: str
    gen: int
    assigned_ms: int
    settled_ms: int
    air_bytes: int


class GroupBody(BaseModel):
    """One group, counted without cancelled devices and without failures that an operator resumed over."""

    name: str
    open: bool
    success_ratio: float
    error_ratio: float
    total: int
    committed: int
    failed: int


class RolloutBody(BaseModel):
    """One rollout."""

    id: str
    release: str
    phase: str
    code: str
    text: str
    probation_s: float
    deadline_s: float
    created_ms: int
    updated_ms: int
    committed: int
    failed: int
    air_bytes: int
    groups: list[GroupBody]
    members: list[MemberBody]


class RolloutsBody(BaseModel):
    """Every rollout, newest first."""

    rollouts: list[RolloutBody]


def router(auth: Auth, rollouts: RolloutService) -> APIRouter:
    """Return the routes for operators."""
    routes = APIRouter(tags=["rollouts"], dependencies=[Depends(auth.operator)])

    @routes.post("/api/rollouts", status_code=201)
    def create(request: RolloutRequest) -> RolloutBody:
        """Make a rollout; it begins when approved."""
        return _body(rollouts.create(_request(request)))

    @routes.get("/api/rollouts")
    def list_rollouts() -> RolloutsBody:
        """Return every rollout."""
        return RolloutsBody(rollouts=[_body(rollout) for rollout in rollouts.list()])

    @routes.get("/api/rollouts/{rollout}")
    def get(rollout: str) -> RolloutBody:
        """Return one rollout."""
        return _body(rollouts.get(rollout))

    @routes.post("/api/rollouts/{rollout}/approve")
    def approve(rollout: str) -> RolloutBody:
        """Let a rollout begin."""
        return _body(rollouts.approve(rollout))

    @routes.post("/api/rollouts/{rollout}/pause")
    def pause(rollout: str) -> RolloutBody:
        """Tell no further device."""
        return _body(rollouts.pause(rollout))

    @routes.post("/api/rollouts/{rollout}/resume")
    def resume(rollout: str) -> RolloutBody:
        """Go on; failures so far leave the count."""
        return _body(rollouts.resume(rollout))

    @routes.post("/api/rollouts/{rollout}/abort")
    def abort(rollout: str) -> RolloutBody:
        """End a rollout; who has not committed is set back."""
        return _body(rollouts.abort(rollout))

    return routes


def _request(body: RolloutRequest) -> Request:
    canary = body.canary
    if body.defect_ratio is not None:
        if canary is not None:
            raise RolloutRefusedError("Expected canary or defect_ratio, got both")
        canary = canary_size(body.defect_ratio)
    return Request(
        release=body.release, canary=canary, groups=body.groups, probation_s=body.probation_s,
        deadline_s=body.deadline_s, success_ratio=body.success_ratio, error_ratio=body.error_ratio,
        approved=body.approved,
    )  # fmt: skip


def _body(rollout: Rollout) -> RolloutBody:
    standings = [member.standing for member in rollout.members]
    return RolloutBody(
        id=rollout.id, release=rollout.release, phase=rollout.phase.value, code=rollout.code, text=rollout.text,
        probation_s=rollout.probation_s, deadline_s=rollout.deadline_s, created_ms=rollout.created_ms,
        updated_ms=rollout.updated_ms, committed=standings.count(Standing.COMMITTED),
        failed=standings.count(Standing.FAILED), air_bytes=sum(member.air_bytes for member in rollout.members),
        groups=_groups(rollout), members=[_member(member) for member in rollout.members],
    )  # fmt: skip


def _groups(rollout: Rollout) -> list[GroupBody]:
    bodies = []
    for index, group in enumerate(rollout.groups):
        counts = tally(rollout.group_members(index))
        bodies.append(
            GroupBody(
                name=group.name, open=index < rollout.opened, success_ratio=group.success_ratio,
                error_ratio=group.error_ratio, total=counts.total, committed=counts.committed, failed=counts.failed,
            )
        )  # fmt: skip
    return bodies


def _member(member: Member) -> MemberBody:
    return MemberBody(
        device=member.device, group=member.group, standing=member.standing.value, code=member.code, gen=member.gen,
        assigned_ms=member.assigned_ms, settled_ms=member.settled_ms, air_bytes=member.air_bytes,
    )  # fmt: skip
