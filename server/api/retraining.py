"""``/api/retraining``: triggers, the step that they wait for, and a person's approval or withdrawal.

Then ``/api/samples``, for labelling, ``/api/audit``, and ``/api/jobs``, for workers that train.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, JsonValue

from server.api.auth import Auth, Caller, signed
from server.api.values import Cursor, Name, PageBody, StoredNumber, ValueBody
from server.clock import Clock
from server.registry.versions import Versions
from server.retraining.audit import SteadyAudit
from server.retraining.jobs import Jobs
from server.retraining.policy import RetrainingPhase
from server.retraining.samples import SampleStore
from server.retraining.service import RetrainingService


class SampleBody(ValueBody):
    """One sample; ``label`` is "" until a person labels it, at ``labelled_ms``. ``predicted``: the model's class.

    ``claimed``: in the lane ``correction``, what the device's user says that it is. ``model``: the model that took it,
    to which the label belongs; the digest of its artifact, as long as no release here is of that.
    """

    id: int
    device: str
    sha256: str
    media_type: str
    length_bytes: int
    lane: str
    inclusion_ratio: float
    predicted: int
    confidence: float
    at_ms: int
    label: str
    label_by: str
    labelled_ms: int
    claimed: str = ""
    model: str = ""


class SamplesBody(PageBody):
    """Samples, newest first; unlabelled ones oldest first, each image of a model once."""

    samples: list[SampleBody]


class LabelBody(BaseModel, extra="forbid"):
    """A label and the person who assigns it: a class of the model, or its numbers, separated by spaces.

    ``replaces``: the label that is changed; without it, an image that another person has labelled otherwise is refused.
    """

    label: str | int | float = Field(union_mode="left_to_right")
    by: str = Field(default="", max_length=100)
    replaces: str | int | float | None = Field(default=None, union_mode="left_to_right")


class LabelChangeBody(ValueBody):
    """A label that ``label_by`` gave and ``changed_by`` replaced by ``new_label``; "": took off."""

    label: str
    label_by: str
    labelled_ms: int
    new_label: str
    changed_by: str
    changed_ms: int


class ClaimChangeBody(ValueBody):
    """What the user of ``device`` had said of an image, and said otherwise later, by the claim ``new_claimed``."""

    device: str
    claimed: str
    new_claimed: str
    changed_ms: int


class LabelChangesBody(BaseModel):
    """The changes of one label, and of what users of devices claim of the image, the first first."""

    changes: list[LabelChangeBody]
    claims: list[ClaimChangeBody] = []


def samples_router(auth: Auth, samples: SampleStore, clock: Clock) -> APIRouter:
    """Return the routes for viewers; labels are for labellers."""
    routes = APIRouter(tags=["samples"], dependencies=[Depends(auth.view)])

    @routes.get("/api/samples")
    def list_samples(  # noqa: PLR0913 - one argument a parameter of the query
        *,
        unlabelled: bool = False,
        limit: Annotated[int, Query(ge=1, le=5000)] = 100,
        after: StoredNumber | None = None,
        device: Name = "",
        model: Name = "",
        lane: Name = "",
        label: Name = "",
        cursor: Cursor = None,
    ) -> SamplesBody:
        """Return samples; ``after``: the id of the last sample of the previous page, without filters."""
        if after is None:
            found = samples.page(
                unlabelled=unlabelled, device=device, model=model, lane=lane, label=label, limit=limit, cursor=cursor
            )  # fmt: skip
            return SamplesBody(samples=[SampleBody.of(one) for one in found.rows], next=found.next)
        if device or model or lane or label or cursor:
            message = "no such parameter beside after, expected one of unlabelled, limit"
            raise RequestValidationError([{"loc": ("query", "after"), "msg": message}])
        shown = samples.latest(unlabelled=unlabelled, limit=limit, after=after)
        return SamplesBody(samples=[SampleBody.of(one) for one in shown])

    @routes.get("/api/samples/{sample}/image")
    def image(sample: StoredNumber) -> Response:
        """Return the encoded image."""
        known = samples.sample(sample)
        headers = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return Response(samples.image(known), media_type=known.media_type, headers=headers)

    @routes.put("/api/samples/{sample}/label", dependencies=[Depends(auth.label)])
    def label(sample: StoredNumber, body: LabelBody, caller: Caller) -> SampleBody:
        """Label the image of a sample for its model; 409 ``label_taken`` if it has another one than to replace."""
        replaces, by = None if body.replaces is None else str(body.replaces), signed(caller, body.by)
        return SampleBody.of(samples.label(sample, str(body.label), by, clock(), replaces=replaces))

    @routes.get("/api/samples/{sample}/changes")
    def changes(sample: StoredNumber) -> LabelChangesBody:
        """Return what the label of a sample's image was before, who had given it, and who changed it."""
        changed = [LabelChangeBody.of(one) for one in samples.changes(sample)]
        claimed = [ClaimChangeBody.of(one) for one in samples.claim_changes(sample)]
        return LabelChangesBody(changes=changed, claims=claimed)

    return routes


