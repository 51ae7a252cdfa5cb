"""Authenticates callers: an operator or build host by bearer token, a device by its own certificate or password.

Every method is a FastAPI dependency: ``Depends(auth.operator)``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ssl
from dataclasses import dataclass

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from server.errors import UnauthorizedError
from server.fleet.certificates import Certificates
from server.fleet.enrolment import Enrolment

_SHOWN = 100  # characters of an unknown name


@dataclass(frozen=True, eq=False, kw_only=True)
class Auth:
    """The tokens of this server, and the certificates and passwords of its devices."""

    operator_token: str
    builder_token: str
    enrolment: Enrolment
    certificates: Certificates

    def operator(self, request: Request) -> None:
        """Check that the caller is an operator, and that the route knows each parameter of the query.

        Raises:
            UnauthorizedError: If it is not.
            RequestValidationError: If the query has another one: a filter that is ignored answers with all rows.
        """
        _require(self._bears(request, self.operator_token), "the operator's token")
        _expect_known_query(request)

    def builder(self, request: Request) -> None:
        """Check that the caller is a build host.

        Raises:
            UnauthorizedError: If it is not.
        """
        _require(self._bears(request, self.builder_token), "the builder's token")

    def operator_or_builder(self, request: Request) -> None:
        """Check that the caller is an operator or a build host.

        Raises:
            UnauthorizedError: If it is neither.
        """
        _require(self._staff(request), "the operator's or the builder's token")

    def device_or_staff(self, request: Request) -> str:
        """Return the id of the calling device, "" for an operator or a build host.

        Raises:
            UnauthorizedError: If it is none of them.
        """
        device = self._device(request)
        _require(bool(device) or self._staff(request), "a device's password or a token")
        return device

    def device(self, request: Request) -> str:
        """Return the id of the calling device.

        Raises:
            UnauthorizedError: If its certificate is revoked or unknown, or its password is wrong.
        """
        device = self._device(request)
        _require(bool(device), "a device id and its password")
        return device

    def certified_device(self, request: Request) -> str:
        """Return the id of the calling device, which has a certificate.

        Raises:
            UnauthorizedError: If it has none, or one that is revoked or unknown.
        """
        device = self._holder(request)
        if not device:
            message = "Expected a certificate of a device of this fleet, got none or a revoked one"
            raise UnauthorizedError(f"{message}: enrol the device again with a new claim")
        return device

    def is_operator(self, token: str) -> bool:
        """Return whether ``token`` is the operator's, in constant time (for the dashboard's own login)."""
        return hmac.compare_digest(token.encode(), self.operator_token.encode())

    def _staff(self, request: Request) -> bool:
        return self._bears(request, self.operator_token) or self._bears(request, self.builder_token)

    def _bears(self, request: Request, token: str) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())

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


def peer_certificate(request: Request) -> bytes:
    """Return the certificate (DER) that the caller proved to hold in the TLS handshake, empty without one.

    Source: ASGI TLS Extension, version 0.2, ``client_cert_chain``.
    """
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
    return ssl.PEM_cert_to_DER_cert(chain[0]) if chain else b""


def _require(allowed: bool, what: str) -> None:  # noqa: FBT001 - the condition is the subject
    if not allowed:
        message = f"Expected {what} in the Authorization header, got none or a wrong one"
        raise UnauthorizedError(message)


def _expect_known_query(request: Request) -> None:
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = [parameter.alias for parameter in route.dependant.query_params]
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        wanted = f"expected one of {', '.join(known)}" if known else "expected none"
        problems = [{"loc": ("query", name[:_SHOWN]), "msg": f"no such parameter, {wanted}"} for name in unknown]
        raise RequestValidationError(problems)
