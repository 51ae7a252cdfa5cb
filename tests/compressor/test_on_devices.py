"""What is sent to a device, which answers are accepted, and how they become evidence."""

from __future__ import annotations

import io
import json
import struct
import threading
import tracemalloc
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from compressor import tasks
from compressor.cli.device_options import Reach
from compressor.cli.devices import bench_for, bench_of, devices_named, gate_bundle, gate_on, merged, rules_on
from compressor.data import digits
from compressor.devices.bench import DeviceAnswer, ServerBench, Subject, _misfit, believed, make_order, silence
from compressor.devices.client import Known, Standing
from compressor.errors import DeviceMeasureError, PackageError, RecipeError, ServerUnreachableError
from compressor.gates.certificate import Certificate, DeviceRecord
from compressor.gates.evidence import AGREEMENT, GateRecipe
from compressor.measurement.predictions import Compared, Predictions
from compressor.progress import Silent
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import parse_recipe
from compressor.release.keys import init_keys
from compressor.report.side_by_side import beside
from compressor.run.device_evidence import Asked, evidence_from, make_subject, pixels_of
from edge_agent.inference import preprocess
from edge_agent.measuring.child import _tensor
from server.trust.online_keys import init_online_keys
from tests.edge_agent.inference.conftest import MANIFEST, tiny_onnx
from wire.manifest import RESIZES, Budgets, Manifest, Preprocessing
from wire.measurement import MeasureReport, blank_report, encode_report

SUBJECT = Subject(artifact_sha256="ab" * 32, bundle=b"a bundle", rows=b"rows", n=4)
ORDER = make_order(SUBJECT, "cam-1", now_ms=1, holds_s=60.0)
HERE = np.eye(4, 3, dtype=np.float32)
LABELS = np.array([0, 1, 2, 1])
NOTHING = np.zeros((4, 0), np.float32)


def report(**change: object) -> MeasureReport:
    """Return a report on the order."""
    return replace(blank_report(ORDER), classes=3, latency_p95_ms=2.0, golden_rows=4, **change)  # type: ignore[arg-type]


def asked() -> Asked:
    """Return four rows whose last one this host gets wrong."""
    here = Predictions(HERE, NOTHING)
    gate_set = Compared(
        labels=LABELS, slices=np.array(["a", "a", "b", "b"]), baseline=here, float_model=here, candidate=here
    )
    return Asked(
        task=tasks.named("classification"),
        subject=SUBJECT,
        gate_set=gate_set,
        class_names=("x", "y", "z"),
        rules=(),
        allowed=Budgets(golden_max_abs=0.05),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("colour", "size"), [("rgb", 8), ("grey", 8), ("rgb", 13), ("grey", 5)])
def test_a_device_makes_the_very_input_of_the_pixels_it_is_sent(colour: str, size: int) -> None:
    """Resized and recoloured here, neither again there: not a bit of the input differs."""
    table = digits.load(DataRecipe()).take(np.arange(40))
    pre = Preprocessing(width=size, height=size, colour=colour, mean=(0.4,), std=(0.2,), layout="NHWC")
    pixels = pixels_of(table, Manifest(preprocessing=pre))
    there = [preprocess.to_tensor(np.ascontiguousarray(np.broadcast_to(one, (size, size, 3))), pre) for one in pixels]
    assert np.array_equal(np.concatenate(there), preprocess.to_batch(list(table.images), pre))


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("resize", RESIZES)
def test_a_device_neither_crops_nor_frames_a_second_time(resize: str, colour: str) -> None:
    """Of any resizing: what a measurement feeds is what the gate fed."""
    table = digits.load(DataRecipe()).take(np.arange(3))
    to = 20 if resize == "centre_crop" else 0
    manifest = Manifest(
        preprocessing=Preprocessing(width=14, height=10, colour=colour, resize=resize, resize_to=to, mean=(0.4,))
    )
    there = [_tensor(row, manifest) for row in pixels_of(table, manifest)]
    assert np.array_equal(np.concatenate(there), preprocess.to_batch(list(table.images), manifest.preprocessing))