class RiskBody(ValueBody):
    """An error rate, ``at_least`` to ``at_most`` at any look, by the labels of so many ``scenes``.

    ``wrong``: of these, as shares; ``since_ms``: since when it is ``at_least`` that.
    """

    scenes: int
    wrong: float
    at_least: float
    at_most: float
    since_ms: int


class GroupRiskBody(ValueBody):
    """The error rate on some devices: ``attribute`` "" for all of them, "device" for one, otherwise a cohort's.

    ``harmful``: it is shown to be above ``allowed``.
    """

    attribute: str
    value: str
    devices: list[str]
    risk: RiskBody
    allowed: float
    harmful: bool


class AuditBody(ValueBody):
    """The audit of one release that devices run; ``samples_per_day`` is 0 where nothing is asked.

    ``ratio``: the probability with which ``devices`` devices take an input since ``asked_ms``, of ``images_per_day``;
    ``waiting``: samples without a label; ``not_asked``: why no device is ever asked, "" if they are.
    """

    model: str
    release: str
    samples_per_day: float
    asked_ms: int
    ratio: float
    devices: int
    images_per_day: float
    waiting: int
    groups: list[GroupRiskBody]
    not_asked: str


class AuditsBody(BaseModel):
    """The audits, by release; ``settings``: those of [audit] without effect, with why and what to do."""

    audits: list[AuditBody]
    settings: list[str] = []


class AskBody(BaseModel, extra="forbid"):
    """How many samples one device is asked for, once."""

    count: int = Field(default=30, ge=1, le=10_000)


class AskedBody(BaseModel):
    """A device that was asked; its samples have the name ``request``."""

    device: str
    request: str


def audit_router(auth: Auth, audit: SteadyAudit) -> APIRouter:
    """Return the routes for viewers; what changes something is for operators, approvals for approvers."""
    routes = APIRouter(tags=["audit"], dependencies=[Depends(auth.view)])

    @routes.get("/api/audit")
    def list_audits() -> AuditsBody:
        """Return what the labels of uniform samples say of each release that a device runs."""
        found = [AuditBody.of(one) for one in audit.audits()]
        return AuditsBody(audits=found, settings=list(audit.idle_settings()))

    @routes.post("/api/audit/{device}", dependencies=[Depends(auth.operator)], status_code=202)
    def ask(device: str, caller: Caller, body: AskBody | None = None) -> AskedBody:
        """Ask one device once for uniform samples to label."""
        return AskedBody(device=device, request=audit.ask_once(device, (body or AskBody()).count, by=caller))

    return routes


class TriggerBody(ValueBody):
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


class TriggersBody(PageBody):
    """Triggers, newest first."""

    retraining: list[TriggerBody]


