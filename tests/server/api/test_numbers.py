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


@pytest.mark.parametrize("field", ["probation_s", "deadline_s", "success_ratio", "error_ratio", "defect_ratio"])
@pytest.mark.parametrize("number", ["1e300", "-1.0", "NaN", "Infinity"])
def test_a_number_of_a_rollout_is_bounded(fleet: MemoryFleet, field: str, number: str) -> None:
    """The answer names the field, the expectation and the value."""
    body = f'{{"release": "m-1", "{field}": {number}}}'
    answer = fleet.client().post("/api/rollouts", content=body, headers={"content-type": "application/json"})
    shown = repr(float(number))
    assert (answer.status_code, f"body.{field}: " in answer.json()["text"]) == (422, True)
    assert answer.json()["text"].endswith(f", got {shown}")


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("number", [10**23, 2**63, -1])
def test_refuses_a_number_beyond_the_store(fleet: MemoryFleet, method: str, path: str, number: int) -> None:
    """The answer is coded and names the field; nothing fails inside."""
    fleet.enrol()
    body = {"label": "a", "by": "b"} if method == "PUT" else None
    answer = fleet.client().request(method, path.format(number), json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
