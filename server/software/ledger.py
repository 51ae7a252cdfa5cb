"""Which device runs which list of software since when, and who runs a component. Asks no device."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from server.errors import UnknownDeviceError, UnknownSoftwareError
from server.store.database import Database
from server.store.fleet import one_device
from server.store.lists.paging import Page
from server.store.software import runs as store
from server.store.software.components import ComponentFilter, component_page, run_page, runner_page, unknown_devices
from wire.codec import Json
from wire.cyclonedx import cyclonedx_document
from wire.messages import Reported
from wire.software import SoftwareList, component_key, is_software_digest, parse_software, unzip_software


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningComponent:
    """A component that ``devices`` devices run now."""

    kind: str
    name: str
    version: str
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRunner:
    """A device that runs a component now; ``from_ms``: since when it runs its whole list, by its own clock."""

    device: str
    site: str
    state: str
    last_seen_ms: int
    from_ms: int
    kind: str
    name: str
    version: str
    sha256: str
    list: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareRun:
    """A time at which a device ran a list; ``until_ms``: 0 for what it reported last."""

    device: str
    list: str
    from_ms: int
    until_ms: int
    received_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareOfDevice:
    """What a device ran at a time: the run, and the list, None while only its digest is known."""

    run: SoftwareRun
    software: SoftwareList | None


def note_software(
    connection: sa.Connection, device: str, older: Reported | None, newer: Reported, from_ms: int, now_ms: int
) -> bool:
    """Record that ``device`` reports another list of software than before, if it does; return whether it does.

    ``from_ms``: since when, at a plausible time. A digest that is none counts as no list. The first report of a device,
    also of one that came back under an id, ends what the id ran before.
    """
    before, now = _digest(older), _digest(newer)
    if older is not None and before == now:
        return False
    store.begin_run(connection, device, now, from_ms, now_ms)
    return True


def _digest(report: Reported | None) -> str:
    digest = report.software.sha256 if report is not None and report.software is not None else ""
    return digest if is_software_digest(digest) else ""


@dataclass(frozen=True, slots=True)
class SoftwareLedger:
    """The queries."""

    database: Database

    def components(
        self, *, search: str = "", kind: str = "", limit: int = 200, cursor: str | None = None
    ) -> Page[RunningComponent]:
        """Return a page of what devices run now, with how many do; ``search``: words in the name.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        wanted = ComponentFilter(words=search, kind=kind)
        with self.database.begin() as connection:
            page = component_page(connection, wanted, limit=limit, cursor=cursor)
        return page.of(
            lambda row: RunningComponent(
                kind=row["kind"], name=row["name"], version=row["version"], devices=int(row["devices"])
            )
        )

    def runners(
        self, name: str, *, version: str = "", kind: str = "", limit: int = 200, cursor: str | None = None
    ) -> Page[ComponentRunner]:
        """Return a page of the devices that run the component ``name`` now; ``version``: see ``ComponentFilter``.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        wanted = ComponentFilter(key=component_key(name), kind=kind, version=version)
        with self.database.begin() as connection:
            page = runner_page(connection, wanted, limit=limit, cursor=cursor)
        return page.of(
            lambda row: ComponentRunner(**{key: row[key] for key in ComponentRunner.__dataclass_fields__})
        )  # fmt: skip

    def runs(self, device: str, *, limit: int = 200, cursor: str | None = None) -> Page[SoftwareRun]:
        """Return a page of the lists that ``device`` ran, the newest first.

        Raises:
            UnknownDeviceError: If there is none.
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            _check_device(connection, device)
            return run_page(connection, device, limit=limit, cursor=cursor).of(_run)

    def of_device(self, device: str, at_ms: int) -> SoftwareOfDevice:
        """Return what ``device`` ran at ``at_ms`` by its reports.

        Raises:
            UnknownDeviceError: If there is none.
            UnknownSoftwareError: If it reported no list for that time.
        """
        with self.database.begin() as connection:
            _check_device(connection, device)
            run = store.run_at(connection, device, at_ms)
            row = None if run is None else store.one_list(connection, run["list"])
        if run is None:
            message = (
                f"Expected a time at which {device} had reported its software, got {at_ms}: choose a later one; if it "
                "never reported any, its agent is older: start it again with the present one"
            )
            raise UnknownSoftwareError(message)
        packed = None if row is None else row["packed"]
        return SoftwareOfDevice(
            run=_run(run), software=None if packed is None else parse_software(unzip_software(bytes(packed)))
        )  # fmt: skip

    def document(self, device: str, at_ms: int) -> dict[str, Json]:
        """Return what ``device`` ran at ``at_ms`` as a CycloneDX document.

        Raises:
            UnknownDeviceError: If there is none.
            UnknownSoftwareError: If it reported no list for that time, or the list is not here yet.
        """
        found = self.of_device(device, at_ms)
        if found.software is None:
            message = (
                f"Expected the list {found.run.list[:16]} of {device}, got its digest only: a device that runs it is "
                "asked for it when it is connected; try again then"
            )
            raise UnknownSoftwareError(message)
        return cyclonedx_document(found.software, device=device, since_ms=found.run.from_ms)

    def unknown(self) -> tuple[int, int]:
        """Return how many devices report no list, and how many one that is not here yet: about them nothing is said."""
        with self.database.begin() as connection:
            return unknown_devices(connection)


def _check_device(connection: sa.Connection, device: str) -> None:
    if "\0" in device or one_device(connection, device) is None:
        message = f"Expected a device of this fleet, got {device[:63]!r}: fleet-server devices lists them"
        raise UnknownDeviceError(message)


def _run(row: sa.RowMapping) -> SoftwareRun:
    return SoftwareRun(**{key: row[key] for key in SoftwareRun.__dataclass_fields__})
