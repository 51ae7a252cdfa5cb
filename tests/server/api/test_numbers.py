"""Numbers that no database holds are a caller's mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

CALLS = [
    ("GET", "/api/events?after={}"), ("GET", "/api/samples/{}/image"), ("PUT", "/api/samples/{}/label"),
    ("GET", "/api/devices/cam-1/ran?at_ms={}"), ("POST", "/api/retraining/{}/approve"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("number", [10**23, 2**63, -1])
def test_refuses_a_number_beyond_the_store(fleet: MemoryFleet, method: str, path: str, number: int) -> None:
    """The answer is coded and names the field; nothing fails inside."""
    fleet.enrol()
    body = {"label": "a", "by": "b"} if method == "PUT" else None
    answer = fleet.client().request(method, path.format(number), json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
