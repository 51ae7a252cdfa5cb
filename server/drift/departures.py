"""Ends the verdicts on devices that are gone for good: nothing will show any more whether they are over."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.drift.ledger import Verdicts
from server.fleet.fleet import Fleet
from server.fleet.revocation import FOR_GOOD

_CHECK_EVERY_MS = 15_000


@dataclass(slots=True, kw_only=True)
class Departures:
    """Looks every 15 s. A verdict on a release stays: it tells of more than the devices that showed it."""

    verdicts: Verdicts
    fleet: Fleet
    _checked_ms: int = field(default=-_CHECK_EVERY_MS)

    def turn(self, now_ms: int) -> None:
        """End the open verdicts of which all devices were retired or removed."""
        if 0 <= now_ms - self._checked_ms < _CHECK_EVERY_MS:
            return
        self._checked_ms = now_ms
        found = self.verdicts.open()
        named = {device for one in found for device in one.devices}
        gone = {device.device: device.ended for device in self.fleet.ended_of(named) if device.ended in FOR_GOOD}
        for one in found:
            if one.is_of(gone):
                self.verdicts.end(one, now_ms, f"as its devices were {gone[one.devices[0]]}")
