"""Limits the memory of a child process, and makes the kernel kill it before the control process.

Decides the limit: the configured one, or 7/8 of the memory of the control group or the machine, less the control
process's own. The limit is on private memory (``RssAnon``), which the kernel can't reclaim. It is enforced by
``RLIMIT_DATA``, set after the large imports: an allocation beyond it fails with ``MemoryError`` or ``bad_alloc`` where
it happens, and can be reported. ``RLIMIT_AS`` would count mapped files and reserved addresses too, hundreds of
megabytes for numpy and the runtimes. Standard library only.

Source: getrlimit(2), RLIMIT_DATA; proc(5), oom_score_adj; Linux Documentation/admin-guide/cgroup-v1/memory.rst and
cgroup-v2.rst, memory.max, memory.events.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

CONTROL_BYTES = 16 * 1024 * 1024
LEAST_BYTES = 32 * 1024 * 1024
_VIRTUAL_SLACK_BYTES = 48 * 1024 * 1024  # thread stacks and malloc arenas count in RLIMIT_DATA before they are touched
_NO_LIMIT_BYTES = 1 << 60  # cgroup v1 writes "none" as a number near 2^63
_FIRST_TO_GO = 500  # of 1000: a child is killed before the control process, which has to report it
_KIB = 1024


def ceiling_bytes(asked_bytes: int = 0, *, root: Path = Path("/")) -> int:
    """Return the limit of a child's private memory; ``asked_bytes`` of 0: derived from the control group or machine."""
    if asked_bytes:
        return max(asked_bytes, LEAST_BYTES)
    limits = [limit for path in _group_files(root, "memory.max", "memory.limit_in_bytes") if (limit := _number(path))]
    limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(min(limits) // 8 * 7 - CONTROL_BYTES, LEAST_BYTES)


def keep_below(limit_bytes: int) -> None:
    """Make further allocations of this process fail above ``limit_bytes`` of private memory; call after the imports."""
    room = max(0, limit_bytes - _status_bytes("RssAnon:"))
    total = _status_bytes("VmData:") + room + _VIRTUAL_SLACK_BYTES
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (total if hard == resource.RLIM_INFINITY else min(total, hard), hard))


def go_first() -> None:
    """Ask the kernel to kill this process before its parent when memory runs out."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO))
    except OSError:  # a sandbox without it: the largest process goes first anyway
        return


def room_bytes(limit_bytes: int) -> int:
    """Return how much more private memory this process may allocate."""
    return max(0, limit_bytes - _status_bytes("RssAnon:"))


def free_bytes(limit_bytes: int) -> int:
    """Return how much more private memory this process may allocate and the machine has."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return room_bytes(limit_bytes)
    available = [int(line.split()[1]) * _KIB for line in lines if line.startswith("MemAvailable:")]
    return min(room_bytes(limit_bytes), *available) if available else room_bytes(limit_bytes)


def oom_kills(*, root: Path = Path("/")) -> int:
    """Return how many processes of this control group the OOM killer has killed; 0 if the kernel doesn't count."""
    files = _group_files(root, "memory.events", "memory.oom_control")
    try:
        pairs = dict(line.split() for line in files[0].read_text().splitlines()) if files else {}
        return int(pairs.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def end_text(exit_code: int, *, out_of_memory: bool = False) -> str:
    """Return how a process ended, in words: ``exit 1``, ``killed by SIGSEGV``, ``killed by SIGKILL, out of memory``."""
    if exit_code >= 0:
        return f"exit {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"killed by {name}, out of memory" if out_of_memory and exit_code == -signal.SIGKILL else f"killed by {name}"


def _group_files(root: Path, newer: str, older: str) -> list[Path]:
    """Return the existing files of this process's memory control group and its parents, in either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, name = root / "sys/fs/cgroup", newer
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", older
        else:
            continue
        steps = [part for part in path.split("/") if part not in ("", "..")]
        found += [base.joinpath(*steps[:depth], name) for depth in range(len(steps), -1, -1)]
    return [path for path in found if path.exists()]


def _number(path: Path) -> int:
    """Return the limit in ``path``; 0 for none."""
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return 0
    return value if 0 < value < _NO_LIMIT_BYTES else 0


def _status_bytes(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith(key)), 0)
