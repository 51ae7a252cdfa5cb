"""``GET /api/releases``: the releases with their gate certificates; ``…/withdraw``: ends a release for good."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel, JsonValue

from server.api.auth import Auth
from server.api.values import Person, Why
from server.people import SOMEBODY
from server.registry.versions import Release, Versions
from server.rollout.withdrawal import Withdrawal


class ReleaseBody(BaseModel):
    """One release for one target class."""

    name: str
    model: str
    version: int
    target: str
    path: str
    sha256: str
    length_bytes: int
    runtime: str
    hardware: list[str]
    security_floor: int
    registered_ms: int
    certificate: dict[str, JsonValue]
    withdrawn_ms: int = 0
    withdrawn_why: str = ""
    withdrawn_by: str = ""


class WithdrawRequest(BaseModel, extra="forbid"):
    """Who withdraws, and why; both are recorded with the release and in the events."""

    why: Why = ""
    by: Person = SOMEBODY


class RunningBody(BaseModel):
    """A release and the ids of the devices that report running it."""

    name: str
    withdrawn_ms: int
    withdrawn_why: str
    withdrawn_by: str
    running: list[str]


class ReleasesBody(BaseModel):
    """Every release, oldest first."""

    releases: list[ReleaseBody]


def router(auth: Auth, versions: Versions, withdrawal: Withdrawal) -> APIRouter:
    """Return the routes for operators and build hosts.

    Their handlers raise ``UnknownReleaseError`` for a release that is not published.
    """
    routes = APIRouter(tags=["releases"])

    @routes.get("/api/releases", dependencies=[Depends(auth.operator_or_builder)])
    def list_releases() -> ReleasesBody:
        """Return every release."""
        return ReleasesBody(releases=[_body(release) for release in versions.releases()])

    @routes.get("/api/releases/{name}", dependencies=[Depends(auth.operator)])
    def running(name: str) -> RunningBody:
        """Return the devices that run a release."""
        release = versions.release(name)
        return RunningBody(
            name=name, withdrawn_ms=release.withdrawn_ms, withdrawn_why=release.withdrawn_why,
            withdrawn_by=release.withdrawn_by, running=[device.device for device in withdrawal.running(name)],
        )  # fmt: skip

    @routes.post("/api/releases/{name}/withdraw", dependencies=[Depends(auth.operator)])
    def withdraw(name: str, request: WithdrawRequest | None = None) -> RunningBody:
        """Withdraw a release for good and abort its rollouts; return the devices that still run it."""
        wanted = request or WithdrawRequest()
        withdrawal.withdraw(name, wanted.why, by=wanted.by)
        return running(name)

    return routes


def _body(release: Release) -> ReleaseBody:
    return ReleaseBody(
        name=release.name, model=release.model, version=release.version, target=release.target, path=release.path,
        sha256=release.sha256, length_bytes=release.length_bytes, runtime=release.custom.runtime,
        hardware=list(release.custom.hardware), security_floor=release.custom.security_floor,
        registered_ms=release.registered_ms, certificate=dict(release.certificate),
        withdrawn_ms=release.withdrawn_ms, withdrawn_why=release.withdrawn_why, withdrawn_by=release.withdrawn_by,
    )  # fmt: skip
