"""Warns before signed metadata expires: devices refuse expired metadata, and then no update reaches them.

Root and targets are signed by people, who need days to act. The server signs snapshot and timestamp again after half
their lifetime; if one of them comes close to its expiry, that is failing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from server.errors import TrustStoreError
from server.registry.events import EventLog
from server.trust.repository import Expiry, TrustRepository
from wire.codec import Json
from wire.messages import Severity

_DAY_MS = 86_400_000
_NOTICE_DAYS = {"root": 30.0, "targets": 30.0, "snapshot": 7.0, "timestamp": 1.0}
_LOOK_EVERY_MS = 3_600_000
_ADVICE = {
    "root": "sign the next root with compressor keys and install it with fleet-server trust",
    "targets": "publish again with compressor publish, which signs anew",
    "snapshot": "see the server's log: it should have signed anew",
    "timestamp": "see the server's log: it should have signed anew",
}


@dataclass(slots=True, kw_only=True)
class ExpiryWatch:
    """Warns once a day for each metadata file that is near its expiry."""

    trust: TrustRepository
    events: EventLog
    _looked_ms: int = -_LOOK_EVERY_MS
    _told_ms: dict[str, int] = field(default_factory=dict)

    def turn(self, now_ms: int) -> None:
        """Check once an hour; log an event for metadata that expires soon or has expired."""
        if now_ms - self._looked_ms < _LOOK_EVERY_MS:
            return
        self._looked_ms = now_ms
        try:
            expiries = self.trust.expiries()
        except TrustStoreError:  # damaged or missing: reported when it is read for a device
            return
        for one, left_days, text in ending(expiries, now_ms):
            if now_ms - self._told_ms.get(one.role, -_DAY_MS) >= _DAY_MS:
                self._told_ms[one.role] = now_ms
                code = "metadata_expires" if left_days > 0 else "metadata_expired"
                severity = Severity.WARNING if left_days > 0 else Severity.ERROR
                data: dict[str, Json] = {"role": one.role, "version": one.version, "expires_ms": one.expires_ms}
                self.events.add(now_ms, "trust", code, severity, text, data=data)


def ending(expiries: Iterable[Expiry], now_ms: int) -> tuple[tuple[Expiry, float, str], ...]:
    """Return the metadata that has expired or soon will, the days left, and the text that says what to do."""
    found = []
    for one in expiries:
        left_days = (one.expires_ms - now_ms) / _DAY_MS
        if left_days < _NOTICE_DAYS[one.role]:
            day = datetime.fromtimestamp(one.expires_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
            when = f"expires {day} UTC, in {left_days:.0f} days" if left_days > 0 else f"expired {day} UTC"
            text = f"The {one.role} metadata (version {one.version}) {when}: {_ADVICE[one.role]}"
            found.append((one, left_days, text))
    return tuple(found)
