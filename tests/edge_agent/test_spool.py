"""The spool: which rows survive, are sent first, are merged, and are dropped."""

import resource
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.errors import SpoolError
from edge_agent.telemetry.spool import MAX_DAMAGED, VERSION, Row, Spool, merge_key, merged
from wire.drift_report import DriftReport, decode_report, encode_report
from wire.histogram import Counters, Shape
from wire.messages import Stream, Watermark

BOOT = "00000000000000aa"
SHAPE = Shape(2, 3)
OF_42F48EE = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS rows (
  id INTEGER PRIMARY KEY AUTOINCREMENT, priority INTEGER NOT NULL, stream TEXT NOT NULL, boot TEXT NOT NULL,
  seq INTEGER NOT NULL, merge_key TEXT NOT NULL, handed INTEGER NOT NULL DEFAULT 0, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_priority ON rows (priority, id);
CREATE UNIQUE INDEX IF NOT EXISTS by_key ON rows (stream, boot, seq);
INSERT INTO rows VALUES (1, 1, 'drift', '00000000000000aa', 7, 'key', 1, x'00');
INSERT INTO rows VALUES (2, 0, 'event', '00000000000000aa', 4, '', 0, x'7b7d');
"""


def report(seq: int, *, context: int = 0, n: int = 10) -> Row:
    """Return a drift report as a row."""
    counters = Counters(SHAPE, n, (n,) + (0,) * 15 + (n,) + (0,) * 15 + (0, 0) + (n,) + (0,) * 29)
    drift = DriftReport(
        boot=BOOT,
        seq=seq,
        oldest_seq=seq,
        window_start_ms=1000 * seq,
        window_len_ms=1000,
        context=context,
        artifact="ab" * 16,
        ref_id="cd" * 16,
        counters=counters,
    )
    return Row(stream="drift", boot=BOOT, seq=seq, payload=encode_report(drift), merge_key=merge_key(drift))


def spool_at(tmp_path: Path, limit_bytes: int = 1 << 20) -> Spool:
    """Return a spool in a fresh folder."""
    return Spool(path=tmp_path / "spool.db", limit_bytes=limit_bytes)


def held(spool: Spool) -> list[tuple[str, int]]:
    """Return stream and number of all rows in the order of sending."""
    return [(row.stream, row.seq) for row in spool.hand_out(0.0, limit=1000, resend_s=0.0, unacked=1000)]


def test_sends_events_before_drift_before_samples(tmp_path: Path) -> None:
    """The most urgent is sent first, whatever arrived first."""
    spool = spool_at(tmp_path)
    for stream in ["unknown", "sample", "infer", "drift", "event"]:
        spool.add(Row(stream=stream, boot=BOOT, seq=1, payload=b"x"))
    spool.commit()
    assert [stream for stream, _ in held(spool)] == ["event", "drift", "infer", "sample", "unknown"]


def test_keeps_rows_over_a_restart(tmp_path: Path) -> None:
    """Committed rows are there when the file is opened again."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"one"))
    spool.commit()
    spool.close()
    assert spool_at(tmp_path).count() == 1


def test_does_not_send_what_is_not_committed(tmp_path: Path) -> None:
    """A row is sent only after it is durable."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"one"))
    assert held(spool) == []


def test_deletes_only_up_to_the_watermark(tmp_path: Path) -> None:
    """The server's watermark deletes its stream and boot up to its number, and nothing else."""
    spool = spool_at(tmp_path)
    for seq in [1, 2, 3]:
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x"))
    spool.add(Row(stream="infer", boot=BOOT, seq=1, payload=b"x"))
    spool.commit()
    assert spool.acked(Watermark(Stream.EVENT, BOOT, 2)) == 2
    assert held(spool) == [("event", 3), ("infer", 1)]
    assert spool.oldest("event", BOOT) == 3


def test_rows_that_left_no_longer_count_against_the_limit(tmp_path: Path) -> None:
    """Stored by the server or dropped: in memory as in the file, so that the spool never fills up with nothing."""
    spool = spool_at(tmp_path)
    for seq in range(1, 6):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x" * seq))
    spool.commit()
    spool.acked(Watermark(Stream.EVENT, BOOT, 2))
    assert spool.held_bytes == spool._sum() == 3 * 64 + 3 + 4 + 5
    spool.drop(spool.hand_out(0.0, limit=1, resend_s=0.0, unacked=9)[0])
    assert held(spool) == [("event", 4), ("event", 5)]
    assert spool.held_bytes == spool._sum() == 2 * 64 + 4 + 5


def test_only_new_rows_are_flushed_to_the_disk(tmp_path: Path) -> None:
    """Flash wears: a row that a power cut brings back is only sent and acknowledged again."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x"))
    spool.commit()
    full = spool._select("PRAGMA synchronous")
    spool.acked(Watermark(Stream.EVENT, BOOT, 1))
    assert (full, spool._select("PRAGMA synchronous")) == ([(2,)], [(1,)])


def test_sends_again_after_the_timeout(tmp_path: Path) -> None:
    """An unacknowledged row is sent again, not before its time."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x"))
    spool.commit()
    got = [len(spool.hand_out(now, limit=9, resend_s=30.0, unacked=9)) for now in [0.0, 29.0, 30.0]]
    assert got == [1, 0, 1]


