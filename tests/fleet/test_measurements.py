"""Measurements on a device through its agent: real mosquitto, server, agent and bundle. Nothing is installed by one."""

from __future__ import annotations

import contextlib
import io
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from compressor.devices.bench import DeviceAnswer, Subject, make_order, sign_order
from compressor.errors import DeviceMeasureError
from compressor.progress import Silent
from compressor.release.keys import init_keys
from server.clock import system_now_ms
from wire.bundle import build_bundle, read_bundle
from wire.canonical import sha256_hex

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture
def subject(fleet: Fleet) -> Subject:
    """A bundle of a tiny model, without certificate or reference, and 40 rows."""
    return make_subject(fleet, 40)


def make_subject(fleet: Fleet, rows: int, *, version: int = 1) -> Subject:
    """Return the tiny model and ``rows`` random rows of 8 x 8 grey pixels."""
    built = read_bundle(fleet.build(version))
    bundle = build_bundle(built.manifest, {name: built.files[name] for name in ("model.onnx", "golden.npz")})
    pixels = np.random.default_rng(3).integers(0, 256, (rows, 8, 8, 1), dtype=np.uint8)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, pixels, allow_pickle=False)
    return Subject(artifact_sha256=built.manifest.artifact_sha256, bundle=bundle, rows=buffer.getvalue(), n=rows)


def nothing_left(device: Device, fleet: Fleet) -> bool:
    """Return whether neither device nor server has any data of a measurement."""
    kept = [device.state / "measure", device.state / "measuring.json", device.state / "blobs"]
    served = [path for path in (fleet.state / "measurements").rglob("*") if path.is_file()]
    return not any(path.exists() for path in kept) and not served


@dataclass
class Asking:
    """A measurement that is waited for on a thread of its own; ``ended`` is its answer or its error."""

    fleet: Fleet
    subject: Subject
    wait_s: float = 60.0
    ended: list[object] = field(default_factory=list)
    thread: threading.Thread | None = None

    def start(self) -> Asking:
        """Ask cam-1."""
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()
        return self

    def _ask(self) -> None:
        try:
            self.ended.append(self.fleet.bench(self.wait_s).measure(self.subject, "cam-1", Silent()))
        except DeviceMeasureError as error:
            self.ended.append(error)

    def end(self) -> object:
        """Return the result."""
        assert self.thread is not None
        self.thread.join(90)
        return self.ended[0]


def measuring(device: Device) -> bool:
    """Return whether the measuring child has started."""
    return (device.state / "measure" / "child.log").exists()


def test_a_device_measures_what_the_build_host_ordered(fleet: Fleet, subject: Subject, wait: Wait) -> None:
    """Predictions, latency, memory, golden vectors and facts arrive; then all data of it is deleted everywhere."""
    device = fleet.add("cam-1")
    answer = fleet.bench().measure(subject, "cam-1", Silent())
    report = answer.report
    assert answer.logits.shape == (40, 3)
    assert 0 < report.latency_p50_ms <= report.latency_p95_ms
    assert report.peak_memory_bytes > 10_000_000
    assert (report.golden_flips, report.golden_rows) == (0, 4)
    assert report.facts["runtime"].startswith("onnxruntime")
    wait(lambda: nothing_left(device, fleet), "no trace of the measurement")
    assert not (device.state / "slots" / "current").exists()


def test_the_model_that_serves_goes_on_through_a_measurement(fleet: Fleet, wait: Wait, images: list) -> None:
    """Same release, same child, no failed inference, every image counted; the bundle measured is not installed."""
    device = fleet.add("cam-1")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    device.see(images, "before")
    asking = Asking(fleet, make_subject(fleet, 4000, version=2)).start()
    wait(lambda: measuring(device) or asking.ended, "a measurement")
    device.see(images, "during")
    assert isinstance(asking.end(), DeviceAnswer)
    wait(lambda: fleet.counted() == 2 * len(images), "every image counted")
    assert device.current() == "tiny-1"
    assert "child_crashed" not in {event["code"] for event in fleet.get("/api/events", limit=1000)["events"]}


def test_a_device_that_is_away_is_a_missing_measurement(fleet: Fleet, subject: Subject) -> None:
    """After the stated time the reason is given; the server deletes the bytes."""
    device = fleet.add("cam-1")
    device.program.stop()
    with pytest.raises(DeviceMeasureError, match=r"within 2 s, got none: the device is \w+.*edge-agent run"):
        fleet.bench(2.0).measure(subject, "cam-1", Silent())
    assert nothing_left(device, fleet)


def test_an_agent_killed_in_the_middle_says_so_when_it_is_back(fleet: Fleet, wait: Wait) -> None:
    """A clear end, no orphan process that continues to measure, nothing half-installed."""
    device = fleet.add("cam-1")
    asking = Asking(fleet, make_subject(fleet, 200_000)).start()
    wait(lambda: measuring(device) or asking.ended, "a measurement")
    device.program.kill()
    wait(lambda: not measuring_children(device), "the end of the child")
    device.program.start()
    error = asking.end()
    assert isinstance(error, DeviceMeasureError)
    assert "[interrupted]" in str(error)
    wait(lambda: nothing_left(device, fleet), "no trace of the measurement")
    assert isinstance(fleet.bench().measure(make_subject(fleet, 4), "cam-1", Silent()), DeviceAnswer)


