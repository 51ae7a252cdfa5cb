"""``GET /tuf/{name}`` (anybody: it is signed), ``GET, POST /api/tuf/targets`` (build host)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import HTTPException
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from server.api.auth import Auth
from server.errors import MetadataRefusedError
from server.registry.versions import Versions
from server.trust.releases import register_releases
from server.trust.repository import MAX_TARGETS_BYTES, TrustRepository

_JSON = "application/json"


class PublishedBody(BaseModel):
    """The targets in the published metadata."""

    paths: list[str]


def router(auth: Auth, repository: TrustRepository, versions: Versions, clock: Callable[[], int]) -> APIRouter:
    """Return the routes of signed metadata; a publication registers its releases in ``versions``."""
    routes = APIRouter(tags=["tuf"])

    @routes.get("/tuf/{name}")
    def get_metadata(name: str) -> Response:
        """Return a published metadata file."""
        headers = {"cache-control": "no-cache" if name == "timestamp.json" else "public, max-age=86400"}
        return _file(repository.metadata_file(name), headers)

    @routes.get("/api/tuf/targets", dependencies=[Depends(auth.builder)])
    def get_targets() -> Response:
        """Return the current signed targets."""
        return _file(repository.current_targets(), {"cache-control": "no-store"})

    @routes.post("/api/tuf/targets", dependencies=[Depends(auth.builder)], status_code=201)
    async def post_targets(request: Request, base: Annotated[int | None, Query(ge=0)] = None) -> PublishedBody:
        """Publish the next signed targets; their bundles must be uploaded already."""
        data = await _body(request)
        return await run_in_threadpool(publish, data, base)

    def publish(data: bytes, base: int | None) -> PublishedBody:
        targets = repository.publish_targets(data, versions.blobs.has, base=base)
        register_releases(targets, versions, now_ms=clock())
        return PublishedBody(paths=[target.path for target in targets])

    return routes


def _file(data: bytes | None, headers: dict[str, str]) -> Response:
    if data is None:
        raise HTTPException(404, "Expected published metadata, got none of that name")
    return Response(data, media_type=_JSON, headers=headers)


async def _body(request: Request) -> bytes:
    pieces = bytearray()
    async for piece in request.stream():
        pieces += piece
        if len(pieces) > MAX_TARGETS_BYTES:
            message = f"Expected targets metadata of at most {MAX_TARGETS_BYTES} bytes, got more"
            raise MetadataRefusedError(message)
    return bytes(pieces)
