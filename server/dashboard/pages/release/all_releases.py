"""``/releases``: every release, the newest first, with where it runs and whether it was withdrawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from server.dashboard.finding.addresses import page_of
from server.dashboard.listing import CURSOR, AddressFilters, FilterField, ListedPage, SharedLook
from server.dashboard.services import Services
from server.dashboard.theme import Column
from server.dashboard.views import PageLink, Status, Tone, clock_time
from server.dashboard.visit import Pages, Visit
from server.rollout.thresholds import devices
from server.store.lists.devices import running_counts
from server.store.lists.lineage import ran_counts
from server.store.lists.paging import Page
from server.store.lists.registry import named_release_page

_SHOWN = 50
_LIST = "/releases"
COLUMNS = (
    Column(name="release", label="Release", look="link", sortable=False),
    Column(name="published", label="Published (UTC)", sortable=False),
    Column(name="targets", label="Targets", sortable=False),
    Column(name="status", label="State", look="pill", sortable=False),
    Column(name="runs", label="Runs on", look="link", sortable=False),
    Column(name="ever", label="Ever ran on", sortable=False),
)
FIELDS = (
    FilterField(name="search", label="Part of the name"),
    FilterField(name="only", label="Only", choices={"usable": "not withdrawn", "withdrawn": "withdrawn"}),
)
LIST = ListedPage(
    path=_LIST, what="releases", fields=FIELDS, columns=COLUMNS, key="name",
    none="Publish one with compressor publish, or let a worker finish a training job.",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRelease:
    """One row of the list."""

    name: str
    release: PageLink
    published: str
    targets: str
    status: Status
    runs: PageLink
    ever: str


def add_page(pages: Pages) -> None:
    """Add the page."""
    looks: SharedLook[AddressFilters, Page[ListedRelease]] = SharedLook(partial(listed, pages.services))
    pages.add(_LIST, "Releases", partial(_build, looks))


def _build(looks: SharedLook[AddressFilters, Page[ListedRelease]], visit: Visit) -> None:
    LIST.build(visit.request.query_params, looks)


def listed(services: Services, asked: AddressFilters) -> Page[ListedRelease]:
    """Return the page of releases at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values = dict(asked)
    withdrawn = {"usable": False, "withdrawn": True}.get(values.get("only", ""))
    with services.database.begin() as connection:
        found = named_release_page(
            connection, search=values.get("search", ""), withdrawn=withdrawn, limit=_SHOWN, cursor=values.get(CURSOR)
        )  # fmt: skip
        names = [str(row["name"]) for row in found.rows]
        now = Counter[str]()
        for name, _, count in running_counts(connection, names):
            now[name] += count
        ever = ran_counts(connection, names)
    return found.of(lambda row: _row(row, now[str(row["name"])], ever.get(str(row["name"]), 0)))


def _row(row: sa.RowMapping, now: int, ever: int) -> ListedRelease:
    name, withdrawn_ms = str(row["name"]), int(row["withdrawn_ms"])
    status = Status("may be rolled out", Tone.GOOD)
    if withdrawn_ms:
        still = f", still runs on {now:,}" if now else ""
        status = Status(f"withdrawn {clock_time(withdrawn_ms)}{still}", Tone.BAD if now else Tone.CALM)
    return ListedRelease(
        name=name, release=PageLink(name, page_of("release", name)), published=clock_time(int(row["first_ms"])),
        targets=f"{row['targets']:,}", status=status,
        runs=PageLink.to(devices(now), "/", release=name) if now else PageLink("0"), ever=f"{ever:,}",
    )  # fmt: skip
