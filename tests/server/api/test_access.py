"""The form of errors, and what anybody may call; ``test_roles.py`` has who may call what."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


def _basic(device: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{device}:{password}".encode()).decode()}


def test_a_device_fetches_blobs_with_its_password_alone(fleet: MemoryFleet) -> None:
    """Another device's password, a wrong one and broken base64 are refused."""
    device = fleet.enrol()
    url, client = "/blobs/" + "0" * 64, fleet.client(None)
    answer = client.get(url, headers=_basic("cam-1", device.identity.password))
    assert (answer.status_code, answer.json()["code"]) == (403, "not_assigned")
    for headers in (_basic("cam-2", device.identity.password), _basic("cam-1", "x"), {"Authorization": "Basic %%%"}):
        assert client.get(url, headers=headers).status_code == 401


def test_every_error_has_code_and_text(fleet: MemoryFleet) -> None:
    """Unknown paths, wrong bodies, unknown things."""
    client = fleet.client()
    for answer, code in (
        (client.get("/api/nothing"), "http_404"),
        (client.post("/api/claims", json={"site": 1}), "request_invalid"),
        (client.post("/api/claims", json={"site": "Ü", "device": "a"}), "name_refused"),
        (client.get("/api/devices/nobody"), "unknown_device"),
        (client.get("/api/events?limit=x"), "request_invalid"),
    ):
        assert answer.json()["code"] == code
        assert answer.json()["text"]


@pytest.mark.parametrize(("path", "text"), [
    ("/api/samples?site=cam-1", "query.site: no such parameter, expected one of unlabelled, limit, after"),
    ("/api/commissions?site=cam-1", "query.site: no such parameter, expected one of device, limit, cursor"),
    ("/api/audit?device=cam-1", "query.device: no such parameter, expected none"),
    ("/api/verdicts?limit=1&al=1", "query.al: no such parameter, expected one of "),
])  # fmt: skip
def test_a_filter_that_a_list_does_not_know_is_refused(fleet: MemoryFleet, path: str, text: str) -> None:
    """It would answer with all rows, as if they were those of the device."""
    refused = fleet.client().get(path)
    assert (refused.status_code, refused.json()["code"], text in refused.json()["text"]) == (
        422, "request_invalid", True
    )  # fmt: skip
    assert fleet.client(None).get(path).status_code == 401


def test_health_is_for_anybody(fleet: MemoryFleet) -> None:
    """No secrets in it."""
    assert fleet.client(None).get("/api/health").json()["ok"] is True


def test_the_interface_describes_itself(fleet: MemoryFleet) -> None:
    """OpenAPI, for authors of clients."""
    assert "/api/devices" in fleet.client(None).get("/api/openapi.json").json()["paths"]


def test_the_page_of_the_interface_fetches_nothing(fleet: MemoryFleet) -> None:
    """Every call is listed, and a browser without a network shows it all."""
    answer = fleet.client(None).get("/api/docs")
    paths = fleet.client(None).get("/api/openapi.json").json()["paths"]
    assert all(path in answer.text for path in paths)
    assert "RolloutRequest" in answer.text
    assert not any(tag in answer.text for tag in ("<script", "http://", "https://", "//cdn"))
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
