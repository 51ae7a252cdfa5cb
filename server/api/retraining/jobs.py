"""``/api/jobs``: training jobs for build hosts."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, JsonValue

from server.api.auth import Auth
from server.api.values import ValueBody
from server.clock import Clock
from server.registry.versions import Versions
from server.retraining.jobs import Jobs


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


def router(auth: Auth, jobs: Jobs, versions: Versions, clock: Clock) -> APIRouter:
    """Return the routes for build hosts."""
    routes = APIRouter(tags=["jobs"], dependencies=[Depends(auth.builder)])

    @routes.post("/api/jobs/lease", response_model=JobBody, responses={204: {"description": "no job"}})
    def lease(body: WorkerBody) -> JobBody | Response:
        """Lease a job; 204 when there is none."""
        job = jobs.lease(body.worker, clock())
        return Response(status_code=204) if job is None else JobBody.of(job)

    @routes.post("/api/jobs/{job}/heartbeat")
    def heartbeat(job: str, body: WorkerBody) -> JobBody:
        """Extend the lease."""
        return JobBody.of(jobs.heartbeat(job, body.worker, clock()))

    @routes.post("/api/jobs/{job}/done")
    def done(job: str, body: DoneBody) -> JobBody:
        """Finish a job with a release that is published already."""
        versions.release(body.release)
        return JobBody.of(jobs.done(job, body.worker, body.release, body.certificate, clock()))

    @routes.post("/api/jobs/{job}/failed")
    def failed(job: str, body: FailedBody) -> JobBody:
        """Finish a job without a release."""
        return JobBody.of(jobs.failed(job, body.worker, body.code, body.text, clock()))

    @routes.get("/api/jobs/{job}/samples.zip")
    def samples(job: str) -> FileResponse:
        """Return the job's labelled samples."""
        return FileResponse(jobs.samples(job), media_type="application/zip", filename="samples.zip")

    return routes
