"""The rows of the devices of one batch: read in a query or two, changed in memory, written in a statement or two.

A change counts for every later message of the batch, as if it was written at once. What came before is overwritten:
nobody sees the state between two messages of one transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import sqlalchemy as sa

from server.fleet.fleet import decoded_report, remember_report
from server.store import fleet as store
from wire.codec import encode
from wire.messages import DeviceState, Reported


@dataclass(slots=True, kw_only=True)
class DeviceRows:
    """What is known of devices within a transaction, and what changes. Of a device without a row, nothing does."""

    connection: sa.Connection
    _skews: dict[str, int]
    _reports: dict[str, str | None]
    _changes: dict[str, dict[str, object]] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: sa.Connection, clocks: Collection[str], reports: Collection[str]) -> DeviceRows:
        """Return the rows of devices: of ``clocks`` how far their clocks are off, of ``reports`` their last report."""
        return cls(
            connection=connection,
            _skews=store.skews_of(connection, clocks),
            _reports=store.reports_of(connection, reports),
        )

    def skew_ms(self, device: str) -> int | None:
        """Return how far the clock of ``device`` is off, 0 if it is right; None if that was not read."""
        return self._skews.get(device)

    def note_skew(self, device: str, skew_ms: int) -> None:
        """Note how far the clock of ``device`` is off."""
        self._skews[device] = skew_ms
        self._change(device, "clock_skew_ms", skew_ms)

    def note_state(self, device: str, state: DeviceState) -> None:
        """Note the state of ``device``."""
        self._change(device, "state", state.value)

    def is_registered(self, device: str) -> bool:
        """Return whether ``device``, one of ``reports``, has a row."""
        return device in self._reports

    def reported(self, device: str) -> Reported | None:
        """Return the last report of ``device``, None if it has sent none."""
        text = self._reports.get(device)
        return decoded_report(device, text) if text else None

    def note_reported(self, device: str, message: Reported) -> None:
        """Note the report of ``device``."""
        text = encode(message).decode()
        self._reports[device] = text
        remember_report(device, text, message)
        self._change(device, "reported", text)

    def write(self, seen: Collection[str], now_ms: int) -> None:
        """Write the changes, and that the devices ``seen`` gave a sign of life at ``now_ms``."""
        for device in self._changes.keys() & seen:
            self._change(device, "last_seen_ms", now_ms)
        store.update_devices(self.connection, self._changes)
        store.touch_devices(self.connection, sorted(set(seen) - self._changes.keys()), now_ms)

    def _change(self, device: str, column: str, value: object) -> None:
        self._changes.setdefault(device, {})[column] = value
