"""The durable queue between the device and the server's own acknowledgement.

Decides which rows are kept, the order of sending, and which rows are dropped on overflow. A row is *accepted*
once ``commit`` has written it; from then on only a watermark from the server or an overflow deletes it:

1. The lowest priority is dropped first, its oldest row first, so that ``oldest_seq`` can tell the server about it.
   The records in it are counted by stream, durably, in the same transaction.
2. Drift reports of one boot, reference, artifact and context are merged instead: resolution is lost, coverage
   not. Only reports never handed out are merged, or the server would count a window twice; so at most half of the
   limit is ever handed out, and a server that does not acknowledge for months costs resolution only. The two
   neighbours that cover the least in relation to their age are merged: last week stays by the hour, last month by the
   day.
3. A new event is always taken.

Rows that wait from before the last outage are a *replay*: they are sent after the live ones, within a budget of bytes,
and marked late. Events keep their order, so that a log is never read backwards.

An *open* row may still change: the next row of its key replaces it, it is neither handed out nor dropped, and after a
restart ``telemetry`` continues or closes it. A file of a newer agent is never read, a damaged one can't be: either is
renamed and kept, ``taken_aside`` reports it, and an empty one replaces it.

Does not decide what rows mean; ``telemetry`` writes and seals them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.device.disk import advice, trouble
from edge_agent.device.record_file import beside
from edge_agent.errors import NewerFormatError, SpoolError
from wire.codec import decode
from wire.drift_report import DriftReport, decode_report, encode_report
from wire.errors import WireError
from wire.histogram import merge
from wire.messages import Batch, Watermark

PRIORITIES: Mapping[str, int] = {"event": 0, "drift": 1, "hw": 2, "infer": 2, "sample": 3, "answer": 4}
_ONE_RECORD = frozenset({"event", "drift", "sample"})
_LAST = 5  # priority of a stream without one: sent last, dropped first
_ENDLESS = 2**63 - 1
_MAX_AHEAD = 900  # values of one statement; a server acknowledges at most a batch of 500
_OVERHEAD_BYTES = 64  # a row's columns and its part of the indexes
_MIGRATIONS = (
    # 1: the spool of the first agents, which left the version at 0
    (
        """CREATE TABLE IF NOT EXISTS rows (
          id INTEGER PRIMARY KEY AUTOINCREMENT, priority INTEGER NOT NULL, stream TEXT NOT NULL, boot TEXT NOT NULL,
          seq INTEGER NOT NULL, merge_key TEXT NOT NULL, handed INTEGER NOT NULL DEFAULT 0, payload BLOB NOT NULL
        )""",
        "CREATE INDEX IF NOT EXISTS by_priority ON rows (priority, id)",
        "CREATE UNIQUE INDEX IF NOT EXISTS by_key ON rows (stream, boot, seq)",
    ),
    # 2: rows that may still change, and how many were dropped since the file was created
    (
        "ALTER TABLE rows ADD COLUMN open INTEGER NOT NULL DEFAULT 0",
        "CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    ),
    # 3: how many reports were merged into this one
    ("ALTER TABLE rows ADD COLUMN reports INTEGER NOT NULL DEFAULT 1",),
)
VERSION = len(_MIGRATIONS)
"""The file's version, as SQLite's ``user_version``; migration ``n`` leads to version ``n`` and is never edited."""
MAX_DAMAGED = 2
"""How many damaged files are kept; bad flash must not fill the disk with them."""
_UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PASSING = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR}
)
_UNREAD = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})
_LOCKED_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One message that waits: ``payload`` is encoded, not yet sealed with ``oldest_seq`` and ``late``.

    ``open``: a later row of the same key replaces it. ``lazy``: not worth a write of its own. ``late``: handed out as
    part of a replay.
    """

    stream: str
    boot: str
    seq: int
    payload: bytes
    merge_key: str = ""
    id: int = 0
    open: bool = False
    lazy: bool = False
    late: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        """The identity of the message, however often it is written or sent."""
        return self.stream, self.boot, self.seq

    @property
    def length_bytes(self) -> int:
        """The bytes that the row counts against the limit."""
        return len(self.payload) + _OVERHEAD_BYTES


