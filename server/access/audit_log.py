"""The log of acts: who did what to what, when; append-only, each record chained to the one before by its hash.

``record_act`` writes in the caller's transaction, so that there is no act without its record, and no record of an act
that did not happen. A record's hash is the SHA-256 of the hash before it and of its own canonical JSON.

What the chain shows: a record that was changed, removed from the middle, inserted or swapped. What it can't show
alone: that the newest records were cut off together with the head, or that everything was written anew from some
record on by somebody who may write the database. Both show when the head is compared with one that was kept elsewhere
before (``fleet-server audit head``, ``audit verify --anchor``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import sqlalchemy as sa

from server.errors import AnchorInvalidError
from server.people import MAX_NAME, By, actor_of
from server.store.database import Database
from server.store.lists.paging import Page
from server.store.lists.people import ActFilter, act_page
from server.store.people import audit_log as store
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import Json
from wire.errors import MessageError

_FIELDS = ("seq", "at_ms", "account", "kind", "said", "through", "address", "act", "subject", "data")
_MAX_SUBJECT, _MAX_ADDRESS = 200, 64
_PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAct:
    """One record, as ``audit export`` writes it. ``seq`` counts from 1 without a gap; times are UTC milliseconds."""

    seq: int
    at_ms: int
    account: str
    kind: str
    said: str
    through: str
    address: str
    act: str
    subject: str
    data: Mapping[str, Json]
    previous_sha256: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFinding:
    """What ``AuditLog.verify`` found. ``broken_seq``: of the first record that is wrong, 0 for none; ``why`` it is."""

    count: int
    head_sha256: str
    broken_seq: int = 0
    why: str = ""


Also: TypeAlias = Callable[[sa.Connection], None]
"""What a service writes in the same transaction as a change: most often the act (``act_of``)."""


def nothing_else(_: sa.Connection) -> None:
    """Write nothing beside the change."""


def act_of(by: By, act: str, subject: str, now_ms: int, data: Mapping[str, Json] | None = None) -> Also:
    """Return what records this act (the arguments of ``record_act``) in a transaction that it is given."""
    return partial(record_act, by=by, act=act, subject=subject, now_ms=now_ms, data=data)


def record_act(
    connection: sa.Connection, by: By, act: str, subject: str, now_ms: int, *, data: Mapping[str, Json] | None = None
) -> None:  # fmt: skip
    """Append one act in the transaction of ``connection``; call it last there, because it holds up other acts.

    Args:
        connection: the transaction of the act itself.
        by: who acts.
        act: the stable code, such as ``rollout.approve``.
        subject: what is acted on, such as the id of the rollout.
        now_ms: the time, UTC milliseconds.
        data: what else is known of it; never a secret.
    """
    actor, (seq, previous) = actor_of(by), store.next_place(connection)
    content: dict[str, object] = {
        "seq": seq, "at_ms": now_ms, "account": actor.account[:MAX_NAME], "kind": actor.kind.value,
        "said": actor.said[:MAX_NAME], "through": actor.through, "address": actor.address[:_MAX_ADDRESS], "act": act,
        "subject": subject[:_MAX_SUBJECT], "data": dict(data or {}),
    }  # fmt: skip
    chained = {"data": canonical_bytes(content["data"]).decode(), "previous_sha256": previous}
    store.append_act(connection, {**content, **chained, "sha256": _hash(previous, content)})


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The log of one server. Safe to share between threads."""

    database: Database

    def add(self, by: By, act: str, subject: str, now_ms: int, *, data: Mapping[str, Json] | None = None) -> None:
        """Append an act that changes no row of its own, such as a login."""
        with self.database.begin() as connection:
            record_act(connection, by, act, subject, now_ms, data=data)

    def latest(self, limit: int) -> tuple[RecordedAct, ...]:
        """Return the newest acts, the newest first."""
        with self.database.begin() as connection:
            return tuple(map(_recorded, store.latest_acts(connection, limit)))

    def after(self, seq: int, limit: int) -> tuple[RecordedAct, ...]:
        """Return up to ``limit`` acts after the one with the number ``seq``, oldest first."""
        with self.database.begin() as connection:
            return tuple(map(_recorded, store.acts_after(connection, seq, limit)))

    def page(self, wanted: ActFilter, *, limit: int = 200, cursor: str | None = None) -> Page[RecordedAct]:
        """Return a page of acts, the newest first.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            return act_page(connection, wanted, limit=limit, cursor=cursor).of(_recorded)

    def last_of(self, act: str) -> RecordedAct | None:
        """Return the newest act with this code, None if there is none."""
        with self.database.begin() as connection:
            row = store.last_act(connection, act)
        return None if row is None else _recorded(row)

    def export(self) -> Iterator[str]:
        """Yield every act, oldest first, as one line of JSON; no transaction is open while a reader takes its time."""
        last = -1
        while True:
            with self.database.begin() as connection:
                rows = store.acts_after(connection, last, _PAGE)
            for row in rows:
                yield canonical_bytes({**row, "data": json.loads(row["data"])}).decode()
            if len(rows) < _PAGE:
                return
            last = int(rows[-1]["seq"])

    def head(self) -> tuple[int, str]:
        """Return number and hash of the last act, (0, "") before the first: the anchor to keep elsewhere."""
        with self.database.begin() as connection:
            return store.head(connection)

    def verify_on(self, place: tuple[int, str], limit: int) -> tuple[ChainFinding, bool]:
        """Check up to ``limit`` records after ``place``, number and hash of one that was checked before, (0, "") none.

        Returns what was found, and whether the end was reached: only then a cut end shows.
        """
        last, previous = place
        with self.database.begin() as connection:
            end = store.head(connection)
            rows = store.acts_after(connection, last - 1, limit + 1) if last else store.acts_after(connection, 0, limit)
            if last and (not rows or (rows[0]["seq"], rows[0]["sha256"]) != place):
                why = "it was whole, and is gone or another now"
                return ChainFinding(count=last - 1, head_sha256="", broken_seq=last, why=why), True
            rows, at_end = rows[1:] if last else rows, previous if last == end[0] else ""
            for row in rows:
                why = _wrong(row, last + 1, previous)
                if why:
                    finding = ChainFinding(count=last, head_sha256=previous, broken_seq=int(row["seq"]), why=why)
                    return finding, True
                last, previous = int(row["seq"]), str(row["sha256"])
                at_end = previous if last == end[0] else at_end
            over = len(rows) < limit
            why = _end_wrong(end, at_end, last, lambda: store.head(connection)[0]) if over else ""
        return ChainFinding(count=last, head_sha256=previous, broken_seq=last + 1 if why else 0, why=why), over

    def verify(self, anchor: tuple[int, str] | None = None) -> ChainFinding:
        """Check every record against its hash and its place.

        ``anchor``: number and hash of a record as ``head`` returned them before.
        """
        with self.database.begin() as connection:
            end = store.head(connection)
            return verify_chain(store.every_act(connection), end, anchor, newest=lambda: store.head(connection)[0])


def verify_chain(
    records: Iterable[Mapping[Any, Any]], end: tuple[int, str], anchor: tuple[int, str] | None, *,
    newest: Callable[[], int],
) -> ChainFinding:  # fmt: skip
    """Check each record against its hash and its place, and the last against ``end`` and ``anchor``.

    Args:
        records: All, oldest first; ``data`` as canonical JSON.
        end: Number and hash of the last record, (0, "") for none, read before ``records``.
        anchor: Number and hash of a record as ``AuditLog.head`` returned them before.
        newest: Returns the number of the last record now: others append meanwhile.
    """
    last, previous, at_anchor, at_end = 0, "", "", ""
    for row in records:
        why = _wrong(row, last + 1, previous)
        if why:
            return ChainFinding(count=last, head_sha256=previous, broken_seq=int(row["seq"]), why=why)
        last, previous = int(row["seq"]), str(row["sha256"])
        if anchor is not None and last == anchor[0]:
            at_anchor = previous
        at_end = previous if last == end[0] else at_end
    why = _end_wrong(end, at_end, last, newest)
    cut = bool(why)
    if not cut and anchor is not None and anchor[0] and at_anchor != anchor[1]:
        found = "ends before it" if last < anchor[0] else f"has {at_anchor} there"
        why = f"the anchor says that record {anchor[0]} has {anchor[1]}, and the log {found}"
    broken = 0 if not why else last + 1 if cut or anchor is None or last < anchor[0] else anchor[0]
    return ChainFinding(count=last, head_sha256=previous, broken_seq=broken, why=why)


def parsed_anchor(text: str) -> tuple[int, str]:
    """Return number and hash of an anchor, ``SEQ:SHA256``, as ``audit head`` prints it.

    Raises:
        AnchorInvalidError: If it is something else.
    """
    seq, colon, sha256 = text.strip().partition(":")
    if not (colon and seq.isdigit() and (len(sha256) == len(sha256_hex(b"")) or seq == "0")):
        message = f"Expected an anchor SEQ:SHA256 as fleet-server audit head prints it, got {text[:100]!r}"
        raise AnchorInvalidError(message)
    return int(seq), sha256


def _end_wrong(head: tuple[int, str], at_head: str, last: int, newest: Callable[[], int]) -> str:
    """Return what is wrong with the end of the records, "" for nothing.

    ``head`` was read before them, and ``at_head`` is the hash of its record. Others append meanwhile: records after it
    are no fault if the head has moved on as well.
    """
    if last < head[0] or at_head != head[1]:
        return f"the records end with {last}, and the head is that of {head[0]}: the end was cut off"
    if last > head[0] and newest() < last:
        return f"the records end with {last}, and the head is that of {head[0]}: it is not that of the last"
    return ""


def _wrong(row: Mapping[Any, Any], seq: int, previous: str) -> str:
    if row["seq"] != seq:
        return f"record {seq} is missing" if row["seq"] > seq else f"expected record {seq}"
    if not _is_whole(row):
        return "its content was changed: its hash is another"
    if row["previous_sha256"] != previous:
        return "it follows another record: one before it was changed, removed or swapped"
    return ""


def _is_whole(row: Mapping[Any, Any]) -> bool:
    try:
        data = json.loads(row["data"])
        written = canonical_bytes(data).decode() == row["data"]
    except (ValueError, MessageError):
        return False
    return written and _hash(str(row["previous_sha256"]), {**row, "data": data}) == str(row["sha256"])


def _hash(previous: str, content: Mapping[str, object]) -> str:
    return sha256_hex(previous.encode() + canonical_bytes({name: content[name] for name in _FIELDS}))


def _recorded(row: sa.RowMapping) -> RecordedAct:
    return RecordedAct(**{**{str(key): value for key, value in row.items()}, "data": json.loads(row["data"])})