def test_the_pixels_of_a_gate_split_are_in_memory_once() -> None:
    """As npy, equal to what each image is; its rows are no views of one large array that was made before."""
    table = digits.load(DataRecipe()).take(np.arange(300))
    pre = Preprocessing(width=64, height=64, mean=(0.4,))
    sized = replace(MANIFEST, preprocessing=pre)
    expected = np.stack(list(pixels_of(table, sized)))
    tracemalloc.start()
    subject = make_subject(sized, tiny_onnx(), b"golden", table)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(np.lib.format.read_array(io.BytesIO(subject.rows)), expected)
    assert (subject.n, most < 1.5 * expected.nbytes) == (300, True)


def test_more_pixels_than_a_device_is_sent_are_refused_before_they_are_made() -> None:
    """The limit in rows of that size, and what to do."""
    table = digits.load(DataRecipe()).take(np.arange(30))
    large = replace(MANIFEST, preprocessing=Preprocessing(width=4000, height=2000, mean=(0.4,)))
    with pytest.raises(DeviceMeasureError, match=r"at most 11 rows of 2000 x 4000 pixels .* got 30: a smaller gate"):
        make_subject(large, tiny_onnx(), b"golden", table)


def test_the_same_answers_are_the_same_evidence() -> None:
    """Accuracy, slices and flips are counted on the device's own predictions."""
    found = evidence_from(DeviceAnswer(report(), HERE), asked())
    assert found.evidence.figures[AGREEMENT] == 0.0
    assert (found.evidence.figures["accuracy"], found.evidence.figures["latency_p95_ms"]) == (0.75, 2.0)
    assert set(found.evidence.slices) == {"a", "b"}


def test_other_answers_are_counted_row_by_row() -> None:
    """Two of four rows with another class are a share of a half."""
    figures = evidence_from(DeviceAnswer(report(), HERE[[1, 0, 2, 3]]), asked()).evidence.figures
    assert (figures["device_flips"], figures["device_rows"], figures[AGREEMENT]) == (2.0, 4.0, 0.5)
    assert figures["accuracy"] == 0.25


def test_answers_of_another_form_are_refused() -> None:
    """A device that reports four classes for a model of three runs something else."""
    with pytest.raises(DeviceMeasureError, match="runs something else"):
        evidence_from(DeviceAnswer(report(), np.eye(4, dtype=np.float32)), asked())