class _Sendable(NamedTuple):
    """A row that may be sent: ``needs_mark``, that it was handed out; ``late``: it is part of a replay."""

    id: int
    priority: int
    length_bytes: int
    needs_mark: bool
    late: bool


@dataclass(slots=True, kw_only=True)
class Spool:
    """SQLite in WAL mode at ``path``, at most ``limit_bytes`` of rows. One thread."""

    path: Path
    limit_bytes: int
    _pending: dict[tuple[str, str, int], Row] = field(default_factory=dict)
    _open_bytes: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _taken_aside: list[tuple[str, str]] = field(default_factory=list)
    _unreadable: bool = False
    _lost: dict[str, int] = field(default_factory=dict)
    _replayed_id: int = 0
    _growing: frozenset[int] = frozenset()
    _unanswered: bool = False
    _handed_s: dict[int, float] = field(default_factory=dict)
    _held_bytes: int = 0
    _database: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        """Open the file; a damaged one is renamed, because a device must run on.

        Raises:
            SpoolError: If no file can be opened, or the disk fails for one that may be intact.
        """
        self._load()

    def _load(self) -> None:
        try:
            self._database = _open(self.path)
        except NewerFormatError as error:
            self._database = self._open_anew("spool_newer", f"newer-{_version(self.path)}", str(error))
        except sqlite3.DatabaseError as error:
            if _passes(error, self.path):
                message = f"Expected a spool that can be opened in {self.path}, got: {error}"
                step = "end the program that has the file open, or free the disk"
                step = advice(self.path.parent) if trouble(self.path.parent) else step
                raise SpoolError(f"{message}: {step}; nothing of it is lost") from error
            text = f"Expected a spool in {self.path}, got: {error}: what it held is not sent"
            self._database = self._open_anew("spool_damaged", "damaged", text)
        self._held_bytes = self._sum()
        self._open_bytes = {row.key: row.length_bytes for row in self.open_rows()}
        self._handed_s.clear()
        self.begin_replay()
        self._unreadable = False

    def _open_anew(self, code: str, mark: str, text: str) -> sqlite3.Connection:
        try:
            if mark == "damaged":
                _forget_oldest(self.path, MAX_DAMAGED - 1)
            kept = beside(self.path, mark)
            for suffix in ("-wal", "-shm", ""):  # the file itself last: after a power cut in between, this is repeated
                if os.path.lexists(f"{self.path}{suffix}"):  # also a dangling link
                    Path(f"{self.path}{suffix}").replace(f"{kept}{suffix}")
            self._taken_aside.append((code, f"{text} (kept as {kept.name})"))
            return _open(self.path)
        except (OSError, sqlite3.Error) as error:
            step = advice(self.path.parent, error if isinstance(error, OSError) else None)
            message = f"Expected a writable spool at {self.path}, got: {error}: {step}"
            raise SpoolError(message) from error

    def dropped(self) -> dict[str, int]:
        """Return how many records of each stream were dropped since the file was created.

        An event or a report is one record, a batch has many. "" is the stream of those that earlier agents dropped.

        Raises:
            SpoolError: If it can't be read.
        """
        counted = self._select("SELECT name, value FROM counts WHERE name LIKE 'dropped%' ORDER BY name")
        found = {name.partition("/")[2]: int(value) for name, value in counted}
        return found | {stream: found.get(stream, 0) + lost for stream, lost in self._lost.items()}

    def merged(self) -> int:
        """Return how many drift reports were merged into another one since the file was created.

        Raises:
            SpoolError: If it can't be read.
        """
        ((counted,),) = self._select("SELECT coalesce(sum(value), 0) FROM counts WHERE name = 'merged'")
        return int(counted)

    def taken_aside(self) -> list[tuple[str, str]]:
        """Return code and text of each file that was renamed since the last call."""
        told, self._taken_aside = self._taken_aside, []
        return told

    @property
    def held_bytes(self) -> int:
        """The bytes that count against the limit, uncommitted ones included."""
        replaced = sum(self._open_bytes.get(key, 0) for key in self._pending)
        return self._held_bytes - replaced + sum(row.length_bytes for row in self._pending.values())

    @property
    def urgent(self) -> bool:
        """Whether a row waits that is worth a write of its own."""
        return any(not row.lazy for row in self._pending.values())

    def add(self, row: Row) -> None:
        """Take a row; it is accepted with the next ``commit``."""
        self._pending[row.key] = row

    def commit(self) -> None:
        """Write the added rows, in one transaction, and make room on overflow.

        Raises:
            SpoolError: If it can't be written; the rows wait in memory, within the same limit.
        """
        if self._unreadable:
            self._database.close()
            self._load()
        if not self._pending:
            return
        try:
            with self._transaction():
                self._put()
                self._held_bytes = self.held_bytes
                self._make_room()
                for stream, records in self._lost.items():
                    self._count(f"dropped/{stream}", records)
        except SpoolError:
            if not self._unreadable:
                self._held_bytes = self._sum()
            while sum(row.length_bytes for row in self._pending.values()) > self.limit_bytes:
                worst = max(self._pending.values(), key=lambda row: PRIORITIES.get(row.stream, _LAST))
                del self._pending[worst.key]
                self._lost[worst.stream] = self._lost.get(worst.stream, 0) + _records(worst.stream, worst.payload)
            raise
        self._lost.clear()
        for key, row in self._pending.items():
            if row.open:
                self._open_bytes[key] = row.length_bytes
            else:
                self._open_bytes.pop(key, None)
        self._pending.clear()

    def _put(self) -> None:
        """Replace the rows that are open and insert the others.

        Not in one upsert: that would draw a new AUTOINCREMENT number even for a row that it replaces, and so write
        one more page to the disk at every checkpoint.
        """
        known = [row for row in self._pending.values() if row.key in self._open_bytes]
        self._database.executemany(
            "UPDATE rows SET payload = ?, open = ? WHERE stream = ? AND boot = ? AND seq = ? AND open = 1",
            [(row.payload, row.open, *row.key) for row in known],
        )
        self._database.executemany(
            "INSERT INTO rows (priority, stream, boot, seq, merge_key, payload, open) VALUES (?,?,?,?,?,?,?)"
            " ON CONFLICT (stream, boot, seq) DO UPDATE SET payload = excluded.payload, open = excluded.open"
            " WHERE rows.open = 1",
            [
                (PRIORITIES.get(row.stream, _LAST), *row.key, row.merge_key, row.payload, row.open)
                for row in self._pending.values()
                if row.key not in self._open_bytes
            ],
        )

    def open_rows(self) -> list[Row]:
        """Return the rows that may still change, oldest first.

        Raises:
            SpoolError: If they can't be read.
        """
        return self._rows("WHERE open = 1 ORDER BY id", ())

    def begin_replay(self) -> None:
        """Take everything accepted so far as a replay: it waited through an outage, or through a restart.

        Rows that are open now are not part of it: they grow on.

        Raises:
            SpoolError: If it can't be read.
        """
        ((newest,),) = self._select("SELECT coalesce(max(id), 0) FROM rows")
        self._replayed_id = int(newest)
        self._growing = frozenset(row.id for row in self.open_rows())

    def hand_out(
        self, now_s: float, *, limit: int, resend_s: float, unacked: int, replay_bytes: float = float("inf")
    ) -> list[Row]:
        """Return up to ``limit`` accepted rows to send now, the most urgent first; mark them as handed out.

        A row is handed out again after ``resend_s`` without an acknowledgement; at most ``unacked`` are in flight.
        A replay takes at most ``replay_bytes`` (and one row more), and three quarters of what may be in flight.

        Raises:
            SpoolError: If the mark can't be written: a report not marked might be merged after it was sent.
        """
        waiting = sum(now_s - at_s < resend_s for at_s in self._handed_s.values())
        room = min(limit, unacked - waiting)
        if room <= 0:
            return []
        replay_room = min(room, unacked - unacked // 4 - waiting)
        chosen = self._choose(self._due(now_s, resend_s, unacked), room, replay_room, replay_bytes)
        if not chosen:
            return []
        marks = ",".join("?" * len(chosen))
        with self._transaction():
            self._database.execute(
                f"UPDATE rows SET handed = 1 WHERE id IN ({marks}) AND merge_key != ''",  # noqa: S608 - question marks
                tuple(chosen),
            )
        found = {row.id: row for row in self._rows(f"WHERE id IN ({marks})", tuple(chosen))}
        self._unanswered |= not self._handed_s.keys().isdisjoint(chosen)
        self._handed_s.update(dict.fromkeys(chosen, now_s))
        return [replace(found[row_id], late=due.late) for row_id, due in chosen.items() if row_id in found]

    def _choose(
        self, rows: Iterable[_Sendable], room: int, replay_room: int, replay_bytes: float
    ) -> dict[int, _Sendable]:
        """Return the first ``room`` of ``rows``, by id, that neither the replay's budget nor the marks hold back."""
        chosen: dict[int, _Sendable] = {}
        events_wait, markable_bytes = False, None
        for due in rows:
            if len(chosen) >= room:
                break
            is_event = due.priority == PRIORITIES["event"]
            if due.late and (replay_room <= 0 or replay_bytes <= 0):
                events_wait |= is_event
                continue
            if is_event and events_wait:
                continue
            if due.needs_mark:
                if markable_bytes is None:
                    handed_bytes = self._sum(f"WHERE priority = {PRIORITIES['drift']} AND handed = 1")
                    markable_bytes = self.limit_bytes // 2 - handed_bytes
                if markable_bytes <= 0:
                    continue
                markable_bytes -= due.length_bytes
            if due.late:
                replay_room, replay_bytes = replay_room - 1, replay_bytes - due.length_bytes
            chosen[due.id] = due
        return chosen

    def _due(self, now_s: float, resend_s: float, unacked: int) -> Iterator[_Sendable]:
        """Yield the rows that may be sent now, in their order; each query reads one range of the index by priority."""
        last = self._replayed_id
        live = [(priority, last, _ENDLESS) for priority in range(_LAST + 1)]
        replay = [(priority, 0, last) for priority in range(_LAST + 1)]
        for priority, after_id, until_id in (replay[0], *live, *replay[1:]):
            rows = self._select(
                "SELECT id, length(payload), merge_key != '' AND NOT handed, stream, boot FROM rows"
                " WHERE priority = ? AND id > ? AND id <= ? AND open = 0 ORDER BY id LIMIT ?",
                (priority, after_id, until_id, unacked),
            )
            for row_id, length, needs_mark, stream, boot in rows:
                sent_s = self._handed_s.get(row_id)
                if sent_s is not None and (now_s - sent_s < resend_s or (row_id > last and self._waits(stream, boot))):
                    continue  # of a live row before which a replay waits: it can't be acknowledged yet
                late = row_id <= last and row_id not in self._growing
                yield _Sendable(row_id, priority, length + _OVERHEAD_BYTES, bool(needs_mark), late)

    def _waits(self, stream: str, boot: str) -> bool:
        """Return whether rows of this stream and boot are part of the replay."""
        return bool(
            self._select(
                "SELECT 1 FROM rows WHERE stream = ? AND boot = ? AND id <= ? AND open = 0 LIMIT 1",
                (stream, boot, self._replayed_id),
            )
        )

    def take_back(self, row: Row) -> None:
        """Undo ``hand_out`` of a row that the transport couldn't accept."""
        self._handed_s.pop(row.id, None)

    def take_all_back(self) -> None:
        """Send everything again that has no acknowledgement: the connection is new."""
        self._handed_s.clear()

    def acked(self, watermark: Watermark) -> int:
        """Delete the rows that the server has stored; return how many.

        Raises:
            SpoolError: If it can't be written.
        """
        if watermark.stream is None:
            return 0
        ahead = watermark.ahead[:_MAX_AHEAD]
        key = (watermark.stream.value, watermark.boot, watermark.through_seq, *ahead)
        with self._transaction(durable=False):  # a row that a power cut brings back is sent and acknowledged again
            rows = self._database.execute(
                "DELETE FROM rows WHERE stream = ? AND boot = ? AND open = 0"  # noqa: S608 - only question marks
                f" AND (seq <= ? OR seq IN ({','.join('?' * len(ahead))})) RETURNING id, length(payload)",
                key,
            ).fetchall()
        for row_id, length in rows:
            self._handed_s.pop(row_id, None)
            self._held_bytes -= length + _OVERHEAD_BYTES
        if rows and self._unanswered:  # the server was away, although the broker was not
            self._unanswered = False
            self.begin_replay()
        return len(rows)

    def drop(self, row: Row) -> None:
        """Delete one row that can never be sent.

        Raises:
            SpoolError: If it can't be written.
        """
        with self._transaction():
            self._drop(row.id)

    def drop_stream(self, stream: str) -> int:
        """Delete all rows of ``stream``, which must not be sent any more; return how many there were.

        Raises:
            SpoolError: If it can't be read or written.
        """
        found = self._select("SELECT id FROM rows WHERE stream = ?", (stream,))
        if found:
            with self._transaction():
                for (row_id,) in found:
                    self._drop(int(row_id))
        return len(found)

    def oldest(self, stream: str, boot: str) -> int:
        """Return the lowest number held of ``stream`` in ``boot``; 0 if there is none."""
        ((lowest,),) = self._select("SELECT min(seq) FROM rows WHERE stream = ? AND boot = ?", (stream, boot))
        return int(lowest or 0)

    def count(self) -> int:
        """Return the number of accepted rows that wait to be sent."""
        ((rows,),) = self._select("SELECT count(*) FROM rows WHERE open = 0")
        return int(rows)

    def close(self) -> None:
        """Close the file; rows that were not committed are lost."""
        self._database.close()

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Run a transaction; ``durable``: its changes survive a power cut once it has ended."""
        try:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._look_at(error)
            with suppress(sqlite3.Error):
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            message = f"Expected to write {self.path}, got: {error}: free the disk"
            raise SpoolError(message) from error

    def _look_at(self, error: Exception) -> None:
        """Record whether the file itself is damaged: the next ``commit`` renames it."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNREADABLE:
            self._unreadable = True

    def _select(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._look_at(error)
            message = f"Expected to read {self.path}, got: {error}"
            raise SpoolError(message) from error

    def _rows(self, where: str, values: tuple[object, ...]) -> list[Row]:
        query = f"SELECT stream, boot, seq, payload, merge_key, id, open FROM rows {where}"  # noqa: S608 - constants of this file
        return [
            Row(stream=stream, boot=boot, seq=seq, payload=payload, merge_key=key, id=row_id, open=bool(is_open))
            for stream, boot, seq, payload, key, row_id, is_open in self._select(query, values)
        ]

    def _sum(self, where: str = "") -> int:
        ((total,),) = self._select(f"SELECT coalesce(sum(length(payload) + {_OVERHEAD_BYTES}), 0) FROM rows {where}")  # noqa: S608 - constants
        return int(total)

    def _make_room(self) -> None:
        while self._held_bytes > self.limit_bytes:
            lowest = self._select("SELECT id, priority FROM rows WHERE open = 0 ORDER BY priority DESC, id LIMIT 1")
            if not lowest:
                return
            ((row_id, priority),) = lowest
            if not (priority == PRIORITIES["drift"] and self._merge_one()):
                self._drop(int(row_id))

    def _drop(self, row_id: int) -> None:
        """Delete a row and count the records in it as dropped, in the transaction of the caller."""
        for stream, payload, reports in self._select(
            "SELECT stream, payload, reports FROM rows WHERE id = ?", (row_id,)
        ):
            self._delete(row_id, len(payload))
            self._count(f"dropped/{stream}", int(reports) * _records(stream, payload))

    def _delete(self, row_id: int, length: int) -> None:
        self._database.execute("DELETE FROM rows WHERE id = ?", (row_id,))
        self._handed_s.pop(row_id, None)
        self._held_bytes -= length + _OVERHEAD_BYTES

    def _count(self, name: str, by: int) -> None:
        """Count within the same transaction, so that the count survives a restart."""
        statement = "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
        self._database.execute(statement, (name, by))

    def _merge_one(self) -> bool:
        """Merge the two neighbours whose reports are the fewest in relation to the age of the older; return whether."""
        pairs = self._select(
            "SELECT older, id FROM (SELECT id, reports, lag(id) OVER same AS older, lag(reports) OVER same AS before"
            " FROM rows WHERE merge_key != '' AND handed = 0 AND open = 0"
            " WINDOW same AS (PARTITION BY merge_key ORDER BY seq))"
            " WHERE older IS NOT NULL"
            " ORDER BY 1.0 * (before + reports) / ((SELECT max(id) FROM rows) - older + 1), older LIMIT 1"
        )
        if not pairs:
            return False
        older, newer = self._rows("WHERE id IN (?, ?) ORDER BY seq", pairs[0])
        payload = encode_report(merged(decode_report(older.payload), decode_report(newer.payload)))
        self._database.execute(
            "UPDATE rows SET payload = ?, reports = reports + (SELECT reports FROM rows WHERE id = ?) WHERE id = ?",
            (payload, older.id, newer.id),
        )
        self._held_bytes += len(payload) - len(newer.payload)
        self._delete(older.id, len(older.payload))
        self._count("merged", 1)
        return True


def merged(older: DriftReport, newer: DriftReport) -> DriftReport:
    """Return one report over both windows, under the newer number.

    Raises:
        HistogramError: If their counters have different shapes.
    """
    start_ms = min(older.window_start_ms, newer.window_start_ms)
    end_ms = max(older.window_start_ms + older.window_len_ms, newer.window_start_ms + newer.window_len_ms)
    return replace(
        newer,
        window_start_ms=start_ms,
        window_len_ms=end_ms - start_ms,
        counters=merge(older.counters, newer.counters),
        late=older.late or newer.late,
    )


def _records(stream: str, payload: bytes) -> int:
    """Return how many records the row holds; 1 for one that does not decode."""
    if stream in _ONE_RECORD:
        return 1
    try:
        return max(1, decode(Batch, payload).n)
    except WireError:
        return 1


def merge_key(report: DriftReport) -> str:
    """Return what two reports must share to be merged: boot, reference, artifact, context, shape."""
    shape = report.counters.shape
    parts = (report.boot, report.ref_id, report.artifact, report.context)
    return "/".join(map(str, (*parts, shape.streams, shape.classes, shape.confidence_bins)))


def _passes(error: sqlite3.DatabaseError, path: Path) -> bool:
    """Return whether ``error`` is temporary (disk full, file locked) and no sign of a damaged file."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:  # no room for its log; not a folder, a dangling link, a foreign file
        return path.is_file() and os.access(path, os.R_OK | os.W_OK)
    return code & 0xFF in _PASSING and code not in _UNREAD


_PAGE_BYTES = 1024
"""A commit of one row writes one or two pages of the kernel, not two or three: rows are about as long."""


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=_LOCKED_S)
    try:
        # one agent, by its lock. Set first, because then the WAL index needs no room on a full disk
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
        found = int(database.execute("PRAGMA user_version").fetchone()[0])
        if found > VERSION:
            database.close()
            message = f"Expected a spool of version {VERSION} or older in {path}, got {found}: a newer agent wrote it"
            raise NewerFormatError(message)
        database.execute("PRAGMA journal_mode = WAL")
        if found < VERSION:
            database.execute("BEGIN IMMEDIATE")
            for statement in (statement for step in _MIGRATIONS[found:] for statement in step):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("COMMIT")
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error:
        database.close()
        raise
    if problem != "ok":
        database.close()
        raise sqlite3.DatabaseError(problem)
    return database


def _version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def _forget_oldest(path: Path, keep: int) -> None:
    """Remove all but the ``keep`` newest damaged files."""
    names = (file for file in path.parent.glob(f"{path.name}.damaged*") if not file.name.endswith(("-wal", "-shm")))
    oldest_first = sorted(names, key=lambda file: file.stat().st_mtime_ns)
    for file in oldest_first[: max(0, len(oldest_first) - keep)]:
        for suffix in ("-wal", "-shm", ""):
            Path(f"{file}{suffix}").unlink(missing_ok=True)
