"""An agent of a bench: its state directory, its broker, and what its processes cost as the kernel counts it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import Identity
from edge_agent.updater.storage.slots import SlotRelease, Slots
from server.broker.process import free_port
from wire.bundle import read_bundle
from wire.canonical import sha256_hex
from wire.codec import encode

MB = 1e6
_CHILD_S, _BROKER_S = 60.0, 20.0


def enrol(state: Path, bundle: Path, port: int, device: str = "dev") -> None:
    """Create a state directory as if enrolled with the broker at ``port``, with ``bundle`` committed and an inbox."""
    state.mkdir(mode=0o700)
    digest, slots, disk = sha256_hex(bundle.read_bytes()), Slots(state, RealDisk()), RealDisk()
    secret = "secret"  # noqa: S105 - of a broker of our own
    identity = Identity(
        site="site", device=device, password=secret, mqtt_host="127.0.0.1", mqtt_port=port,
        http_url="http://127.0.0.1:9",
    )  # fmt: skip
    disk.write(state / "identity.json", encode(identity))
    disk.write(slots.bundle(digest), bundle.read_bytes())
    slots.fill("a", SlotRelease(release=read_bundle(bundle).manifest.release, sha256=digest))
    slots.switch("a")
    (state / "inbox").mkdir()


def start_broker(folder: Path) -> tuple[subprocess.Popen[bytes] | None, int]:
    """Start mosquitto on a free port, and wait until it accepts connections; None if it is not installed."""
    port = free_port("127.0.0.1")
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        return None, port
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    process = subprocess.Popen([program, "-c", str(settings)], stderr=subprocess.DEVNULL)
    end_s = time.monotonic() + _BROKER_S
    while time.monotonic() < end_s and process.poll() is None:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return process, port
        time.sleep(0.01)
    process.kill()
    sys.exit(f"Expected mosquitto to listen on {port} within {_BROKER_S:g} s, got no connection")


def child_of(pid: int) -> int:
    """Return the inference child of a control process, waiting for it."""
    end_s = time.monotonic() + _CHILD_S
    while time.monotonic() < end_s:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread or the process has just ended
                for child in path.read_text().split():
                    if b"inference.child" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        time.sleep(0.01)
    sys.exit(f"Expected an inference child of {pid} within {_CHILD_S:g} s, got none")


def memory_mb(pid: int) -> dict[str, float]:
    """Return the memory of a process in megabytes (10^6) by the kernel's names, and ``Uss``, which it alone holds."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    found = {line[0].rstrip(":"): int(line[1]) * 1024 / MB for line in lines}
    return {**found, "Uss": found["Private_Clean"] + found["Private_Dirty"]}


def used_s(pid: int) -> float:
    """Return the processor time of a process and all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
