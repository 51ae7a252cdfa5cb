"""``GET /api/software``: what devices run, which devices run it, and the software of one as a CycloneDX document."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from server.api.auth import Auth
from server.api.values import Cursor, Limit, PageBody, Search, StoredNumber, ValueBody, check_whole
from server.clock import Clock
from server.software.ledger import SoftwareLedger
from wire.cyclonedx import MEDIA_TYPE
from wire.software import ComponentKind

_SHOWN = 200  # rows in an answer by default
Kind = Annotated[ComponentKind | None, Query()]
Version = Annotated[str, Query(max_length=100)]
"""A version, or its beginning and ``.*``; "" for any."""
_DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}, "description": "CycloneDX 1.6"}
}  # fmt: skip


class RunningComponentBody(ValueBody):
    """A component that ``devices`` devices run now."""

    kind: str
    name: str
    version: str
    devices: int


class RunningComponentsBody(PageBody):
    """Components, by name. ``unreported``: devices that report no list; ``missing``: whose list is not here yet."""

    components: list[RunningComponentBody]
    unreported: int
    missing: int


class ComponentRunnerBody(ValueBody):
    """A device that runs a component now. ``from_ms``: since when it runs its whole list, ``list`` its digest."""

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


class ComponentRunnersBody(PageBody):
    """Devices, by name; a device that has two versions stands there twice. Counts as in ``RunningComponentsBody``."""

    runners: list[ComponentRunnerBody]
    unreported: int
    missing: int


class SoftwareRunBody(ValueBody):
    """A time at which a device ran a list; ``until_ms``: 0 for what it reported last."""

    device: str
    list: str
    from_ms: int
    until_ms: int
    received_ms: int


class SoftwareRunsBody(PageBody):
    """What a device ran when, the newest first."""

    runs: list[SoftwareRunBody]


def router(auth: Auth, ledger: SoftwareLedger, clock: Clock) -> APIRouter:
    """Return the routes for viewers."""
    routes = APIRouter(tags=["software"], dependencies=[Depends(auth.view)])

    @routes.get("/api/software")
    def list_components(
        search: Search = "", kind: Kind = None, limit: Limit = None, cursor: Cursor = None
    ) -> RunningComponentsBody:
        """Return what devices run now, with how many do; ``search``: words in the name."""
        found = ledger.components(search=search, kind=kind or "", limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        unreported, missing = ledger.unknown()
        return RunningComponentsBody(
            components=[RunningComponentBody.of(one) for one in found.rows], next=found.next, total=found.total,
            unreported=unreported, missing=missing,
        )  # fmt: skip

    @routes.get("/api/software/devices")
    def list_runners(
        name: Annotated[str, Query(min_length=1, max_length=200)], version: Version = "", kind: Kind = None,
        limit: Limit = None, cursor: Cursor = None,
    ) -> ComponentRunnersBody:  # fmt: skip
        """Return the devices that run the component ``name`` now; names of packages are the same in any spelling.

        ``version``: one, or its beginning and ``.*``.
        """
        found = ledger.runners(name, version=version, kind=kind or "", limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        unreported, missing = ledger.unknown()
        return ComponentRunnersBody(
            runners=[ComponentRunnerBody.of(one) for one in found.rows], next=found.next, total=found.total,
            unreported=unreported, missing=missing,
        )  # fmt: skip

    @routes.get("/api/devices/{device}/software", response_class=Response, responses=_DOCUMENT)
    def get_document(device: str, at: StoredNumber | None = None) -> Response:
        """Return what a device ran at ``at`` (UTC ms), by default now, as a CycloneDX 1.6 document."""
        document = ledger.document(device, clock() if at is None else at)
        name = f'attachment; filename="{device}.cdx.json"'
        return Response(
            json.dumps(document, ensure_ascii=False), media_type=MEDIA_TYPE, headers={"Content-Disposition": name}
        )  # fmt: skip

    @routes.get("/api/devices/{device}/software/runs")
    def list_runs(device: str, limit: Limit = None, cursor: Cursor = None) -> SoftwareRunsBody:
        """Return what a device ran when, the newest first: the digests of its lists."""
        found = ledger.runs(device, limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        return SoftwareRunsBody(
            runs=[SoftwareRunBody.of(one) for one in found.rows], next=found.next, total=found.total
        )  # fmt: skip

    return routes
