"""What waits through an outage: how it is merged, paced and marked, and what it leaves room for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.config import TransportConfig
from edge_agent.telemetry.spool import Row, Spool, merge_key
from edge_agent.telemetry.uplink import BURST_S, OUTAGE_S, Uplink
from wire.codec import encode
from wire.drift_report import DriftReport, decode_report, encode_report
from wire.histogram import Counters, Shape
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Batch, Stream, Watermark
from wire.transport import Incoming

BOOT = "00000000000000aa"
HOUR_MS = 3_600_000
SHAPE = Shape(1, 2)
RATE = 1000


def report(hour: int) -> Row:
    """Return the report of one hour with ten inferences."""
    counters = Counters(SHAPE, 10, (10,) + (0,) * (SHAPE.total - 1))
    drift = DriftReport(
        boot=BOOT, seq=hour, oldest_seq=0, window_start_ms=hour * HOUR_MS, window_len_ms=HOUR_MS, context=0,
        artifact="ab" * 16, ref_id="cd" * 16, counters=counters,
    )  # fmt: skip
    return Row(stream="drift", boot=BOOT, seq=hour, payload=encode_report(drift), merge_key=merge_key(drift))


def batch(seq: int, stream: Stream = Stream.HW, n: int = 10) -> Row:
    """Return a batch of ``n`` rows that weighs 500 bytes and more."""
    message = Batch(stream=stream, boot=BOOT, seq=seq, n=n, rows=({"text": "x" * 400},))
    return Row(stream=stream.value, boot=BOOT, seq=seq, payload=encode(message))


def filled(tmp_path: Path, *rows: Row, limit_bytes: int = 1 << 20) -> Spool:
    """Return a spool that accepted ``rows``, one commit each."""
    spool = Spool(path=tmp_path / "spool.db", limit_bytes=limit_bytes)
    for row in rows:
        spool.add(row)
        spool.commit()
    return spool


def handed(spool: Spool, now_s: float = 0.0, unacked: int = 99, replay_bytes: float = 1e9) -> list[tuple[str, int]]:
    """Return stream and number of the rows to send now."""
    rows = spool.hand_out(now_s, limit=99, resend_s=30.0, unacked=unacked, replay_bytes=replay_bytes)
    return [(row.stream, row.seq) for row in rows]


def covered(spool: Spool) -> list[DriftReport]:
    """Return every report that the spool holds, by time."""
    found = (decode_report(row.payload) for row in spool._rows("WHERE stream = 'drift'", ()))
    return sorted(found, key=lambda one: one.window_start_ms)


def test_the_resolution_of_merged_reports_fades_with_their_age(tmp_path: Path) -> None:
    """2,000 hours in room for 100 reports: each hour is covered once, and no window is long in relation to its age."""
    spool = filled(tmp_path, *(report(hour) for hour in range(1, 2001)), limit_bytes=100 * report(1).length_bytes)
    reports = covered(spool)
    assert sum(one.counters.n for one in reports) == 20_000
    ends_ms = [one.window_start_ms + one.window_len_ms for one in reports]
    assert [one.window_start_ms for one in reports] == [HOUR_MS, *ends_ms[:-1]]
    ages_ms = [ends_ms[-1] - one.window_start_ms for one in reports]
    assert max(one.window_len_ms / age_ms for one, age_ms in zip(reports[:-2], ages_ms, strict=False)) < 0.55
    assert sum(one.window_len_ms == HOUR_MS for one in reports) > 10
    assert spool.merged() == 2000 - len(reports)


def test_a_server_that_never_acknowledges_costs_resolution_and_no_coverage(tmp_path: Path) -> None:
    """What was sent can't be merged, so at most half of the room is sent: the rest takes in all that follows."""
    spool = filled(tmp_path, limit_bytes=20 * report(1).length_bytes)
    for hour in range(1, 301):
        spool.add(report(hour))
        spool.commit()
        handed(spool, 3600.0 * hour, unacked=256)
    assert sum(one.counters.n for one in covered(spool)) == 3000
    assert spool.dropped() == {}


