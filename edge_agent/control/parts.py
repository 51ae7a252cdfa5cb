"""What an agent is put together from, and what its loop is told. Pure data."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field

from edge_agent.control.background import JobDone
from edge_agent.control.supervisor import ChildEnded, ChildSaid, Launch
from edge_agent.device.clock import Clock
from edge_agent.device.disk import Disk
from edge_agent.measuring.coordinator import Bench, MeasureDone, NoBench
from edge_agent.updater.updater import Ports
from wire.transport import Delivered, Incoming, LinkChange, Transport

Notice = Incoming | LinkChange | Delivered | ChildSaid | ChildEnded | JobDone | MeasureDone
Notices = queue.SimpleQueue[Notice]


@dataclass(frozen=True, slots=True)
class Parts:
    """The seams of an agent, real or in memory."""

    clock: Clock
    transport: Transport
    launch: Launch
    disk: Disk
    ports: Ports
    notices: Notices
    bench: Bench = field(default_factory=NoBench)
