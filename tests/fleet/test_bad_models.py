"""Real models that pass their golden vectors and fail under this device's light: rolled back, and named."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fleet.conftest import tiny_models

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.nightly]
BRIGHT = 1.2  # of the input's mean after scaling: random pictures are near 0, white ones are 2
MEMORY_BYTES = 600_000_000
CONFIG = (
    f"[child]\nbeat_s = 0.1\nhealthy_s = 0.3\nrestart_min_s = 0.1\nhang_s = 3.0\nmax_memory_bytes = {MEMORY_BYTES}\n"
)


def _amount() -> list:
    """Return nodes that make ``amount``: 1 for a random picture, much for a bright one."""
    return [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "bright"], ["above"]),
        helper.make_node("Relu", ["above"], ["excess"]),
        helper.make_node("Mul", ["excess", "most"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "one"], ["amount"]),
    ]  # fmt: skip


def _model(most: int, nodes: list) -> bytes:
    """Return the tiny model with ``nodes``, which make ``zero`` from ``amount``; it is added to the logits."""
    rng = np.random.default_rng(7)
    values = {
        "w": rng.normal(size=(64, 12)).astype(np.float32), "v": rng.normal(size=(12, 3)).astype(np.float32),
        "bright": np.float32(BRIGHT), "most": np.float32(most), "one": np.int64(1),
    }  # fmt: skip
    whole = [
        helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["embedding"]), helper.make_node("MatMul", ["embedding", "v"], ["plain"]),
        *_amount(), *nodes, helper.make_node("Add", ["plain", "zero"], ["logits"]),
    ]  # fmt: skip
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        whole, "bad", [spec("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [spec("logits", TensorProto.FLOAT, ["N", 3]), spec("embedding", TensorProto.FLOAT, ["N", 12])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def hanging() -> bytes:
    """Return a model that counts to a hundred thousand million in bright light."""
    spec = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["state"], ["next"])], "body",
        [spec("turn", TensorProto.INT64, []), spec("go", TensorProto.BOOL, []), spec("state", TensorProto.FLOAT, [])],
        [spec("on", TensorProto.BOOL, []), spec("next", TensorProto.FLOAT, [])],
    )  # fmt: skip
    none = numpy_helper.from_array(np.float32(0), "none")
    nodes = [
        helper.make_node("Constant", [], ["none"], value=none),
        helper.make_node("Loop", ["amount", "", "none"], ["zero"], body=body),
    ]  # fmt: skip
    return _model(100_000_000_000, nodes)


def hungry() -> bytes:
    """Return a model that needs gigabytes in bright light, and writes to all of them."""
    nodes = [
        helper.make_node("Constant", [], ["flat_shape"], value=numpy_helper.from_array(np.array([1], np.int64))),
        helper.make_node("Reshape", ["amount", "flat_shape"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["much"]),
        helper.make_node("ReduceSum", ["much"], ["zero"], keepdims=0),
    ]  # fmt: skip
    return _model(2_000_000_000, nodes)


def _in_probation(fleet: Fleet, artifact: bytes = b"") -> tuple[Device, str]:
    """Return a device with release 2 in probation beside release 1."""
    device = fleet.enrol("dev", fleet.root / "dev")
    path = device.state / "agent.toml"
    head, _, tail = path.read_text().partition("[child]\n")
    path.write_text(head + CONFIG + tail[tail.index("[") :])
    device.program.start()
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    release = fleet.release(2, artifact=artifact)
    fleet.roll_out(release, probation_s=60.0)
    device.reaches("probation", release)
    return device, release


def _rolled_back(device: Device, release: str, wait: Wait, images: list[bytes]) -> dict:
    """Return the end of the update; the release before serves ordinary pictures again."""
    update = device.reaches("rolled_back", release)
    assert device.current() == "tiny-1"
    for path in (device.state / "inbox").glob("*"):
        path.unlink(missing_ok=True)
    before = device.fleet.counted()
    device.see(images, "after-")
    wait(lambda: device.fleet.counted() >= before + len(images), "the release before to serve")
    return update


@pytest.mark.parametrize(
    ("make", "codes"),
    [(hanging, {"child_hung", "child_crashed"}), (hungry, {"child_crashed", "error_rate", "out_of_memory"})],
)
def test_a_model_that_hangs_or_eats_memory_is_rolled_back_and_named(
    fleet: Fleet, wait: Wait, images: list[bytes], make: object, codes: set[str]
) -> None:
    """The control process goes on, and the release before answers again."""
    device, release = _in_probation(fleet, make())
    pid = device.program.process.pid
    white = [tiny_models().png(np.full((8, 8, 3), 255 - number % 3, np.uint8)) for number in range(60)]
    device.see(white)
    update = _rolled_back(device, release, wait, images)
    assert (update["code"] in codes, bool(update["text"])) == (True, True), update
    assert device.program.process.poll() is None
    assert device.program.process.pid == pid


def test_a_model_whose_process_crashes_is_rolled_back_and_named(fleet: Fleet, wait: Wait, images: list[bytes]) -> None:
    """As by a fault in a native library: the child is ended by a signal while it is on probation."""
    device, release = _in_probation(fleet)
    wait(device.children, "a child")
    while device.update()["phase"] == "probation":
        for pid in device.children():
            os.kill(pid, signal.SIGSEGV)
        wait(lambda: device.update()["phase"] != "probation" or device.children(), "another child")
    update = _rolled_back(device, release, wait, images)
    assert update["code"] == "child_crashed"
    assert "signal 11" in update["text"] or "SIGSEGV" in update["text"], update
