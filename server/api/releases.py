"""``GET /api/releases``: the releases with their gate certificates; ``…/withdraw``: ends a release for good.

Then the bundles (``/api/blobs`` for the build host, ``/blobs`` for devices: assigned ones only), and signed metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel, JsonValue
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from server.api.auth import Auth, Caller, anybody, signed
from server.api.values import Cursor, Limit, Name, PageBody, Person, Search, ValueBody, Why, check_whole
from server.errors import BlobOversizeError, BlobRefusedError, MetadataRefusedError, ServerError
from server.fleet.assignments import Assignments
from server.people import SOMEBODY, Actor, ActorKind
from server.registry.blobs import Blobs
from server.registry.versions import Release, Versions
from server.rollout.withdrawal import Withdrawal
from server.trust.releases import register_releases
from server.trust.repository import MAX_TARGETS_BYTES, TrustRepository
from wire.bundle import MAX_BUNDLE_BYTES

_SHOWN = 200  # releases in an answer by default


class PatchBody(ValueBody):
    """A patch: what a device that has the bundle ``base_sha256`` fetches instead of the whole."""

    base_sha256: str
    sha256: str
    length_bytes: int


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
    patches: list[PatchBody] = []
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


class ReleasesBody(PageBody):
    """Releases, oldest first."""

    releases: list[ReleaseBody]


def router(auth: Auth, versions: Versions, withdrawal: Withdrawal) -> APIRouter:
    """Return the routes for operators and build hosts.

    Their handlers raise ``UnknownReleaseError`` for a release that is not published.
    """
    routes = APIRouter(tags=["releases"])

    @routes.get("/api/releases", dependencies=[Depends(auth.view_or_builder)])
    def list_releases(
        *, name: Name = "", search: Search = "", withdrawn: bool | None = None, limit: Limit = None,
        cursor: Cursor = None,
    ) -> ReleasesBody:  # fmt: skip
        """Return releases, one entry a target class; ``search``: a part of the name.

        Without ``limit``, 422 ``page_needed`` if there are more than 200.
        """
        found = versions.page(name=name, search=search, withdrawn=withdrawn, limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        return ReleasesBody(releases=[_body(release) for release in found.rows], next=found.next, total=found.total)

    @routes.get("/api/releases/{name}", dependencies=[Depends(auth.view)])
    def running(name: str) -> RunningBody:
        """Return the devices that run a release."""
        release = versions.release(name)
        return RunningBody(
            name=name, withdrawn_ms=release.withdrawn_ms, withdrawn_why=release.withdrawn_why,
            withdrawn_by=release.withdrawn_by, running=[device.device for device in withdrawal.running(name)],
        )  # fmt: skip

    @routes.post("/api/releases/{name}/withdraw", dependencies=[Depends(auth.operator)])
    def withdraw(name: str, caller: Caller, request: WithdrawRequest | None = None) -> RunningBody:
        """Withdraw a release for good and abort its rollouts; return the devices that still run it."""
        wanted = request or WithdrawRequest()
        withdrawal.withdraw(name, wanted.why, by=signed(caller, wanted.by))
        return running(name)

    return routes


def _body(release: Release) -> ReleaseBody:
    return ReleaseBody(
        name=release.name, model=release.model, version=release.version, target=release.target, path=release.path,
        sha256=release.sha256, length_bytes=release.length_bytes, runtime=release.custom.runtime,
        hardware=list(release.custom.hardware), security_floor=release.custom.security_floor,
        registered_ms=release.registered_ms, certificate=dict(release.certificate),
        patches=[PatchBody.of(delta) for delta in release.custom.deltas],
        withdrawn_ms=release.withdrawn_ms, withdrawn_why=release.withdrawn_why, withdrawn_by=release.withdrawn_by,
    )  # fmt: skip


class BlobBody(BaseModel):
    """A stored blob."""

    sha256: str
    length_bytes: int


def blobs_router(
    auth: Auth, blobs: Blobs, assignments: Assignments, *, limit_bytes: int = MAX_BUNDLE_BYTES
) -> APIRouter:
    """Return the routes of bundles.

    Their handlers raise ``NotAssignedError`` when a device asks for a bundle that is not assigned to it.
    """
    routes = APIRouter(tags=["blobs"])

    @routes.put("/api/blobs/{sha256}", dependencies=[Depends(auth.builder)], status_code=201)
    async def put_blob(sha256: str, request: Request) -> BlobBody:
        """Store a bundle; its digest and size are checked before it gets a name."""
        check_announced(request.headers.get("content-length", ""), limit_bytes)
        return BlobBody(sha256=sha256, length_bytes=await receive(blobs, sha256, request, limit_bytes))

    @routes.head("/blobs/{sha256}", dependencies=[Depends(auth.device_or_staff)], include_in_schema=False)
    @routes.get("/blobs/{sha256}", dependencies=[Depends(auth.device_or_staff)])
    def get_blob(sha256: str, caller: Caller) -> FileResponse:
        """Return a bundle or a range of it; to a device only if the bundle is assigned to it.

        The ETag is the digest, so a resumed download can't mix two bundles.
        """
        if caller.kind is ActorKind.DEVICE:
            assignments.check(caller.account, sha256)
        headers = {"etag": f'"{sha256}"', "cache-control": "private, max-age=31536000, immutable"}
        return FileResponse(blobs.path(sha256), headers=headers, media_type="application/octet-stream")

    return routes


def check_announced(length: str, limit_bytes: int) -> None:
    """Check the length that an upload announces in its header.

    Raises:
        BlobOversizeError: If it is over ``limit_bytes``.
    """
    if length.isdigit() and int(length) > limit_bytes:
        message = f"Expected a blob of at most {limit_bytes} bytes, got {length}"
        raise BlobOversizeError(message)


async def receive(blobs: Blobs, sha256: str, request: Request, limit_bytes: int) -> int:
    """Store the body of ``request`` as the blob ``sha256``; return its length in bytes.

    Raises:
        BlobRefusedError: If its digest or size differs from the announced one, or the connection broke.
    """
    upload = blobs.upload(sha256, limit_bytes=limit_bytes)
    try:
        async for chunk in request.stream():
            upload.write(chunk)
        return await run_in_threadpool(upload.commit)
    except ClientDisconnect as error:
        raise BlobRefusedError("Expected the whole blob, got a closed connection: upload it again") from error
    finally:
        upload.close()


async def read_body(request: Request, limit_bytes: int, oversize: ServerError) -> bytes:
    """Return the body of ``request``.

    Raises:
        ServerError: ``oversize``, as soon as more than ``limit_bytes`` have arrived.
    """
    pieces = bytearray()
    async for piece in request.stream():
        pieces += piece
        if len(pieces) > limit_bytes:
            raise oversize
    return bytes(pieces)


_JSON = "application/json"


class PublishedBody(BaseModel):
    """The targets in the published metadata."""

    paths: list[str]


def metadata_router(auth: Auth, repository: TrustRepository, versions: Versions, clock: Callable[[], int]) -> APIRouter:
    """Return the routes of signed metadata; a publication registers its releases in ``versions``."""
    routes = APIRouter(tags=["tuf"])

    @routes.get("/tuf/{name}", dependencies=[Depends(anybody)])
    def get_metadata(name: str) -> Response:
        """Return a published metadata file."""
        headers = {"cache-control": "no-cache" if name == "timestamp.json" else "public, max-age=86400"}
        return _file(repository.metadata_file(name), headers)

    @routes.get("/api/tuf/targets", dependencies=[Depends(auth.builder)])
    def get_targets() -> Response:
        """Return the current signed targets."""
        return _file(repository.current_targets(), {"cache-control": "no-store"})

    @routes.post("/api/tuf/targets", dependencies=[Depends(auth.builder)], status_code=201)
    async def post_targets(
        request: Request, caller: Caller, base: Annotated[int | None, Query(ge=0)] = None
    ) -> PublishedBody:
        """Publish the next signed targets; their bundles must be uploaded already."""
        message = f"Expected targets metadata of at most {MAX_TARGETS_BYTES} bytes, got more"
        data = await read_body(request, MAX_TARGETS_BYTES, MetadataRefusedError(message))
        return await run_in_threadpool(publish, data, base, caller)

    def publish(data: bytes, base: int | None, by: Actor) -> PublishedBody:
        targets = repository.publish_targets(data, versions.blobs.has, base=base)
        register_releases(targets, versions, now_ms=clock(), by=by)
        return PublishedBody(paths=[target.path for target in targets])

    return routes


def _file(data: bytes | None, headers: dict[str, str]) -> Response:
    if data is None:
        raise HTTPException(404, "Expected published metadata, got none of that name")
    return Response(data, media_type=_JSON, headers=headers)
