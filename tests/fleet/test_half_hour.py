"""Half an hour under load: the agent's memory, descriptors, threads and disk stay as they are."""

from __future__ import annotations

import os
import statistics
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Device, Fleet

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.nightly]

SECONDS = float(os.environ.get("TINYFLEET_SOAK_S", "1800"))
EVERY_S = 0.05
SINKS = """
[sinks.log]
kind = "jsonl"
max_bytes = 100000
files = 2
[sinks.up]
kind = "fleet"
max_bytes_per_day = 1000000
"""


def figures(device: Device) -> dict[str, float]:
    """Return what must not grow, of all processes together."""
    found = {"kB": 0.0, "descriptors": 0.0, "threads": 0.0}
    for pid in (device.program.process.pid, *device.children()):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            found["kB"] += int(line.split()[1]) if line.startswith("Private_") else 0
        found["descriptors"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        found["threads"] += len(list(Path(f"/proc/{pid}/task").iterdir()))
    kept = [path for path in device.state.rglob("*") if path.is_file() and path.parent.name != "inbox"]
    found["disk kB"] = sum(path.stat().st_size for path in kept if path.exists()) / 1024
    return found


@pytest.mark.timeout(SECONDS + 600)
def test_nothing_grows_under_load(fleet: Fleet, images: list) -> None:
    """20 pictures a second, two sinks, windows and reports; the last third is compared with the third before it."""
    device = fleet.add("dev", SINKS)
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    samples, start_s, end_s, due_s = [], time.monotonic(), time.monotonic() + SECONDS, 0.0
    for number in count():
        device.see([images[number % len(images)]])
        if time.monotonic() >= due_s:
            samples.append(figures(device))
            due_s = time.monotonic() + SECONDS / 90
        if time.monotonic() >= end_s:
            break
        time.sleep(max(0.0, start_s + (number + 1) * EVERY_S - time.monotonic()))
    third = len(samples) // 3
    before, after = samples[third : 2 * third], samples[2 * third :]
    medians = {key: [statistics.median(one[key] for one in part) for part in (before, after)] for key in before[0]}
    print(medians)  # noqa: T201 - for a person who looks at the growth
    allowed = {"kB": 1024, "descriptors": 1, "threads": 0, "disk kB": 512}
    assert {key: pair for key, pair in medians.items() if pair[1] - pair[0] > allowed[key]} == {}
    assert device.program.process.poll() is None
    assert fleet.inferences() > 0.5 * SECONDS / EVERY_S
