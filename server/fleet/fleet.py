"""The fleet: the registered devices, their last reports, and their ``desired`` documents.

``desired`` is written to the database first and published (retained) second; the broker's retained copy is a
cache that is filled again after every start. Does not decide which release a device gets (``rollout`` does).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.clock import Clock
from server.errors import DeviceEndedError, UnknownDeviceError
from server.people import By
from server.store import fleet as store
from server.store.database import Database
from server.store.lists.changed_rows import ChangedRows
from wire.codec import Json, decode, encode
from wire.messages import (
    ANSWERS_NOTHING,
    MAX_GEN,
    MAX_GEN_STEP,
    Command,
    Desired,
    DeviceState,
    MaintenanceWindow,
    Reported,
    State,
    UnreadInputs,
    UpdatePhase,
)
from wire.shadow import ShadowOrder
from wire.topics import Kind, Topic, check_name
from wire.transport import Transport


@dataclass(frozen=True, slots=True)
class Outbox:
    """Publishes messages without a queue: a caller whose message must arrive keeps it and sends it again."""

    transport: Transport

    def send(self, topic: Topic, message: object, *, retain: bool = False) -> bool:
        """Publish ``message`` (a wire dataclass); return False if the transport can't accept it now."""
        return self.transport.publish(str(topic), encode(message), retain=retain) is not None

    def clear(self, topic: Topic) -> bool:
        """Clear the retained message of ``topic``."""
        return self.transport.publish(str(topic), b"", retain=True) is not None


