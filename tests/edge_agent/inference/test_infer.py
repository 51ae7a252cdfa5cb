"""The inference child as a process, over its pipes."""

import hashlib
import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from wire import leb128
from wire.bundle import parse_bundle
from wire.errors import ReferenceProfileError
from wire.reference import write_reference


def _images(tiny: dict, count: int, seed: int = 1) -> dict[str, bytes]:
    return {f"{index:04}.png": tiny["png"](image) for index, image in enumerate(tiny["images"](count, seed))}


def _served(child: object) -> int:
    return sum(frame.header["n"] for frame in child.heard if frame.kind == "window")


def test_serves_what_appears_and_counts_every_image_once(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Every image of the folder is inferred, counted in exactly one window, and deleted."""
    drop(_images(tiny, 12))
    running = child(bundle())
    running.until("beat", lambda frame: frame.header["n"] > 0)
    running.until("window", lambda _: _served(running) == 12)
    assert running.end() == 0
    assert _served(running) == 12
    assert not list((tmp_path / "inbox").iterdir())


def test_windows_are_aligned_come_without_images_and_carry_all_counters(bundle: Callable, child: Callable) -> None:
    """A window starts at a multiple of its length and is reported even if nothing was served."""
    running = child(bundle())
    window = running.until("window").header
    running.until("window")
    counters, _ = leb128.decode(running.heard[-1].payload, 23 * 17 + 30)
    assert window["start_ms"] % 200 == 0
    assert (window["len_ms"], window["n"], sum(counters)) == (200, 0, 0)
    assert (window["streams"], window["classes"], window["confidence_bins"]) == (23, 3, 10)


def test_says_ready_with_the_identity_of_what_it_serves(bundle: Callable, child: Callable) -> None:
    """``ready`` names release, artifact and reference."""
    path = bundle(version=3)
    manifest = parse_bundle(path.read_bytes()).manifest
    header = child(path).until("ready").header
    assert (header["release"], header["artifact"]) == ("tiny-3", manifest.artifact_sha256)
    assert header["ref_id"] == hashlib.sha256(parse_bundle(path.read_bytes()).files["reference.bin"]).hexdigest()


def test_a_corrupt_image_is_counted_said_and_does_not_end_the_child(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Garbage is a fault with a code that names the file; the next image is served."""
    drop({"0.png": b"not an image", "1.png": b"", **_images(tiny, 1)})
    running = child(bundle())
    fault = running.until("fault").header
    running.until("window", lambda _: _served(running) == 1)
    assert fault["code"] == "image_invalid"
    assert fault["text"].startswith("0.png: Expected an intact image")
    assert running.end() == 0
    assert sum(frame.header["errors"] for frame in running.heard if frame.kind == "beat") <= 2


def test_a_swap_serves_on_without_an_error_and_closes_the_old_counters(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Images served during a swap are all counted, each under the reference of its model."""
    old, new = bundle(version=1), bundle(version=2)
    running = child(old)
    running.until("ready")
    drop(_images(tiny, 200))
    running.tell(type="swap", bundle=str(new))
    swapped = running.until("swapped").header
    drop({f"x{name}": data for name, data in _images(tiny, 20, seed=5).items()})
    running.until("window", lambda _: _served(running) == 220)
    windows = [frame.header for frame in running.heard if frame.kind == "window"]
    assert swapped["release"] == "tiny-2"
    assert all(frame.header["errors"] == 0 for frame in running.heard if frame.kind == "beat")
    assert sum(window["n"] for window in windows if window["ref_id"] == swapped["ref_id"]) >= 20
    assert {window["release"] for window in windows} == {"tiny-1", "tiny-2"}


@pytest.mark.slow
def test_no_inference_fails_in_200_swaps_under_load(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Inputs wait all the time; each is answered once, by one of the two releases, by the same process."""
    bundles = [bundle(version=1), bundle(version=2)]
    running = child(bundles[0], window_ms=1000)
    running.until("ready")
    images, dropped = _images(tiny, 20), 0
    for swap in range(200):
        while dropped - _served(running) < 200:  # the folder is never empty
            drop({f"{dropped:06}-{name}": data for name, data in images.items()})
            dropped += len(images)
        running.tell(type="swap", bundle=str(bundles[(swap + 1) % 2]))
        assert running.until("swapped").header["release"] == f"tiny-{(swap + 1) % 2 + 1}"
    running.until("window", lambda _: _served(running) == dropped)
    beats = [frame.header for frame in running.heard if frame.kind == "beat"]
    assert sum(beat["errors"] + beat.get("dropped", 0) for beat in beats) == 0
    assert not [frame for frame in running.heard if frame.kind == "fault"]
    assert not list((tmp_path / "inbox").iterdir())
    assert (running.end(), _served(running)) == (0, dropped)


def test_a_swap_to_a_damaged_bundle_is_a_fault_and_the_old_release_serves_on(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """A bundle with one byte changed is refused by code; nothing else changes."""
    running = child(bundle())
    damaged = bytearray(bundle(version=2).read_bytes())
    damaged[2000] ^= 1
    (tmp_path / "damaged.tfb").write_bytes(damaged)
    running.until("ready")
    running.tell(type="swap", bundle=str(tmp_path / "damaged.tfb"))
    fault = running.until("fault").header
    drop(_images(tiny, 2))
    running.until("window", lambda frame: frame.header["n"] > 0 and frame.header["release"] == "tiny-1")
    assert fault["bundle"] == str(tmp_path / "damaged.tfb")
    assert fault["code"] in {"digest_mismatch", "bundle_invalid"}


def test_sends_no_more_samples_than_were_granted_as_they_came(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Three of ten are sent, uniformly, with their probability, byte for byte, duplicates once."""
    running = child(bundle(), window_ms=2000)
    running.until("ready")
    running.until("window")
    images = _images(tiny, 10)
    running.tell(type="samples", request="r1", count=3, budget_bytes=100_000, lane="audit")
    drop(images | {f"again-{name}": data for name, data in images.items()})
    running.until("window", lambda _: _served(running) == 20)
    assert running.end() == 0
    samples = [frame for frame in running.heard if frame.kind == "sample"]
    assert len(samples) == 3
    assert all(frame.payload in images.values() for frame in samples)
    assert {hashlib.sha256(frame.payload).hexdigest() for frame in samples} == {f.header["sha256"] for f in samples}
    assert all(0.3 <= frame.header["inclusion_ratio"] <= 1 for frame in samples)
    assert samples[0].header["media_type"] == "image/png"


def _grant(running: object, **grant: object) -> None:
    """Grant samples and wait until the child knows it: frames are read in order, and an unknown one is answered."""
    running.tell(**grant)
    running.tell(type="nothing")
    running.until("fault", lambda frame: frame.header["code"] == "frame_unknown")


@pytest.mark.parametrize("requests", [["audit"], [f"once-{number}" for number in range(8)]])
def test_a_renewed_or_displaced_audit_loses_nothing_that_was_drawn(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, requests: list[str]
) -> None:
    """The next day's request, or an eighth other one, ends the last one inside a window: its inputs are sent first."""
    running = child(bundle(), window_ms=3_600_000)
    running.until("ready")
    grant = {"type": "samples", "request": "audit", "count": 9, "budget_bytes": 100_000, "lane": "audit", "ratio": 1.0}
    _grant(running, **grant)
    drop(_images(tiny, 4))
    running.until("beat", lambda _: sum(frame.header["n"] for frame in running.heard if frame.kind == "beat") == 4)
    for request in requests:
        running.tell(**{**grant, "request": request})
    running.until("sample", lambda _: sum(frame.kind == "sample" for frame in running.heard) == 4)
    samples = [frame.header for frame in running.heard if frame.kind == "sample"]
    assert {(one["request"], one["inclusion_ratio"]) for one in samples} == {("audit", 1.0)}


def test_no_input_is_sent_for_both_lanes_of_a_request(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Six of ten are drawn uniformly; those chosen by doubt are among the four others: no byte is paid for twice."""
    running = child(bundle(), window_ms=3_600_000)
    running.until("ready")
    grant = {"type": "samples", "count": 6, "budget_bytes": 100_000}
    running.tell(**grant, request="drift", lane="drift")
    _grant(running, **grant, request="audit", lane="audit")
    drop(_images(tiny, 10))
    running.until("beat", lambda _: sum(frame.header["n"] for frame in running.heard if frame.kind == "beat") == 10)
    assert running.end() == 0
    sent = [frame.header for frame in running.heard if frame.kind == "sample"]
    lanes = {lane: {one["sha256"] for one in sent if one["lane"] == lane} for lane in ("audit", "drift")}
    assert len(lanes["audit"]) == 6
    assert 0 < len(lanes["drift"]) <= 4
    assert not lanes["audit"] & lanes["drift"]


def test_inputs_that_no_server_takes_as_samples_stay_on_the_device(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """Neither a BMP nor a sound is sent to be refused there: a fault names the type."""
    running = child(bundle(), window_ms=1000)
    running.until("ready")
    _grant(running, type="samples", request="r", count=9, budget_bytes=1 << 20, lane="audit")
    buffer = io.BytesIO()
    Image.fromarray(tiny["images"](1)[0]).save(buffer, "BMP")
    drop({"a.bmp": buffer.getvalue(), **_images(tiny, 1)})
    fault = running.until("fault", lambda frame: frame.header["code"] != "frame_unknown").header
    assert (fault["code"], "got image/bmp" in fault["text"]) == ("sample_unsupported", True)
    running.tell(type="stop")
    assert running.end() == 0
    assert [frame.header["media_type"] for frame in running.heard if frame.kind == "sample"] == ["image/png"]


def test_ends_in_order_when_terminated_and_says_the_open_window(bundle: Callable, child: Callable) -> None:
    """SIGTERM is a regular stop: the counts are sent, and the exit code is 0."""
    running = child(bundle(), window_ms=3_600_000)
    running.until("ready")
    running.process.send_signal(signal.SIGTERM)
    assert running.until("window").header["n"] == 0
    assert running.process.wait(20) == 0


def test_a_bundle_whose_reference_was_made_by_another_artifact_is_refused(bundle: Callable, tiny: dict) -> None:
    """The float model's reference never meets the counts of the compressed artifact."""
    with pytest.raises(ReferenceProfileError, match="by running the exported artifact itself"):
        bundle(reference_bin=write_reference(tiny["reference"](b"the float model")))


def test_a_bundle_that_can_not_be_served_ends_with_a_coded_fault(child: Callable, tmp_path: Path) -> None:
    """A missing bundle, and any other start that fails, is one fatal fault and exit code 1."""
    running = child(tmp_path / "missing.tfb")
    fault = running.until("fault").header
    assert (fault["code"], fault["fatal"]) == ("bundle_invalid", True)
    assert running.end() == 1


def test_what_anybody_prints_does_not_reach_the_frames() -> None:
    """After ``protected_stdout`` even a write to descriptor 1 goes to stderr."""
    code = "import os; from edge_agent.inference.child import protected_stdout; out = protected_stdout(); "
    code += "os.write(1, b'noise'); print('x'); out.write(b'frame')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert result.stdout == b"frame"
    assert b"noise" in result.stderr


def test_the_child_imports_nothing_of_the_build_host_or_server() -> None:
    """A fresh interpreter that imports the child has none of the heavy packages, nor the runtime itself."""
    heavy = "{'torch', 'onnx', 'onnxruntime', 'pydantic', 'fastapi', 'sqlalchemy', 'server', 'compressor', 'paho'}"
    code = f"import sys, edge_agent.inference.child, edge_agent.inference.probe; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert result.stdout.strip() == b"set()"
