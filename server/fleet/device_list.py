"""The list of devices, a page at a time: the database filters, sorts and counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.clock import Clock
from server.fleet.fleet import Device, as_device
from server.store.database import Database
from server.store.lists import devices as store
from server.store.lists.devices import DeviceFilter, DeviceSort, FleetCondition
from server.store.lists.paging import Page

EVERY = DeviceFilter()
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceList:
    """Lists of devices now. A connected device without a message for ``silent_s`` counts as silent."""

    database: Database
    clock: Clock
    silent_s: float

    def page(
        self, wanted: DeviceFilter = EVERY, *, sort: DeviceSort = DeviceSort.DEVICE, descending: bool = False,
        limit: int = 100, cursor: str | None = None,
    ) -> Page[Device]:  # fmt: skip
        """Return a page of the devices that ``wanted`` names, those that left the fleet newest first.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of a page in this order.
        """
        with self.database.begin() as connection:
            found = store.device_page(
                connection, wanted, sort=sort, descending=descending, limit=limit, cursor=cursor,
                now_ms=self.clock(), silent_ms=self._silent_ms,
            )  # fmt: skip
        return found.of(as_device)

    def all(self, wanted: DeviceFilter = EVERY) -> Iterator[Device]:
        """Yield every device that ``wanted`` names, page after page."""
        cursor: str | None = None
        while True:
            found = self.page(wanted, limit=_AT_ONCE, cursor=cursor)
            yield from found.rows
            cursor = found.next
            if cursor is None:
                return

    def counts(self) -> Mapping[FleetCondition | None, int]:
        """Return for how many devices of the fleet each condition holds, and under None how many there are."""
        with self.database.begin() as connection:
            return store.count_devices(connection, self.clock(), self._silent_ms)

    def sites(self) -> tuple[str, ...]:
        """Return the sites of the fleet, by name."""
        with self.database.begin() as connection:
            return store.sites(connection)

    @property
    def _silent_ms(self) -> int:
        return int(self.silent_s * 1000)
