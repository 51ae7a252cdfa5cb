"""How the agent's previous run ended: ``last_start.json``, written at each start and at an orderly end.

Standard library only.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, write_record
from wire.errors import WireError

_FILE = "last_start.json"


class LastEnd(Enum):
    """How a run of the agent ended. ``AGENT`` also if that is unknown."""

    IN_ORDER = auto()
    AGENT = auto()  # the agent ended and the machine ran on: killed, crashed, out of memory
    MACHINE = auto()  # the machine has restarted: most likely a power cut


def begin(state: Path, disk: Disk) -> LastEnd:
    """Record that the agent starts; return how its previous run ended. An unwritable disk is not an error."""
    path, boot = state / _FILE, boot_id()
    try:
        before = read_record(path)
    except (OSError, WireError):
        before = {}
    with suppress(OSError):
        write_record(disk, path, {"boot": boot, "in_order": False})
    if before.get("in_order") is True:
        return LastEnd.IN_ORDER
    return LastEnd.MACHINE if boot and before.get("boot") not in {None, "", boot} else LastEnd.AGENT


def end(state: Path, disk: Disk) -> None:
    """Record an orderly end. If that can't be written, the next start counts as one after a crash."""
    with suppress(OSError):
        write_record(disk, state / _FILE, {"boot": boot_id(), "in_order": True})


def boot_id() -> str:
    """Return the id of the machine's boot; "" if the kernel provides none.

    Source: random(4), /proc/sys/kernel/random/boot_id.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
