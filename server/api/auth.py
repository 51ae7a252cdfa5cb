"""Authenticates callers, and declares what each route needs of them.

People and programs send a bearer token: a personal or service token, or one of the two in the state directory. A
device proves itself by its certificate or its password. Each route has one of the attributes of ``Auth``, or
``anybody``, among its dependencies: ``Depends(auth.operator)``. Where a router has one and its route another, the
caller has to satisfy both, and the route's is what it needs (``declared_need``).

Which role suffices is decided in ``server.access.roles``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from server.access.roles import Need, Principal, Role, wanted
from server.access.tokens import Tokens
from server.errors import ForbiddenError, UnauthorizedError
from server.fleet.enrolment import Enrolment
from server.fleet.identity.certificates import Certificates
from server.people import MAX_NAME, SOMEBODY, Actor, ActorKind

_SHOWN = 100  # characters of an unknown name
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FILE_ROLE = Role.APPROVER
"""The role of ``operator.token``: all that it could do before there were users, and no more."""


@dataclass(frozen=True, eq=False)
class Requires:
    """A dependency that lets only callers pass who may do what needs ``need``."""

    auth: Auth | None
    need: Need

    def __call__(self, request: Request) -> Actor:
        """Return the caller, and keep it for ``Caller``.

        Raises:
            UnauthorizedError: If the caller proves no account, or proves it wrongly.
            ForbiddenError: If the account's role does not suffice.
            RequestValidationError: If the query of a person's route has another parameter than the route knows: a
                filter that is ignored answers with all rows.
        """
        if self.auth is None:
            actor = Actor(account="anybody", kind=ActorKind.ANYBODY, address=address_of(request))
        elif self.need is Need.CERTIFIED_DEVICE:
            actor = self.auth.certified_device(request)
        elif self.need is Need.DEVICE or (self.need is Need.DEVICE_OR_STAFF and not _bearer(request)):
            actor = self.auth.calling_device(request)
        else:
            actor = self.auth.staff(request, self.need).actor
            if self.need not in {Need.BUILD, Need.VIEW_OR_BUILD, Need.DEVICE_OR_STAFF}:
                _expect_known_query(request)
        request.state.actor = actor
        return actor


anybody = Requires(None, Need.ANYBODY)
"""The dependency of a route that anybody may call."""


def _caller(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


Caller = Annotated[Actor, Depends(_caller)]
"""The parameter of a route's handler that gets who calls it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Auth:
    """The two tokens of the state directory, all other tokens, and the certificates and passwords of devices."""

    operator_token: str
    builder_token: str
    tokens: Tokens
    enrolment: Enrolment
    certificates: Certificates
    view: Requires = field(init=False)
    label: Requires = field(init=False)
    operator: Requires = field(init=False)
    approve: Requires = field(init=False)
    admin: Requires = field(init=False)
    builder: Requires = field(init=False)
    view_or_builder: Requires = field(init=False)
    device: Requires = field(init=False)
    certified: Requires = field(init=False)
    device_or_staff: Requires = field(init=False)

    def __post_init__(self) -> None:
        """Make one dependency for each need."""
        for name, need in (
            ("view", Need.VIEW), ("label", Need.LABEL), ("operator", Need.OPERATE), ("approve", Need.APPROVE),
            ("admin", Need.ADMINISTER), ("builder", Need.BUILD), ("view_or_builder", Need.VIEW_OR_BUILD),
            ("device", Need.DEVICE), ("certified", Need.CERTIFIED_DEVICE), ("device_or_staff", Need.DEVICE_OR_STAFF),
        ):  # fmt: skip
            object.__setattr__(self, name, Requires(self, need))

    def staff(self, request: Request, need: Need) -> Principal:
        """Return the person or program that calls, if it may do what needs ``need``.

        Raises:
            UnauthorizedError: If there is no token, or it is unknown, revoked or expired, or its owner is disabled.
            ForbiddenError: If its role does not suffice, or it may only read.
        """
        principal = self._principal(_bearer(request), address_of(request))
        if principal is None:
            message = (
                f"Expected the token of {wanted(need)} in the Authorization header, got none or one that is wrong, "
                "expired or revoked"
            )
            raise UnauthorizedError(message)
        if not principal.may(need, reading=request.method in _SAFE):
            held = f"{principal.role}, read only" if principal.read_only else principal.role.value
            whose = f"a token of {principal.actor.account}" if principal.actor.through else principal.actor.account
            message = f"Expected {wanted(need)}, got {whose}, whose role is {held}: ask an admin"
            raise ForbiddenError(message)
        return principal

    def calling_device(self, request: Request) -> Actor:
        """Return the calling device.

        Raises:
            UnauthorizedError: If its certificate is revoked or unknown, or its password is wrong.
        """
        device = self._device(request)
        if not device:
            message = "Expected a device id and its password, or its certificate, got none or a wrong one"
            raise UnauthorizedError(message)
        return Actor(account=device, kind=ActorKind.DEVICE, address=address_of(request))

    def certified_device(self, request: Request) -> Actor:
        """Return the calling device, which has a certificate.

        Raises:
            UnauthorizedError: If it has none, or one that is revoked or unknown.
        """
        device = self._holder(request)
        if not device:
            message = "Expected a certificate of a device of this fleet, got none or a revoked one"
            raise UnauthorizedError(f"{message}: enrol the device again with a new claim")
        return Actor(account=device, kind=ActorKind.DEVICE, address=address_of(request))

    def _principal(self, token: str, address: str) -> Principal | None:
        if not token:
            return None
        for name, known, role in (
            ("operator", self.operator_token, FILE_ROLE),
            ("builder", self.builder_token, Role.BUILDER),
        ):
            if _same(token, known):
                actor = Actor(account=name, kind=ActorKind.TOKEN, through=f"{name}.token", address=address)
                return Principal(actor=actor, role=role)
        return self.tokens.principal(token, address)

    def _holder(self, request: Request) -> str:
        certificate = peer_certificate(request)
        return self.certificates.holder(certificate) if certificate else ""

    def _device(self, request: Request) -> str:
        if peer_certificate(request):
            return self._holder(request)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return ""
        try:
            device, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return device if device and self.enrolment.authenticate(device, password) else ""


