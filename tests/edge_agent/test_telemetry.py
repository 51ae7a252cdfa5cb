"""Numbers, batches and the seal."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig
from edge_agent.telemetry.rows import CLOSING_MS, Numberer, Telemetry, WindowPart, new_boot, seal, topic_of
from edge_agent.telemetry.spool import Row, Spool
from wire.codec import decode
from wire.drift_report import decode_report
from wire.errors import MessageError
from wire.histogram import Counters, Shape, empty
from wire.messages import Batch, Event, Sample, Stream

BOOT, NEXT_BOOT = "00000000000000aa", "00000000000000bb"
HOUR_MS = 3_600_000
ZERO_MS = 500_000 * HOUR_MS  # in 2027
SHAPE = Shape(2, 3)


def telemetry_at(tmp_path: Path) -> Telemetry:
    """Return telemetry on a fresh spool."""
    return Telemetry(
        spool=Spool(path=tmp_path / "spool.db", limit_bytes=1 << 20), numberer=Numberer(BOOT), rows_a_batch=2
    )


def rows(telemetry: Telemetry) -> list[Row]:
    """Commit and return all rows."""
    telemetry.spool.commit()
    return telemetry.spool.hand_out(0.0, limit=99, resend_s=0.0, unacked=99)


def test_numbers_each_stream_from_one() -> None:
    """Streams count apart, without gaps."""
    numberer = Numberer(BOOT)
    assert [numberer.next(Stream.EVENT), numberer.next(Stream.EVENT), numberer.next(Stream.HW)] == [1, 2, 1]


def test_boots_have_different_names() -> None:
    """A boot is 16 hex digits that don't repeat."""
    assert len({new_boot() for _ in range(100)}) == 100


def test_seals_an_event_with_the_oldest_number(tmp_path: Path) -> None:
    """The server learns which numbers will never arrive."""
    telemetry = telemetry_at(tmp_path)
    telemetry.event("update", "committed", at_ms=5)
    (row,) = rows(telemetry)
    event = decode(Event, seal(row, oldest_seq=1, boot=BOOT))
    assert (event.boot, event.seq, event.oldest_seq, event.code, event.at_ms) == (BOOT, 1, 1, "committed", 5)


def test_marks_an_earlier_boot_as_late(tmp_path: Path) -> None:
    """Replayed after a restart: the key has the old boot, and the message is marked as late."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(
        WindowPart(
            artifact="ab" * 32,
            ref_id="cd" * 32,
            start_ms=1,
            len_ms=2,
            context=0,
            counters=replace(empty(Shape(2, 3)), n=1),
        )
    )
    (row,) = rows(telemetry)
    late = decode_report(seal(row, oldest_seq=1, boot="00000000000000bb"))
    assert (late.boot, late.late, late.artifact) == (BOOT, True, "ab" * 16)


def test_batches_rows(tmp_path: Path) -> None:
    """A full batch becomes one message; a flush closes the rest."""
    telemetry = telemetry_at(tmp_path)
    for at_ms in [10, 20, 30]:
        telemetry.row(Stream.INFER, {"at_ms": at_ms, "n": 1})
    telemetry.flush()
    batches = [decode(Batch, seal(row, oldest_seq=1, boot=BOOT)) for row in rows(telemetry)]
    assert [(batch.seq, batch.t0_ms, batch.n, batch.late) for batch in batches] == [
        (1, 10, 2, False),
        (2, 30, 1, False),
    ]


def test_numbers_a_sample_itself(tmp_path: Path) -> None:
    """Boot and number of a sample are the control process's."""
    telemetry = telemetry_at(tmp_path)
    telemetry.sample(Sample(boot="child", seq=99, request="r"))
    (row,) = rows(telemetry)
    sample = decode(Sample, seal(row, oldest_seq=1, boot=BOOT))
    assert (sample.boot, sample.seq, sample.request) == (BOOT, 1, "r")


def test_events_and_telemetry_have_their_topics() -> None:
    """Events have a topic of their own, streams are below tele."""
    assert str(topic_of(Row(stream="event", boot=BOOT, seq=1, payload=b""), "site", "dev")) == "tf/1/site/dev/event"
    assert str(topic_of(Row(stream="hw", boot=BOOT, seq=1, payload=b""), "site", "dev")) == "tf/1/site/dev/tele/hw"


def part(n: int, *, hour: int = 1, artifact: str = "ab", closed: bool = False) -> WindowPart:
    """Return a part of a window with ``n`` inferences."""
    counters = Counters(SHAPE, n, (n,) * SHAPE.total)
    return WindowPart(
        artifact=artifact * 32,
        ref_id="cd" * 32,
        start_ms=ZERO_MS + hour * HOUR_MS,
        len_ms=HOUR_MS,
        context=0,
        counters=counters,
        closed=closed,
    )