def test_what_is_dropped_is_counted_by_stream_and_record(tmp_path: Path) -> None:
    """A batch of ten readings is ten; a report that stood for three is three, also when it never could be sent."""
    spool = filled(tmp_path, batch(1), batch(2, Stream.ANSWER, 7), limit_bytes=batch(1).length_bytes + 20)
    assert spool.dropped() == {"answer": 7}
    (tmp_path / "reports").mkdir()
    spool = filled(tmp_path / "reports", *(report(hour) for hour in (1, 2, 3)), limit_bytes=report(1).length_bytes + 40)
    (row,) = spool.hand_out(0.0, limit=9, resend_s=30.0, unacked=9)
    spool.drop(row)
    assert spool.dropped() == {"drift": 3}


def test_what_is_new_goes_before_a_replay_and_events_stay_in_order(tmp_path: Path) -> None:
    """A person sees the present first; a log is never read backwards."""
    event = {seq: Row(stream="event", boot=BOOT, seq=seq, payload=b"{}") for seq in (1, 2)}
    spool = filled(tmp_path, report(1), batch(1), event[1])
    spool.begin_replay()
    for row in (batch(2), event[2], report(2)):
        spool.add(row)
    spool.commit()
    assert handed(spool) == [("event", 1), ("event", 2), ("drift", 2), ("hw", 2), ("drift", 1), ("hw", 1)]


def test_a_new_event_waits_for_an_old_one_that_is_over_the_budget(tmp_path: Path) -> None:
    """Everything else that is new does not."""
    spool = filled(tmp_path, Row(stream="event", boot=BOOT, seq=1, payload=b"{}"))
    spool.begin_replay()
    for row in (Row(stream="event", boot=BOOT, seq=2, payload=b"{}"), report(1)):
        spool.add(row)
    spool.commit()
    assert handed(spool, replay_bytes=0) == [("drift", 1)]
    assert handed(spool, replay_bytes=1) == [("event", 1), ("event", 2)]


def test_a_replay_leaves_room_for_what_is_new(tmp_path: Path) -> None:
    """A quarter of what may be in flight stays free of it."""
    spool = filled(tmp_path, *(batch(seq) for seq in range(1, 20)))
    spool.begin_replay()
    assert len(handed(spool, unacked=8)) == 6
    spool.add(report(1))
    spool.commit()
    assert handed(spool, unacked=8) == [("drift", 1)]


def test_what_is_new_is_not_sent_again_while_a_replay_goes_before_it(tmp_path: Path) -> None:
    """The server's watermark has no gaps: it can't acknowledge it before, and thirty seconds mean nothing."""
    spool = filled(tmp_path, batch(1))
    spool.begin_replay()
    spool.add(batch(2))
    spool.commit()
    assert handed(spool) == [("hw", 2), ("hw", 1)]
    assert handed(spool, 30.0) == [("hw", 1)]
    spool.acked(Watermark(Stream.HW, BOOT, 1))
    assert handed(spool, 60.0) == [("hw", 2)]


def test_a_window_that_is_open_during_an_outage_is_not_late(tmp_path: Path) -> None:
    """It ends an hour later, in time."""
    spool = filled(tmp_path, Row(stream="drift", boot=BOOT, seq=1, payload=b"", merge_key="k", open=True))
    spool.begin_replay()
    spool.add(report(1))
    spool.commit()
    assert [row.late for row in spool.hand_out(0.0, limit=9, resend_s=30.0, unacked=9)] == [False]


