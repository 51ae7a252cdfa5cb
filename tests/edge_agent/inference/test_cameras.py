"""A camera and the child that reads it: a bad cable costs the child nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.edge_agent.sources.camera_server import CameraServer
from tests.edge_agent.sources.prepared import jpeg


def _figures(pid: int) -> tuple[int, int]:
    """Return the numbers of descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - counted only


@pytest.mark.slow
@pytest.mark.parametrize("times", [5, pytest.param(100, marks=pytest.mark.nightly)])
def test_a_camera_unplugged_again_and_again_costs_nothing(times: int, bundle: Callable, child: Callable) -> None:
    """The child answers, stays the same process, and has as many descriptors, threads and children as at first."""
    server = CameraServer(jpeg(), frames=3)
    process = child(bundle(), kind="camera", path=server.address, retry_s=0.01)
    seen: list[tuple[int, int]] = []
    process.until("beat", lambda _: server.connections >= 2)
    answered = 0
    while server.connections < times + 2 or answered < times:  # beats come behind the frames that they count
        answered += process.until("beat").header["n"]
        seen.append(_figures(process.process.pid))
        assert server.connections < 20 * times, f"{answered} answers"
    programs: list[str] = []
    for path in Path(f"/proc/{process.process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            programs += path.read_text().split()
    assert len(programs) <= 1
    assert max(seen[-3:]) <= (max(count for count, _ in seen[:3]) + 5, max(count for _, count in seen[:3]))
    assert process.end() == 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{one}").exists() for one in programs):  # ffmpeg ends with the child
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.close()
