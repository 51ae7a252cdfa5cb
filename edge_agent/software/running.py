"""The list of software as the control process reports it: its digest, since when, and the list when the server asks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, write_record
from edge_agent.updater.storage.slots import SlotRelease
from wire.codec import from_document, to_document
from wire.errors import MessageError
from wire.messages import Command, Response
from wire.software import (
    ComponentKind,
    InstalledSoftware,
    SoftwareComponent,
    SoftwareList,
    pack_software,
    software_digest,
    software_of,
)

_LOG = logging.getLogger(__name__)
FILE = "software.json"


@dataclass(slots=True, kw_only=True)
class RunningSoftware:
    """``base``: what is installed, without the models in the slots; None: nothing is reported.

    ``software.json`` keeps the last digest and since when it runs, so that a restart with the same software does not
    begin it again, and weeks without a connection do not move it.
    """

    state: Path
    disk: Disk
    base: SoftwareList | None
    _releases: tuple[tuple[str, str], ...] | None = None
    _digest: str = ""
    _since: InstalledSoftware | None = None

    def installed(self, releases: tuple[SlotRelease, ...], now_ms: int) -> InstalledSoftware | None:
        """Return the digest with ``releases`` in the slots, and since when; ``now_ms`` of 0: what is known of that."""
        if self.base is None:
            return None
        named = tuple((one.release, one.sha256) for one in releases)
        if named != self._releases:
            self._releases, self._digest = named, software_digest(self._list(named))
        since = self._since = self._since or self._read()
        if since.sha256 == self._digest:
            return since
        if not now_ms:
            return InstalledSoftware(sha256=self._digest)
        self._since = InstalledSoftware(sha256=self._digest, since_ms=now_ms)
        try:
            write_record(self.disk, self.state / FILE, to_document(self._since))
        except OSError as error:  # after a restart it counts as new then
            _LOG.warning("the digest of the software is not written error=%s", error)
        return self._since

    def answer(self, command: Command) -> Response:
        """Return the list, if it still is the one of the digest that the server asks for."""
        wanted = command.arguments.get("sha256")
        if self.base is None or wanted != self._digest:
            text = (
                f"Expected the digest {self._digest[:16] or 'of a list'}, which this device reports, got {wanted!r:.40}"
            )
            return Response(id=command.id, ok=False, code="software_changed", text=text)
        try:
            packed = pack_software(self._list(self._releases or ()))
        except MessageError as error:
            return Response(id=command.id, ok=False, code="software_too_long", text=str(error))
        return Response(id=command.id, ok=True, data=to_document(packed))

    def _list(self, releases: tuple[tuple[str, str], ...]) -> SoftwareList:
        return with_releases(self.base or SoftwareList(), releases)

    def _read(self) -> InstalledSoftware:
        try:
            return from_document(InstalledSoftware, read_record(self.state / FILE))
        except (OSError, MessageError):  # none yet, or damaged: it counts as new
            return InstalledSoftware()


def with_releases(software: SoftwareList, releases: Sequence[tuple[str, str]]) -> SoftwareList:
    """Return the list with models: ``releases`` have a name, ``<model>-<version>``, and the digest of the bundle."""
    models = []
    for release, sha256 in releases:
        name, _, version = release.rpartition("-")
        models.append(SoftwareComponent(ComponentKind.MODEL, name or release, version if name else "", sha256=sha256))
    return software_of([*software.components, *models], software.left_out)
