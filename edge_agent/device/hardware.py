"""Reads hardware figures from /proc, /sys and the standard library. Decides nothing."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_agent.device.disk import free_bytes
from wire.codec import Json

_KIB = 1024


@dataclass(slots=True, kw_only=True)
class Hardware:
    """Figures of this process, its child and the machine; ``cpu_ratio`` covers the time since the last call."""

    state: Path
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    _cpu_s: float = 0.0
    _at_s: float = 0.0
    _written_bytes: int = 0

    def read(self, *, now_ms: int, child_pid: int, spool_bytes: int) -> dict[str, Json]:
        """Return one row of ``tele/hw``; figures that the machine doesn't provide are 0.

        Source: proc(5), ``/proc/pid/io``; a process's figure includes that of children it has waited for.
        """
        pids = [os.getpid(), *([child_pid] if child_pid else [])]
        before = self._written_bytes
        # the maximum so far: between the end of a child and the wait for it, its figure is missing
        self._written_bytes = max(before, sum(self._figure(pid, "io", "write_bytes:") for pid in pids))
        rss_bytes = sum(self._figure(pid, "status", "VmRSS:") for pid in pids) * _KIB
        return {
            "at_ms": now_ms,
            "rss_bytes": rss_bytes,
            "pss_bytes": sum(self._figure(pid, "smaps_rollup", "Pss:") for pid in pids) * _KIB,
            "cpu_ratio": round(self._cpu_ratio(pids), 4),
            "temperature_celsius": self.temperature_celsius(),
            "disk_free_bytes": free_bytes(self.state),
            "spool_bytes": spool_bytes,
            "written_bytes": self._written_bytes - before,
        }

    def temperature_celsius(self) -> float:
        """Return the temperature of the hottest thermal zone; 0 if there is none."""
        values = [_number(path) / 1000 for path in self.sys.glob("class/thermal/thermal_zone*/temp")]
        return max(values, default=0.0)

    def battery_ratio(self) -> float:
        """Return the lowest charge of the discharging batteries, 0 to 1; 1 if no battery is discharging."""
        folders = self.sys.glob("class/power_supply/*/capacity")
        draining = [path for path in folders if _word(path.with_name("status")) == "Discharging"]
        return min((_number(path) / 100 for path in draining), default=1.0)

    def _figure(self, pid: int, file: str, key: str) -> int:
        try:
            lines = (self.proc / str(pid) / file).read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)

    def _cpu_ratio(self, pids: list[int]) -> float:
        now_s, cpu_s = time.monotonic(), 0.0
        for pid in pids:
            with suppress(OSError):
                fields = (self.proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])  # utime, stime: proc(5), fields 14 and 15
                cpu_s += ticks / os.sysconf("SC_CLK_TCK")
        elapsed_s, used_s = now_s - self._at_s, cpu_s - self._cpu_s
        first, self._at_s, self._cpu_s = self._at_s == 0.0, now_s, cpu_s
        return 0.0 if first or elapsed_s <= 0 else max(0.0, used_s / elapsed_s)


def hardware_class() -> str:
    """Return the processor's architecture, the default hardware class of a device."""
    return platform.machine()


def runtimes() -> tuple[str, ...]:
    """Return the runtimes whose packages are installed; imports none of them."""
    from edge_agent import declarations  # noqa: PLC0415 - the control process gets them from its command

    return tuple(one.name for one in declarations.runtimes() if one.offered and one.installed)


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
