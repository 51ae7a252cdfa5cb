"""``POST /api/claims`` (operator) and ``POST /api/enrol`` (the holder of a claim)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from server.api.auth import Auth
from server.errors import RootMissingError, ServerError
from server.fleet.enrolment import EnrolledIdentity, Enrolment


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The addresses at which devices reach this server. ``mqtt_tls_ca`` is a certificate as text, "" without TLS."""

    mqtt_host: str
    mqtt_port: int
    http_url: str
    mqtt_tls_ca: str = ""


@dataclass(frozen=True, slots=True)
class Reception:
    """The parts of the server that enrolment uses.

    ``admit`` makes the broker accept a new device before the device gets its password; ``root`` returns the
    trusted root metadata, None while there is none.
    """

    address: Callable[[], Address]
    root: Callable[[], bytes | None]
    admit: Callable[[EnrolledIdentity], None]


class ClaimRequest(BaseModel, extra="forbid"):
    """The device to make a claim for."""

    site: str
    device: str
    attributes: dict[str, str] = Field(default_factory=dict)


class ClaimBody(BaseModel):
    """A one-time claim."""

    claim: str


class MadeClaimBody(ClaimBody):
    """A new claim; ``note`` states that it readmits a revoked or removed device, "" otherwise."""

    note: str = ""


class IdentityBody(BaseModel):
    """Everything that a device needs to connect."""

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

    Their handlers raise ``RootMissingError`` while the server has no trusted root.
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
        except (ServerError, OSError):  # nobody received the password: the claim stays valid for another try
            enrolment.reopen(request.claim)
            raise
        return IdentityBody(**asdict(identity), **asdict(reception.address()), root=root.decode())

    return routes


def comes_back(device: str, ended: str) -> str:
    """Return a note for a person who makes a claim for an ended ``device``, "" for none."""
    return f"{device} was {ended}: with this claim it is of the fleet again" if ended else ""
