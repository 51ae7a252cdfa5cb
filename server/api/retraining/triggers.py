"""``/api/retraining``: triggers, the step that they wait for, and a person's approval or withdrawal."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from server.api.auth import Auth
from server.api.values import StoredNumber
from server.clock import Clock
from server.retraining.policy import APPROVABLE, Trigger
from server.retraining.service import RetrainingService


class TriggerBody(BaseModel):
    """One trigger. ``approvable``: a person may approve now; ``release``: the drifted one, ``result``: the new one."""

    id: int
    model: str
    cause: str
    words: str
    verdict: int
    devices: list[str]
    since_ms: int
    release: str
    phase: str
    approved: bool
    approvable: bool
    job: str
    result: str
    rollout: str
    text: str
    opened_ms: int
    updated_ms: int


class TriggersBody(BaseModel):
    """Triggers, newest first."""

    retraining: list[TriggerBody]


def router(auth: Auth, retraining: RetrainingService, clock: Clock) -> APIRouter:
    """Return the routes for operators."""
    triggers = retraining.triggers
    routes = APIRouter(tags=["retraining"], dependencies=[Depends(auth.operator)])

    @routes.get("/api/retraining")
    def list_triggers(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> TriggersBody:
        """Return the newest triggers."""
        return TriggersBody(retraining=[_body(trigger) for trigger in triggers.all(limit)])

    @routes.post("/api/retraining/{trigger}/approve")
    def approve(trigger: StoredNumber) -> TriggerBody:
        """Approve training without proof of harm, or the rollout of a release that passed its gates."""
        return _body(triggers.approve(trigger))

    @routes.post("/api/retraining/{trigger}/withdraw")
    def withdraw(trigger: StoredNumber) -> TriggerBody:
        """End a retraining; the same verdict does not start another one."""
        return _body(retraining.withdraw(trigger, clock()))

    return routes


def _body(trigger: Trigger) -> TriggerBody:
    names = [name for name in TriggerBody.model_fields if name not in {"approvable", "phase", "devices"}]
    return TriggerBody(
        **{name: getattr(trigger, name) for name in names}, phase=trigger.phase.value, devices=list(trigger.devices),
        approvable=trigger.phase in APPROVABLE,
    )  # fmt: skip
