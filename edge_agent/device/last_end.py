"""How the agent's run before this one ended: ``last_start.json``, written at each start and at an end in order.

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
    """How a run of the agent ended. ``AGENT`` also where nothing is known of it."""

    IN_ORDER = auto()
    AGENT = auto()  # it ended under a machine that went on: killed, crashed, out of memory
    MACHINE = auto()  # the machine was started again since: most likely a power cut


def begin(state: Path, disk: Disk) -> LastEnd:
    """Note that the agent starts; return how its run before ended. A disk that can't be written ends nothing."""
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
    """Note that the agent was told to end. Where that can't be written, the next start counts as after a crash."""
    with suppress(OSError):
        write_record(disk, state / _FILE, {"boot": boot_id(), "in_order": True})


def boot_id() -> str:
    """Return the name of the machine's start; "" where the kernel gives none.

    Source: random(4), /proc/sys/kernel/random/boot_id.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