_LOG = logging.getLogger(__name__)
_PUBLISH_PER_TURN = 500
_Message = TypeVar("_Message", Reported, Desired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One registered device. ``reported`` is None before its first report; times are UTC milliseconds, 0: never.

    ``tags`` and ``title`` are what people call it, by name and beside its id.
    ``muted_ms``: since when ``muted_by`` muted it, 0 for never, until ``muted_until_ms`` (0: until it is unmuted).
    ``ended`` is "" for a device of the fleet, otherwise "revoked", "retired" or "removed": only its history is left.
    """

    device: str
    site: str
    attributes: Mapping[str, str]
    state: DeviceState
    reported: Reported | None
    desired: Desired | None
    desired_gen: int
    desired_release: str
    last_seen_ms: int
    enrolled_ms: int
    clock_skew_ms: int = 0
    ended: str = ""
    ended_ms: int = 0
    ended_why: str = ""
    tags: tuple[str, ...] = ()
    title: str = ""
    muted_ms: int = 0
    muted_until_ms: int = 0
    muted_why: str = ""
    muted_by: str = ""

    def is_muted(self, now_ms: int) -> bool:
        """Return whether the device raises no alert and no concern of its own at ``now_ms``."""
        return self.muted_ms > 0 and not 0 < self.muted_until_ms <= now_ms

    @property
    def release(self) -> str:
        """The release that the device reports as current, "" for none."""
        return self.reported.current.release if self.reported and self.reported.current else ""

    @property
    def clock_off_ms(self) -> int:
        """How far its clock is ahead (behind: below 0), by its messages or its own report; 0 if it is right."""
        return self.clock_skew_ms or (self.reported.clock_error_ms if self.reported else 0)

    @property
    def in_trouble(self) -> bool:
        """Whether the device reports that its release does not run; one that runs may still answer nothing."""
        if self.answers_nothing and self.reported is not None:
            return self.reported.safe_mode
        return self.state is DeviceState.DEGRADED or (self.reported is not None and self.reported.safe_mode)

    @property
    def answers_nothing(self) -> str:
        """What the device does with its inputs, in words, while its release runs and answers none; else ""."""
        reported = self.reported
        if reported is None or reported.reason != ANSWERS_NOTHING:
            return ""
        unread = reported.unread or UnreadInputs()
        never = unread.never or reported.update.answered == 0  # the latter also from agents that don't say the former
        nothing = "has answered nothing" if never else "answers nothing any more"
        return ", ".join(part for part in (f"serves {self.release}", nothing, unread.words) if part)

    @property
    def unread_step(self) -> str:
        """The device's advice on the inputs that it does not answer, "" for none."""
        unread = self.reported.unread if self.answers_nothing and self.reported else None
        return unread.text if unread is not None else ""


@dataclass(frozen=True, slots=True)
class Roster:
    """The devices that are neither revoked nor removed, by id: as a sequence and a mapping.

    ``revision`` grows with each change of a device, of one that left the fleet included, but not where a device that
    was seen before was only seen again.
    """

    devices: tuple[Device, ...] = ()
    by_id: Mapping[str, Device] = field(default_factory=dict)
    revision: int = 0

    def after(self, rows: Iterable[sa.RowMapping]) -> Roster:
        """Return the roster once ``rows`` of the store have changed."""
        known, news = dict(self.by_id), False
        for row in rows:
            before, now = known.pop(row["device"], None), as_device(row)
            if not now.ended:
                known[now.device] = now
            news = news or before is None or not before.last_seen_ms or _without_sight(before) != _without_sight(now)
        names = self.by_id if known.keys() == self.by_id.keys() else sorted(known)
        by_id = {name: known[name] for name in names}
        return Roster(tuple(by_id.values()), by_id, self.revision + news)


def _without_sight(device: Device) -> Device:
    return replace(device, last_seen_ms=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentCommand:
    """A command and, once ``answered_ms`` is not 0, the device's answer."""

    id: str
    device: str
    verb: str
    issued_ms: int
    expires_ms: int
    answered_ms: int
    ok: bool
    code: str
    text: str
    data: Mapping[str, Json]


@dataclass(slots=True, kw_only=True)
class Fleet:
    """All devices. Safe to share between threads."""

    database: Database
    outbox: Outbox
    clock: Clock
    _published: dict[str, int] = field(default_factory=dict)
    _published_revision: int = -1  # of the roster whose documents are all published
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _changes: ChangedRows = field(default_factory=lambda: ChangedRows(table=store.DEVICES))
    _roster: Roster = field(default_factory=Roster)
    _roster_lock: threading.Lock = field(default_factory=threading.Lock)

    def devices(self) -> tuple[Device, ...]:
        """Return every device that is neither revoked nor removed, by id."""
        return self.roster().devices

    def roster(self) -> Roster:
        """Return the devices as they are now; only those that changed since the last call are read."""
        with self.database.begin() as connection, self._roster_lock:  # in this order: who waits holds a connection
            rows = self._changes.rows(connection)
            if rows:
                self._roster = self._roster.after(rows)
            return self._roster

    def ended_of(self, devices: Collection[str]) -> tuple[Device, ...]:
        """Return those of ``devices`` that were revoked or removed."""
        if not devices:
            return ()
        with self.database.begin() as connection:
            return tuple(as_device(row) for row in store.ended_of(connection, devices))

    def sites(self, devices: Collection[str]) -> dict[str, str]:
        """Return the sites of ``devices``, by id; unregistered ones are left out."""
        if not devices:
            return {}
        with self.database.begin() as connection:
            return store.sites_of(connection, devices)

    def device(self, device: str) -> Device:
        """Return one device, also one that was revoked or removed.

        Raises:
            UnknownDeviceError: If there is none of that id.
        """
        missing = UnknownDeviceError(f"Expected a registered device, got {device!r}: see fleet-server devices")
        return as_device(self.database.row(lambda connection: store.one_device(connection, device), missing))

    def active_device(self, device: str) -> Device:
        """Return one device that is neither revoked nor removed.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
        """
        known = self.device(device)
        if known.ended:
            message = (
                f"Expected a device of the fleet, got {device!r}, which was {known.ended}: enrol it by a new claim"
            )
            raise DeviceEndedError(message)
        return known

    def set_desired(  # noqa: PLR0913 - the fields of a pointer to a release
        self, device: str, *, release: str, target: str, sha256: str, length_bytes: int, probation_s: float = 600.0,
        config: Mapping[str, Json] | None = None, window: MaintenanceWindow | None = None,
        shadow: ShadowOrder | None = None, max_bytes_per_s: int = 0,
    ) -> int:  # fmt: skip
        """Assign ``release`` to ``device``; return the new ``gen``.

        ``target`` is the TUF target path, ``sha256`` and ``length_bytes`` the bundle's. ``config`` None keeps
        the device's settings. ``window``: in which the device may switch, None for any time. ``shadow``: for how long
        it compares the release first. ``max_bytes_per_s``: how fast it may download, 0 for no limit. It counts as a
        new attempt, even of a release that the device refused before.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
        """
        pointer = Desired(
            release=release, target=target, sha256=sha256, length_bytes=length_bytes, probation_s=probation_s,
            window=window, shadow=shadow, max_bytes_per_s=max_bytes_per_s,
        )  # fmt: skip

        def change(old: Desired, gen: int) -> Desired:
            settings = old.config if config is None else config
            return replace(pointer, config=settings, attempt=gen)

        return self._change(device, change)

    def set_config(self, device: str, config: Mapping[str, Json]) -> int:
        """Change the agent settings named in ``config`` (None removes one), keep the release; return the new ``gen``.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
        """

        def change(old: Desired, _gen: int) -> Desired:
            merged = {**old.config, **config}
            return replace(old, config={key: value for key, value in merged.items() if value is not None})

        return self._change(device, change)

    def _change(self, device: str, change: Callable[[Desired, int], Desired]) -> int:
        with self._lock:
            known = self.active_device(device)
            gen = next_gen(known)
            desired = replace(change(known.desired or Desired(), gen), gen=gen)
            changes = {"desired": encode(desired).decode(), "desired_gen": gen}
            with self.database.begin() as connection:
                store.update_device(connection, device, changes)
            self._publish(known.site, device, desired)
        return gen

    def set_lost(self, device: Device, now_ms: int) -> None:
        """Mark ``device`` as lost, in place of the will that the broker could not publish."""
        with self.database.begin() as connection:
            store.update_device(connection, device.device, {"state": DeviceState.LOST.value})
        boot = device.reported.boot if device.reported else ""
        self.outbox.send(
            Topic(site=device.site, device=device.device, kind=Kind.STATE),
            State(state=DeviceState.LOST, at_ms=now_ms, boot=boot),
            retain=True,
        )

    def publish_desired(self, *devices: str) -> None:
        """Publish the ``desired`` of ``devices`` again (they asked for it), of those of the fleet that have one.

        If a device would ignore the generation, it gets a newer one; if it lost the release that it had committed, or
        rolled back from it, it gets a new attempt.
        """
        with self._lock:
            roster = self.roster()
            for known in (roster.by_id[device] for device in devices if device in roster.by_id):
                if known.desired is None:
                    continue
                if has_lost(known):
                    self._change(known.device, lambda old, gen: replace(old, attempt=gen))
                elif would_ignore(known):
                    self._change(known.device, lambda old, _gen: old)
                else:
                    self._publish(known.site, known.device, known.desired)

    def _publish(self, site: str, device: str, desired: Desired) -> bool:
        sent = self.outbox.send(Topic(site=site, device=device, kind=Kind.DESIRED), desired, retain=True)
        if sent:
            self._published[device] = desired.gen
        return sent

    def forget_published(self) -> None:
        """Publish every ``desired`` again in the next turns: the broker may have lost its retained messages."""
        with self._lock:
            self._published.clear()
            self._published_revision = -1

    def turn(self, now_ms: int) -> None:  # noqa: ARG002 - every service's ``turn`` takes the time
        """Publish ``desired`` documents that the broker does not have yet, at most a few hundred."""
        with self._lock:
            roster = self.roster()
            if roster.revision == self._published_revision:
                return
            behind = [
                (one, one.desired) for one in roster.devices
                if one.desired is not None and self._published.get(one.device) != one.desired_gen
            ]  # fmt: skip
            for device, desired in behind[:_PUBLISH_PER_TURN]:
                if not self._publish(device.site, device.device, desired):
                    return
            if len(behind) <= _PUBLISH_PER_TURN:
                self._published_revision = roster.revision

    def send_command(self, device: str, verb: str, arguments: Mapping[str, Json], ttl_s: float, *, by: By = "") -> str:
        """Send a command that expires after ``ttl_s``; return its id. It is not sent again: see ``command``.

        ``by``: who asks for it; "" where the server asks many devices in one act, which the caller records.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
            NameRefusedError: If ``verb`` can't be part of a topic.
        """
        check_name(verb, "a command")
        known, now_ms = self.active_device(device), self.clock()
        command = Command(
            id=secrets.token_hex(8), verb=verb, issued_ms=now_ms, expires_ms=now_ms + int(ttl_s * 1000),
            arguments=arguments,
        )  # fmt: skip
        row = {"id": command.id, "device": device, "verb": verb, "issued_ms": now_ms, "expires_ms": command.expires_ms}
        with self.database.begin() as connection:
            store.insert_command(connection, row)
            if by:
                record_act(connection, by, "device.command", device, now_ms, data={"id": command.id, "verb": verb})
        if not self.outbox.send(Topic(site=known.site, device=device, kind=Kind.CMD, leaf=verb), command):
            _LOG.warning("Command not sent: no connection to the broker. device=%s verb=%s", device, verb)
        return command.id

    def command(self, command: str) -> SentCommand:
        """Return one command with its answer.

        Raises:
            UnknownDeviceError: If there is none of that id.
        """
        missing = UnknownDeviceError(f"Expected the id of a command, got {command[:40]!r}: send it first")
        row = self.database.row(lambda connection: store.one_command(connection, command), missing)
        return SentCommand(**{str(key): value for key, value in row.items()})

    def last_command(self, device: str, verb: str) -> SentCommand | None:
        """Return the command of one verb that ``device`` was sent last, with its answer; None if there was none."""
        with self.database.begin() as connection:
            row = store.newest_command(connection, device, verb)
        return SentCommand(**{str(key): value for key, value in row.items()}) if row is not None else None


def as_device(row: sa.RowMapping) -> Device:
    """Return the device in a row of the store."""
    device = row["device"]
    desired = _decoded(_DESIRED, Desired, device, row["desired"]) if row["desired"] else None
    return Device(
        device=device, site=row["site"], attributes=row["attributes"], state=DeviceState(row["state"]),
        reported=decoded_report(device, row["reported"]) if row["reported"] else None, desired=desired,
        desired_gen=row["desired_gen"], desired_release=desired.release if desired else "",
        last_seen_ms=row["last_seen_ms"], enrolled_ms=row["enrolled_ms"], clock_skew_ms=row["clock_skew_ms"],
        ended=row["ended"], ended_ms=row["ended_ms"], ended_why=row["ended_why"], tags=tuple(row["tags"].split()),
        title=row["title"], muted_ms=row["muted_ms"], muted_until_ms=row["muted_until_ms"],
        muted_why=row["muted_why"], muted_by=row["muted_by"],
    )  # fmt: skip


def tags_text(tags: Collection[str]) -> str:
    """Return ``tags`` as the column has them: with a space before and after each, so that a query finds whole ones."""
    return "".join(f" {tag}" for tag in tags) + (" " if tags else "")


_REPORTED: dict[str, tuple[str, Reported]] = {}
_DESIRED: dict[str, tuple[str, Desired]] = {}
"""The decoded form of each device's newest document, one entry per device: an LRU cache of fixed size that is read in
order never hits once the fleet is larger than the cache."""


def decoded_report(device: str, text: str) -> Reported:
    """Return the report in ``text``; that of a device's newest one is kept, so that it is decoded once."""
    return _decoded(_REPORTED, Reported, device, text)


def remember_report(device: str, text: str, message: Reported) -> None:
    """Keep ``message``, which is encoded as ``text``, as the newest report of a device: nobody decodes it again."""
    _REPORTED[device] = (text, message)


def _decoded(known: dict[str, tuple[str, _Message]], kind: type[_Message], device: str, text: str) -> _Message:
    found = known.get(device)
    if found is None or found[0] != text:
        found = known[device] = (text, decode(kind, text.encode()))
    return found[1]


def reported_gen(known: Device) -> int:
    """Return the generation that the device reports: above ours after the database was restored from a backup."""
    gen = known.reported.gen if known.reported else 0
    return gen if 0 <= gen <= MAX_GEN else 0


def next_gen(known: Device) -> int:
    """Return a generation that the device accepts as newer than any that it knows."""
    theirs = reported_gen(known)
    if known.reported is not None and known.desired_gen - theirs > MAX_GEN_STEP:
        return theirs + 1  # only a device that was enrolled again is so far ahead
    return min(MAX_GEN, max(known.desired_gen, theirs) + 1)


def would_ignore(known: Device) -> bool:
    """Return whether the device would ignore our generation as old, or as out of range."""
    if known.reported is None:
        return False
    ahead = reported_gen(known) - known.desired_gen
    return ahead > 0 or ahead < -MAX_GEN_STEP


def has_lost(known: Device) -> bool:
    """Return whether the device reports that it committed the desired release and no longer has it.

    One that reports another release of the same generation got that from a person on site: it is left alone.
    """
    reported, desired = known.reported, known.desired
    if reported is None or desired is None or not desired.sha256 or reported.gen != desired.gen:
        return False
    current = reported.current.sha256 if reported.current is not None else ""
    committed = reported.update.phase is UpdatePhase.COMMITTED and reported.update.release in {"", desired.release}
    return committed and current != desired.sha256