def test_sends_again_after_a_new_connection(tmp_path: Path) -> None:
    """A new connection sends all unacknowledged rows at once."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x"))
    spool.commit()
    spool.hand_out(0.0, limit=9, resend_s=30.0, unacked=9)
    spool.take_all_back()
    assert len(spool.hand_out(1.0, limit=9, resend_s=30.0, unacked=9)) == 1


def test_bounds_what_is_on_the_way(tmp_path: Path) -> None:
    """At most so many rows wait for the server's acknowledgement."""
    spool = spool_at(tmp_path)
    for seq in range(1, 21):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x"))
    spool.commit()
    sent = [len(spool.hand_out(float(turn), limit=4, resend_s=99.0, unacked=10)) for turn in range(5)]
    assert sent == [4, 4, 2, 0, 0]


def test_urgent_rows_wait_too_while_others_are_on_the_way(tmp_path: Path) -> None:
    """Three samples are not acknowledged: three events that came later are not sent on top of them."""
    spool = spool_at(tmp_path)
    for stream, expected in (("sample", 3), ("event", 0)):
        for seq in range(1, 4):
            spool.add(Row(stream=stream, boot=BOOT, seq=seq, payload=b"x"))
        spool.commit()
        assert len(spool.hand_out(0.0, limit=9, resend_s=99.0, unacked=3)) == expected


def test_a_dropped_row_is_no_longer_on_the_way(tmp_path: Path) -> None:
    """The next one takes its place at once."""
    spool = spool_at(tmp_path)
    for seq in (1, 2):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x"))
    spool.commit()
    (first,) = spool.hand_out(0.0, limit=9, resend_s=99.0, unacked=1)
    spool.drop(first)
    assert [row.seq for row in spool.hand_out(0.0, limit=9, resend_s=99.0, unacked=1)] == [2]


def test_overflow_drops_the_lowest_priority_oldest_first(tmp_path: Path) -> None:
    """Samples go before drift, the oldest before the newest."""
    spool = spool_at(tmp_path, limit_bytes=5 * 164)
    for seq in range(1, 6):
        spool.add(Row(stream="sample", boot=BOOT, seq=seq, payload=b"x" * 100))
    for seq in range(1, 4):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x" * 100))
    spool.commit()
    assert held(spool) == [("event", 1), ("event", 2), ("event", 3), ("sample", 4), ("sample", 5)]


