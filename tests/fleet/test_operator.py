"""An operator's requests, and faults of a release that only a device can see."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fleet.conftest import tiny_models
from wire.reference import write_reference

if TYPE_CHECKING:
    from conftest import Fleet, Wait

onnx = pytest.importorskip("onnx")
pytestmark = [pytest.mark.broker, pytest.mark.slow]


def blind_in_bright_light() -> bytes:
    """Return a tiny model that answers class 0 to every bright image, and is right on the golden ones."""
    model = onnx.load_from_string(tiny_models().tiny_onnx(7))
    graph, node = model.graph, onnx.helper.make_node
    graph.node[-1].output[0] = "before"
    graph.node.extend([
        node("ReduceMean", ["flat"], ["brightness"], axes=[1], keepdims=1),
        node("Sub", ["brightness", "bright"], ["over"]),
        node("Relu", ["over"], ["glare"]),
        node("Mul", ["glare", "push"], ["pushed"]),
        node("Add", ["before", "pushed"], ["logits"]),
    ])  # fmt: skip
    for name, value in {"bright": [1.0], "push": [1e6, 0.0, 0.0]}.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    return bytes(model.SerializeToString())


def test_an_aborted_first_install_stops_on_the_device(fleet: Fleet, wait: Wait) -> None:
    """The download ends, nothing is installed, and the device reports it under the new generation."""
    device = fleet.add("dev", "max_bytes_per_s = 200000")
    rollout = fleet.roll_out(fleet.release(1, pad_bytes=4_000_000))
    wait(lambda: list((device.state / "blobs").rglob("*.part")), "a part")
    fleet.post(f"/api/rollouts/{rollout}/abort", {})
    wait(lambda: (device.update()["phase"], device.update()["gen"]) == ("idle", 2), "idle")
    wait(lambda: fleet.get(f"/api/rollouts/{rollout}")["phase"] == "aborted", "aborted")
    assert device.document()["reported"]["current"] is None
    fleet.roll_out(fleet.release(2))
    device.reaches("committed", "tiny-2")
    assert not list((device.state / "blobs").rglob("*.part"))


def test_a_model_that_says_one_class_to_everything_is_rolled_back(fleet: Fleet, wait: Wait) -> None:
    """Golden vectors match, but under this device's light all is class 0; the old release serves again."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    artifact = blind_in_bright_light()
    reference = replace(
        tiny_models().reference_for(artifact), table_seen=(0,) * 9 + (50,) + (0,) * 9 + (50,) + (0,) * 9 + (50,)
    )
    release = fleet.release(2, artifact=artifact, reference_bin=write_reference(reference))
    fleet.roll_out(release, probation_s=2.0)
    device.reaches("probation", release)
    rng = np.random.default_rng(3)
    device.see([tiny_models().png(rng.integers(230, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(100)])
    assert device.reaches("rolled_back", release)["code"] == "output_distribution"
    wait(lambda: "output_distribution" in device.codes(), "an event")
    assert device.current() == "tiny-1"


def test_a_device_that_is_commissioned_again_collects_its_usual_anew(
    fleet: Fleet, wait: Wait, images: list[bytes]
) -> None:
    """From the next window on, and over a kill of the server: every window since then counts, and none before."""
    with (fleet.state / "server.toml").open("a") as settings:
        settings.write("grace_ms = 300\n")
    fleet.server.kill()
    fleet.start()
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    rounds = itertools.count()

    def newest(at_least: int, from_ms: int = 0) -> dict | None:
        """Return the newest evidence once the baseline has so many windows; the device sees something meanwhile."""
        device.see(images[:2], f"{next(rounds)}-")
        rows = [row for row in fleet.get("/api/evidence", device="dev")["evidence"] if row["start_ms"] >= from_ms]
        return rows[0] if rows and rows[0]["baseline_windows"] >= at_least else None

    wait(lambda: newest(4), "a baseline of four windows", pause_s=0.3)
    begun = fleet.post("/api/devices/dev/commission", {"why": "the camera was moved", "by": "Ada"})
    assert begun["from_ms"] % 1000 == 0
    fleet.server.kill()
    fleet.start()
    row = wait(lambda: newest(2, begun["from_ms"]), "a baseline of two windows", pause_s=0.3)
    windows = fleet.rows("select start_ms from windows where n > 0")
    since = [start_ms for (start_ms,) in windows if begun["from_ms"] <= start_ms <= row["start_ms"]]
    assert row["baseline_windows"] == len(since)
    codes = [event["code"] for event in fleet.events(device="dev")]
    assert codes.count("commissioned_again") == 1
