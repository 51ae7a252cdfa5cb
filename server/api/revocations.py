"""``POST /api/devices/{id}/revoke`` and ``/remove``: a device leaves the fleet."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from server.api.auth import Auth
from server.api.values import Person, ValueBody, Why
from server.fleet.revocation import Revocations
from server.people import SOMEBODY


class EndRequest(BaseModel, extra="forbid"):
    """The reason, recorded with the device and in the events; ``by``: who decided it, for the events."""

    why: Why = ""
    by: Person = SOMEBODY


class EndedBody(ValueBody):
    """A device that left the fleet."""

    device: str
    site: str
    ended: str
    ended_ms: int
    ended_why: str


def router(auth: Auth, revocations: Revocations) -> APIRouter:
    """Return the routes for operators.

    Their handlers raise ``UnknownDeviceError`` for a device that is not registered.
    """
    routes = APIRouter(tags=["devices"], dependencies=[Depends(auth.operator)])

    @routes.post("/api/devices/{device}/revoke")
    def revoke(device: str, request: EndRequest | None = None) -> EndedBody:
        """Refuse a device's credentials on HTTP and broker; it can return only with a new claim."""
        wanted = request or EndRequest()
        return EndedBody.of(revocations.revoke(device, wanted.why, by=wanted.by))

    @routes.post("/api/devices/{device}/remove")
    def remove(device: str, request: EndRequest | None = None) -> EndedBody:
        """Revoke a device and delete its assignment; its events, evidence and history stay."""
        wanted = request or EndRequest()
        return EndedBody.of(revocations.remove(device, wanted.why, by=wanted.by))

    return routes
