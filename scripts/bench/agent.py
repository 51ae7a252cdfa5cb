#!/usr/bin/env python3
"""Costs of the agent: per inference, in bytes per report, in images lost by a swap, in memory, in writes to flash.

    scripts/bench/agent.py [--quick] [--json FILE]

Bytes to flash are those that the kernel counts for control process and child (/proc/pid/io, write_bytes), with a server
that acknowledges every message; over ten minutes, and extrapolated to an hour. The time is a multiple of the 45 s
between two checkpoints of a window: in 60 s there would be one or two, by chance; so --quick leaves these rows out.

Each row names its reference. Exit code 1 if a figure misses its target.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edge_agent.config import MonitorConfig
from edge_agent.device.clock import SystemClock
from edge_agent.device.record_file import read_record
from edge_agent.in_flight import InFlight
from edge_agent.inference import drift_counters, preprocess
from edge_agent.inference.answers import Answers, open_answers
from edge_agent.inference.batching import MAX_WAITING, ResultBatcher
from edge_agent.inference.child import POLL_S, CountingSettings, InferenceLoop
from edge_agent.inference.served_model import ServedModel, load_model
from edge_agent.pipe_frames import Frame, encode_frame, read_frame
from edge_agent.sinks import SinkSurroundings
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from edge_agent.sinks.jsonl import JsonLines
from edge_agent.sinks.jsonl import Settings as JsonlSettings
from edge_agent.sources import Capture
from edge_agent.tasks.classification import Classification
from edge_agent.transports.mqtt import MqttSettings, MqttTransport
from scripts.bench.processes import child_of, enrol, memory_mb, start_broker
from scripts.bench.rows import Row, told
from wire.answers import AnswerRecord
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.codec import encode
from wire.drift_report import DriftReport, encode_report, open_report
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.messages import Ack, Stream, Watermark
from wire.reference import Context, Reference, write_reference
from wire.topics import Kind, parse_topic
from wire.transport import Incoming, Notice

CLASSES, WIDTH, SIDE = 10, 64, 32
LAYERS_OF_5_MS = 6
LIMIT_US, LIMIT_SHARE, LIMIT_BYTES, LIMIT_CONTROL_MB = 60.0, 0.05, 800, 16.0
LIMIT_FILE_MS = 5.0
WAIT_S = 10.0  # for a line that never comes
LIMIT_IDLE_MB, LIMIT_BUSY_MB = 2.0, 5.0  # to flash per hour: without images, and at one per second
NOVEMBER_MB = 21.0  # at idle, before the status was written on change and readings were batched
MAX_LEFT = 3  # images of the last seconds: an agent that serves none writes little
SETTLE_S = 45.0  # until connected, the child started, and resent messages are acknowledged
PRE = Preprocessing(width=SIDE, height=SIDE, colour="rgb", mean=(0.5,), std=(0.25,))
RNG = np.random.default_rng(0)


def conv_net(layers: int) -> bytes:
    """Return an ONNX network of ``layers`` 3 x 3 convolutions of 64 channels at 32 x 32, pooled to an embedding."""
    weights, nodes, previous, channels = [], [], "input", 3
    for index in range(layers):
        kernel = RNG.normal(0, np.sqrt(2 / (9 * channels)), (WIDTH, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(helper.make_node("Conv", [previous, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        previous, channels = f"r{index}", WIDTH
    nodes += [
        helper.make_node("GlobalAveragePool", [previous], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "v"], ["logits"]),
    ]
    weights.append(numpy_helper.from_array(RNG.normal(size=(WIDTH, CLASSES)).astype(np.float32), "v"))
    spec = helper.make_tensor_value_info
    outputs = [spec("logits", TensorProto.FLOAT, ["N", CLASSES]), spec("embedding", TensorProto.FLOAT, ["N", WIDTH])]
    graph = helper.make_graph(nodes, "net", [spec("input", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])], outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def write_bundle(folder: Path, layers: int, version: int = 1) -> Path:
    """Write a bundle whose reference has equal-mass edges on random values."""
    artifact = conv_net(layers)
    specs = drift_counters.stream_specs(Classification(CLASSES), has_embedding=True)
    directions = np.linalg.qr(RNG.normal(size=(WIDTH, 8)))[0].T
    edges = tuple(float(np.float32(value)) for value in np.linspace(-1, 1, 15))
    reference = Reference(
        artifact_sha256=sha256_hex(artifact),
        streams=specs,
        contexts=(Context(counts=(0,) * 16 * len(specs)),),
        classes=CLASSES,
        confidence_bins=10,
        table_right=(0,) * 100,
        table_seen=(0,) * 100,
        edges=(edges,) * len(specs),
        projection_mean=(0.0,) * WIDTH,
        projection=tuple(map(tuple, directions.tolist())),
        projection_scale=(1.0,) * 8,
    )
    manifest = Manifest(
        model="bench", version=version, target="host", opset=17, labels=tuple("abcdefghij"), preprocessing=PRE,
        inputs=(TensorSpec(name="input", shape=(-1, 3, SIDE, SIDE)),),
        outputs=(TensorSpec(name="logits", shape=(-1, CLASSES)), TensorSpec(name="embedding", shape=(-1, WIDTH))),
    )  # fmt: skip
    path = folder / f"{version}-{layers}.tfb"
    path.write_bytes(build_bundle(manifest, {"model.onnx": artifact, "reference.bin": write_reference(reference)}))
    return path


def some_png(seed: int = 0) -> bytes:
    """Return a smooth random image, 32 x 32, as PNG."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((SIDE, SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


