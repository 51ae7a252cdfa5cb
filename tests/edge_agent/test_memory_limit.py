"""The memory limit of a child, and how its kill is recognised."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.device import memory_limit

MIB = 1024 * 1024


def _machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/app/child\n", {"app/child/memory.max": "max\n", "app/memory.max": f"{128 * MIB}\n"}),
        ("4:cpu,memory:/app\n0::/\n", {"memory/app/memory.limit_in_bytes": f"{128 * MIB}\n"}),
        ("0::/..\n", {"memory.max": f"{128 * MIB}\n"}),
    ],
)
def test_the_ceiling_follows_from_the_smallest_group(cgroup: str, files: dict[str, str], tmp_path: Path) -> None:
    """Both versions of control groups, the groups above included: 7/8 of 128 MB, less 16 for the control process."""
    assert memory_limit.ceiling_bytes(root=_machine(tmp_path, cgroup, files)) == 96 * MIB


def test_without_a_group_the_ceiling_follows_from_the_machine(tmp_path: Path) -> None:
    """Version 1 writes "none" as a huge number; a setting overrides both, but never below a child's minimum."""
    files = {"memory/memory.limit_in_bytes": "9223372036854771712\n"}
    root = _machine(tmp_path, "4:memory:/\n", files)
    assert memory_limit.ceiling_bytes(root=root) > 96 * MIB
    assert memory_limit.ceiling_bytes(200 * MIB, root=root) == 200 * MIB
    assert memory_limit.ceiling_bytes(1, root=root) == memory_limit.LEAST_BYTES


@pytest.mark.parametrize(
    ("cgroup", "name", "text"),
    [("0::/a\n", "a/memory.events", "low 0\noom 5\noom_kill 3\n"),
     ("4:memory:/a\n", "memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")],
)  # fmt: skip
def test_counts_what_the_kernel_killed_in_this_group(cgroup: str, name: str, text: str, tmp_path: Path) -> None:
    """Of this group alone, in both versions."""
    assert memory_limit.oom_kills(root=_machine(tmp_path, cgroup, {name: text, "memory.events": "oom_kill 9\n"})) == 3


def test_an_allocation_beyond_the_ceiling_fails_by_name_where_it_happens() -> None:
    """100 MB of room: 80 go, 300 raise MemoryError at once, and the process lives on."""
    code = (
        "import numpy as np; from edge_agent.device import memory_limit as m\n"
        "m.keep_below(m._status_bytes('RssAnon:') + 100 * 2**20)\n"
        "np.ones(10 * 2**20); print('fits')\ntry: np.ones(40 * 2**20)\nexcept MemoryError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["fits", "refused"]


@pytest.mark.parametrize(
    ("exit_code", "out_of_memory", "text"),
    [(1, False, "exit 1"), (-11, True, "killed by SIGSEGV"), (-9, False, "killed by SIGKILL"),
     (-9, True, "killed by SIGKILL, out of memory"), (-99, False, "killed by signal 99")],
)  # fmt: skip
def test_says_how_a_process_ended(exit_code: int, out_of_memory: bool, text: str) -> None:  # noqa: FBT001 - a table
    """Exit code, signal by name, and memory only where the kernel counted a kill."""
    assert memory_limit.end_text(exit_code, out_of_memory=out_of_memory) == text