def test_what_was_dropped_is_counted_over_a_restart(tmp_path: Path) -> None:
    """The count includes losses before the last start."""
    spool = spool_at(tmp_path, limit_bytes=3 * 65)
    for seq in range(1, 6):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x"))
    spool.commit()
    spool.close()
    again = spool_at(tmp_path)
    again.drop(again.hand_out(0.0, limit=1, resend_s=0.0, unacked=9)[0])
    assert again.dropped() == {"event": 3}


def test_overflow_merges_drift_reports(tmp_path: Path) -> None:
    """Merged reports cover everything that was counted, under the newest number."""
    spool = spool_at(tmp_path, limit_bytes=3 * report(1).length_bytes)
    for seq in range(1, 13):
        spool.add(report(seq))
        spool.commit()
    rows = spool.hand_out(0.0, limit=99, resend_s=0.0, unacked=99)
    reports = [decode_report(row.payload) for row in rows]
    assert sum(item.counters.n for item in reports) == 120
    assert max(item.seq for item in reports) == 12
    assert (spool.dropped(), spool.merged()) == ({}, 12 - len(rows))


def test_never_merges_a_report_that_was_sent(tmp_path: Path) -> None:
    """A sent report may be on the server: merged, it would count twice. It stays alone, also over a restart."""
    spool = spool_at(tmp_path)
    spool.add(report(1))
    spool.commit()
    spool.hand_out(0.0, limit=1, resend_s=30.0, unacked=9)
    spool.close()
    again = spool_at(tmp_path, limit_bytes=2 * report(1).length_bytes)
    again.add(report(2))
    again.add(report(3))
    again.commit()
    assert sorted(decode_report(row.payload).counters.n for row in again._rows("", ())) == [10, 20]


def test_merges_only_one_context(tmp_path: Path) -> None:
    """Reports of different contexts stay apart."""
    spool = spool_at(tmp_path, limit_bytes=2 * report(1).length_bytes)
    for seq, context in [(1, 0), (2, 1), (3, 0)]:
        spool.add(report(seq, context=context))
    spool.commit()
    assert {(row.seq, decode_report(row.payload).counters.n) for row in spool._rows("", ())} == {(2, 10), (3, 20)}


def test_the_oldest_report_is_merged_first(tmp_path: Path) -> None:
    """Its context began first and was seen again last; one merge is enough."""
    spool = spool_at(tmp_path, limit_bytes=3 * report(1).length_bytes)
    for seq, context in [(1, 0), (2, 1), (3, 1), (4, 0)]:
        spool.add(report(seq, context=context))
    spool.commit()
    found = {(row.seq, decode_report(row.payload).counters.n) for row in spool._rows("", ())}
    assert found == {(2, 10), (3, 10), (4, 20)}


def test_a_merged_window_spans_both() -> None:
    """Start of the older, end of the newer, sum of the counts."""
    both = merged(decode_report(report(1).payload), decode_report(report(5).payload))
    assert (both.seq, both.window_start_ms, both.window_len_ms, both.counters.n) == (5, 1000, 5000, 20)


@pytest.mark.parametrize(("older_ms", "newer_ms", "length_ms"), [(9000, 1000, 9000), (1000, 9000, 13000)])
def test_a_merged_window_ends_with_the_later_end(older_ms: int, newer_ms: int, length_ms: int) -> None:
    """A long window may hold a later, short one."""
    older, newer = decode_report(report(1).payload), decode_report(report(5).payload)
    both = merged(replace(older, window_len_ms=older_ms), replace(newer, window_len_ms=newer_ms))
    assert (both.window_start_ms, both.window_len_ms) == (1000, length_ms)


@pytest.mark.parametrize(("older", "newer"), [(False, False), (True, False), (False, True)])
def test_a_merged_window_is_late_if_either_was(*, older: bool, newer: bool) -> None:
    """The server must not take it for one that came in time."""
    first, second = (replace(decode_report(report(seq).payload), late=late) for seq, late in ((1, older), (2, newer)))
    assert merged(first, second).late is (older or newer)


