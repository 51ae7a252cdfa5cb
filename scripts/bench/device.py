#!/usr/bin/env python3
"""Costs of an installed device: memory, start, idle time, size, and the delay from a picture to its answer's message.

    scripts/bench/device.py [--quick] [--root DIR] [--bundle FILE.tfb] [--json FILE]

The device's packages alone are installed below a folder, as `scripts/install-agent` does it, because a build host's
environment has packages that the control process would take in. Run it alone on the machine. --root: an installation
made before with `install-agent --prefix DIR`. --bundle: the release to run, which decides the runtime; without one the
digits that the wheel carries (--quick) or a ResNet8 with int8 weights that is trained for this (a minute).

Private memory (USS) is what a process alone holds; PSS shares what several map. The floor is a Python with sqlite3, ssl
and paho-mqtt from the same installation, in the same run. Exit code 1 if a figure misses its target.
"""

# ruff: noqa: E402 - found through the line that extends the path
from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.bench.processes import MB, child_of, enrol, memory_mb, start_broker, used_s
from scripts.bench.rows import Row, told
from wire.bundle import read_bundle
from wire.codec import parse_json

FLOOR = "import sqlite3, ssl, sys, paho.mqtt.client; sqlite3.connect(':memory:'); print(flush=True); sys.stdin.read()"
START_S, IDLE_SHARE, LIMIT_MB = 2.0, 0.01, 128
FILE_MS, BROKER_MS = 5.0, 20.0
ABOVE_FLOOR_MB, BESIDE_RUNTIME_MB = 3.0, 15.0
PSS_MB = {"onnx": 95.0, "litert": 75.0}
OF_RUNTIME = {
    "onnx": ("numpy", "onnxruntime", "flatbuffers", "google", "packaging", "protobuf"),
    "litert": ("numpy", "ai_edge_litert", "flatbuffers", "typing_extensions", "backports"),
}
WAIT_S = 60.0
RESNET8 = """
[model]
name = "resnet8"
network = "resnet8"
network_options = {filters = 16}
[data]
dataset = "digits"
[train]
epochs = 2
learning_rate = 0.01
[[compress]]
step = "quantize"
scheme = "static_int8"
reduce_range = true
[targets.bench]
runtime = "RUNTIME"
[gates]
size_bytes = {max = 1000000}
"""


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """Run mosquitto on a free port."""
    process, port = start_broker(folder)
    if process is None:
        sys.exit("Expected mosquitto, got none: apt-get install mosquitto")
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Device:
    """An installation, and one agent of it with a release and two sinks: a file, and the broker on site."""

    program: Path
    state: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    _offset: int = 0
    lines: list[bytes] = field(default_factory=list)

    def prepare(self, bundle: Path) -> None:
        """Create the state directory of an enrolled device with this release."""
        enrol(self.state, bundle, self.port)
        sinks = f'[sinks.log]\nkind = "jsonl"\n[sinks.site]\nkind = "mqtt"\nport = {self.port}\ntopic = "site/dev"\n'
        (self.state / "agent.toml").write_text(f"[monitor]\nwindow_s = 3600\n{sinks}")

    def start(self, before: Callable[[], None] | None = None) -> None:
        """Start the agent; ``before`` runs in its process."""
        self.started_s = time.monotonic()
        command = [self.program, "run", "--state", self.state, "--config", self.state / "agent.toml"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            preexec_fn=before,  # noqa: PLW1509
        )

    @property
    def pid(self) -> int:
        """The number of the control process; 0 before the first start."""
        return self.process.pid if self.process is not None else 0

    def stop(self) -> None:
        """End the agent in an orderly way."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def drop(self, name: str, picture: bytes) -> None:
        """Move a picture into the folder that the agent watches."""
        (self.state / ".new").write_bytes(picture)
        (self.state / ".new").rename(self.state / "inbox" / name)

    def answer(self, name: str) -> tuple[float, dict[str, object]]:
        """Wait for the line of the picture ``name``; return when it was seen, monotonic, and its record."""
        path, end_s = self.state / "answers" / "log.jsonl", time.monotonic() + WAIT_S
        while time.monotonic() < end_s:
            if path.exists():
                with path.open("rb") as file:
                    file.seek(self._offset)
                    new = file.read()
                whole = new[: new.rfind(b"\n") + 1]
                self._offset += len(whole)
                seen_s = time.monotonic()
                for line in whole.splitlines():
                    record = parse_json(line)
                    if str(record["id"]).startswith(name):
                        return seen_s, dict(record)
            time.sleep(0.0003)
        sys.exit(f"Expected the answer to {name} within {WAIT_S:g} s, got none")


def memory(device: Device, python: Path, runtime: str) -> list[Row]:
    """Return the memory of a connected agent that has answered, against the floor of the same installation."""
    floor = subprocess.Popen([python, "-c", FLOOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if floor.stdout is not None:
        floor.stdout.readline()  # it has imported all
    control, child = memory_mb(device.pid), memory_mb(child_of(device.pid))
    least = memory_mb(floor.pid)["Uss"]
    floor.communicate()
    whole = control["Pss"] + child["Pss"]
    allowed = least + ABOVE_FLOOR_MB
    return [
        Row("control process: private memory in MB, against the floor", control["Uss"], least,
            f"<= {allowed:.1f} MB", control["Uss"] <= allowed),
        Row(f"whole agent on {runtime}: PSS in MB", whole, None, f"<= {PSS_MB[runtime]:g} MB",
            whole <= PSS_MB[runtime]),
    ]  # fmt: skip


def idle(device: Device, seconds: float) -> Row:
    """Return the share of a core that agent and child use with nothing to do."""
    pids = [device.pid, child_of(device.pid)]
    before, start_s = sum(map(used_s, pids)), time.monotonic()
    time.sleep(seconds)
    share = (sum(map(used_s, pids)) - before) / (time.monotonic() - start_s)
    return Row(
        f"processor at rest, of one core, over {seconds:g} s: %", share * 100, None, "<= 1 %", share <= IDLE_SHARE
    )


def starts(device: Device, picture: bytes, times: int) -> Row:
    """Return the median time from the start of the program to the first answer's line."""
    taken = []
    for number in range(times):
        device.drop(f"start-{number}.png", picture)
        device.start()
        taken.append(device.answer(f"start-{number}.png")[0] - device.started_s)
        if number < times - 1:
            device.stop()
    median = statistics.median(taken)
    return Row(f"start to first answer, median of {times}: s", median, None, f"<= {START_S:g} s", median <= START_S)


