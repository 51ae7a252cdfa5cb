"""Every operation of the OpenAPI document with every kind of caller: who is let in is a table, and it is complete."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from server.access.passwords import Passwords
from server.access.roles import PEOPLES, Need, Role
from server.access.tokens import TokenOrder, Tokens
from server.access.users import Users
from server.api.describe import complete
from server.api.failures import PROBLEM
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.clock import system_now_ms
from server.errors import ServerError
from wire.memory_broker import MemoryBroker, MemoryTransport

TABLE: Mapping[Need, str] = {
    Need.ANYBODY: """
        GET /api/enrol, GET /api/health, GET /api/ready, GET /tuf/{name}, POST /api/enrol
    """,
    Need.VIEW: """
        GET /api/alerts, GET /api/alerts/routes, GET /api/alerts/{alert}, GET /api/alerts/{alert}/picture,
        GET /api/audit, GET /api/commissions, GET /api/devices, GET /api/devices/{device},
        GET /api/devices/{device}/commands/{command_id}, GET /api/devices/{device}/history,
        GET /api/devices/{device}/ran,
        GET /api/devices/{device}/telemetry, GET /api/devices/{device}/usage, GET /api/drift/map, GET /api/events,
        GET /api/evidence,
        GET /api/jobs, GET /api/labels/export, GET /api/labels/review,
        GET /api/lineage, GET /api/lineage/devices, GET /api/lineage/samples,
        GET /api/software, GET /api/software/devices, GET /api/devices/{device}/software,
        GET /api/devices/{device}/software/runs,
        GET /api/overall, GET /api/overall/{signal}, GET /api/places, GET /api/pools,
        GET /api/releases/{name},
        GET /api/retraining, GET /api/rollouts,
        GET /api/rollouts/{rollout}, GET /api/rollouts/{rollout}/foresight,
        GET /api/rollouts/{rollout}/members, GET /api/verdicts/{verdict}/replay, GET /api/samples,
        GET /api/samples/{sample}/changes, GET /api/samples/{sample}/image, GET /api/search, GET /api/verdicts,
        GET /metrics
    """,
    Need.LABEL: """
        POST /api/labels/import, POST /api/samples/{sample}/take-back, PUT /api/samples/{sample}/label,
        PUT /api/samples/{sample}/mark
    """,
    Need.OPERATE: """
        POST /api/alerts/{alert}/acknowledge, POST /api/alerts/{alert}/note, POST /api/alerts/{alert}/resolve,
        POST /api/alerts/{alert}/snooze, POST /api/alerts/{alert}/take,
        POST /api/audit/{device}, POST /api/claims, POST /api/commissions, POST /api/devices/{device}/commands,
        POST /api/devices/{device}/commission, POST /api/devices/{device}/mute, POST /api/devices/{device}/remove,
        POST /api/devices/{device}/retire, POST /api/devices/{device}/revoke, POST /api/devices/{device}/unmute,
        POST /api/devices/{device}/tags, POST /api/devices/{device}/title,
        POST /api/places/{device}/accept, POST /api/places/{device}/withdraw, POST /api/releases/{name}/withdraw,
        POST /api/retraining/{trigger}/withdraw, POST /api/rollouts, POST /api/rollouts/{rollout}/abort,
        POST /api/rollouts/{rollout}/pause
    """,
    Need.APPROVE: """
        POST /api/retraining/{trigger}/approve, POST /api/rollouts/{rollout}/approve,
        POST /api/rollouts/{rollout}/resume, POST /api/rollouts/{rollout}/skip, POST /api/verdicts/{verdict}/dismiss
    """,
    Need.ADMINISTER: """
        GET /api/acts, GET /api/tokens, GET /api/users, POST /api/tokens, POST /api/tokens/{token}/revoke,
        POST /api/users, POST /api/users/{name}/disable, POST /api/users/{name}/enable,
        POST /api/users/{name}/log-out, POST /api/users/{name}/password, POST /api/users/{name}/role
    """,
    Need.BUILD: """
        DELETE /api/measurements/{order}, GET /api/jobs/{job}/samples.zip, GET /api/measurements/devices/{device},
        GET /api/measurements/{order}, GET /api/measurements/{order}/report, GET /api/measurements/{order}/signature,
        GET /api/tuf/targets, POST /api/jobs/lease, POST /api/jobs/{job}/done, POST /api/jobs/{job}/failed,
        POST /api/jobs/{job}/heartbeat, POST /api/measurements, POST /api/tuf/targets, PUT /api/blobs/{sha256},
        PUT /api/measurements/blobs/{sha256}
    """,
    Need.VIEW_OR_BUILD: """
        GET /api/me, GET /api/releases
    """,
    Need.DEVICE: """
        GET /api/measurements/{order}/blobs/{sha256}, PUT /api/measurements/{order}/report
    """,
    Need.CERTIFIED_DEVICE: """
        POST /api/enrol/renew
    """,
    Need.DEVICE_OR_STAFF: """
        GET /blobs/{sha256}
    """,
}
"""What each operation needs. A new operation fails the tests until it stands here: decide who may call it."""
PEOPLE_WITH: Mapping[Need, frozenset[str]] = {
    Need.VIEW: frozenset(PEOPLES),
    Need.LABEL: frozenset(PEOPLES[1:]),
    Need.OPERATE: frozenset(PEOPLES[2:]),
    Need.APPROVE: frozenset(PEOPLES[3:]),
    Need.ADMINISTER: frozenset(PEOPLES[4:]),
    Need.BUILD: frozenset({"builder", "builder.token"}),
    Need.VIEW_OR_BUILD: frozenset({*PEOPLES, "builder", "builder.token"}),
    Need.DEVICE: frozenset({"device"}),
    Need.CERTIFIED_DEVICE: frozenset(),
    Need.DEVICE_OR_STAFF: frozenset({*PEOPLES, "builder", "builder.token", "device"}),
}
FILE_TOKEN_MAY = (Need.VIEW, Need.LABEL, Need.OPERATE, Need.APPROVE, Need.VIEW_OR_BUILD, Need.DEVICE_OR_STAFF)
READS = (Need.VIEW, Need.VIEW_OR_BUILD, Need.DEVICE_OR_STAFF)
PASSWORD = "a long enough password"


@dataclass(frozen=True)
class Callers:
    """A server, and the header of each kind of caller."""

    app: ServerApp
    headers: dict[str, dict[str, str]] = field(default_factory=dict)

    def answer(self, who: str, operation: str) -> str:
        """Return ``in`` or why the caller was refused; the names in the path name nothing."""
        method, _, path = operation.partition(" ")
        for name in path.split("{")[1:]:
            path = path.replace("{" + name.partition("}")[0] + "}", "1")
        answer = TestClient(self.app.web.api).request(method, path, headers=self.headers[who])
        code = str(answer.json()["code"]) if answer.headers.get("content-type") == PROBLEM else ""
        refused = {"unauthorized": 401, "forbidden": 403}
        assert refused.get(code, 0) in (0, answer.status_code)
        return code if code in refused else "in"


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    """A server with a token of each role, a user, a device, and the tokens of its files."""
    state = init_state(tmp_path_factory.mktemp("roles") / "state")
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"), pages=False)
    database = app.parts.database
    users = Users(database=database, passwords=Passwords(memory_kib=64, passes=1), clock=system_now_ms)
    tokens = Tokens(database=database, users=users, clock=system_now_ms)
    found = Callers(app)
    for role in Role:
        found.headers[role] = _bearer(tokens.issue(TokenOrder(name=f"of-{role}", role=role), by="test")[1])
    users.add("ada", "admin", PASSWORD, by="test")
    reader = TokenOrder(name="reader", role="admin", owner="ada", read_only=True)
    found.headers["read-only admin"] = _bearer(tokens.issue(reader, by="test")[1])
    revoked, secret = tokens.issue(TokenOrder(name="old", role="admin"), by="test")
    tokens.revoke(revoked.id, by="test")
    identity = app.parts.enrolment.enrol(app.parts.enrolment.claim("north", "cam-1", {}))
    basic = base64.b64encode(f"{identity.device}:{identity.password}".encode()).decode()
    found.headers.update({
        "anonymous": {}, "revoked": _bearer(secret), "wrong": _bearer("tft_" + "x" * 43),
        "device": {"Authorization": f"Basic {basic}"},
        "operator.token": _bearer(state.token("operator")), "builder.token": _bearer(state.token("builder")),
    })  # fmt: skip
    yield found
    app.stop()


def _operations() -> list[tuple[str, Need]]:
    return [(one.strip(), need) for need, text in TABLE.items() for one in text.split(",")]


def expected(who: str, operation: str, need: Need) -> str:
    """Return what the table says of a caller and an operation."""
    if need is Need.ANYBODY:
        return "in"
    if who in {"anonymous", "revoked", "wrong", "device"} or need in {Need.DEVICE, Need.CERTIFIED_DEVICE}:
        return "in" if who in PEOPLE_WITH[need] else "unauthorized"
    if who == "operator.token":
        return "in" if need in FILE_TOKEN_MAY else "forbidden"
    if who == "read-only admin":
        reads = need in READS or (need is Need.ADMINISTER and operation.startswith("GET"))
        return "in" if reads else "forbidden"
    return "in" if who in PEOPLE_WITH[need] else "forbidden"


def test_the_table_has_every_operation_of_the_document(callers: Callers) -> None:
    """Each with the need that its route declares."""
    paths = callers.app.web.api.openapi()["paths"]
    declared = {
        f"{verb.upper()} {path}": one["x-needs"] for path, calls in paths.items() for verb, one in calls.items()
    }
    assert declared == {operation: need.value for operation, need in _operations()}


@pytest.mark.parametrize(("operation", "need"), _operations())
def test_every_caller_gets_in_where_the_table_says_so(callers: Callers, operation: str, need: Need) -> None:
    """With and without an account, of every role, by file, revoked, read only, and a device."""
    found = {who: callers.answer(who, operation) for who in callers.headers}
    assert found == {who: expected(who, operation, need) for who in callers.headers}


def test_only_an_approver_creates_a_rollout_that_runs_at_once(callers: Callers) -> None:
    """Otherwise an operator would approve it that way."""
    client, body = TestClient(callers.app.web.api), {"release": "m-1", "approved": True}
    answers = [client.post("/api/rollouts", json=body, headers=callers.headers[who]).json()["code"]
               for who in ("operator", "approver")]  # fmt: skip
    assert answers == ["forbidden", "unknown_release"]


def test_a_route_that_declares_nothing_stops_the_server(callers: Callers) -> None:
    """An omission must not open a route to anybody."""
    api = callers.app.web.api

    @api.get("/api/forgotten")
    def forgotten() -> None:
        """Nobody said who may call it."""

    try:
        with pytest.raises(ServerError, match="Expected a need among the dependencies of /api/forgotten, got none"):
            complete(api)
    finally:
        api.router.routes.pop()


def test_a_person_signs_with_the_own_name_alone(callers: Callers, tmp_path: Path) -> None:
    """A program says for whom it acts; a person can't act as another."""
    del tmp_path
    client = TestClient(callers.app.web.api)
    ada = Tokens(database=callers.app.parts.database, users=callers.app.parts.users, clock=system_now_ms)
    token = ada.issue(TokenOrder(name="of-ada", role="operator", owner="ada"), by="test")[1]
    url, bob = "/api/devices/cam-1/revoke", {"by": "bob", "why": "stolen"}
    refused = client.post(url, json=bob, headers=_bearer(token))
    assert (refused.status_code, "got 'bob'" in refused.json()["text"]) == (403, True)
    assert client.post(url, json=bob, headers=callers.headers["operator"]).status_code == 200
    newest = callers.app.parts.acts.latest(1)[0]
    assert (newest.act, newest.account, newest.said, newest.subject) == ("device.revoke", "of-operator", "bob", "cam-1")
