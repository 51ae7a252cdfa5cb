"""``POST /api/claims`` (operator) and ``POST /api/enrol`` (whoever holds a claim)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from server.api.auth import Auth
from server.errors import RootMissingError, ServerError
from server.fleet.enrolment import Enrolment, Identity


@dataclass(frozen=True, slots=True)
class Address:
    """Where devices find this server. ``mqtt_tls_ca`` is a certificate as text, "" without TLS."""

    mqtt_host: str
    mqtt_port: int
    http_url: str
    mqtt_tls_ca: str = ""


@dataclass(frozen=True, slots=True)
class Reception:
    """What enrolment needs from the rest of the server.

    ``admit`` makes the broker accept a new device before it is told its password; ``root`` returns the
    trusted root metadata, None while there is none.
    """

    address: Callable[[], Address]
    root: Callable[[], bytes | None]
    admit: Callable[[Identity], None]


class ClaimRequest(BaseModel, extra="forbid"):
    """For which device a claim is wanted."""

    site: str
    device: str
    attributes: dict[str, str] = Field(default_factory=dict)


class ClaimBody(BaseModel):
    """A one-time claim."""

    claim: str


class MadeClaimBody(ClaimBody):
    """A new claim; ``note`` says so when it lets a device in again that was revoked or removed."""

    note: str = ""


class IdentityBody(BaseModel):
    """All that a device needs to take part."""

    site: str
    device: str
    password: str
    mqtt_host: str
    mqtt_port: int
    mqtt_tls_ca: str
    http_url: str
    root: str


def router(auth: Auth, enrolment: Enrolment, reception: Reception) -> APIRouter:
    """Return the routes of enrolment.

    Their handlers raise ``RootMissingError`` as long as the server has no trusted root to give.
    """
    routes = APIRouter(tags=["enrolment"])

    @routes.post("/api/claims", dependencies=[Depends(auth.operator)], status_code=201)
    def make_claim(request: ClaimRequest) -> MadeClaimBody:
        """Return a one-time claim for a device."""
        ended = enrolment.ended(request.device)
        claim = enrolment.claim(request.site, request.device, request.attributes)
        return MadeClaimBody(claim=claim, note=comes_back(request.device, ended))

    @routes.post("/api/enrol")
    def enrol(request: ClaimBody) -> IdentityBody:
        """Exchange a claim for an identity."""
        root = reception.root()
        if root is None:
            raise RootMissingError("Expected a trusted root, got none: run fleet-server trust DIR --root FILE")
        identity = enrolment.enrol(request.claim)
        try:
            reception.admit(identity)
        except (ServerError, OSError):  # nobody was told the password: the claim is good for another try
            enrolment.reopen(request.claim)
            raise
        return IdentityBody(**asdict(identity), **asdict(reception.address()), root=root.decode())

    return routes


def comes_back(device: str, ended: str) -> str:
    """Return what a person who makes a claim for ``device`` should know, "" for nothing."""
    return f"{device} was {ended}: with this claim it is of the fleet again" if ended else ""
