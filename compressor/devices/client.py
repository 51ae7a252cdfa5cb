"""The build host's requests to the server about measurements: uploads, orders, progress, reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from compressor.devices.connection import Connection
from compressor.errors import DeviceMeasureError
from wire.canonical import sha256_hex
from wire.codec import Json, parse_json
from wire.errors import MessageError
from wire.measurement import MAX_REPORT_BYTES

_NOT_FOUND, _FIRST_ERROR = 404, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Progress of a measurement: ``phase`` is sent, running, done, failed or expired; the failure; the device."""

    phase: str
    code: str
    text: str
    device_state: str
    last_seen_ms: int


@dataclass(frozen=True, slots=True)
class Known:
    """The server's record of a device; ``hardware`` and ``runtimes`` are empty until it has reported."""

    state: str
    hardware: str
    runtimes: tuple[str, ...]


class DeviceClient(Connection):
    """Client of the server's API for measurements."""

    def known(self, device: str) -> Known:
        """Return the server's record of ``device``.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If there is no such device.
        """
        document = self._json(self._ask("GET", f"/api/measurements/devices/{device}"))
        runtimes = document.get("runtimes")
        named = tuple(str(name) for name in runtimes) if isinstance(runtimes, list) else ()
        return Known(str(document.get("state", "")), str(document.get("hardware", "")), named)

    def upload(self, data: bytes) -> None:
        """Upload ``data`` to the server.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If it refused.
        """
        self._ask("PUT", f"/api/measurements/blobs/{sha256_hex(data)}", content=data)

    def order(self, envelope: Mapping[str, Any]) -> None:
        """Submit a signed order.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If it refused.
        """
        self._ask("POST", "/api/measurements", json={"envelope": dict(envelope)})

    def has(self, order: str) -> bool:
        """Return whether the server has the measurement.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If it refused.
        """
        response = self._send("GET", f"/api/measurements/{order}")
        return response.status_code != _NOT_FOUND and bool(_check(response))

    def standing(self, order: str) -> Standing:
        """Return the progress of the measurement.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If it has no such measurement.
        """
        document = self._json(self._ask("GET", f"/api/measurements/{order}"))
        texts = {name: str(document.get(name, "")) for name in ("phase", "code", "text", "device_state")}
        seen_ms = document.get("last_seen_ms")
        return Standing(**texts, last_seen_ms=seen_ms if isinstance(seen_ms, int) else 0)

    def report(self, order: str) -> bytes:
        """Return the device's report, not yet verified.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If there is no report, or it is too long.
        """
        pieces = bytearray()
        try:
            with self._http.stream("GET", f"/api/measurements/{order}/report") as response:
                if response.status_code >= _FIRST_ERROR:
                    response.read()
                _check(response)
                for piece in response.iter_bytes():
                    pieces += piece
                    if len(pieces) > MAX_REPORT_BYTES:
                        message = f"Expected a report of at most {MAX_REPORT_BYTES} bytes, got more"
                        raise DeviceMeasureError(message)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return bytes(pieces)

    def signature(self, order: str) -> bytes:
        """Return the statement by which the device signed its report, not yet verified; empty if there is none.

        Raises:
            ServerUnreachableError: If the server did not answer.
            DeviceMeasureError: If it refused.
        """
        response = self._send("GET", f"/api/measurements/{order}/signature")
        return b"" if response.status_code == _NOT_FOUND else bytes(_check(response).content)

    def drop(self, order: str) -> None:
        """Delete a measurement and its files on the server; an unknown one is not an error.

        Raises:
            ServerUnreachableError: If the server did not answer.
        """
        self._send("DELETE", f"/api/measurements/{order}")

    def _ask(self, method: str, address: str, **body: Any) -> httpx.Response:  # noqa: ANN401 - passed on to httpx
        return _check(self._send(method, address, **body))

    def _json(self, response: httpx.Response) -> dict[str, Json]:
        try:
            return parse_json(response.content)
        except MessageError as error:
            message = f"Expected JSON from {response.request.url.path}, got: {error}"
            raise DeviceMeasureError(message) from error


def _check(response: httpx.Response) -> httpx.Response:
    if response.status_code < _FIRST_ERROR:
        return response
    message = f"Expected {response.request.url.path} to be accepted, got HTTP {response.status_code}"
    if response.status_code == _NOT_FOUND:
        message += " (a device is enrolled with fleet-server claim and edge-agent enrol)"
    raise DeviceMeasureError(f"{message}: {response.text[:300]}")
