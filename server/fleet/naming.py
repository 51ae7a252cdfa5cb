"""What people call devices: tags, by which rollouts and lists name them, and a name beside the id.

The id stays for good: it is part of topics and credentials. Each act is an event and a record with who did it. Decides
which tags and names there may be; not what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from server.access.audit_log import record_act
from server.clock import Clock
from server.errors import TagsRefusedError
from server.fleet.fleet import Device, Fleet, tags_text
from server.ingest.faults import check_printable
from server.people import SOMEBODY, By, actor_of
from server.registry.events import event_row
from server.store import fleet as store
from server.store.events import insert_events
from server.wording import listed
from wire.codec import Json
from wire.messages import Severity
from wire.topics import check_name

MAX_TAGS, MAX_TITLE = 32, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNaming:
    """Tags and names of the devices of one fleet. Safe to share between threads."""

    fleet: Fleet
    clock: Clock

    def tag(self, device: str, add: Collection[str] = (), remove: Collection[str] = (), *, by: By = SOMEBODY) -> Device:
        """Give ``device`` the tags ``add`` and take ``remove`` from it, as ``by`` decided; return it.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
            NameRefusedError: If a tag has other characters than a-z 0-9 _ -.
            TagsRefusedError: If it is to get and to lose the same tag, or has too many then.
        """
        for tag in add:
            check_name(tag, "a tag")
        if both := sorted({*add} & {*remove}):
            message = f"Expected each tag to be added or removed, got both for {listed(both, MAX_TAGS)}"
            raise TagsRefusedError(message)
        known = self.fleet.active_device(device)
        after = tuple(sorted({*known.tags, *add} - {*remove}))
        if len(after) > MAX_TAGS:
            message = f"Expected at most {MAX_TAGS} tags of a device, got {len(after)} for {device}: remove some"
            raise TagsRefusedError(message)
        if after != known.tags:
            come, gone = sorted({*after} - {*known.tags}), sorted({*known.tags} - {*after})
            parts = [*(f"+{tag}" for tag in come), *(f"-{tag}" for tag in gone)]
            text = f"{device} was tagged by {by}: {' '.join(parts)}"
            self._note(known, "tagged", text, {"tags": tags_text(after)}, {"added": [*come], "removed": [*gone]}, by)
        return self.fleet.device(device)

    def rename(self, device: str, title: str, *, by: By = SOMEBODY) -> Device:
        """Show ``device`` under the name ``title`` beside its id, "" for none, as ``by`` decided; return it.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
            TagsRefusedError: If the name is too long, or has characters that are not printable; blanks are made one.
        """
        known, title = self.fleet.active_device(device), title.strip(" ")
        while "  " in title:
            title = title.replace("  ", " ")
        check_printable(title, "a name", MAX_TITLE, TagsRefusedError)
        if title != known.title:
            text = f"{device} was named {title!r} by {by}" if title else f"The name of {device} was taken off by {by}"
            self._note(known, "renamed", text, {"title": title}, {"title": title}, by)
        return self.fleet.device(device)

    def _note(
        self, known: Device, code: str, text: str, changes: Mapping[str, object], data: Mapping[str, Json], by: By
    ) -> None:
        now_ms, told = self.clock(), {**data, "by": actor_of(by).name}
        event = event_row(now_ms, "device", code, Severity.INFO, text, device=known.device, data=told)
        with self.fleet.database.begin() as connection:
            store.update_device(connection, known.device, changes)
            insert_events(connection, [event])
            record_act(connection, by, f"device.{_ACTS[code]}", known.device, now_ms, data=data)


_ACTS = {"tagged": "tag", "renamed": "rename"}