def again(telemetry: Telemetry, boot: str = NEXT_BOOT, now_ms: int = ZERO_MS + HOUR_MS) -> Telemetry:
    """Return telemetry after a kill of the given one: uncommitted rows are lost."""
    telemetry.spool.close()
    made = Telemetry(
        spool=Spool(path=telemetry.spool.path, limit_bytes=1 << 20), numberer=Numberer(boot), rows_a_batch=2
    )
    made.take_up()
    made.turn(now_ms, 0.0)
    return made


def reports(telemetry: Telemetry) -> list[tuple[str, int, int]]:
    """Return boot, number and inferences of every report that is closed."""
    found = [decode_report(row.payload) for row in rows(telemetry) if row.stream == "drift"]
    return [(report.boot, report.seq, report.counters.n) for report in found]


def test_parts_add_up_to_one_window(tmp_path: Path) -> None:
    """Nothing is sent before the window closes; then one report has the sum."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(part(3))
    telemetry.window(part(4))
    assert reports(telemetry) == []
    telemetry.window(part(0, closed=True))
    assert reports(telemetry) == [(BOOT, 1, 7)]


def test_an_empty_window_is_no_report(tmp_path: Path) -> None:
    """A window without an inference sends nothing, and uses no number."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(part(0, closed=True))
    telemetry.window(part(5, closed=True))
    assert reports(telemetry) == [(BOOT, 1, 5)]


def test_an_open_window_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Counts from before and after the kill are one report, under one key."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(part(3))
    telemetry.spool.commit()
    telemetry.window(part(100))  # never committed: lost
    restarted = again(telemetry)
    restarted.window(part(4))
    assert reports(restarted) == []
    restarted.window(part(0, closed=True))
    assert reports(restarted) == [(BOOT, 1, 7)]


@pytest.mark.parametrize("other", [{"hour": 2}, {"artifact": "ef"}])
def test_an_open_window_ends_where_something_else_is_counted(tmp_path: Path, other: dict[str, object]) -> None:
    """Another hour or release: the old window is sent as it is, the new counts get their own report."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(part(3))
    telemetry.spool.commit()
    restarted = again(telemetry)
    restarted.turn(ZERO_MS + int(other.get("hour", 1)) * HOUR_MS, 1.0)
    restarted.window(part(4, closed=True, **other))
    assert sorted(reports(restarted)) == [(BOOT, 1, 3), (NEXT_BOOT, 1, 4)]


@pytest.mark.parametrize(("late_ms", "closed"), [(CLOSING_MS - 1, False), (CLOSING_MS, True)])
def test_a_window_whose_hour_is_over_leaves_without_a_child(tmp_path: Path, late_ms: int, *, closed: bool) -> None:
    """Counts don't wait for ever for a child that is not restarted; a child that is slightly late is waited for."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(part(3))
    telemetry.spool.commit()
    restarted = again(telemetry, now_ms=ZERO_MS + 2 * HOUR_MS + late_ms)
    assert reports(restarted) == ([(BOOT, 1, 3)] if closed else [])