def signed(caller: Actor, by: str) -> Actor:
    """Return the caller with the name that a request gives as that of who decides.

    A program says for whom it acts. A person acts under the own name alone.

    Raises:
        ForbiddenError: If a person gives another's name.
    """
    if caller.kind is ActorKind.USER and by not in ("", SOMEBODY, caller.account):
        message = f"Expected by to be {caller.account}, who calls, or left out, got {by[:MAX_NAME]!r}"
        raise ForbiddenError(message)
    return caller.saying(by)


def declared_need(dependencies: Iterable[object]) -> Need | None:
    """Return what a route needs by its dependencies, in their order; None if it declares nothing."""
    found = [one.need for one in dependencies if isinstance(one, Requires)]
    return found[-1] if found else None


def address_of(request: Request) -> str:
    """Return the address of the caller, "" if it is not known."""
    return request.client.host if request.client else ""


def peer_certificate(request: Request) -> bytes:
    """Return the certificate (DER) that the caller proved to hold in the TLS handshake, empty without one.

    Source: ASGI TLS Extension, version 0.2, ``client_cert_chain``.
    """
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
    return ssl.PEM_cert_to_DER_cert(chain[0]) if chain else b""


def _bearer(request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), known.encode())


def _expect_known_query(request: Request) -> None:
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = [parameter.alias for parameter in route.dependant.query_params]
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        wanted_names = f"expected one of {', '.join(known)}" if known else "expected none"
        problems = [{"loc": ("query", name[:_SHOWN]), "msg": f"no such parameter, {wanted_names}"} for name in unknown]
        raise RequestValidationError(problems)