def test_what_is_held_after_a_merge_is_what_the_file_holds(tmp_path: Path) -> None:
    """Counts grow when they are added up, and so does the payload: the bound must not drift away."""
    limit = report(1, n=60_000).length_bytes + 40
    spool = spool_at(tmp_path, limit)
    for seq, n in ((1, 60_000), (2, 3)):
        spool.add(report(seq, n=n))
        spool.commit()
    assert len(held(spool)) == 1
    kept = spool.held_bytes
    spool.close()
    assert spool_at(tmp_path, limit).held_bytes == kept


def test_merges_until_there_is_room(tmp_path: Path) -> None:
    """One commit may have to merge more than once."""
    spool = spool_at(tmp_path, limit_bytes=2 * report(1).length_bytes)
    for seq in range(1, 6):
        spool.add(report(seq))
    spool.commit()
    assert spool.held_bytes <= spool.limit_bytes
    assert sum(decode_report(row.payload).counters.n for row in spool._rows("", ())) == 50


def test_a_report_that_alone_is_too_much_is_dropped(tmp_path: Path) -> None:
    """There is nothing to merge it with."""
    spool = spool_at(tmp_path, limit_bytes=report(1).length_bytes - 1)
    spool.add(report(1))
    spool.commit()
    assert (held(spool), spool.dropped(), spool.held_bytes) == ([], {"drift": 1}, 0)


def test_never_refuses_a_new_event(tmp_path: Path) -> None:
    """A spool full of events takes the newest one and lets the oldest go."""
    spool = spool_at(tmp_path, limit_bytes=3 * 65)
    for seq in range(1, 6):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x"))
    spool.commit()
    assert held(spool) == [("event", 3), ("event", 4), ("event", 5)]


def test_stays_within_its_limit_over_a_restart(tmp_path: Path) -> None:
    """The size is counted from the file, not from memory."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x" * 100))
    spool.commit()
    spool.close()
    assert spool_at(tmp_path).held_bytes == 164


def test_a_checkpoint_of_open_rows_writes_their_page_alone(tmp_path: Path) -> None:
    """Flash wears: two rows that grow are one page in the log, not the table of numbers and the indexes too."""
    spool = spool_at(tmp_path)
    log = tmp_path / "spool.db-wal"
    for number in range(3):
        before = log.stat().st_size
        spool.add(Row(stream="drift", boot=BOOT, seq=1, payload=b"d%d" % number, merge_key="k", open=True))
        spool.add(Row(stream="infer", boot=BOOT, seq=1, payload=b"i%d" % number, open=True))
        spool.commit()
    assert log.stat().st_size - before == 24 + 1024
    assert [row.payload for row in spool.open_rows()] == [b"d2", b"i2"]


def test_a_failed_write_keeps_the_rows(tmp_path: Path) -> None:
    """A disk that is full for a while costs nothing: the rows wait in memory and are written later."""
    spool = spool_at(tmp_path)
    spool._database.execute("PRAGMA max_page_count = 1")
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x" * 20000))
    with pytest.raises(SpoolError, match="free the disk"):
        spool.commit()
    spool._database.execute("PRAGMA max_page_count = 100000")
    spool.commit()
    assert held(spool) == [("event", 1)]


@contextmanager
def no_file_grows() -> Iterator[None]:
    """No file of this process may become longer, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_full_disk_does_not_take_waits_within_the_limit(tmp_path: Path) -> None:
    """The memory of the rows that wait is bounded too: the least urgent go, the oldest first, and are counted."""
    spool = spool_at(tmp_path, limit_bytes=4 * 164)
    rows = [("sample", 1), ("event", 1), ("sample", 2), ("event", 2), ("sample", 3), ("event", 3)]
    for stream, seq in rows:
        spool.add(Row(stream=stream, boot=BOOT, seq=seq, payload=b"x" * 100))
    with no_file_grows(), pytest.raises(SpoolError, match="free the disk"):
        spool.commit()
    assert (spool.held_bytes, spool.dropped()) == (4 * 164, {"sample": 2})
    spool.commit()
    spool.close()
    again = spool_at(tmp_path)
    assert held(again) == [("event", 1), ("event", 2), ("event", 3), ("sample", 3)]
    assert again.dropped() == {"sample": 2}