def test_a_part_with_a_bad_digest_changes_nothing(tmp_path: Path) -> None:
    """It is refused before the open window is touched."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(part(3))
    with pytest.raises(MessageError):
        telemetry.window(part(4, artifact="no"))
    telemetry.window(part(0, closed=True))
    assert reports(telemetry) == [(BOOT, 1, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_every_committed_part_is_counted_exactly_once(tmp_path: Path, seed: int) -> None:
    """Random parts, closes, swaps, commits and kills: the reports add up to the committed parts, each under its key."""
    chance, telemetry, committed, added = random.Random(seed), telemetry_at(tmp_path), 0, 0  # noqa: S311 - no secret
    for step in range(60):
        n, hour, artifact = chance.randrange(9), 1 + step // 20, chance.choice(["ab", "ef"])
        telemetry.window(part(n, hour=hour, artifact=artifact, closed=chance.random() < 0.2))
        added += n
        if chance.random() < 0.4:
            telemetry.spool.commit()
            committed, added = committed + added, 0
        if chance.random() < 0.2:
            telemetry, added = again(telemetry, f"{step:016x}", now_ms=ZERO_MS + hour * HOUR_MS), 0
    telemetry.flush()
    found = reports(telemetry)
    assert sum(n for _, _, n in found) == committed + added
    assert len({(boot, seq) for boot, seq, _ in found}) == len(found)


@pytest.mark.parametrize(
    ("clock_ms", "filed_ms"), [(ZERO_MS + HOUR_MS + 5, HOUR_MS), (ZERO_MS + 4 * HOUR_MS, 4 * HOUR_MS)]
)
def test_a_part_of_a_wrong_clock_is_filed_under_now(tmp_path: Path, clock_ms: int, filed_ms: int) -> None:
    """The child's clock is 400 days or three hours off; the time to go by is the loop's."""
    telemetry = telemetry_at(tmp_path)
    telemetry.turn(clock_ms, 0.0)
    telemetry.window(part(3, hour=1, closed=True))
    (row,) = rows(telemetry)
    assert decode_report(row.payload).window_start_ms == ZERO_MS + filed_ms


def test_a_window_without_a_date_is_held_until_the_time_is_known(tmp_path: Path) -> None:
    """Two hours in 1970: nothing is sent with that date; later all of it, with the real hours."""
    telemetry = telemetry_at(tmp_path)
    for now_s in [10.0, 3700.0, 7300.0]:
        telemetry.turn(round(now_s * 1000), now_s, known=False)
        telemetry.window(replace(part(3, closed=now_s > 3600), start_ms=round(now_s * 1000) // HOUR_MS * HOUR_MS))
        assert reports(telemetry) == []
    telemetry.turn(ZERO_MS + 7400_000, 7400.0)
    (row,) = rows(telemetry)
    report = decode_report(row.payload)
    assert (report.counters.n, report.window_start_ms, report.window_len_ms) == (9, ZERO_MS, 3 * HOUR_MS)


def test_windows_of_two_releases_without_a_date_are_both_held(tmp_path: Path) -> None:
    """A swap before the time is known: neither window is sent before, nor is one left behind as a gap."""
    telemetry = telemetry_at(tmp_path)
    telemetry.turn(1000, 1.0, known=False)
    for artifact, n in [("ab", 3), ("ef", 4)]:
        telemetry.window(replace(part(n, artifact=artifact, closed=True), start_ms=0))
    assert reports(telemetry) == []
    telemetry.turn(ZERO_MS + 5000, 5.0)
    assert reports(telemetry) == [(BOOT, 1, 3), (BOOT, 2, 4)]


def test_a_window_that_lost_its_date_is_dropped_with_account(tmp_path: Path) -> None:
    """A power cut before the time was known: the hour is unknown, and the number of counts is reported."""
    telemetry = telemetry_at(tmp_path)
    telemetry.turn(5000, 5.0, known=False)
    telemetry.window(replace(part(3), start_ms=0))
    telemetry.spool.commit()
    (row,) = rows(again(telemetry))
    event = decode(Event, row.payload)
    assert (event.code, event.data["n"]) == ("window_undated", 3)


def test_a_batch_keeps_its_rows_over_a_kill(tmp_path: Path) -> None:
    """Rows of a batch that was not full, and the row that was not complete, are sent as they were."""
    telemetry = telemetry_at(tmp_path)
    telemetry.row(Stream.INFER, {"at_ms": 10, "n": 1})
    telemetry.so_far(Stream.INFER, {"at_ms": 15, "n": 2})
    telemetry.spool.commit()
    (row,) = rows(again(telemetry))
    batch = decode(Batch, seal(row, oldest_seq=1, boot=NEXT_BOOT))
    assert (batch.boot, batch.late, [row["n"] for row in batch.rows]) == (BOOT, True, [1, 2])


def test_a_row_so_far_gives_way_to_the_whole_row(tmp_path: Path) -> None:
    """A partial row, stored in case of a power cut, is not counted beside the complete row."""
    telemetry = telemetry_at(tmp_path)
    for kept, whole in [(1, 4), (2, 5)]:
        telemetry.so_far(Stream.INFER, {"at_ms": 1, "n": kept})
        telemetry.spool.commit()
        telemetry.row(Stream.INFER, {"at_ms": 1, "n": whole})
    (row,) = rows(telemetry)
    assert [row["n"] for row in decode(Batch, row.payload).rows] == [4, 5]


def test_a_power_cut_costs_less_than_a_minute_of_counts() -> None:
    """The child's checkpoint and the pending write, with the defaults of ``agent.toml``."""
    config = AgentConfig()
    assert config.monitor.checkpoint_s + config.spool.commit_s <= 60.0


@pytest.mark.parametrize(("length", "cut"), [(500, False), (501, True), (5213, True)])
def test_a_text_that_is_cut_says_how_long_it_was(tmp_path: Path, length: int, cut: bool) -> None:  # noqa: FBT001
    """The server stores the shortened text, so the device must state the length."""
    telemetry = telemetry_at(tmp_path)
    telemetry.event("update", "refused", at_ms=5, text="x" * length)
    (row,) = rows(telemetry)
    text = decode(Event, seal(row, oldest_seq=1, boot=BOOT)).text
    assert len(text) == 500
    assert text.endswith(f"x... (cut from {length:,} characters)") == cut