def delays(device: Device, picture: bytes, times: int) -> list[Row]:
    """Return the delay from a picture's rename to its line and to its MQTT message, less the runtime's call.

    Another process keeps one core busy.
    """
    arrived: dict[str, float] = {}
    news = threading.Condition()

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        with news:
            arrived[str(parse_json(message.payload)["id"]).partition("@")[0]] = time.monotonic()
            news.notify()

    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    client.connect("127.0.0.1", device.port)
    client.subscribe("site/dev/answer")
    client.loop_start()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], stderr=subprocess.DEVNULL)
    lines, messages = [], []
    try:
        for number in range(times):
            name = f"late-{number}.png"
            time.sleep(0.05)
            sent_s = time.monotonic()
            device.drop(name, picture)
            seen_s, record = device.answer(name)
            run_s = float(str(record["run_ms"])) / 1000
            lines.append((seen_s - sent_s - run_s) * 1000)
            with news:
                if not news.wait_for(lambda name=name: name in arrived, WAIT_S):
                    sys.exit(f"Expected a message for {name} within {WAIT_S:g} s, got none")
            messages.append((arrived[name] - sent_s - run_s) * 1000)
    finally:
        busy.kill()
        busy.wait()
        client.loop_stop()
    rows = []
    for where, found, limit in (
        ("line in a file", lines, FILE_MS),
        ("message at the broker on site", messages, BROKER_MS),
    ):
        worst, median = statistics.quantiles(found, n=20)[-1], statistics.median(found)
        rows.append(Row(f"picture to {where}, less inference, one core busy: median ms", median, None,
                        f"<= {limit:g} ms", median <= limit))  # fmt: skip
        rows.append(Row("  the same: p95 ms", worst))
    return rows


