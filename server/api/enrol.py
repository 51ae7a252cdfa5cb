"""``POST /api/claims`` (operator), ``/api/enrol`` (the holder of a claim), ``/api/enrol/renew`` (its certificate)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from server.api.auth import Auth, Caller, anybody
from server.errors import RootMissingError, ServerError
from server.fleet.enrolment import EnrolledIdentity, Enrolment
from server.fleet.fleet import Fleet
from server.fleet.identity.certificates import Certificates
from wire.enrolment import MAX_REQUEST_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The addresses at which devices reach this server. ``mqtt_tls_ca`` is a certificate as text, "" without TLS."""

    mqtt_host: str
    mqtt_port: int
    http_url: str
    mqtt_tls_ca: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """The parts of the server that enrolment uses.

    ``admit`` makes the broker accept a new device before the device gets its identity; ``root`` returns the trusted
    root metadata, None while there is none. ``certified_port``: of the broker, for devices with a certificate.
    """

    address: Callable[[], Address]
    root: Callable[[], bytes | None]
    admit: Callable[[EnrolledIdentity], None]
    certified_port: int = 0


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
    """Everything that a device needs to connect; ``password`` or ``certificate`` is "".

    ``certificate``: PEM, the device's own first, then those up to the authority.
    """

    site: str
    device: str
    password: str
    certificate: str
    mqtt_host: str
    mqtt_port: int
    mqtt_tls_ca: str
    http_url: str
    root: str


class EnrolRequest(ClaimBody):
    """A claim; ``request``: of a certificate (PKCS #10, PEM), "" for a password."""

    request: str = Field(default="", max_length=MAX_REQUEST_BYTES)


class RenewRequest(BaseModel, extra="forbid"):
    """A request of a certificate (PKCS #10, PEM) for the key that the device has."""

    request: str = Field(max_length=MAX_REQUEST_BYTES)


class CertificateBody(BaseModel):
    """A certificate (PEM), the device's own first, then those up to the authority."""

    certificate: str


class ProofBody(BaseModel):
    """How devices prove their identity here: password, certificate or either."""

    proof: str


def router(
    auth: Auth, enrolment: Enrolment, certificates: Certificates, fleet: Fleet, reception: Reception
) -> APIRouter:
    """Return the routes of enrolment.

    Their handlers raise ``RootMissingError`` while the server has no trusted root.
    """
    routes = APIRouter(tags=["enrolment"])

    @routes.post("/api/claims", dependencies=[Depends(auth.operator)], status_code=201)
    def make_claim(request: ClaimRequest, caller: Caller) -> MadeClaimBody:
        """Return a one-time claim for a device."""
        ended = enrolment.ended(request.device)
        claim = enrolment.claim(request.site, request.device, request.attributes, by=caller)
        return MadeClaimBody(claim=claim, note=comes_back(request.device, ended))

    @routes.get("/api/enrol", dependencies=[Depends(anybody)])
    def proof() -> ProofBody:
        """Return how devices prove their identity here."""
        return ProofBody(proof=certificates.proof.value)

    @routes.post("/api/enrol", dependencies=[Depends(anybody)])
    def enrol(request: EnrolRequest, caller: Caller) -> IdentityBody:
        """Exchange a claim for an identity."""
        root = reception.root()
        if root is None:
            raise RootMissingError("Expected a trusted root, got none: run fleet-server trust DIR --root FILE")
        identity = enrolment.enrol(request.claim, request.request, address=caller.address)
        try:
            reception.admit(identity)
        except (ServerError, OSError):  # nobody received the password: the claim stays valid for another try
            enrolment.reopen(request.claim)
            raise
        address = reception.address()
        address = replace(address, mqtt_port=reception.certified_port) if identity.certificate else address
        return IdentityBody(**asdict(identity), **asdict(address), root=root.decode())

    @routes.post("/api/enrol/renew", dependencies=[Depends(auth.certified)])
    def renew(wanted: RenewRequest, caller: Caller) -> CertificateBody:
        """Return a new certificate for the calling device, which has one that is still valid."""
        device = caller.account
        return CertificateBody(certificate=certificates.renew(fleet.device(device).site, device, wanted.request))

    return routes


def comes_back(device: str, ended: str) -> str:
    """Return a note for a person who makes a claim for an ended ``device``, "" for none."""
    return f"{device} was {ended}: with this claim it is of the fleet again" if ended else ""
