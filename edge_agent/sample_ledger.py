"""What was granted of today's sample budget, on disk, so that a restart grants nothing twice.

Decides what an unreadable file means: the day's budget counts as spent, because raw inputs that left the device
can't be called back.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from edge_agent.commands import DAY_MS, SampleBudget
from edge_agent.disk import Disk
from wire.codec import decode, encode
from wire.errors import WireError


@dataclass(frozen=True, slots=True)
class SampleLedger:
    """The file ``samples.json`` below the state directory."""

    state: Path
    disk: Disk

    def read(self, now_ms: int) -> SampleBudget:
        """Return what was granted."""
        try:
            return decode(SampleBudget, (self.state / "samples.json").read_bytes())
        except FileNotFoundError:
            return SampleBudget()
        except (OSError, WireError):
            return SampleBudget(now_ms // DAY_MS, sys.maxsize)

    def write(self, budget: SampleBudget) -> None:
        """Keep what was granted.

        Raises:
            OSError: If it can't be written.
        """
        self.disk.write(self.state / "samples.json", encode(budget))
