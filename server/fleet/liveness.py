"""Detects silent devices (connected, but sending nothing), and those that are lost after a restart of the broker.

A device that is silent gives one event when it begins and one when it ends. When a device is lost while the broker
runs, the broker publishes its will. When it is lost while the broker is down, nothing is published: mosquitto keeps
retained messages over a restart, but no wills. So the server sets the state in their place, in the database and on the
broker, once every device had time to reconnect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from server.config import FleetConfig
from server.fleet.fleet import Device, Fleet
from server.registry.events import EventLog
from server.wording import listed
from wire.messages import DeviceState, Severity

_CHECK_EVERY_MS = 15_000
AWAY = frozenset({DeviceState.LOST, DeviceState.DISCONNECTED})
"""No message reaches a device in such a state."""


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
    expected = device.last_seen_ms > 0 and device.state not in AWAY
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
    if device.state in AWAY:
        return Presence.AWAY
    return Presence.SILENT if is_silent(device, now_ms, silent_s) else Presence.THERE


BACK_MS = 15 * 60_000  # three times the longest back-off of an agent (max_backoff_s, five minutes by default)
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
        lost = [
            device
            for device in self.fleet.devices()
            if device.state not in AWAY and 0 < device.last_seen_ms < started_ms
        ]
        for device in lost:
            self.fleet.set_lost(device, now_ms)
        self._looked_at_ms = started_ms
        if lost:
            names = listed([device.device for device in lost], _NAMED)
            text = f"Not back {BACK_MS // 60_000} min after the broker started: {names}"
            self.events.add(now_ms, "liveness", "not_back", Severity.WARNING, text)
