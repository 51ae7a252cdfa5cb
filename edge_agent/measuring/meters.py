"""Energy, temperature and throttling of a device while it measures, from /sys or from a file that counts.

Decides which files are read; a machine without them has no figure. Decides nothing about the figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = -1
_THROTTLED_NOW = 0xF  # Raspberry Pi: under-voltage, capped, throttled, soft limit; higher bits are of the past


@dataclass(frozen=True, slots=True)
class Meters:
    """``energy``: a file that counts microjoules; None: RAPL's packages. ``sys``: the root of sysfs."""

    energy: Path | None = None
    sys: Path = Path("/sys")

    def energy_uj(self) -> dict[Path, int]:
        """Return the count of each energy meter that can be read, in microjoules.

        Source: Linux, Documentation/power/powercap/powercap.rst; RAPL's sub-zones are part of their package.
        """
        paths = self.sys.glob("class/powercap/intel-rapl:[0-9]*/energy_uj") if self.energy is None else [self.energy]
        return _numbers(path for path in paths if path.parent.name.count(":") <= 1)

    def spent_uj(self, before: dict[Path, int]) -> int:
        """Return the energy since ``before``, in microjoules; a counter that began again counts from its range."""
        spent = 0
        for path, now in self.energy_uj().items():
            difference = now - before.get(path, now)
            if difference < 0:
                difference += next(iter(_numbers([path.with_name("max_energy_range_uj")]).values()), -difference)
            spent += max(0, difference)  # a range shorter than the count itself is wrong
        return spent

    def throttle_count(self) -> int:
        """Return how often the processor has been slowed down since it started; 0 where that is not counted.

        Source: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu (thermal_throttle).
        """
        return sum(self._throttle_counts())

    def throttle_events(self, since: int) -> int:
        """Return how often the processor was slowed down after the count ``since``; a brake that is on now is one.

        ``UNKNOWN`` where the machine has neither counts nor brakes.

        Source: Linux, Documentation/ABI/testing/sysfs-class-thermal (cooling devices); Raspberry Pi documentation,
        ``vcgencmd get_throttled``.
        """
        brakes = []
        for path in self.sys.glob("class/thermal/cooling_device*/type"):
            with suppress(OSError):
                if "cpufreq" in path.read_text():
                    brakes += [state > 0 for state in _numbers([path.with_name("cur_state")]).values()]
        flags = _numbers(self.sys.glob("devices/platform/soc/soc:firmware/get_throttled"), base=16)
        brakes += [bits & _THROTTLED_NOW > 0 for bits in flags.values()]
        counts = self._throttle_counts()
        return sum(counts) - since + sum(brakes) if counts or brakes else UNKNOWN

    def _throttle_counts(self) -> list[int]:
        return list(_numbers(self.sys.glob("devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")).values())


def _numbers(paths: Iterable[Path], *, base: int = 10) -> dict[Path, int]:
    found = {}
    for path in paths:
        with suppress(OSError, ValueError):
            found[path] = int(path.read_text(), base)
    return found
