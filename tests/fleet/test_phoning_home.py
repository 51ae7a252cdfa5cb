"""No program sends usage data: no file and no thread of onnxruntime's collector, no connection beyond loopback.

Each program is the real one, in a home of its own, with every connection noted by strace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Fleet, Wait

BIN = Path(sys.executable).parent
RECIPE = Path(__file__).parents[1] / "compressor" / "pipeline_recipe.toml"
THREADS_OF_INFER = 3  # the loop, which runs the model; one listens to the control process, one to the folder
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def beyond_loopback(trace: Path) -> list[str]:
    """Return the connections of a trace that leave this machine."""
    lines = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    return [line for line in lines if not re.search(r'"127\.|"::1"|sin_port=htons\(0\)', line)]


@pytest.mark.broker
@pytest.mark.parametrize("fleet", ["watched"], indirect=True)
def test_agent_and_server_stay_on_loopback(fleet: Fleet, wait: Wait, images: list) -> None:
    """Enrolled, updated, inferring and reporting: nothing in the home, no thread too many, no stranger called."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    device.see(images)
    wait(lambda: fleet.counted() >= len(images), "a report")
    (infer,) = [pid for pid in device.children() if b"infer" in cmdline(pid)]
    assert len(list(Path(f"/proc/{infer}/task").iterdir())) == THREADS_OF_INFER
    assert b"onnxruntime" in Path(f"/proc/{infer}/maps").read_bytes()
    for pid in (device.program.process.pid, fleet.server.process.pid):
        assert b"onnxruntime" not in Path(f"/proc/{pid}/maps").read_bytes()
    assert list(fleet.home.rglob("*")) == []
    for program in (device.program, fleet.server):
        assert "AF_INET" in program.trace.read_text()
        assert beyond_loopback(program.trace) == []


def cmdline(pid: int) -> bytes:
    """Return the command of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_compressor_makes_a_release_without_calling_anybody(tmp_path: Path) -> None:
    """From recipe to gated bundle: nothing in the home, no connection at all beyond loopback."""
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    watch = ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect", "-o", str(trace)]
    command = [str(BIN / "compressor"), "run", str(RECIPE), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*watch, *command], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "out").glob("*.tfb"))
    assert list(home.rglob("*")) == []
    assert beyond_loopback(trace) == []


def test_the_collector_would_be_seen(tmp_path: Path) -> None:
    """Without the switch onnxruntime 1.32 writes into the home, so what the other tests look for is real.

    In a network namespace without a network: this test must not do what the others forbid.
    """
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", "OMP_NUM_THREADS": "1"}
    command = ["unshare", "--net", sys.executable, "-c", "import onnxruntime"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode != 0 or not list(tmp_path.rglob("*onnxruntime*")):
        pytest.skip(f"needs root and an onnxruntime with a collector: {done.stderr[-200:]!r}")
