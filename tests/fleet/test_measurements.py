"""Measurements on a device through its agent: real mosquitto, server, agent and bundle. Nothing is installed by one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest

from compressor.device_bench import ServerBench, Subject
from compressor.progress import Silent
from wire.bundle import build_bundle, read_bundle

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture
def subject(fleet: Fleet) -> Subject:
    """A bundle of a tiny model, without certificate or reference, and 40 rows."""
    return make_subject(fleet, 40)


def make_subject(fleet: Fleet, rows: int) -> Subject:
    """Return the tiny model and ``rows`` random rows of 8 x 8 grey pixels."""
    built = read_bundle(fleet.build(1))
    bundle = build_bundle(built.manifest, {name: built.files[name] for name in ("model.onnx", "golden.npz")})
    pixels = np.random.default_rng(3).integers(0, 256, (rows, 8, 8, 1), dtype=np.uint8)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, pixels, allow_pickle=False)
    return Subject(built.manifest.artifact_sha256, bundle, buffer.getvalue(), rows)


def bench_of(fleet: Fleet, wait_s: float = 40.0) -> ServerBench:
    """Return the build host's way to the fleet's devices."""
    token = (fleet.state / "builder.token").read_text().strip()
    return ServerBench(str(fleet.client.base_url), token, fleet.keys, wait_s=wait_s, poll_s=0.05)


def nothing_left(device: Device, fleet: Fleet) -> bool:
    """Say whether neither device nor server keeps anything of a measurement."""
    kept = [device.state / "measure", device.state / "measuring.json", device.state / "blobs"]
    served = [path for path in (fleet.state / "measurements").rglob("*") if path.is_file()]
    return not any(path.exists() for path in kept) and not served


def test_a_device_measures_what_the_build_host_ordered(fleet: Fleet, subject: Subject, wait: Wait) -> None:
    """Predictions, latency, memory, golden vectors and facts come back; then nothing of it is left anywhere."""
    device = fleet.add("cam-1")
    answer = bench_of(fleet).measure(subject, "cam-1", Silent())
    report = answer.report
    assert answer.logits.shape == (40, 3)
    assert 0 < report.latency_p50_ms <= report.latency_p95_ms
    assert report.peak_memory_bytes > 10_000_000
    assert (report.golden_flips, report.golden_rows) == (0, 4)
    assert report.facts["runtime"].startswith("onnxruntime")
    assert report.facts["priority"] == "nice 19"
    wait(lambda: nothing_left(device, fleet), "no trace of the measurement")
    assert not (device.state / "slots" / "current").exists()