def router(auth: Auth, retraining: RetrainingService, clock: Clock) -> APIRouter:
    """Return the routes for viewers; what changes something is for operators, approvals for approvers."""
    triggers = retraining.triggers
    routes = APIRouter(tags=["retraining"], dependencies=[Depends(auth.view)])

    @routes.get("/api/retraining")
    def list_triggers(
        *, model: Name = "", phase: RetrainingPhase | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, cursor: Cursor = None,
    ) -> TriggersBody:  # fmt: skip
        """Return the newest triggers."""
        found = triggers.page(model=model, phase=phase or "", limit=limit, cursor=cursor)
        shown = [TriggerBody.of(trigger) for trigger in found.rows]
        return TriggersBody(retraining=shown, next=found.next, total=found.total)

    @routes.post("/api/retraining/{trigger}/approve", dependencies=[Depends(auth.approve)])
    def approve(trigger: StoredNumber, caller: Caller) -> TriggerBody:
        """Approve training without proof of harm, or the rollout of a release that passed its gates."""
        return TriggerBody.of(retraining.approve(trigger, by=caller))

    @routes.post("/api/retraining/{trigger}/withdraw", dependencies=[Depends(auth.operator)])
    def withdraw(trigger: StoredNumber, caller: Caller) -> TriggerBody:
        """End a retraining; the same verdict does not start another one."""
        return TriggerBody.of(retraining.withdraw(trigger, clock(), by=caller))

    return routes


class WorkerBody(BaseModel):
    """The worker's name, which it keeps over restarts."""

    worker: str = Field(min_length=1, max_length=100)


class DoneBody(WorkerBody):
    """The result of the job: the published release, and its certificate."""

    release: str = Field(min_length=1, max_length=127)
    certificate: dict[str, JsonValue] = Field(default_factory=dict)


class FailedBody(WorkerBody):
    """Why the job failed; the code ``released`` returns it to the queue."""

    code: str = Field(min_length=1, max_length=64)
    text: str = ""


class JobBody(ValueBody):
    """One job."""

    id: str
    model: str
    base_release: str
    base_sha256: str
    cause: str
    labelled: int
    samples_sha256: str
    lease_until_ms: int
    gate_split: str
    look: int


class ListedJobBody(JobBody):
    """One job with its outcome; ``state``: queued, leased, done or failed."""

    state: str
    worker: str
    attempts: int
    created_ms: int
    ended_ms: int
    release: str
    code: str
    text: str


class JobsBody(PageBody):
    """Training jobs, newest first."""

    jobs: list[ListedJobBody]


def jobs_list_router(auth: Auth, jobs: Jobs) -> APIRouter:
    """Return the route for viewers."""
    routes = APIRouter(tags=["jobs"], dependencies=[Depends(auth.view)])

    @routes.get("/api/jobs")
    def list_jobs(
        *, model: Name = "", state: Name = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: Cursor = None
    ) -> JobsBody:
        """Return the newest training jobs."""
        found = jobs.page(model=model, state=state, limit=limit, cursor=cursor)
        return JobsBody(jobs=[ListedJobBody.of(job) for job in found.rows], next=found.next, total=found.total)

    return routes


def jobs_router(auth: Auth, jobs: Jobs, versions: Versions, clock: Clock) -> APIRouter:
    """Return the routes for build hosts."""
    routes = APIRouter(tags=["jobs"], dependencies=[Depends(auth.builder)])

    @routes.post("/api/jobs/lease", response_model=JobBody, responses={204: {"description": "no job"}})
    def lease(body: WorkerBody, caller: Caller) -> JobBody | Response:
        """Lease a job; 204 when there is none."""
        job = jobs.lease(body.worker, clock(), by=caller)
        return Response(status_code=204) if job is None else JobBody.of(job)

    @routes.post("/api/jobs/{job}/heartbeat")
    def heartbeat(job: str, body: WorkerBody) -> JobBody:
        """Extend the lease."""
        return JobBody.of(jobs.heartbeat(job, body.worker, clock()))

    @routes.post("/api/jobs/{job}/done")
    def done(job: str, body: DoneBody, caller: Caller) -> JobBody:
        """Finish a job with a release that is published already."""
        versions.release(body.release)
        return JobBody.of(jobs.done(job, body.worker, body.release, body.certificate, clock(), by=caller))

    @routes.post("/api/jobs/{job}/failed")
    def failed(job: str, body: FailedBody, caller: Caller) -> JobBody:
        """Finish a job without a release."""
        return JobBody.of(jobs.failed(job, body.worker, body.code, body.text, clock(), by=caller))

    @routes.get("/api/jobs/{job}/samples.zip")
    def samples(job: str) -> FileResponse:
        """Return the job's labelled samples."""
        return FileResponse(jobs.samples(job), media_type="application/zip", filename="samples.zip")

    return routes