def usual_us(parts: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Return the processor time of each part (the best tenth's bound), in turns so that all share the conditions.

    Processor time of this thread (models run on one thread) and the best tenth, so that other work on a busy machine,
    which shares core and caches, has little effect.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for name, part in parts.items():
            start_ns = time.thread_time_ns()
            part()
            times[name].append((time.thread_time_ns() - start_ns) / 1000)
    return {name: float(np.percentile(values, 10)) for name, values in times.items()}


def overhead(model: ServedModel, seconds: float) -> tuple[float, float]:
    """Return the time that the agent adds to an inference, and that of the bare runtime call, in microseconds.

    16 inferences and their counting, as in the child, against the same 16 without counting.
    """
    outcome = model.infer(some_png())
    tensor = preprocess.to_tensor(outcome.image, PRE)
    tally = ResultBatcher(model)

    def bare() -> None:
        for _ in range(MAX_WAITING):
            model.runtime.run(tensor)

    def counted() -> None:
        for _ in range(MAX_WAITING):
            model.runtime.run(tensor)
            tally.add(outcome, b"", 0)

    times = usual_us({"bare": bare, "counted": counted}, seconds)
    return (times["counted"] - times["bare"]) / MAX_WAITING, times["bare"] / MAX_WAITING


def overheads(folder: Path, seconds: float) -> list[Row]:
    """Return the absolute cost with a small model, and the share of a model of about 5 ms."""
    ours, bare = overhead(load_model(write_bundle(folder, 1)), seconds)
    small = Row("counting one 32x32 image, small model: us, against the bare run", ours, bare,
                f"<= {LIMIT_US:g} us", ours <= LIMIT_US)  # fmt: skip
    ours, bare = overhead(load_model(write_bundle(folder, LAYERS_OF_5_MS)), seconds)
    large = Row("counting one 32x32 image, 5 ms model: us, against the bare run", ours, bare,
                f"<= {LIMIT_SHARE:.0%} of the run", ours <= LIMIT_SHARE * bare)  # fmt: skip
    return [small, large]


def whole_turn(model: ServedModel, seconds: float) -> Row:
    """Return the time of one whole image (decode, resize, run, count) against the bare runtime call."""
    data = some_png()
    tensor = preprocess.to_tensor(preprocess.decode_image(data), PRE)

    tally = ResultBatcher(model)

    def serve() -> None:
        tally.add(model.infer(data), data, 0)

    times = usual_us({"ours": serve, "run": lambda: model.runtime.run(tensor)}, seconds)
    return Row("one image from PNG to counters: us, against the bare runtime call", times["ours"], times["run"])


class _Timed:
    """A sink that writes JSON lines and notes when each answer was on its way to the file."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path, JsonlSettings())
        self.written_s: dict[str, float] = {}

    def send(self, records: Sequence[AnswerRecord]) -> int:
        sent = self._lines.send(records)
        self.written_s |= dict.fromkeys((record.id for record in records), time.perf_counter())
        return sent

    def close(self) -> None:
        self._lines.close()


class _Endless:
    """A source in memory that always has an image; ``paced``: it has none at every second look."""

    def __init__(self, *, paced: bool = False) -> None:
        self._images = [some_png(seed) for seed in range(16)]
        self._paced, self._looks, self.taken = paced, 0, 0

    def take(self) -> Capture | None:
        self._looks += 1
        if self._paced and self._looks % 2:
            return None
        self.taken += 1
        return Capture(str(self.taken), self._images[self.taken % 16], str(self.taken))

    def done(self, capture: Capture) -> None:
        """Nothing to do."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Report that it no longer exists."""
        del capture, code, final
        return True

    def take_dropped(self) -> int:
        return 0


def answers(folder: Path, seconds: float) -> list[Row]:
    """Return what the agent adds to an inference, with a file as its sink.

    Compared are a loop of the agent (it marks each input, decodes it, runs the model, counts for drift, judges the
    support, makes the answer, and its sink's thread writes the line) and a bare application, which decodes the same
    images to the same tensor, runs the same runtime and takes the largest output. Both have the images in memory. In
    turns, medians of the differences for one input: processor time of the whole process, the sink's thread included
    until the last line is written, and wall time. Inputs come without a pause, or one every 30 ms, for which both
    sleep. The target is a share of the runtime's call alone.
    """
    model = load_model(write_bundle(folder, LAYERS_OF_5_MS))
    model = replace(model, support=replace(model.support, limit=1.0, rate=0.01))
    images = [some_png(seed) for seed in range(16)]
    tensors = [preprocess.to_tensor(preprocess.decode_image(data, PRE), PRE) for data in images]

    def run() -> None:
        for number in range(64):
            model.runtime.run(tensors[number % 16])

    def application(count: int, pause_s: float) -> None:
        for number in range(count):
            tensor = preprocess.to_tensor(preprocess.decode_image(images[number % 16], PRE), PRE)
            model.runtime.run(tensor)[0].argmax()
            if pause_s:
                time.sleep(pause_s)

    rows, bare = [], _costs({"run": run}, 64, seconds / 2)["run"]
    bare_us = float(np.median([used for used, _ in bare]))
    limit_us = max(LIMIT_US, LIMIT_SHARE * bare_us)
    for name, count, pause_s in (("without a pause", 64, 0.0), ("every 30 ms", 16, POLL_S)):
        serve = _agent_of(model, folder / name, count, paced=pause_s > 0)
        costs = _costs({"agent": serve, "application": partial(application, count, pause_s)}, count, 2 * seconds)
        pairs = list(zip(costs["agent"], costs["application"], strict=True))
        added, longer = (float(np.median([ours[of] - theirs[of] for ours, theirs in pairs])) for of in (0, 1))
        rows.append(Row(f"inputs {name}, answers into a file: us added, against the run", added, bare_us,
                        f"<= {LIMIT_SHARE:.0%} or {LIMIT_US:g} us", added <= limit_us))  # fmt: skip
        if not pause_s:
            rows.append(Row("  the same in wall time: us added, against the run", longer, bare_us))
    return rows


def _costs(parts: Mapping[str, Callable[[], None]], count: int, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Return processor and wall time, microseconds an input, of parts in turns for ``seconds``; each has ``count``."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for name, part in parts.items():
            start_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
            part()
            used_us = (time.process_time_ns() - start_ns) / 1000
            times[name].append((used_us / count, (time.perf_counter_ns() - wall_ns) / 1000 / count))
    return times


def _agent_of(model: ServedModel, state: Path, count: int, *, paced: bool) -> Callable[[], None]:
    """Return a function that serves ``count`` inputs by a loop of the agent with a file as its sink."""
    state.mkdir()
    source = _Endless(paced=paced)
    loop = InferenceLoop(model, source, lambda *_: None, SystemClock(), CountingSettings())
    loop.in_flight = InFlight(state)
    loop.answers = open_answers({"log": {"kind": "jsonl"}}, SinkSurroundings(state=state))

    def serve() -> None:
        until = source.taken + count
        while source.taken < until:
            loop.step()
        loop.answer_waiting()
        while loop.answers.deliveries[0].account.open:
            time.sleep(0.0002)

    return serve


def delay(folder: Path, seconds: float) -> Row:
    """Return the delay of an answer's line, of one input every 20 ms, while another process keeps a core busy."""
    model = load_model(write_bundle(folder, LAYERS_OF_5_MS))
    sink, account = _Timed(folder / "answers.jsonl"), open_accounts(None, ["log"])["log"]
    found = Answers(deliveries=[Delivery("log", sink, SinkSettings(queue=100_000), account, lambda *_: None)])
    busy = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        delays_ms = [_delay_ms(model, found, sink, f"late-{number}") for number in range(round(50 * seconds))]
    finally:
        busy.kill()
        busy.wait()
    found.close()
    late = float(np.percentile(delays_ms, 95))
    return Row("an answer's line in a file after the inference, one core busy: p95 in ms", late, None,
               f"<= {LIMIT_FILE_MS:g} ms", late <= LIMIT_FILE_MS)  # fmt: skip


def _delay_ms(model: ServedModel, found: Answers, sink: _Timed, name: str) -> float:
    """Return how long after an inference its answer was in the file."""
    outcome = model.infer(some_png())
    done_s = time.perf_counter()
    found.answered(model, Capture(name, b"", name), outcome, (0, 0.0, 0.001))
    while name not in sink.written_s and time.perf_counter() - done_s < WAIT_S:
        time.sleep(0.0005)
    time.sleep(0.02)
    return (sink.written_s.get(name, float("inf")) - done_s) * 1000


def report_size(n: int) -> Row:
    """Return the bytes of the report of a window of ``n`` images, 23 streams of equal mass, 10 classes."""
    bins = RNG.multinomial(n, [1 / 16] * 16, size=23)
    table = RNG.multinomial(n, RNG.dirichlet([0.2] * 100))
    values = (*bins.ravel().tolist(), *(0,) * 23, *table.tolist())
    shape = drift_counters.Shape(23, CLASSES)
    digest = "ab" * 16
    report = DriftReport(
        boot="ab" * 8,
        seq=7,
        oldest_seq=7,
        window_start_ms=1_790_000_000_000,
        window_len_ms=3_600_000,
        context=0,
        artifact=digest,
        ref_id=digest,
        counters=drift_counters.Counters(shape, n, values),
    )
    size, raw = len(encode_report(report)), 4 * shape.total
    what = f"drift report of {n} images: bytes, against the counters as uint32"
    return Row(what, size, raw, f"<= {LIMIT_BYTES} B", size <= LIMIT_BYTES)


def swaps(folder: Path, count: int) -> Row:
    """Return the failed inferences of ``count`` swaps under load; every image is counted."""
    bundles = [write_bundle(folder, 2, version) for version in (1, 2)]
    said: list[Frame] = []
    source = _Endless()
    child = InferenceLoop(
        load_model(bundles[0]),
        source,
        lambda h, p: said.append(Frame(h, p)),
        SystemClock(),
        CountingSettings(beat_s=0.1),
    )
    for index in range(count):
        child.notices.put(Frame({"type": "swap", "bundle": str(bundles[(index + 1) % 2])}))
        while sum(frame.kind == "swapped" for frame in said) <= index:
            child.step()
    child.notices.put(Frame({"type": "stop"}))
    child.run()
    served = sum(int(str(frame.header["n"])) for frame in said if frame.kind == "window")
    failed = source.taken - served + sum(frame.kind == "fault" for frame in said)
    return Row(f"failed or uncounted inferences in {count} swaps, of {source.taken}", failed, None, "0", failed == 0)


def _install(
    state: Path, port: int, *, device: str = "dev", images: int = 200, options: str = "[monitor]\nwindow_s = 2.0\n"
) -> None:
    """Create a state directory as if enrolled, with the bench's bundle committed and images waiting."""
    enrol(state, write_bundle(state.parent, LAYERS_OF_5_MS, 7), port, device)
    for number in range(images):
        (state / "inbox" / f"{number:04}.png").write_bytes(some_png(number))
    (state / "agent.toml").write_text(f'[source]\npath = "inbox"\n{options}')


def memory(folder: Path, seconds: float) -> list[Row]:
    """Return the memory of a connected, inferring agent: of the control process, and with its child."""
    state = folder / "state"
    broker, port = start_broker(folder)
    _install(state, port)
    program = Path(sys.executable).with_name("edge-agent")
    command = [str(program), "run", "--state", str(state), "--config", str(state / "agent.toml")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")  # an installed wheel has compiled bytecode
    warm = [
        sys.executable,
        "-c",
        "import edge_agent.cli, edge_agent.control.assembly, edge_agent.inference.child, edge_agent.runtimes.onnx",
    ]
    subprocess.run(warm, env=environment, check=True)
    agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        end_s = time.monotonic() + 30
        while any((state / "inbox").iterdir()) and time.monotonic() < end_s:
            time.sleep(0.1)
        time.sleep(seconds)  # windows close, reports are sent
        control, child = memory_mb(agent.pid), memory_mb(child_of(agent.pid))
    finally:
        for process in (agent, broker):
            if process is not None:
                process.terminate()
                process.wait(20)
    connected = "connected" if broker else "without a broker"
    return [
        Row(f"control process, {connected}: PSS in MB, against RSS", control["Pss"], control["Rss"],
            f"<= {LIMIT_CONTROL_MB:g} MB", control["Pss"] <= LIMIT_CONTROL_MB),
        Row("whole agent on onnxruntime, 5 ms float model: PSS in MB, against RSS", control["Pss"] + child["Pss"],
            control["Rss"] + child["Rss"]),
    ]  # fmt: skip


TWO_MODELS = """
import sys
from pathlib import Path
from edge_agent.inference.served_model import load_model
held = []
for bundle in sys.argv[2:]:
    held.append(load_model(Path(bundle)))
    for _ in range(40):
        held[-1].infer(Path(sys.argv[1]).read_bytes())
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6, flush=True)
"""
LIMIT_SHADOW_MB, IMAGES_IN_SHADOW = 8.0, 400


def shadow(folder: Path) -> list[Row]:
    """Return what a challenger costs an inference child beside the model itself, and the champion's latency then."""
    first, second = write_bundle(folder, LAYERS_OF_5_MS, 1), write_bundle(folder, LAYERS_OF_5_MS, 2)
    image = folder / "shadow.png"
    image.write_bytes(some_png())
    two = [sys.executable, "-c", TWO_MODELS, str(image), str(first), str(second)]
    one_mb, both_mb = map(float, subprocess.run(two, capture_output=True, check=True, text=True).stdout.split())
    alone, beside = _child_with(folder, first, None), _child_with(folder, first, second)
    own_mb, extra_mb = both_mb - one_mb, beside[0] - alone[0]
    return [
        Row("challenger in the inference child: PSS in MB, against a second model alone", extra_mb, own_mb,
            f"<= {LIMIT_SHADOW_MB:g} MB more", extra_mb - own_mb <= LIMIT_SHADOW_MB),
        Row("champion's p50 of a run beside a challenger, in ms, against alone", beside[1], alone[1]),
        Row("champion's p95 of a run beside a challenger, in ms, against alone", beside[2], alone[2]),
    ]  # fmt: skip


def _child_with(folder: Path, champion: Path, challenger: Path | None) -> tuple[float, float, float]:
    """Return a child's PSS in MB after a run of images without a pause, and its p50 and p95 of an inference in ms."""
    inbox = folder / f"inbox-{challenger is not None}"
    inbox.mkdir()
    command = [sys.executable, "-m", "edge_agent.inference.child", "--bundle", str(champion)]
    command += ["--source", json.dumps({"kind": "directory", "path": str(inbox)})]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    given, out = child.stdin, child.stdout
    if given is None or out is None:
        raise SystemExit("Expected pipes to the child, got none")
    try:
        _until(out, "ready")
        if challenger is not None:
            given.write(encode_frame({"type": "shadow", "bundle": str(challenger)}))
            given.flush()
            _until(out, "shadow")
        for number in range(IMAGES_IN_SHADOW):
            (inbox / f".{number}").write_bytes(some_png(number))
            (inbox / f".{number}").rename(inbox / f"{number:04}.png")
        served, p50s, p95s = 0, [], []
        while served < IMAGES_IN_SHADOW:
            beat = _until(out, "beat").header
            served += int(str(beat["n"]))
            if beat["n"]:
                p50s.append(float(str(beat["p50_ms"])))
                p95s.append(float(str(beat["p95_ms"])))
        return memory_mb(child.pid)["Pss"], float(np.median(p50s)), float(np.median(p95s))
    finally:
        child.kill()
        child.wait()


def _until(out: IO[bytes], kind: str) -> Frame:
    """Return the next frame of ``kind``."""
    while (frame := read_frame(out)) is not None:
        if frame.kind == kind:
            return frame
    message = f"Expected a frame {kind}, got the end of the child"
    raise SystemExit(message)


def _acknowledge(server: MqttTransport, message: Incoming) -> None:
    """Acknowledge one message of a device immediately, as the server does."""
    topic = parse_topic(message.topic)
    if topic.kind is Kind.EVENT:
        stream = Stream.EVENT
    elif topic.kind is Kind.TELE:
        stream = Stream(topic.leaf)
    else:
        return
    if stream is Stream.DRIFT:
        report = open_report(message.payload)
        boot, seq = report.boot, report.seq
    else:
        document = json.loads(message.payload)
        boot, seq = document["boot"], document["seq"]
    ack = Ack((Watermark(stream, boot, seq),), round(time.time() * 1000))
    server.publish(f"tf/1/{topic.site}/{topic.device}/cmd/ack", encode(ack), retain=False)


def _written_mb(pids: list[int]) -> float:
    """Return the megabytes (10^6) that the processes have made the kernel write to the disk so far."""
    lines = [line.split() for pid in pids for line in Path(f"/proc/{pid}/io").read_text().splitlines()]
    return sum(int(line[1]) for line in lines if line[0] == "write_bytes:") / 1e6


def _air_mb(state: Path) -> float:
    """Return the megabytes (10^6) on air today by the agent's own count, which is up to two minutes old."""
    usage = read_record(state / "status.json")["usage"]
    today = usage["today"] if isinstance(usage, dict) else {}
    return (today["sent_bytes"] + today["received_bytes"]) / 1e6 if isinstance(today, dict) else 0.0


def flash(folder: Path, seconds: float) -> list[Row]:
    """Return megabytes to flash an hour and on air a day of two agents: one idle, one with an image a second."""
    broker, port = start_broker(folder)
    notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    server = MqttTransport(
        MqttSettings(host="127.0.0.1", port=port, client_id="server", username="server", password="secret")  # noqa: S106 - of a broker of our own
    )
    server.start(notices.put, subscriptions=("tf/1/#",))
    program = Path(sys.executable).with_name("edge-agent")
    agents, figures, image = {}, {}, some_png()
    try:
        for name in ("idle", "busy"):
            _install(folder / name, port, device=name, images=0, options="")
            command = [
                str(program),
                "run",
                "--state",
                str(folder / name),
                "--config",
                str(folder / name / "agent.toml"),
            ]
            agents[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        start_s, before, air = time.monotonic() + SETTLE_S, {}, {}
        for second in range(round(SETTLE_S + seconds)):
            new = folder / "busy" / "new.png"
            new.write_bytes(image)
            new.rename(folder / "busy" / "inbox" / f"{second:06}.png")
            while time.monotonic() < start_s - SETTLE_S + second + 1:
                with contextlib.suppress(queue.Empty):
                    notice = notices.get(timeout=0.05)
                    if isinstance(notice, Incoming):
                        _acknowledge(server, notice)
            if not before and time.monotonic() >= start_s:
                before = {name: _written_mb([agent.pid, child_of(agent.pid)]) for name, agent in agents.items()}
                air = {name: _air_mb(folder / name) for name in agents}
        elapsed_s = time.monotonic() - start_s
        for name, agent in agents.items():
            figures[name] = (_written_mb([agent.pid, child_of(agent.pid)]) - before[name]) * 3600 / elapsed_s
        air = {name: (_air_mb(folder / name) - air[name]) * 86_400 / elapsed_s for name in agents}
        left = sum(1 for _ in (folder / "busy" / "inbox").iterdir())
    finally:
        server.stop()
        for process in (*agents.values(), broker):
            if process is not None:
                process.terminate()
                process.wait(20)
    hour = f"MB an hour to flash, from {elapsed_s:.0f} s"
    idle, busy = figures["idle"], figures["busy"]
    return [
        Row(f"at idle: {hour}, against November's", idle, NOVEMBER_MB,
            f"<= {LIMIT_IDLE_MB:g} MB", idle <= LIMIT_IDLE_MB),
        Row(f"one image a second: {hour}, against idle", busy, idle,
            f"<= {LIMIT_BUSY_MB:g} MB", busy <= LIMIT_BUSY_MB and left <= MAX_LEFT),
        Row("at idle: MB a day to flash", 24 * idle),
        Row(f"at idle: MB a day on air, both ways, from {elapsed_s:.0f} s", air["idle"]),
        Row("one image a second: MB a day on air, against idle", air["busy"], air["idle"]),
        Row(f"a first start, at idle: kB to flash in {SETTLE_S:g} s", before["idle"] * 1e3),
    ]  # fmt: skip


def main() -> int:
    """Print the table; return 0 if all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute instead of 12, rougher, without flash")
    parser.add_argument(
        "--disk", type=Path, help="a folder on a disk, where the usual one for temporary files is in memory"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds = 1.0 if options.quick else 5.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = overheads(folder, seconds)
        rows.append(whole_turn(load_model(write_bundle(folder, LAYERS_OF_5_MS)), seconds))
        rows += answers(folder, seconds)
        rows.append(delay(folder, seconds))
        rows += [report_size(n) for n in (60, 3600, 86_400)]
        rows.append(swaps(folder, 5 if options.quick else 60))
        rows += memory(folder, 2.5)
        rows += shadow(folder)
    if not options.quick:
        with tempfile.TemporaryDirectory(dir=options.disk) as name:
            rows += flash(Path(name), 14 * MonitorConfig().checkpoint_s)
    return told(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
