"""``GET /api/devices/{id}/telemetry``: the newest measurements that a device sent."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, JsonValue

from server.api.auth import Auth
from server.fleet.fleet import Fleet
from server.store.database import Database
from server.store.monitoring.ingest import latest_batches


class BatchBody(BaseModel):
    """One batch as the device sent it; ``docs/reference/wire.md`` describes the rows."""

    t0_ms: int
    received_ms: int
    n: int
    rows: list[dict[str, JsonValue]]


class TelemetryBody(BaseModel):
    """The newest batches of one stream, newest first."""

    device: str
    stream: str
    batches: list[BatchBody]


def router(auth: Auth, fleet: Fleet, database: Database) -> APIRouter:
    """Return the route for operators."""
    routes = APIRouter(tags=["devices"], dependencies=[Depends(auth.operator)])

    @routes.get("/api/devices/{device}/telemetry")
    def telemetry(
        device: str, stream: Literal["infer", "hw"] = "infer", limit: Annotated[int, Query(ge=1, le=500)] = 20
    ) -> TelemetryBody:
        """Return the device's measurements: ``infer`` (latency, classes) or ``hw`` (memory, temperature)."""
        fleet.device(device)
        with database.begin() as connection:
            rows = latest_batches(connection, device, stream, limit)
        return TelemetryBody(
            device=device, stream=stream,
            batches=[BatchBody(**{name: row[name] for name in BatchBody.model_fields}) for row in rows],
        )  # fmt: skip

    return routes
