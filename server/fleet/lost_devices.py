"""Marks devices as lost that did not reconnect after a restart of the broker: their retained state is out of date.

When a device is lost while the broker runs, the broker publishes its will. When it is lost while the broker is down,
nothing is published: mosquitto keeps retained messages over a restart, but no wills. So the server sets the state in
their place, in the database and on the broker, once every device had time to reconnect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.fleet.fleet import Device, Fleet
from server.registry.events import EventLog
from wire.messages import DeviceState, Severity

BACK_MS = 15 * 60_000  # three times the longest back-off of an agent (max_backoff_s, five minutes by default)
_GONE = frozenset({DeviceState.LOST, DeviceState.DISCONNECTED})
_NAMED = 10


@dataclass(slots=True, kw_only=True)
class LostDevices:
    """Checks once after each start of the broker; ``started_ms`` returns the time of the start, 0 for never."""

    fleet: Fleet
    events: EventLog
    started_ms: Callable[[], int]
    _looked_at_ms: int = 0

    def turn(self, now_ms: int) -> None:
        """Mark devices not seen since the broker started as lost, once their time to reconnect is over."""
        started_ms = self.started_ms()
        if started_ms == self._looked_at_ms or now_ms - started_ms < BACK_MS:
            return
        lost = [device for device in self.fleet.devices() if _is_lost(device, started_ms)]
        for device in lost:
            self.fleet.set_lost(device, now_ms)
        self._looked_at_ms = started_ms
        if lost:
            names = ", ".join(device.device for device in lost[:_NAMED])
            more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            text = f"Not back {BACK_MS // 60_000} min after the broker started: {names}{more}"
            self.events.add(now_ms, "liveness", "not_back", Severity.WARNING, text)


def _is_lost(device: Device, started_ms: int) -> bool:
    return device.state not in _GONE and 0 < device.last_seen_ms < started_ms