@dataclass
class Link:
    """A device's uplink, and the messages that reached the broker."""

    spool: Spool
    rate: int = RATE
    heard: list[Incoming] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Connect the server."""
        broker = MemoryBroker()
        MemoryTransport(broker=broker, client_id="server").start(self._hear, subscriptions=("tf/1/+/+/tele/#",))
        config = TransportConfig(replay_bytes_per_s=self.rate, unacked_rows=1000)
        transport = MemoryTransport(broker=broker, client_id="dev")
        self.uplink = Uplink(
            transport=transport, spool=self.spool, config=config, site="site", device="dev", boot=BOOT,
            agent_version="1",
        )  # fmt: skip
        self.uplink.start(lambda _: None, 0, 0.0)
        self.uplink.connected(0, 0.0)

    def _hear(self, notice: object) -> None:
        if isinstance(notice, Incoming):
            self.heard.append(notice)

    def sent_bytes(self, from_s: float, until_s: float) -> int:
        """Return the bytes that arrive while the time passes."""
        self.heard.clear()
        for tenth in range(round(10 * from_s), round(10 * until_s)):
            self.uplink.turn(tenth / 10)
        return sum(len(message.payload) for message in self.heard)


def test_a_replay_is_paced(tmp_path: Path) -> None:
    """After a short burst it keeps to its rate."""
    link = Link(filled(tmp_path, *(batch(seq) for seq in range(1, 400))))
    link.uplink.disconnected(0.0)
    link.uplink.connected(0, OUTAGE_S)
    burst = link.sent_bytes(OUTAGE_S, OUTAGE_S + 1)
    assert burst == pytest.approx(RATE * BURST_S, rel=0.2)
    assert link.sent_bytes(OUTAGE_S + 1, OUTAGE_S + 21) == pytest.approx(20 * RATE, rel=0.2)


def test_without_a_rate_a_replay_is_not_held_back(tmp_path: Path) -> None:
    """All of it at once, in turns of the same instant and of later ones; what may be sent is never a NaN."""
    link = Link(filled(tmp_path, *(batch(seq) for seq in range(1, 400))), rate=0)
    link.uplink.disconnected(0.0)
    link.uplink.connected(0, OUTAGE_S)
    for _ in range(20):
        link.uplink.turn(OUTAGE_S)
    assert len(link.heard) == 20 * link.uplink.config.inflight_messages
    link.sent_bytes(OUTAGE_S, OUTAGE_S + 10)
    assert (len(link.heard), link.uplink._replay_bytes) == (399 - 20 * link.uplink.config.inflight_messages, math.inf)


@pytest.mark.parametrize(("away_s", "late"), [(OUTAGE_S - 1, False), (OUTAGE_S, True)])
def test_only_what_waited_through_an_outage_is_late(tmp_path: Path, away_s: float, *, late: bool) -> None:
    """A connection that comes back at once makes nothing late."""
    link = Link(filled(tmp_path))
    link.uplink.disconnected(0.0)
    link.spool.add(report(1))
    link.spool.commit()
    link.uplink.connected(0, away_s)
    link.sent_bytes(away_s, away_s + 1)
    assert [decode_report(message.payload).late for message in link.heard] == [late]


def test_a_server_that_was_away_behind_its_broker_gets_a_replay(tmp_path: Path) -> None:
    """Its first acknowledgement after a repetition ends the outage."""
    spool = filled(tmp_path, report(1), report(2))
    handed(spool, 0.0, unacked=1)
    handed(spool, 30.0, unacked=1)
    spool.add(report(3))
    spool.commit()
    spool.acked(Watermark(Stream.DRIFT, BOOT, 1))
    rows = spool.hand_out(31.0, limit=9, resend_s=30.0, unacked=9)
    assert [(row.seq, row.late) for row in rows] == [(2, True), (3, True)]


def test_what_the_server_stored_ahead_of_its_watermark_is_deleted_too(tmp_path: Path) -> None:
    """Numbers that merging left out hold nothing up, nor does a replay hold up what is new."""
    spool = filled(tmp_path, *(batch(seq) for seq in (1, 3, 4, 7)))
    assert spool.acked(Watermark(Stream.HW, BOOT, 1, ahead=(4, 7))) == 3
    assert handed(spool) == [("hw", 3)]
    assert spool.acked(Watermark(Stream.HW, BOOT, -1, ahead=(3,))) == 1


def test_a_second_of_rows_in_one_commit_writes_a_third_of_the_bytes(tmp_path: Path) -> None:
    """Ten commits write each page of the table and its indexes ten times."""
    spool, written = filled(tmp_path), []
    for first, batched in ((1, False), (11, True)):
        before_bytes = (tmp_path / "spool.db-wal").stat().st_size
        for seq in range(first, first + 10):
            spool.add(batch(seq))
            if not batched:
                spool.commit()
        spool.commit()
        written.append((tmp_path / "spool.db-wal").stat().st_size - before_bytes)
    assert written[0] >= 3 * written[1] > 0, written