@pytest.mark.parametrize("name", ["order", "device", "artifact_sha256", "bundle_sha256", "rows_sha256"])
def test_a_report_of_something_else_is_not_believed(name: str) -> None:
    """Also if it comes from our own server."""
    data = encode_report(report(**{name: "cam-2"}), HERE.tobytes())
    with pytest.raises(DeviceMeasureError, match=f"{name}.*not believed"):
        believed(ORDER, data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_not_believed(value: float) -> None:
    """One of them would pass or fail whatever one likes."""
    logits = struct.pack("<12f", value, *range(11))
    with pytest.raises(DeviceMeasureError, match="finite"):
        believed(ORDER, encode_report(report(), logits))
    with pytest.raises(DeviceMeasureError, match="finite"):
        believed(ORDER, encode_report(report(golden_max_abs=1e30), HERE.tobytes()))


@pytest.mark.parametrize("data", [b"", b"TFM1", encode_report(report(), HERE.tobytes())[:-1]])
def test_bytes_that_are_no_report_are_not_believed(data: bytes) -> None:
    """Cut off or foreign."""
    with pytest.raises(DeviceMeasureError, match="Expected a report of cam-1"):
        believed(ORDER, data)


def test_silence_says_what_to_do() -> None:
    """The error has the state, the last contact, and two remedies; a refusal has its code."""
    text = silence(
        "cam-1", Standing(phase="sent", code="", text="", device_state="lost", last_seen_ms=1_795_000_000_000), 300.0
    )
    assert "within 300 s, got none: the device is lost, last heard" in text
    assert "edge-agent run" in text
    assert "--device-wait-s" in text
    assert "begun and not ended; give --device-wait-s more" in silence(
        "cam-1", Standing(phase="running", code="", text="", device_state="", last_seen_ms=1), 9.0
    )
    failed = silence(
        "cam-1", Standing(phase="failed", code="throttled", text="too hot", device_state="ready", last_seen_ms=1), 300.0
    )
    assert failed == "Expected a measurement of cam-1, got [throttled] too hot"


def test_a_device_of_another_kind_is_not_asked() -> None:
    """Its figures would be of another target; a device that has not reported its hardware is tried."""
    subject = replace(SUBJECT, hardware=("aarch64",), runtime="litert")
    assert "which is x86_64" in _misfit(subject, "cam-1", Known("ready", "x86_64", ("litert",)))
    assert "pip install tinyfleet[litert]" in _misfit(subject, "cam-1", Known("ready", "aarch64", ("onnx",)))
    assert _misfit(subject, "cam-1", Known("ready", "aarch64", ("onnx", "litert"))) == ""
    assert _misfit(subject, "cam-1", Known("init", "", ())) == ""
    assert _misfit(SUBJECT, "cam-1", Known("ready", "x86_64", ("onnx",))) == ""


def test_too_many_rows_are_said_before_anything_is_sent(tmp_path: Path) -> None:
    """The limits of devices are the build host's too."""
    bench = ServerBench(url="http://127.0.0.1:9", token="t", keys=tmp_path)
    with pytest.raises(DeviceMeasureError, match="at most"):
        bench.measure(replace(SUBJECT, n=2_000_000), "cam-1", Silent())


class Losing(BaseHTTPRequestHandler):
    """A server of measurements that cuts off its first answer to an order, which it has stored or not."""

    keeps, orders = True, 0

    def do_POST(self) -> None:
        """Accept the order, perhaps at the first try, but give no answer the first time."""
        type(self).orders += 1
        if self.orders == 1:
            self.close_connection = True
            self.connection.close()
        else:
            self._say(200)

    def do_GET(self) -> None:
        """Know the device, and the order where one was taken; it failed."""
        known = "/devices/" in self.path or "/blobs/" in self.path or self.keeps or self.orders > 1
        self._say(200 if known else 404, phase="failed", code="child_crashed", state="ready")

    do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that the standard library calls

    def _say(self, status: int, **told: str) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing on the terminal."""


@pytest.mark.parametrize(("keeps", "orders"), [(True, 1), (False, 2)])
def test_an_order_whose_answer_is_lost_is_asked_for_and_sent_again_only_where_it_did_not_arrive(
    keeps: bool,  # noqa: FBT001 - a case
    orders: int,
    tmp_path: Path,
) -> None:
    """A server that was killed after it had stored the order would refuse it the second time."""
    init_keys(tmp_path / "keys", init_online_keys(tmp_path / "server"))
    handler = type("Handler", (Losing,), {"keeps": keeps})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bench = ServerBench(
            url=f"http://127.0.0.1:{server.server_port}", token="t", keys=tmp_path / "keys", wait_s=20.0, poll_s=0.01
        )
        with pytest.raises(DeviceMeasureError, match="Expected a measurement"):
            bench.measure(SUBJECT, "cam-1", Silent())
        server.shutdown()
    assert handler.orders == orders


RECIPE = '[model]\nname = "m"\n[targets.pi]\n[targets.host]\n[gates]\n'


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ('accuracy_drop = {max = 0.1, on = "device:"}', 'on = "device:ID" or "TARGET@device:ID"'),
        ('accuracy_drop = {max = 0.1, on = "device:Cam 1"}', "the device in [gates] accuracy_drop of 1 to 63"),
        ('accuracy_drop = {max = 0.1, on = "phi@device:cam-1"}', "did you mean 'pi'?"),
        ('size_bytes = {max = 9, on = "device:cam-1"}', "a device has no evidence for this gate"),
        ('device_flip_ratio = {max = 0.1, on = "pi"}', 'on = "device:ID"'),
        ("device_flip_ratio = {max = 0.1}", 'on = "device:ID"'),
    ],
)
def test_a_recipe_says_what_is_wrong_with_a_device(gate: str, said: str) -> None:
    """Before anything is trained."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe((RECIPE + gate).encode())
    assert said in str(caught.value)


def test_a_recipe_names_its_devices_once() -> None:
    """Each is checked before training; without a server nothing is trained."""
    gates = 'accuracy_drop = {max = 0.1, on = "device:cam-1"}\nlatency_p95_ms = {max = 9, on = "pi@device:cam-2"}\n'
    recipe = parse_recipe((RECIPE + gates + 'peak_memory_bytes = {max = 9, on = "device:cam-1"}\n').encode())
    assert devices_named(recipe) == ("cam-1", "cam-2")
    with pytest.raises(DeviceMeasureError, match="measure on cam-1, cam-2; give them, or take"):
        bench_for(recipe, Reach(), None)


def test_a_way_to_devices_needs_server_token_and_keys(tmp_path: Path) -> None:
    """Each that is missing is named."""
    assert bench_of(Reach(), None) is None
    with pytest.raises(DeviceMeasureError, match="--token-file and --keys"):
        bench_of(Reach(server="http://s"), tmp_path)
    with pytest.raises(DeviceMeasureError, match="builder token"):
        bench_of(Reach(server="http://s", token_file=tmp_path / "none"), tmp_path)
    (tmp_path / "token").write_text("secret\n")
    bench = bench_of(Reach(server="http://s/", token_file=tmp_path / "token", ca=None, device_wait_s=9.0), tmp_path)
    assert bench is not None
    assert (bench.url, bench.wait_s, "secret" in repr(bench)) == ("http://s", 9.0, False)


@pytest.mark.parametrize("on", ["cam-1", "pi@device:cam-1", "device:"])
def test_gate_says_how_a_device_is_named(tmp_path: Path, on: str) -> None:
    """``--on`` accepts a device and nothing else."""
    with pytest.raises(DeviceMeasureError, match="--on device:ID"):
        gate_bundle(tmp_path, on, Reach(), None, Silent())


class AwayBench:
    """A bench whose server is not reachable."""

    def check(self, device: str) -> None:
        """Accept everything."""

    def measure(self, subject: Subject, device: str, progress: object) -> DeviceAnswer:
        """Fail."""
        del subject, progress
        message = f"Expected an answer for {device}, got none"
        raise ServerUnreachableError(message)


def test_a_folder_is_not_measured_on_a_device(tmp_path: Path) -> None:
    """Its bundles are."""
    with pytest.raises(PackageError, match=r"give its \.tfb file"):
        gate_on(tmp_path, "cam-1", AwayBench(), Silent())


def test_a_bundle_s_limits_on_time_and_memory_hold_on_the_device() -> None:
    """An existing rule for this device is kept."""
    rules = (
        GateRecipe(name="latency_p95_ms", max=5.0),
        GateRecipe(name="accuracy_drop", max=0.1),
        GateRecipe(name="latency_p50_ms", max=1.0, on="cam-1"),
    )
    found = rules_on(Certificate(rules=rules), "cam-1")
    assert [(rule.name, rule.on) for rule in found] == [
        ("latency_p95_ms", "cam-1"), ("latency_p50_ms", "cam-1"), (AGREEMENT, "cam-1"),
    ]  # fmt: skip


def test_golden_vectors_stand_for_rows_that_did_not_travel() -> None:
    """Unless the certificate has the share on the gate split."""
    fresh = merged(DeviceRecord(device="cam-1"), DeviceAnswer(report(golden_flips=1), HERE), Budgets())
    assert (fresh.figures[AGREEMENT], fresh.figures["device_rows"]) == (0.25, 4.0)
    before = DeviceRecord(device="cam-1", figures={AGREEMENT: 0.001, "device_rows": 900.0, "accuracy": 0.9})
    kept = merged(before, DeviceAnswer(report(), HERE), Budgets()).figures
    assert (kept[AGREEMENT], kept["device_rows"], kept["accuracy"], kept["latency_p95_ms"]) == (0.001, 900.0, 0.9, 2.0)


def test_device_and_host_stand_side_by_side() -> None:
    """Missing measurements stay empty; a problem has its text."""
    record = DeviceRecord(
        device="cam-1", figures={"accuracy": 0.9, "latency_p95_ms": 4.0, AGREEMENT: 0.0}, facts={"cpu": "A53"}
    )
    silent = DeviceRecord(device="cam-2", problem="Expected an answer, got none")
    found = beside(Certificate(target="pi", figures={"accuracy": 0.91}, devices=(record, silent)))
    assert found[0].rows == [("accuracy", "0.9000", "0.9100"), ("latency p95, ms", "4.000", "-")]
    assert found[0].said.endswith("A53")
    assert (found[1].rows, found[1].said) == ([], "Expected an answer, got none")