def test_a_full_disk_at_the_start_costs_nothing(tmp_path: Path) -> None:
    """After a power cut on a full disk the rows are read; new ones wait, and both are there when there is room."""
    (tmp_path / "after").mkdir()
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x"))
    spool.commit()
    for path in tmp_path.glob("spool.db*"):  # what a killed agent leaves: the log was not written back
        shutil.copy(path, tmp_path / "after")
    with no_file_grows():
        again = spool_at(tmp_path / "after")
        again.add(Row(stream="event", boot=BOOT, seq=2, payload=b"x"))
        with pytest.raises(SpoolError, match="free the disk"):
            again.commit()
    again.commit()
    assert (held(again), again.taken_aside()) == ([("event", 1), ("event", 2)], [])


def test_a_spool_that_can_not_be_migrated_now_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """An older file on a full disk stays unchanged, and is converted when there is room."""
    with closing(sqlite3.connect(tmp_path / "spool.db")) as database:
        database.executescript(OF_42F48EE)
    with no_file_grows(), pytest.raises(SpoolError, match="nothing of it is lost"):
        spool_at(tmp_path)
    assert held(spool_at(tmp_path)) == [("event", 4), ("drift", 7)]


def test_a_spool_that_another_program_reads_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person with ``sqlite3 spool.db`` open delays a start, but never loses rows."""
    monkeypatch.setattr("edge_agent.telemetry.spool._LOCKED_S", 0.0)
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as other:
        other.executescript(OF_42F48EE)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SpoolError, match="the program that has the file open"):
            spool_at(tmp_path)
    assert held(spool_at(tmp_path)) == [("event", 4), ("drift", 7)]


def test_keeps_a_damaged_file_beside(tmp_path: Path) -> None:
    """The device continues with an empty spool; the damaged file is kept for a person, and the agent reports it."""
    (tmp_path / "spool.db").write_bytes(b"no database" * 1000)
    (tmp_path / "spool.db-wal").write_bytes(b"its log")
    spool = spool_at(tmp_path)
    ((code, text),) = spool.taken_aside()
    assert (spool.count(), code, "kept as spool.db.damaged" in text) == (0, "spool_damaged", True)
    assert (tmp_path / "spool.db.damaged").read_bytes() == b"no database" * 1000
    assert spool.taken_aside() == []


def test_keeps_few_damaged_files(tmp_path: Path) -> None:
    """Bad flash must not fill the disk with damaged spools: the newest stay."""
    for number in range(MAX_DAMAGED + 3):
        (tmp_path / "spool.db").write_bytes(b"%d no database" % number * 1000)
        spool_at(tmp_path).close()
    kept = [path.read_bytes()[:1] for path in tmp_path.glob("spool.db.damaged*")]
    assert sorted(kept) == [b"3", b"4"]


@pytest.mark.parametrize("downgrades", [1, 2])
def test_never_reads_nor_destroys_the_spool_of_a_newer_agent(tmp_path: Path, downgrades: int) -> None:
    """Its file is kept unchanged, however often it happens; this agent starts with an empty one."""
    for number in range(downgrades):
        spool = spool_at(tmp_path)
        spool.add(Row(stream="event", boot=BOOT, seq=number + 1, payload=b"x"))
        spool.commit()
        spool._database.execute(f"PRAGMA user_version = {VERSION + 1}")
        spool.close()
        spool = spool_at(tmp_path)
        assert (spool.count(), [code for code, _ in spool.taken_aside()]) == (0, ["spool_newer"])
        spool.close()
    kept = sorted(tmp_path.glob(f"spool.db.newer-{VERSION + 1}*"))
    held = [sqlite3.connect(path).execute("SELECT seq FROM rows").fetchall() for path in kept]
    assert held == [[(number + 1,)] for number in range(downgrades)]


def test_brings_the_spool_of_the_first_agents_to_today(tmp_path: Path) -> None:
    """A file of commit 42f48ee, which has no version, keeps its rows, and takes open ones."""
    old = sqlite3.connect(tmp_path / "spool.db")
    old.executescript(OF_42F48EE)
    old.close()
    spool = spool_at(tmp_path)
    assert spool._select("PRAGMA user_version") == [(VERSION,)]
    assert held(spool) == [("event", 4), ("drift", 7)]
    assert spool._select("SELECT handed, open FROM rows ORDER BY id") == [(1, 0), (0, 0)]


def test_an_open_row_is_replaced_and_stays_until_it_is_closed(tmp_path: Path) -> None:
    """It is one row, neither sent nor counted as waiting; closed, it is sent in its last state."""
    spool = spool_at(tmp_path)
    for payload, is_open in [(b"one", True), (b"three", True), (b"five5", False)]:
        assert held(spool) == []
        spool.add(Row(stream="infer", boot=BOOT, seq=1, payload=payload, open=is_open))
        spool.commit()
        assert (spool.count(), spool.held_bytes) == (not is_open, len(payload) + 64)
    assert [row.payload for row in spool.hand_out(0.0, limit=9, resend_s=0.0, unacked=9)] == [b"five5"]
    assert not spool._open_bytes  # nothing of closed rows is kept in memory


def test_a_row_is_read_as_it_was_added(tmp_path: Path) -> None:
    """Over a restart: a report that continues stays open, and can be merged once it is closed."""
    row = replace(report(1), open=True)
    spool = spool_at(tmp_path)
    spool.add(row)
    spool.commit()
    spool.close()
    assert spool_at(tmp_path).open_rows() == [replace(row, id=1)]


def test_a_closed_row_is_never_replaced(tmp_path: Path) -> None:
    """A row that may have been sent under a key never changes."""
    spool = spool_at(tmp_path)
    for payload, is_open in [(b"closed", False), (b"late", True), (b"later", False)]:
        spool.add(Row(stream="infer", boot=BOOT, seq=1, payload=payload, open=is_open))
        spool.commit()
    assert [row.payload for row in spool._rows("", ())] == [b"closed"]


def test_overflow_leaves_open_rows_alone(tmp_path: Path) -> None:
    """An open row is the last counts of its stream: closed ones go first, whatever their priority."""
    spool = spool_at(tmp_path, limit_bytes=3 * 65)
    spool.add(Row(stream="infer", boot=BOOT, seq=1, payload=b"x", open=True))
    for seq in range(1, 6):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x"))
    spool.commit()
    assert held(spool) == [("event", 4), ("event", 5)]
    assert [row.key for row in spool.open_rows()] == [("infer", BOOT, 1)]


def test_open_rows_alone_may_exceed_the_limit(tmp_path: Path) -> None:
    """There is nothing to drop: they are written again soon, smaller or closed."""
    spool = spool_at(tmp_path, 50)
    spool.add(Row(stream="drift", boot=BOOT, seq=1, payload=b"x" * 100, open=True))
    spool.commit()
    assert (spool.count(), spool.held_bytes, spool.dropped()) == (0, 164, {})


def test_no_watermark_deletes_an_open_row(tmp_path: Path) -> None:
    """The server can't have a row that was never sent, whatever its watermark."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="infer", boot=BOOT, seq=1, payload=b"x", open=True))
    spool.commit()
    assert spool.acked(Watermark(Stream.INFER, BOOT, 99)) == 0
    assert len(spool.open_rows()) == 1