def test_a_server_that_restarts_in_the_middle_gets_its_report(fleet: Fleet, wait: Wait) -> None:
    """Order and bytes are on its disk; device and build host ask until it is back."""
    device = fleet.add("cam-1")
    asking = Asking(fleet, make_subject(fleet, 20_000)).start()
    wait(lambda: measuring(device) or asking.ended, "a measurement")
    fleet.server.kill()
    fleet.start()
    assert isinstance(asking.end(), DeviceAnswer)
    wait(lambda: nothing_left(device, fleet), "no trace of the measurement")


def test_the_operator_sees_what_was_measured(fleet: Fleet, subject: Subject, wait: Wait) -> None:
    """A measurement begins and ends as events of its device."""
    fleet.add("cam-1")
    fleet.bench().measure(subject, "cam-1", Silent())

    def codes() -> list[str]:
        return [event["code"] for event in fleet.events(device="cam-1") if event["kind"] == "measure"]

    wait(lambda: codes() == ["measure_begun", "measured"], "both events")


def measuring_children(device: Device) -> list[str]:
    """Return the processes that measure for this device."""
    marker = str(device.state / "measure").encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_an_update_comes_first(fleet: Fleet, wait: Wait) -> None:
    """A measurement in progress is cancelled, and reports it."""
    device = fleet.add("cam-1")
    release = fleet.release(1)
    asking = Asking(fleet, make_subject(fleet, 200_000)).start()
    wait(lambda: measuring(device) or asking.ended, "a measurement")
    fleet.roll_out(release)
    assert "[cancelled]" in str(asking.end())
    device.reaches("committed", "tiny-1")


def test_an_order_that_the_server_was_made_to_pass_on_is_refused_by_the_device(
    fleet: Fleet, subject: Subject, wait: Wait, tmp_path: Path
) -> None:
    """Unsigned, changed, expired, signed by strangers: control of server and broker is not enough to run anything."""
    device = fleet.add("cam-1")
    init_keys(tmp_path / "strange", fleet.state / "online.pub.json")
    now_ms = system_now_ms()
    good = sign_order(make_order(subject, "cam-1", now_ms=now_ms, holds_s=60.0), fleet.keys)
    old = sign_order(make_order(subject, "cam-1", now_ms=now_ms - 120_000, holds_s=60.0), fleet.keys)
    other = sign_order(make_order(subject, "cam-2", now_ms=now_ms, holds_s=60.0), fleet.keys)
    strange = sign_order(make_order(subject, "cam-1", now_ms=now_ms, holds_s=60.0), tmp_path / "strange")
    changed = {**good, "payload": other["payload"]}
    for envelope, code in (
        ({**good, "signatures": []}, "signature_invalid"), (changed, "signature_invalid"),
        (strange, "signature_invalid"), (old, "order_expired"), (other, "order_invalid"), ({}, "signature_invalid"),
    ):  # fmt: skip
        assert answer_to(fleet, wait, envelope)["code"] == code
    assert nothing_left(device, fleet)


def answer_to(fleet: Fleet, wait: Wait, envelope: dict[str, object]) -> dict[str, object]:
    """Send the command as an attacker who controls the server could; return the device's answer."""
    body = {"verb": "measure", "arguments": {"order": envelope}}
    sent = fleet.post("/api/devices/cam-1/commands", body)

    def answered() -> dict[str, object] | None:
        found = fleet.get(f"/api/devices/cam-1/commands/{sent['id']}")
        return found if found["answered_ms"] else None

    return dict(wait(answered, "an answer"))


def test_an_owner_may_forbid_measurements(fleet: Fleet, subject: Subject) -> None:
    """``[measure] enabled = false`` in agent.toml is the last word."""
    fleet.add("cam-1", "[measure]\nenabled = false")
    with pytest.raises(DeviceMeasureError, match="measure_disabled"):
        fleet.bench().measure(subject, "cam-1", Silent())


def test_a_bundle_that_does_not_run_there_fails_with_its_reason(fleet: Fleet, subject: Subject) -> None:
    """A broken model is the device's to refuse; its child's end harms nothing."""
    device = fleet.add("cam-1")
    built = read_bundle(fleet.build(1))
    broken = build_bundle(built.manifest, {"model.onnx": b"no model", "golden.npz": built.files["golden.npz"]})
    digest = sha256_hex(b"no model")
    with pytest.raises(DeviceMeasureError, match=r"got \[runtime_load\]|got \[\w+\] Expected"):
        fleet.bench().measure(replace(subject, bundle=broken, artifact_sha256=digest), "cam-1", Silent())
    assert device.status()["connected"]
