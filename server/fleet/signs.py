"""What devices say of themselves that needs a look, read again only where a device changed.

Of ten thousand devices most say the same as before: passing over them costs a comparison each. Decides nothing about
drift, rollouts or time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from server.fleet.fleet import Device
from wire.messages import DeviceState, UpdatePhase


class DeviceSign(StrEnum):
    """What a device's own words may show."""

    NEVER_SEEN = "never_seen"
    LOST = "lost"
    DISCONNECTED = "disconnected"
    DEGRADED = "degraded"  # or in safe mode
    ANSWERS_NOTHING = "answers_nothing"
    UPDATE_FAILED = "update_failed"  # refused or rolled back
    METADATA_OLDER = "metadata_older"  # refused as older than what it had seen
    CLOCK_OFF = "clock_off"


@dataclass(slots=True)
class DeviceSigns:
    """Keeps the signs of each device as it was seen last. Safe to share between threads."""

    _known: dict[str, tuple[Device, tuple[DeviceSign, ...]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, devices: Sequence[Device]) -> Mapping[DeviceSign, Sequence[Device]]:
        """Return those of ``devices`` that show each sign, in their order; ``devices``: the whole fleet."""
        found: dict[DeviceSign, list[Device]] = {sign: [] for sign in DeviceSign}
        with self._lock:
            before, self._known = self._known, {}
            for device in devices:
                kept = before.get(device.device)
                if kept is None or kept[0] is not device:
                    kept = device, tuple(signs(device))
                self._known[device.device] = kept
                for sign in kept[1]:
                    found[sign].append(device)
        return found


def signs(device: Device) -> Iterator[DeviceSign]:
    """Yield the signs of one device; one that never connected shows nothing else."""
    if device.last_seen_ms <= 0:
        yield DeviceSign.NEVER_SEEN
        return
    if device.state is DeviceState.LOST:
        yield DeviceSign.LOST
    elif device.state is DeviceState.DISCONNECTED:
        yield DeviceSign.DISCONNECTED
    if device.in_trouble:
        yield DeviceSign.DEGRADED
    if device.answers_nothing:
        yield DeviceSign.ANSWERS_NOTHING
    if device.clock_off_ms:
        yield DeviceSign.CLOCK_OFF
    update = device.reported.update if device.reported else None
    if update is not None and update.phase in {UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK}:
        yield DeviceSign.UPDATE_FAILED
        if update.phase is UpdatePhase.REFUSED and update.code == "metadata_rollback":
            yield DeviceSign.METADATA_OLDER