def limited(device: Device, picture: bytes) -> Row:
    """Return the most memory that agent and child took in a group limited to 128 MB, its cold files included."""
    group = Path("/sys/fs/cgroup/memory") / f"tinyfleet-bench-{os.getpid()}"
    what = f"whole agent in a limit of {LIMIT_MB} MB, files included: most MB"
    try:
        group.mkdir()
    except OSError:
        return Row(f"{what} (not measured: it needs root and cgroup v1)", 0.0)
    try:
        (group / "memory.limit_in_bytes").write_text(str(LIMIT_MB * 1024 * 1024))
        site = next(device.program.parent.parent.glob("lib/python*/site-packages"))
        for path in site.rglob("*"):  # files in the cache already would not count
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
        device.drop("limited.png", picture)
        device.start(lambda: (group / "cgroup.procs").write_text("0") and None)  # type: ignore[arg-type]
        device.answer("limited.png")
        time.sleep(2.0)
        most = int((group / "memory.max_usage_in_bytes").read_text()) / MB
        killed = "oom_kill 0" not in (group / "memory.oom_control").read_text()
        device.stop()
        return Row(what, most, None, "answers, none killed", not killed)
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def size(root: Path, runtime: str) -> Row:
    """Return the bytes that an installation takes on the disk beside the runtime and numpy; holes take none."""
    home = root / "opt/tinyfleet-agent/current"
    site = next((home / "lib").glob("python*/site-packages"))
    others = [path for path in home.iterdir() if path.name not in {"lib", "lib64"}]
    parts = [*others, *(path for path in site.iterdir() if not path.name.startswith(OF_RUNTIME[runtime]))]
    files = [path for part in parts for path in (part, *part.rglob("*")) if path.is_file() and not path.is_symlink()]
    ours = sum(path.stat().st_blocks * 512 for path in files) / MB
    return Row(
        "installed beside runtime and numpy: MB", ours, None, f"<= {BESIDE_RUNTIME_MB:g} MB", ours <= BESIDE_RUNTIME_MB
    )


def installed(folder: Path, runtime: str) -> Path:
    """Return a folder in which the wheel of this checkout is installed."""
    if not list((folder / "dist").glob("tinyfleet_agent*.whl")):
        subprocess.run(
            [sys.executable, "-m", "scripts.packing", "--out", folder / "dist"], cwd=ROOT, check=True, stdout=2
        )
    wheel = next((folder / "dist").glob("tinyfleet_agent*.whl"))
    root = folder / runtime
    command = [ROOT / "scripts" / "install-agent", "--prefix", root, "--wheel", wheel, "--runtime", runtime]
    subprocess.run(command, check=True, stdout=2)
    return root


def trained(folder: Path, runtime: str) -> Path:
    """Return a ResNet8 with int8 weights for ``runtime``, trained for two epochs: its speed and memory matter here."""
    recipe, out = folder / f"resnet8-{runtime}.toml", folder / f"out-{runtime}"
    recipe.write_text(RESNET8.replace("RUNTIME", runtime))
    program = Path(sys.executable).with_name("compressor")
    subprocess.run([program, "run", recipe, "--out", out], check=True, stdout=2)
    return next(out.glob("*.tfb"))


def measured(folder: Path, root: Path, bundle: Path, *, quick: bool) -> list[Row]:
    """Return the rows of one installation and release."""
    runtime = read_bundle(bundle).manifest.runtime
    program = root / "opt/tinyfleet-agent/current/bin/edge-agent"
    picture = _picture(root)
    rows = [size(root, runtime)]
    with broker(folder) as port:
        device = Device(program, folder / f"state-{runtime}", port)
        device.prepare(bundle)
        try:
            rows.append(starts(device, picture, 3 if quick else 7))
            rows += delays(device, picture, 40 if quick else 200)
            rows.append(idle(device, 5.0 if quick else 30.0))
            rows += memory(device, program.with_name("python"), runtime)
            device.stop()
            rows.append(limited(device, picture))
        finally:
            device.stop()
    return [Row(f"{runtime}: {row.what}", row.ours, row.reference, row.target, row.met) for row in rows]


def _picture(root: Path) -> bytes:
    """Return one of the pictures that the wheel carries."""
    with zipfile.ZipFile(next((root / "opt").glob("**/edge_agent/try/pictures.zip"))) as pictures:
        return pictures.read(pictures.namelist()[0])


def main() -> int:
    """Print the table; return 0 if all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one runtime, fewer repetitions")
    parser.add_argument("--root", type=Path, help="an installation by install-agent --prefix, instead of a new one")
    parser.add_argument("--bundle", type=Path, help="the release to run, instead of a new ResNet8")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tinyfleet-device-") as name:
        folder = Path(name)
        runtimes = ["onnx"] if options.quick else ["onnx", "litert"]
        if options.bundle is not None:
            runtimes = [read_bundle(options.bundle).manifest.runtime]
        for runtime in runtimes:
            root = options.root or installed(folder, runtime)
            carried = next((root / "opt").glob("**/edge_agent/try/*.tfb"))
            bundle = options.bundle or (carried if options.quick else trained(folder, runtime))
            rows += measured(folder, root, bundle, quick=options.quick)
    return told(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
