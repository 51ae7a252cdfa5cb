"""What commands did, on disk: a restart grants nothing twice, acts on no command twice, and goes on with its grants.

Decides what an unreadable file means: the day's budget counts as spent, because raw inputs that left the device
can't be called back.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, write_record
from edge_agent.telemetry.commands import DAY_MS, Ledger
from wire.codec import from_document, to_document
from wire.errors import WireError


@dataclass(frozen=True, slots=True)
class SampleLedger:
    """The file ``samples.json`` below the state directory."""

    state: Path
    disk: Disk

    def read(self, now_ms: int) -> Ledger:
        """Return the ledger."""
        try:
            return from_document(Ledger, read_record(self.state / "samples.json"))
        except FileNotFoundError:
            return Ledger()
        except (OSError, WireError):
            return Ledger(now_ms // DAY_MS, sys.maxsize)

    def write(self, ledger: Ledger) -> None:
        """Keep the ledger.

        Raises:
            OSError: If it can't be written.
        """
        write_record(self.disk, self.state / "samples.json", to_document(ledger))
