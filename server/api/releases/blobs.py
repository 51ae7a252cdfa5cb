"""``PUT /api/blobs/{sha256}`` (build host) and ``GET /blobs/{sha256}`` (devices: assigned bundles only; ranges)."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from server.api.auth import Auth
from server.errors import BlobOversizeError, BlobRefusedError
from server.fleet.assignments import Assignments
from server.registry.blobs import Blobs
from wire.bundle import MAX_BUNDLE_BYTES


class BlobBody(BaseModel):
    """A stored blob."""

    sha256: str
    length_bytes: int


def router(auth: Auth, blobs: Blobs, assignments: Assignments, *, limit_bytes: int = MAX_BUNDLE_BYTES) -> APIRouter:
    """Return the routes of bundles.

    Their handlers raise ``NotAssignedError`` when a device asks for a bundle that is not assigned to it.
    """
    routes = APIRouter(tags=["blobs"])

    @routes.put("/api/blobs/{sha256}", dependencies=[Depends(auth.builder)], status_code=201)
    async def put_blob(sha256: str, request: Request) -> BlobBody:
        """Store a bundle; its digest and size are checked before it gets a name."""
        check_announced(request.headers.get("content-length", ""), limit_bytes)
        return BlobBody(sha256=sha256, length_bytes=await receive(blobs, sha256, request, limit_bytes))

    @routes.head("/blobs/{sha256}", include_in_schema=False)
    @routes.get("/blobs/{sha256}")
    def get_blob(sha256: str, request: Request) -> FileResponse:
        """Return a bundle or a range of it; to a device only if the bundle is assigned to it.

        The ETag is the digest, so a resumed download can't mix two bundles.
        """
        device = auth.device_or_staff(request)
        if device:
            assignments.check(device, sha256)
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