def test_only_lazy_rows_are_not_urgent(tmp_path: Path) -> None:
    """A hardware reading waits for another write; any other row causes one."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="hw", boot=BOOT, seq=1, payload=b"x", open=True, lazy=True))
    assert not spool.urgent
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x"))
    assert spool.urgent


def test_a_file_that_is_damaged_while_it_is_open_is_replaced(tmp_path: Path) -> None:
    """Rows in memory are written to a new file; no restart is needed."""
    spool = spool_at(tmp_path)
    for seq in range(1, 40):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x" * 4000))
    spool.commit()
    spool._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool._database.execute("PRAGMA cache_size = 1")
    (tmp_path / "spool.db").write_bytes(b"\xff" * (tmp_path / "spool.db").stat().st_size)
    spool.add(Row(stream="event", boot=BOOT, seq=99, payload=b"y"))
    with pytest.raises(SpoolError):
        spool.commit()
    spool.commit()
    assert ([code for code, _ in spool.taken_aside()], held(spool)) == (["spool_damaged"], [("event", 99)])


def test_a_new_file_begins_without_marks_of_the_old_one(tmp_path: Path) -> None:
    """Row numbers start again: the first row of the new file is not mistaken for one that was already sent."""
    spool = spool_at(tmp_path)
    for seq in range(1, 40):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x" * 4000))
    spool.commit()
    assert len(spool.hand_out(0.0, limit=99, resend_s=30.0, unacked=99)) == 39
    spool._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool._database.execute("PRAGMA cache_size = 1")
    (tmp_path / "spool.db").write_bytes(b"\xff" * (tmp_path / "spool.db").stat().st_size)
    spool.add(Row(stream="event", boot=BOOT, seq=99, payload=b"y"))
    with pytest.raises(SpoolError):
        spool.commit()
    spool.commit()
    assert [row.seq for row in spool.hand_out(1.0, limit=9, resend_s=30.0, unacked=9)] == [99]


def test_a_file_with_a_bad_page_is_kept_beside(tmp_path: Path) -> None:
    """It opens and answers; only a look at every page shows that rows are lost."""
    spool = spool_at(tmp_path)
    for seq in range(1, 40):
        spool.add(Row(stream="event", boot=BOOT, seq=seq, payload=b"x" * 2000))
    spool.commit()
    spool.close()
    with (tmp_path / "spool.db").open("r+b") as file:
        file.seek(-4096, 2)
        file.write(bytes(4096))
    assert [code for code, _ in spool_at(tmp_path).taken_aside()] == ["spool_damaged"]


def test_a_log_that_can_not_be_opened_is_not_taken_for_damage(tmp_path: Path) -> None:
    """The file itself is intact: the agent reports the error and does not move the file."""
    spool_at(tmp_path).close()
    (tmp_path / "spool.db-wal").mkdir()
    with pytest.raises(SpoolError, match="nothing of it is lost"):
        spool_at(tmp_path)
    assert (tmp_path / "spool.db").exists()


def test_a_watermark_of_a_stream_that_this_agent_does_not_know_deletes_nothing(tmp_path: Path) -> None:
    """A newer server may know more streams."""
    spool = spool_at(tmp_path)
    spool.add(Row(stream="event", boot=BOOT, seq=1, payload=b"x"))
    spool.commit()
    assert (spool.acked(Watermark(None, BOOT, 99)), spool.count()) == (0, 1)


def test_loses_nothing_committed_when_killed(tmp_path: Path) -> None:
    """Kill -9 of a real process: every row it called committed is there."""
    program = textwrap.dedent("""
        import itertools, sys
        from pathlib import Path
        from edge_agent.telemetry.spool import Row, Spool
        spool = Spool(path=Path(sys.argv[1]), limit_bytes=1 << 30)
        for seq in itertools.count(1):
            spool.add(Row(stream="event", boot="00000000000000aa", seq=seq, payload=b"x" * 200))
            spool.commit()
            print(seq, flush=True)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "spool.db")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(50)]
    process.kill()
    lines += process.stdout.readlines()
    process.communicate()
    committed = int([line for line in lines if line.endswith("\n")][-1])
    assert {seq for _, seq in held(spool_at(tmp_path))} >= set(range(1, min(committed, 1000) + 1))
