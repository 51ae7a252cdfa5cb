"""schemathesis, the field's fuzzer of described interfaces, finds no fault of ours and no answer that isn't described.

For each operation of /api/openapi.json it makes requests that fit the description and requests that don't.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.access.roles import Need
from server.access.tokens import TokenOrder
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.trust.online_keys import init_online_keys
from wire.memory_broker import MemoryBroker, MemoryTransport

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance, allow_header_conformance,
]  # fmt: skip
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)


@dataclass(frozen=True)
class Interface:
    """The interface as a server with two devices describes it, and who calls: by what an operation needs."""

    schema: schemathesis.schemas.BaseSchema
    admin: str
    builder: str
    device: str

    def caller(self, need: str) -> dict[str, str]:
        """Return the header of one who may do what needs ``need``."""
        if need in {Need.DEVICE.value, Need.CERTIFIED_DEVICE.value}:
            return {"Authorization": f"Basic {base64.b64encode(self.device.encode()).decode()}"}
        return {"Authorization": f"Bearer {self.builder if need == Need.BUILD.value else self.admin}"}


@pytest.fixture(scope="module")
def interface(tmp_path_factory: pytest.TempPathFactory) -> Interface:
    """A server whose devices sent nothing yet."""
    state = init_state(tmp_path_factory.mktemp("schema") / "state")
    init_online_keys(state.path)
    transport = MemoryTransport(broker=MemoryBroker(), client_id="server")
    app = ServerApp.open(state.path, transport=transport, pages=False)
    app.connect()
    enrolment = app.parts.enrolment
    first, _ = (enrolment.enrol(enrolment.claim("north", device, {})) for device in ("cam-1", "cam-2"))
    return Interface(
        schema=schemathesis.openapi.from_asgi("/api/openapi.json", app.web.api),
        admin=app.parts.tokens.issue(TokenOrder(name="fuzzer", role="admin"), by="test")[1],
        builder=state.token("builder"),
        device=f"{first.device}:{first.password}",
    )


def _asks(caller: dict[str, str]) -> Callable[..., None]:
    def ask(case: schemathesis.Case) -> None:
        case.validate_response(case.call(headers=caller), checks=CHECKS)

    return ask


def faults(interface: Interface, chosen: settings) -> dict[str, str]:
    """Return what is wrong with each operation of which something is, by method and path."""
    found: dict[str, str] = {}
    for operation in (result.ok() for result in interface.schema.get_all_operations()):
        cases = one_of([operation.as_strategy(generation_mode=mode) for mode in MODES])
        try:
            chosen(given(case=cases)(_asks(interface.caller(operation.definition.raw["x-needs"]))))()
        except (AssertionError, BaseExceptionGroup) as error:
            found[operation.label] = str(error)
    return found


def test_each_operation_answers_as_it_is_described(interface: Interface) -> None:
    """A few requests for each, the same each time."""
    phases = [Phase.explicit, Phase.generate]
    assert faults(interface, settings(max_examples=4, phases=phases, derandomize=True, **QUIET)) == {}


@pytest.mark.nightly
def test_each_operation_answers_as_it_is_described_all_night(interface: Interface) -> None:
    """Many, and other ones each time."""
    assert faults(interface, settings(max_examples=150, **QUIET)) == {}
