"""``/api/measurements``: build hosts order and read, the named device downloads its bytes and uploads its report."""

from __future__ import annotations

import base64
import binascii

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field, JsonValue
from starlette.concurrency import run_in_threadpool

from server.api.auth import Auth, Caller
from server.api.releases import BlobBody, check_announced, read_body, receive
from server.errors import BlobOversizeError, MeasurementRefusedError
from server.fleet.fleet import Fleet
from server.fleet.measurements import Measurement, Measurements
from wire.measurement import MAX_REPORT_BYTES, MAX_ROWS_BYTES, SIGNATURE_HEADER

_BYTES = "application/octet-stream"


class OrderBody(BaseModel):
    """A measurement order in its DSSE envelope."""

    envelope: dict[str, JsonValue]


class MeasurementBody(BaseModel):
    """The phase of a measurement: sent, running, done, failed, expired; ``device_state``: the device's last state."""

    order: str
    device: str
    phase: str
    code: str
    text: str
    report_sha256: str
    expires_ms: int
    device_state: str
    last_seen_ms: int


class BenchBody(BaseModel):
    """A device that can run measurements."""

    device: str
    state: str
    last_seen_ms: int
    hardware: str
    runtimes: list[str] = Field(default_factory=list)


def router(auth: Auth, measurements: Measurements, fleet: Fleet) -> APIRouter:
    """Return the routes for build hosts and devices."""
    routes = APIRouter(tags=["measurements"])
    builder = [Depends(auth.builder)]

    @routes.get("/api/measurements/devices/{device}", dependencies=builder)
    def bench(device: str) -> BenchBody:
        """Return a device's hardware and state, to order a measurement from it."""
        known = fleet.device(device)
        reported = known.reported
        return BenchBody(
            device=known.device, state=known.state.value, last_seen_ms=known.last_seen_ms,
            hardware=reported.hardware if reported else "", runtimes=list(reported.runtimes) if reported else [],
        )  # fmt: skip

    @routes.put("/api/measurements/blobs/{sha256}", dependencies=builder, status_code=201)
    async def put_bytes(sha256: str, request: Request) -> BlobBody:
        """Store a bundle or rows to measure, apart from releases; digest and size are checked."""
        check_announced(request.headers.get("content-length", ""), MAX_ROWS_BYTES)
        length_bytes = await receive(measurements.blobs, sha256, request, MAX_ROWS_BYTES)
        return BlobBody(sha256=sha256, length_bytes=length_bytes)

    @routes.post("/api/measurements", dependencies=builder, status_code=202)
    def order(body: OrderBody, caller: Caller) -> MeasurementBody:
        """Send a signed order to its device."""
        return _body(measurements.order(body.envelope, by=caller), fleet)

    @routes.get("/api/measurements/{order}", dependencies=builder)
    def get(order: str) -> MeasurementBody:
        """Return the phase of a measurement."""
        return _body(measurements.get(order), fleet)

    @routes.delete("/api/measurements/{order}", dependencies=builder, status_code=204)
    def drop(order: str) -> Response:
        """Delete a measurement and its bytes."""
        measurements.drop(order)
        return Response(status_code=204)

    @routes.get("/api/measurements/{order}/report", dependencies=builder)
    def report(order: str) -> FileResponse:
        """Return the device's report."""
        return FileResponse(measurements.report(order), media_type=_BYTES)

    @routes.get("/api/measurements/{order}/signature", dependencies=builder)
    def signature(order: str) -> FileResponse:
        """Return the statement by which the device signed its report; 404 if it has no certificate."""
        return FileResponse(measurements.signature(order), media_type="application/json")

    _device_routes(routes, auth, measurements)
    return routes


def _device_routes(routes: APIRouter, auth: Auth, measurements: Measurements) -> None:
    @routes.get("/api/measurements/{order}/blobs/{sha256}", dependencies=[Depends(auth.device)])
    def get_bytes(order: str, sha256: str, caller: Caller) -> FileResponse:
        """Return a bundle or rows, or a range of them, to the device that the order names."""
        path = measurements.bytes_for(order, sha256, caller.account)
        return FileResponse(path, headers={"etag": f'"{sha256}"'}, media_type=_BYTES)

    @routes.put("/api/measurements/{order}/report", dependencies=[Depends(auth.device)], status_code=201)
    async def take(order: str, request: Request, caller: Caller) -> BlobBody:
        """Store the report of the device that the order names."""
        check_announced(request.headers.get("content-length", ""), MAX_REPORT_BYTES)
        message = f"Expected a report of at most {MAX_REPORT_BYTES} bytes, got more"
        data = await read_body(request, MAX_REPORT_BYTES, BlobOversizeError(message))
        await run_in_threadpool(measurements.take, order, caller.account, data, _signature(request))
        return BlobBody(sha256=measurements.get(order).report_sha256, length_bytes=len(data))


def _signature(request: Request) -> bytes:
    try:
        return base64.b64decode(request.headers.get(SIGNATURE_HEADER, ""), validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"Expected a signature in base64 in {SIGNATURE_HEADER}, got: {error}"
        raise MeasurementRefusedError(message) from error


def _body(found: Measurement, fleet: Fleet) -> MeasurementBody:
    order, device = found.order, fleet.device(found.order.device)
    return MeasurementBody(
        order=order.order, device=order.device, phase=found.phase.value, code=found.code, text=found.text,
        report_sha256=found.report_sha256, expires_ms=order.expires_ms, device_state=device.state.value,
        last_seen_ms=device.last_seen_ms,
    )  # fmt: skip
