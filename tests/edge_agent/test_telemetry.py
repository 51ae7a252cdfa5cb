"""Numbers, batches and the seal."""

from pathlib import Path

from edge_agent.spool import Row, Spool
from edge_agent.telemetry import Numberer, Telemetry, Window, new_boot, seal, topic_of
from wire.codec import decode
from wire.drift_report import decode_report
from wire.histogram import Shape, empty
from wire.messages import Batch, Event, Sample, Stream

BOOT = "00000000000000aa"


def telemetry_at(tmp_path: Path) -> Telemetry:
    """Return telemetry on a fresh spool."""
    return Telemetry(Spool(tmp_path / "spool.db", 1 << 20), Numberer(BOOT), rows_a_batch=2)


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
    """The server learns what will never come."""
    telemetry = telemetry_at(tmp_path)
    telemetry.event("update", "committed", at_ms=5)
    (row,) = rows(telemetry)
    event = decode(Event, seal(row, oldest_seq=1, boot=BOOT))
    assert (event.boot, event.seq, event.oldest_seq, event.code, event.at_ms) == (BOOT, 1, 1, "committed", 5)


def test_marks_an_earlier_boot_as_late(tmp_path: Path) -> None:
    """Replayed after a restart: the old boot stays in the key, the message says that it is late."""
    telemetry = telemetry_at(tmp_path)
    telemetry.window(Window("ab" * 32, "cd" * 32, 1, 2, 0, empty(Shape(2, 3))))
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
    assert str(topic_of(Row("event", BOOT, 1, b""), "site", "dev")) == "tf/1/site/dev/event"
    assert str(topic_of(Row("hw", BOOT, 1, b""), "site", "dev")) == "tf/1/site/dev/tele/hw"
