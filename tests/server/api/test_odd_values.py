"""Whatever number or text a caller puts where the interface takes one, the answer is about the caller: never a 5xx."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from wire.canonical import sha256_hex
from wire.messages import DeviceState, State
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

ODD = [
    "0", "-1", "1", "5e-324", "1e-9", "1e308", "-1e308", "NaN", "Infinity", "-Infinity", str(10**20),
    str(-(10**20)), str(2**63),
    "1e400", "true", "null", '""', '"x"', '"\\u0000"', '"\\ud800"', '"9999999999999999999999"', "[]", "{}", "[[1e308]]",
    "9" * 5000,
]  # fmt: skip
KNOWN = {
    "device": "cam-1", "site": "berlin", "release": "m-1", "name": "m-1", "verb": "ping", "rollout": "r", "label": "a",
    "stream": "infer", "group": "canary", "how": "retry", "by": "anna", "worker": "w",
}  # fmt: skip


@pytest.fixture
def client(fleet: MemoryFleet) -> TestClient:
    """Return a client of a server with one device that has reported and one release; faults become answers."""
    fleet.enrol().say("state", State(state=DeviceState.READY), retain=True)
    data, versions = b"bundle", fleet.app.parts.versions
    versions.blobs.put(sha256_hex(data), [data])
    path = target_path("m", 1, "g")
    versions.register(
        path, TargetCustom(model="m", version=1, target="g"), sha256=sha256_hex(data), length_bytes=6, now_ms=1
    )
    fleet.turn()
    headers = {"Authorization": f"Bearer {fleet.state.token('operator')}"}
    return TestClient(fleet.app.web.api, headers=headers, raise_server_exceptions=False)


class Interface:
    """The interface as it describes itself."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Keep the description."""
        self.document = document

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield method, path and description of every operation."""
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a schema with its reference followed, the first of several kinds taken."""
        while "$ref" in schema or "anyOf" in schema:
            options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
            schema = options[0] if "$ref" not in options[0] else self.named(options[0]["$ref"])
        return schema

    def named(self, reference: str) -> dict[str, Any]:
        """Return a schema by its reference."""
        return dict(self.document["components"]["schemas"][reference.rpartition("/")[2]])

    def sound(self, name: str, schema: dict[str, Any], *, full: bool = True) -> object:
        """Return a value that the schema allows, with all of its fields or only the required ones."""
        schema = self.resolved(schema)
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "object":
                wanted = schema.get("properties", {}) if full else schema.get("required", [])
                return {key: self.sound(key, schema["properties"][key]) for key in wanted}
            case "array":
                return []
            case "integer" | "number":
                return max(1, schema.get("minimum", 1)) if "maximum" not in schema else schema["maximum"]
            case "boolean":
                return False
        return KNOWN.get(name, "a")


def places(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every field in a body."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield (*path, key)
            yield from places(one, (*path, key))


def put(body: object, path: tuple[str, ...], odd: str) -> bytes:
    """Return the body as JSON with ``odd`` at ``path``, literally, even if no JSON writer would write it."""
    changed = copy.deepcopy(body)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "@ODD@"
    return json.dumps(changed).replace('"@ODD@"', odd).encode()


@pytest.mark.slow
def test_no_odd_value_in_a_body_is_our_fault(client: TestClient) -> None:
    """Every field of every body, with everything that people and programs have sent to an API."""
    interface = Interface(client.get("/api/openapi.json").json())
    faults, tried = [], 0
    for method, path, operation in interface.operations():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        url = path.format(**{name: KNOWN.get(name, "1") for name in _names(operation)})
        full, least = (interface.sound("", content["schema"], full=full) for full in (True, False))
        cases = [(full, place) for place in places(full)] + [(least, (name,)) for name in dict(full)]
        for body, place in cases:
            for odd in ODD:
                answer = client.request(
                    method, url, content=put(body, place, odd), headers={"content-type": "application/json"}
                )
                tried += 1
                if answer.status_code >= 500:
                    faults.append((method, url, place, odd[:30], answer.status_code))
    assert faults == []
    assert tried > 500


def _names(operation: dict[str, Any], where: str = "path") -> list[str]:
    return [one["name"] for one in operation.get("parameters", []) if one["in"] == where]


@pytest.mark.slow
def test_no_odd_value_in_a_path_or_query_is_our_fault(client: TestClient) -> None:
    """Every parameter of every operation without a body; the error for a number says that it must be one."""
    interface = Interface(client.get("/api/openapi.json").json())
    faults, tried = [], 0
    for method, path, operation in interface.operations():
        for odd in ODD:
            text = odd.strip('"').replace("\\u0000", "%00").replace("\\ud800", "%ED%A0%80")[:200] or "%20"
            for name in _names(operation):
                others = {other: KNOWN.get(other, "1") for other in _names(operation)}
                answer = client.request(method, path.format(**{**others, name: text}))
                tried += 1
                if answer.status_code >= 500:
                    faults.append((method, path, name, text[:30], answer.status_code))
            for name in _names(operation, "query"):
                url = path.format(**{other: KNOWN.get(other, "1") for other in _names(operation)})
                answer = client.request(method, f"{url}?{name}={text}")
                tried += 1
                if answer.status_code >= 500:
                    faults.append((method, url, name, text[:30], answer.status_code))
    assert faults == []
    assert tried > 500


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/rollouts", {"release": "m-1", "success_ration": 0.5}),
        ("/api/claims", {"site": "berlin", "device": "cam-2", "attribute": {}}),
        ("/api/devices/cam-1/commands", {"verb": "ping", "ttl": 5}),
        ("/api/devices/cam-1/revoke", {"reason": "stolen"}),
        ("/api/releases/m-1/withdraw", {"reason": "bad"}),
    ],
)
def test_a_key_that_is_not_known_is_refused(client: TestClient, path: str, body: dict[str, object]) -> None:
    """A misspelt key does not mean the default: it is named, and nothing is done."""
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert f"body.{list(body)[-1]}: Extra inputs are not permitted" in answer.json()["text"]
