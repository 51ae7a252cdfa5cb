"""A real agent and its real child, killed at any time: the counts of an open window are there afterwards, once."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import Identity
from edge_agent.device.record_file import write_record
from edge_agent.telemetry.spool import Spool
from edge_agent.updater.storage.slots import SlotRelease, Slots
from wire.canonical import sha256_hex
from wire.codec import decode, to_document
from wire.drift_report import decode_report
from wire.messages import Batch

pytestmark = pytest.mark.slow
CHECKPOINT_S, COMMIT_S, BUSY_S = 0.2, 0.1, 1.5  # what may be lost of a kill; the last: a busy machine
CONFIG = f"""
[source]
path = "inbox"
[monitor]
checkpoint_s = {CHECKPOINT_S}
[spool]
commit_s = {COMMIT_S}
[child]
beat_s = 0.1
healthy_s = 0.1
restart_min_s = 0.05
restart_max_s = 0.1
"""


class Device:
    """A state directory with a release, its agent, and a record of how many images were taken by which time."""

    def __init__(self, state: Path, bundle: Path) -> None:
        """Make a state directory as if enrolled and updated; nothing runs."""
        self.state, disk, data = state, RealDisk(), bundle.read_bytes()
        identity = Identity(
            site="site",
            device="dev",
            password="secret",
            mqtt_host="127.0.0.1",
            mqtt_port=9,
            http_url="http://127.0.0.1:9",
        )
        write_record(disk, state / "identity.json", to_document(identity))
        slots = Slots(state, disk)
        disk.write(slots.bundle(sha256_hex(data)), data)
        slots.fill("a", SlotRelease(release="tiny-1", sha256=sha256_hex(data)))
        slots.switch("a")
        (state / "agent.toml").write_text(CONFIG)
        (state / "inbox").mkdir()
        self.dropped = self.lost = 0
        self.taken: list[tuple[float, int]] = [(0.0, 0)]

    def start(self) -> None:
        """Start the agent."""
        program = "from edge_agent.cli import main; main()"
        options = ["run", "--state", str(self.state), "--config", str(self.state / "agent.toml")]
        self.agent = subprocess.Popen([sys.executable, "-c", program, *options], stderr=subprocess.DEVNULL)

    def child(self) -> int | None:
        """Return the process id of the inference child."""
        for path in Path(f"/proc/{self.agent.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread has just ended
                for pid in path.read_text().split():
                    return int(pid)
        return None

    def feed(self, data: bytes, seconds: float) -> None:
        """Drop an image every 10 ms, and record how many were taken."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            (self.state / "new.png").write_bytes(data)
            self.dropped += 1
            (self.state / "new.png").rename(self.state / "inbox" / f"{self.dropped:06}.png")
            self.look()
            time.sleep(0.01)

    def look(self) -> int:
        """Record how many images have been taken by now; return it."""
        left = sum(1 for _ in (self.state / "inbox").iterdir())
        self.taken.append((time.monotonic(), self.dropped - left))
        return self.dropped - left

    def kill(self, pid: int) -> None:
        """Kill -9, and note how many images that may cost."""
        since_s = time.monotonic() - CHECKPOINT_S - COMMIT_S - BUSY_S
        os.kill(pid, signal.SIGKILL)
        before = max(count for at_s, count in self.taken if at_s <= since_s or not at_s)
        self.lost += self.look() + 1 - before

    def counted(self) -> tuple[int, int]:
        """Return the number of inferences in the spool: in drift reports, and in rows of infer."""
        rows = Spool(path=self.state / "spool.db", limit_bytes=1 << 30)._rows("", ())
        drift = sum(decode_report(row.payload).counters.n for row in rows if row.stream == "drift")
        batches = [decode(Batch, row.payload) for row in rows if row.stream == "infer"]
        return drift, sum(int(str(row["n"])) for batch in batches for row in batch.rows)


def test_kills_lose_no_more_than_a_checkpoint_and_count_nothing_twice(
    bundle: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Agent or child killed at seeded times: counted + lost equals taken, and the loss of a kill is bounded in time."""
    device, image = Device(tmp_path, bundle()), tiny["png"](tiny["images"](1)[0])
    chance = random.Random(7)  # noqa: S311 - when to kill
    device.start()
    for _ in range(8):
        device.feed(image, 1.5 + 2.0 * chance.random())
        child = device.child()
        if chance.random() < 0.5 and child is not None:
            device.kill(child)
        else:
            device.kill(device.agent.pid)
            device.agent.wait()
            device.start()
    deadline = time.monotonic() + 60
    while device.look() < device.dropped:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(CHECKPOINT_S)
    device.agent.terminate()
    assert device.agent.wait(20) == 0
    drift, infer = device.counted()
    assert device.dropped - device.lost <= drift <= device.dropped, (drift, infer, device.lost, device.dropped)
    assert device.dropped - device.lost <= infer <= device.dropped, (drift, infer, device.lost, device.dropped)
