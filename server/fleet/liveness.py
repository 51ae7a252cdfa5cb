"""Detects silent devices (connected, but sending nothing): one event when it begins and one when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from server.config import FleetConfig
from server.fleet.fleet import Device, Fleet
from server.registry.events import EventLog
from wire.messages import DeviceState, Severity

_CHECK_EVERY_MS = 15_000
_AWAY = frozenset({DeviceState.LOST, DeviceState.DISCONNECTED})


class Presence(StrEnum):
    """Whether a device is connected and sends."""

    NEVER_CONNECTED = "never_heard"
    AWAY = "away"  # lost, disconnected or asleep
    SILENT = "silent"  # connected by its state, but it sends nothing
    GONE = "gone"  # revoked or removed
    THERE = "there"


@dataclass(slots=True, kw_only=True)
class Liveness:
    """Watches ``last_seen_ms`` and ``state``."""

    fleet: Fleet
    events: EventLog
    config: FleetConfig
    _silent: set[str] = field(default_factory=set)
    _checked_ms: int = -_CHECK_EVERY_MS

    def turn(self, now_ms: int) -> None:
        """Check every device, every 15 s."""
        if now_ms - self._checked_ms < _CHECK_EVERY_MS:
            return
        self._checked_ms = now_ms
        for device in self.fleet.devices():
            silent = is_silent(device, now_ms, self.config.silent_s)
            if silent and device.device not in self._silent:
                self._silent.add(device.device)
                quiet_s = (now_ms - device.last_seen_ms) / 1000
                text = f"No message for {quiet_s:.0f} s, though its state is {device.state.value}"
                self.events.add(now_ms, "liveness", "silent", Severity.WARNING, text, device=device.device)
            elif not silent and device.device in self._silent:
                self._silent.discard(device.device)
                self.events.add(now_ms, "liveness", "heard", Severity.INFO, "Reports again", device=device.device)


def is_silent(device: Device, now_ms: int, silent_s: float) -> bool:
    """Return whether ``device`` is connected by its state and has sent nothing for ``silent_s``."""
    expected = device.last_seen_ms > 0 and device.state not in _AWAY
    return expected and now_ms - device.last_seen_ms > silent_s * 1000


def is_reachable(device: Device, now_ms: int, silent_s: float) -> bool:
    """Return whether messages reach ``device``: it has connected before, and is neither away nor silent."""
    return presence(device, now_ms, silent_s) is Presence.THERE


def presence(device: Device, now_ms: int, silent_s: float) -> Presence:
    """Return the presence of ``device``; unless it is there, its last report may be out of date."""
    if device.ended:
        return Presence.GONE
    if device.last_seen_ms <= 0:
        return Presence.NEVER_CONNECTED
    if device.state in _AWAY:
        return Presence.AWAY
    return Presence.SILENT if is_silent(device, now_ms, silent_s) else Presence.THERE
