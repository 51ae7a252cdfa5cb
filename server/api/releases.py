"""``GET /api/releases``: what may be rolled out, with the gate's certificate."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel, JsonValue

from server.api.auth import Auth
from server.registry.versions import Release, Versions


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


class ReleasesBody(BaseModel):
    """Every release, oldest first."""

    releases: list[ReleaseBody]


def router(auth: Auth, versions: Versions) -> APIRouter:
    """Return the routes for operators and build hosts."""
    routes = APIRouter(tags=["releases"], dependencies=[Depends(auth.operator_or_builder)])

    @routes.get("/api/releases")
    def list_releases() -> ReleasesBody:
        """Return every release."""
        return ReleasesBody(releases=[_body(release) for release in versions.releases()])

    return routes


def _body(release: Release) -> ReleaseBody:
    return ReleaseBody(
        name=release.name, model=release.model, version=release.version, target=release.target, path=release.path,
        sha256=release.sha256, length_bytes=release.length_bytes, runtime=release.custom.runtime,
        hardware=list(release.custom.hardware), security_floor=release.custom.security_floor,
        registered_ms=release.registered_ms, certificate=dict(release.certificate),
    )  # fmt: skip
