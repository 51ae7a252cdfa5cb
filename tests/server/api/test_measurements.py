"""Measurements over HTTP: who may order, fetch and submit, and which reports are accepted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from compressor.devices.bench import Subject, make_order, sign_order
from compressor.release.keys import init_keys
from server.fleet.measurements import KEEP_MS
from wire.canonical import sha256_hex
from wire.codec import decode
from wire.measurement import MeasureOrder, blank_report, encode_report
from wire.messages import Command, Response

if TYPE_CHECKING:
    from tests.server.conftest import FakeDevice, MemoryFleet

SUBJECT = Subject(artifact_sha256="ab" * 32, bundle=b"a bundle", rows=b"rows", n=2)
LOGITS = struct.pack("<6f", *range(6))


@dataclass
class Scene:
    """A build host with keys, a server with their root, and the device cam-1."""

    fleet: MemoryFleet
    keys: Path
    device: FakeDevice
    order: MeasureOrder

    def ask(self, method: str, path: str, role: str | None = "builder", **body: Any) -> Any:  # noqa: ANN401 - an answer
        """Return the answer to a request below ``/api/measurements``."""
        return self.fleet.client(role).request(method, f"/api/measurements{path}", **body)

    def send(self, order: MeasureOrder | None = None) -> Any:  # noqa: ANN401 - an answer
        """Upload the bytes and order."""
        for data in (SUBJECT.bundle, SUBJECT.rows):
            self.ask("PUT", f"/blobs/{sha256_hex(data)}", content=data)
        return self.ask("POST", "", json={"envelope": sign_order(order or self.order, self.keys)})

    def as_device(self, method: str, path: str, who: FakeDevice | None = None, **body: Any) -> Any:  # noqa: ANN401 - the same
        """Return the answer to a request of a device with its password."""
        identity = (who or self.device).identity
        auth = (identity.device, identity.password)
        return self.fleet.client(None).request(method, f"/api/measurements/{self.order.order}{path}", auth=auth, **body)

    def phase(self) -> str:
        """Return how far it is."""
        return str(self.ask("GET", f"/{self.order.order}").json()["phase"])

    def report(self, **change: object) -> bytes:
        """Return a report on the order."""
        return encode_report(replace(blank_report(self.order), classes=3, **change), LOGITS)  # type: ignore[arg-type]


@pytest.fixture
def scene(fleet: MemoryFleet, tmp_path: Path) -> Scene:
    """A fleet with a real root."""
    root = init_keys(tmp_path / "keys", fleet.state.path / "online.pub.json")
    (fleet.state.tuf / "1.root.json").write_bytes(root.read_bytes())
    order = make_order(SUBJECT, "cam-1", now_ms=fleet.clock(), holds_s=60.0)
    return Scene(fleet, tmp_path / "keys", fleet.enrol("cam-1"), order)


def test_an_order_reaches_its_device_and_its_report_comes_back(scene: Scene) -> None:
    """Sent, running, done; the envelope is the signed one."""
    assert scene.send().status_code == 202
    command = decode(Command, scene.device.heard[-1].payload)
    assert command.arguments["order"] == sign_order(scene.order, scene.keys)
    assert scene.phase() == "sent"
    got = scene.as_device("GET", f"/blobs/{sha256_hex(SUBJECT.bundle)}")
    assert (got.content, scene.phase()) == (SUBJECT.bundle, "running")
    assert scene.as_device("PUT", "/report", content=scene.report()).status_code == 201
    assert scene.phase() == "done"
    assert scene.ask("GET", f"/{scene.order.order}/report").content == scene.report()


def test_only_the_named_device_gets_the_bytes_and_hands_in(scene: Scene) -> None:
    """Rows are training data: no other device sees them, and none answers for cam-1."""
    scene.send()
    other = scene.fleet.enrol("cam-2")
    for method, path, body in (
        ("GET", f"/blobs/{sha256_hex(SUBJECT.rows)}", {}),
        ("PUT", "/report", {"content": b"x"}),
    ):
        assert scene.as_device(method, path, other, **body).json()["code"] == "not_the_device"
        assert scene.ask(method, f"/{scene.order.order}{path}", role="builder", **body).status_code == 401
    assert scene.phase() == "sent"


def test_only_build_hosts_order(scene: Scene) -> None:
    """Neither an operator nor a device."""
    body = {"envelope": sign_order(scene.order, scene.keys)}
    assert scene.ask("POST", "", role="operator", json=body).status_code == 403
    assert scene.ask("POST", "", role=None, json=body).status_code == 401
    assert scene.ask("GET", f"/{scene.order.order}", role=None).status_code == 401


@pytest.mark.parametrize(
    "change",
    [{"device": "cam-2"}, {"order": "00" * 16}, {"artifact_sha256": "cd" * 32}, {"rows_sha256": "cd" * 32}],
    ids=str,
)
def test_a_report_of_something_else_is_refused(scene: Scene, change: dict[str, object]) -> None:
    """Another device, order, artifact or rows: nothing is stored."""
    scene.send()
    answer = scene.as_device("PUT", "/report", content=scene.report(**change))
    assert (answer.status_code, answer.json()["code"]) == (422, "measurement_refused")
    assert scene.phase() == "sent"


def test_a_report_is_never_replaced(scene: Scene) -> None:
    """Sending the same report again is accepted, another one is not."""
    scene.send()
    assert scene.as_device("PUT", "/report", content=scene.report()).status_code == 201
    assert scene.as_device("PUT", "/report", content=scene.report()).status_code == 201
    assert scene.as_device("PUT", "/report", content=scene.report(latency_p95_ms=0.1)).status_code == 422


def test_a_refusal_of_the_device_is_passed_on(scene: Scene) -> None:
    """The build host gets its code and text."""
    scene.send()
    command = decode(Command, scene.device.heard[-1].payload)
    scene.device.say("res", Response(id=command.id, ok=False, code="throttled", text="hot"))
    scene.fleet.turn()
    found = scene.ask("GET", f"/{scene.order.order}").json()
    assert (found["phase"], found["code"], found["text"]) == ("failed", "throttled", "hot")


def test_silence_is_told(scene: Scene) -> None:
    """At its expiry an order without an answer is reported, and a day later all of it is deleted."""
    scene.send()
    scene.fleet.clock.now_ms += 61_000
    assert scene.phase() == "expired"
    scene.fleet.clock.now_ms += KEEP_MS
    scene.fleet.turn()
    assert scene.ask("GET", f"/{scene.order.order}").status_code == 404


def test_an_order_whose_command_a_restored_database_lacks_is_still_told(scene: Scene) -> None:
    """Folders are copied after the database, so a command may be in the one and not in the other."""
    scene.send()
    command = next(scene.fleet.app.parts.measurements.folder.glob("*/command"))
    command.write_text("another")
    assert scene.phase() == "sent"


Change = Callable[[Scene], object]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda s: replace(s.order, device="cam-9"), 404, "unknown_device"),
        (lambda s: replace(s.order, issued_ms=1, expires_ms=2), 422, "measurement_refused"),
        (lambda s: replace(s.order, rows_sha256="cd" * 32), 422, "measurement_refused"),
        (lambda s: replace(s.order, bundle_length_bytes=9), 422, "measurement_refused"),
    ],
    ids=["device", "expired", "rows", "length"],
)
def test_an_order_that_no_device_could_obey_is_refused(
    scene: Scene, change: Callable[[Scene], MeasureOrder], status: int, code: str
) -> None:
    """Before anybody is disturbed."""
    answer = scene.send(change(scene))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert [item for item in scene.device.heard if item.topic.endswith("/cmd/measure")] == []


def test_an_order_that_our_key_did_not_sign_is_refused(scene: Scene, tmp_path: Path) -> None:
    """The server asks the signature too; so does every device."""
    init_keys(tmp_path / "strange", scene.fleet.state.path / "online.pub.json")
    scene.send(replace(scene.order, order="00" * 16))
    answer = scene.ask("POST", "", json={"envelope": sign_order(scene.order, tmp_path / "strange")})
    assert (answer.status_code, answer.json()["code"]) == (422, "metadata_refused")
    assert scene.send().status_code == 202
    assert scene.send().json()["code"] == "measurement_refused"


def test_a_dropped_measurement_leaves_nothing(scene: Scene) -> None:
    """Bytes that another order needs stay."""
    scene.send()
    scene.send(replace(scene.order, order="00" * 16))
    blobs = scene.fleet.state.measurements / "sha256"
    assert scene.ask("DELETE", f"/{scene.order.order}").status_code == 204
    assert len(list(blobs.iterdir())) == 2
    assert scene.ask("DELETE", f"/{'00' * 16}").status_code == 204
    assert list(blobs.iterdir()) == []


def test_bytes_to_measure_are_no_release(scene: Scene) -> None:
    """They are stored separately: signed targets can't name them, and /blobs does not serve them."""
    scene.send()
    assert scene.fleet.client("builder").get(f"/blobs/{sha256_hex(SUBJECT.bundle)}").status_code == 404
    assert not scene.fleet.app.parts.versions.blobs.has(sha256_hex(SUBJECT.bundle))


def test_a_device_can_be_asked_for_before_training(scene: Scene) -> None:
    """A build host learns of a wrong name at once."""
    assert scene.ask("GET", "/devices/cam-1").json()["device"] == "cam-1"
    assert scene.ask("GET", "/devices/cam-9").status_code == 404


@pytest.mark.parametrize("order", ["..", "x" * 32, "0" * 32, "%2e%2e%2fkeys"])
def test_an_id_leads_nowhere_else(scene: Scene, order: str) -> None:
    """No path is made from a request."""
    assert scene.ask("GET", f"/{order}/report").status_code == 404
