"""Messages count once, are acknowledged after they are stored, and never break the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import ServerError
from server.ingest.decode import Arrival
from server.ingest.ingest import Ingest
from tests.server.conftest import make_report
from wire.codec import decode, encode
from wire.drift_report import DriftReport, encode_report
from wire.messages import (
    Ack,
    Batch,
    DeviceState,
    DriftState,
    Event,
    Get,
    InstalledRelease,
    Reported,
    Response,
    Sample,
    Severity,
    State,
    Stream,
    UpdatePhase,
    UpdateStatus,
)  # fmt: skip
from wire.transport import Incoming, Link, LinkChange

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

BOOT = "ab" * 8
LEAVES = [
    "state", "reported", "event", "res", "get", "tele/drift", "tele/infer", "tele/hw", "tele/sample", "tele/nonsense",
]  # fmt: skip
GARBAGE = [
    b"\x00\xff", b"[]", b"{", b'{"seq": "x"}', b'{"at_ms": 1e400}', b'{"at_ms": -1, "boot": "a"}',
    b"TFD1" + b"\xff" * 90, b'{"boot": "a", "seq": 99999999999999999999, "oldest_seq": 0}',
    b"[" * 5000, b'{"state": 7}',
]  # fmt: skip


@pytest.mark.stores
def test_a_redelivered_report_counts_once(fleet: MemoryFleet) -> None:
    """The key (device, stream, boot, seq) makes redelivery idempotent, within a batch and across batches."""
    device = fleet.enrol()
    device.report(0)
    device.report(0)
    fleet.turn()
    device.report(0)
    fleet.turn()
    (window,) = fleet.app.parts.windows.since(0)
    assert (window.n, window.reports) == (5, 1)
    assert fleet.app.parts.ingest.figures.duplicates == 2


def test_a_redelivered_report_is_acknowledged_again(fleet: MemoryFleet) -> None:
    """The first acknowledgement may have been lost."""
    device = fleet.enrol()
    device.report(0)
    fleet.turn()
    device.heard.clear()
    device.report(0)
    fleet.turn()
    assert device.watermark() == 0


def test_an_acknowledgement_says_what_is_known_of_the_devices_inputs(fleet: MemoryFleet) -> None:
    """Nothing before there is evidence, and then the newest; evidence of an earlier window changes nothing."""
    device, told = fleet.enrol(), []
    row = {"device": "cam-1", "start_ms": fleet.clock(), "phase": "judged", "flagged": True, "fault": ""}
    earlier = {**row, "start_ms": fleet.clock() - 1, "flagged": False}
    for seq, rows in enumerate(([], [row], [earlier], [{**row, "flagged": False, "fault": "stuck"}])):
        fleet.app.parts.drift.states.note(rows)
        device.report(seq)
        fleet.turn()
        told.append([decode(Ack, one.payload).drift for one in device.heard if one.topic.endswith("/cmd/ack")][-1])
    assert told == [None, DriftState.DRIFT, DriftState.DRIFT, DriftState.FAULT]


@pytest.mark.stores
def test_acknowledges_only_what_is_contiguous(fleet: MemoryFleet) -> None:
    """A gap stops the watermark until it is filled, also over a restart of the server."""
    device = fleet.enrol()
    device.report(0)
    device.report(2)
    fleet.turn()
    assert device.watermark() == 0
    fleet.restart()
    device.report(1)
    fleet.turn()
    assert device.watermark() == 2
    assert len(fleet.app.parts.windows.since(0)) == 3


def test_what_is_stored_beyond_a_gap_is_acknowledged_by_number(fleet: MemoryFleet) -> None:
    """Of what has just arrived, so that a device need not keep nor repeat it until the gap is closed."""
    device = fleet.enrol()
    for seqs, through_seq, ahead in (((2, 3), -1, (2, 3)), ((5, 2), -1, (2, 5)), ((0, 1), 3, ()), ((6,), 3, (6,))):
        for seq in seqs:
            device.report(seq)
        fleet.turn()
        (mark,) = decode(Ack, device.heard[-1].payload).watermarks
        assert (mark.through_seq, mark.ahead) == (through_seq, ahead)


@pytest.mark.stores
def test_a_restarted_server_still_knows_what_it_counted(fleet: MemoryFleet) -> None:
    """The watermark is stored together with the rows that it covers."""
    device = fleet.enrol()
    device.report(0)
    fleet.turn()
    fleet.restart()
    device.report(0)
    fleet.turn()
    (window,) = fleet.app.parts.windows.since(0)
    assert window.n == 5


@pytest.mark.stores
def test_streams_and_boots_are_numbered_apart(fleet: MemoryFleet) -> None:
    """The same number in another stream or after a reboot is another message."""
    device = fleet.enrol()
    device.report(0)
    device.report(0, boot="cd" * 8, start_ms=9000)
    device.say(
        "tele/hw", Batch(stream=Stream.HW, boot=BOOT, seq=0, oldest_seq=0, t0_ms=5, n=1, rows=({"rss_bytes": 1},))
    )
    device.say(
        "event",
        Event(
            boot=BOOT, seq=0, oldest_seq=0, at_ms=7, kind="update", code="staged", severity=Severity.INFO, text="text"
        ),
    )
    fleet.turn()
    assert len(fleet.app.parts.windows.since(0)) == 2
    assert device.watermark(Stream.HW) == 0
    assert device.watermark(Stream.EVENT) == 0
    assert "staged" in fleet.codes()


@pytest.mark.stores
def test_nothing_is_acknowledged_before_it_is_stored(fleet: MemoryFleet) -> None:
    """When the store refuses, the batch waits, unacknowledged, and counts once when the store is back."""
    device = fleet.enrol()
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE windows RENAME TO away"))
    device.report(0)
    fleet.app.parts.ingest.turn(fleet.clock())
    assert device.watermark() is None
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO windows"))
    device.report(1)
    fleet.turn()
    assert device.watermark() == 1
    assert len(fleet.app.parts.windows.since(0)) == 2


@pytest.mark.parametrize("leaf", LEAVES)
def test_garbage_is_recorded_and_does_no_harm(fleet: MemoryFleet, leaf: str) -> None:
    """Whatever arrives on any topic, the next valid report is counted."""
    device = fleet.enrol()
    for payload in GARBAGE:
        device.say(leaf, payload)
    device.report(0)
    fleet.turn()
    assert len(fleet.app.parts.windows.since(0)) == 1
    assert device.watermark() == 0
    assert fleet.app.parts.ingest.figures.refused >= 5


def test_a_flood_of_garbage_is_one_event_a_minute(fleet: MemoryFleet) -> None:
    """One device can't fill the log; the count is recorded."""
    device = fleet.enrol()
    for _ in range(100):
        device.say("tele/drift", b"garbage")
    fleet.turn()
    assert fleet.codes().count("message_invalid") == 1
    fleet.clock.now_ms += 61_000
    device.say("tele/drift", b"garbage")
    fleet.turn()
    assert "99 more" in fleet.app.parts.events.latest(1)[0].text


@pytest.mark.stores
def test_text_that_no_database_takes_is_passed_over(fleet: MemoryFleet) -> None:
    """Lone surrogates in JSON are refused and don't block the messages with them."""
    device = fleet.enrol()
    lone = b'{"boot":"%s","seq":0,"stream":"hw","rows":[{"x":"\\ud800"}],"n":1}' % BOOT.encode()
    device.say("tele/hw", lone)
    device.say(
        "event", b'{"boot":"%s","seq":0,"code":"\\ud800","text":"\\udfff","data":{"a":"\\ud800"}}' % BOOT.encode()
    )
    device.say("reported", b'{"hardware":"\\ud800"}')
    device.report(0)
    fleet.turn()
    assert device.watermark() == 0
    assert fleet.app.parts.ingest.figures.refused == 3


def test_ignores_a_device_under_another_site(fleet: MemoryFleet) -> None:
    """The broker's rules leave the site open; the registry decides."""
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY), site="paris")
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").state is DeviceState.INIT
    assert "wrong_site" in fleet.codes()


def test_ignores_a_device_that_was_never_enrolled(fleet: MemoryFleet) -> None:
    """Its messages are recorded, not stored."""
    device = fleet.enrol()
    device.transport.publish("tf/1/berlin/ghost/event", b'{"boot":"a","kind":"x"}')
    fleet.turn()
    assert fleet.codes() == ["unknown_device"]


def test_a_report_of_impossible_counts_is_passed_over(fleet: MemoryFleet, report: Callable[..., DriftReport]) -> None:
    """It is acknowledged, or the device would send it for ever, and not counted."""
    device = fleet.enrol()
    device.say("tele/drift", encode_report(report(0, count=2**40)))
    fleet.turn()
    assert device.watermark() == 0
    assert fleet.app.parts.windows.since(0) == []
    assert "histogram_mismatch" in fleet.codes()


def test_state_and_report_are_kept(fleet: MemoryFleet) -> None:
    """The last state and report are readable, and the release goes into the history."""
    device = fleet.enrol()
    now_ms = fleet.clock()
    device.say("state", State(state=DeviceState.READY, at_ms=now_ms), retain=True)
    device.say("reported", Reported(at_ms=now_ms, current=InstalledRelease("digits-1", "0" * 64)), retain=True)
    fleet.turn()
    known = fleet.app.parts.fleet.device("cam-1")
    assert (known.state, known.release, known.last_seen_ms) == (DeviceState.READY, "digits-1", now_ms)
    ran = fleet.app.parts.lineage.ran_at("cam-1", now_ms)
    assert ran is not None
    assert ran.release == "digits-1"


def test_a_model_that_a_device_keeps_is_noted(fleet: MemoryFleet) -> None:
    """When its release leaves probation; drift detection then knows that the stay under the model before is over."""
    device = fleet.enrol()
    for release, phase in (("tags-1", UpdatePhase.COMMITTED), ("odd-1", UpdatePhase.PROBATION)):
        update = UpdateStatus(phase=phase, release=release)
        device.say("reported", Reported(current=InstalledRelease(release), update=update), retain=True)
        fleet.turn()
    assert fleet.app.parts.drift._changes() == {}
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, release="odd-1")
    device.say("reported", Reported(current=InstalledRelease("odd-1"), update=update), retain=True)
    fleet.turn()
    assert fleet.app.parts.drift._changes() == {"cam-1": (("odd", fleet.clock()),)}
    assert "model_kept" in fleet.codes()


def test_a_retained_message_is_no_sign_of_life(fleet: MemoryFleet) -> None:
    """After a restart the broker replays old messages of devices."""
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock()), retain=True)
    fleet.turn()
    seen_ms = fleet.app.parts.fleet.device("cam-1").last_seen_ms
    fleet.clock.now_ms += 50_000
    fleet.restart()
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").last_seen_ms == seen_ms


def test_notes_a_clock_that_is_off(fleet: MemoryFleet) -> None:
    """One event when it begins; the skew is with the device until it is right again."""
    device = fleet.enrol()
    for _ in range(2):
        device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock() + 3_600_000))
        fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").clock_skew_ms == 3_600_000
    assert fleet.codes() == ["clock_skew"]
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock()))
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").clock_skew_ms == 0


@pytest.mark.parametrize(
    ("off_ms", "noted_ms"), [(300_000, 0), (300_001, 300_001), (-300_000, 0), (-300_001, -300_001)]
)
def test_a_clock_is_off_by_more_than_five_minutes(fleet: MemoryFleet, off_ms: int, noted_ms: int) -> None:
    """Both sides of the bound, ahead and behind; the event is the device's."""
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock() + off_ms))
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").clock_skew_ms == noted_ms
    codes = [event.code for event in fleet.app.parts.events.latest(5, device="cam-1")]
    assert codes == (["clock_skew"] if noted_ms else [])


def test_a_report_that_the_broker_kept_says_nothing_of_the_clock(fleet: MemoryFleet) -> None:
    """It was right an hour ago, when it was sent; a message that arrives now shows the clock."""
    device = fleet.enrol()
    late = Reported(at_ms=fleet.clock(), current=InstalledRelease("digits-1", "0" * 64))
    device.say("reported", late, retain=True)
    fleet.clock.now_ms += 3_600_000
    fleet.restart()
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").release == "digits-1"
    assert fleet.app.parts.fleet.device("cam-1").clock_skew_ms == 0
    device.transport.broker = fleet.broker
    device.say("reported", replace(late, at_ms=late.at_ms + 1))
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").clock_skew_ms == 1 - 3_600_000


def test_a_window_that_can_not_have_been_counted_yet_is_told_of_its_device(fleet: MemoryFleet) -> None:
    """It is stored, under the time of its arrival."""
    fleet.enrol().report(0, start_ms=400 * 86_400_000)
    fleet.turn()
    (event,) = fleet.app.parts.events.latest(5, device="cam-1")
    assert (event.code, "filed under the time of its arrival" in event.text) == ("clock_skew", True)
    assert fleet.app.parts.windows.since(0)[0].start_ms == fleet.clock()


def test_an_answer_belongs_to_its_command(fleet: MemoryFleet) -> None:
    """Only the device that got the command can answer, and only once."""
    device, other = fleet.enrol(), fleet.enrol("cam-2")
    command = fleet.app.parts.fleet.send_command("cam-1", "selftest", {}, 60.0)
    other.say("res", Response(id=command, ok=False, code="forged"))
    device.say("res", Response(id=command, ok=True, data={"p95_ms": 2}))
    device.say("res", Response(id=command, ok=False, code="late"))
    fleet.turn()
    answer = fleet.app.parts.fleet.command(command)
    assert answer is not None
    assert (answer.ok, answer.code, answer.data) == (True, "", {"p95_ms": 2})


def test_samples_that_a_device_may_not_send_are_told(fleet: MemoryFleet) -> None:
    """Retraining continues to ask; without a message the operator would wait for samples for ever."""
    device = fleet.enrol()
    command = fleet.app.parts.fleet.send_command("cam-1", "samples", {"count": 3}, 60.0)
    device.say("res", Response(id=command, ok=False, code="budget_zero", text="max_bytes_per_day is 0"))
    fleet.turn()
    (event,) = fleet.app.parts.events.latest(5, device="cam-1")
    assert (event.code, event.text) == ("samples_refused", "max_bytes_per_day is 0")


def test_a_device_that_asks_gets_its_desired_again(fleet: MemoryFleet) -> None:
    """Retained messages of the broker are an optimisation, not a requirement."""
    device = fleet.enrol()
    fleet.app.parts.fleet.set_config("cam-1", {"sample_bytes_per_day": 9})
    device.heard.clear()
    device.say("get", Get())
    fleet.turn()
    assert device.desired().config == {"sample_bytes_per_day": 9}


@pytest.mark.parametrize(("link", "count"), [(Link.UP, 1), (Link.DOWN, 0)])
def test_after_a_new_connection_every_device_gets_its_desired_again(fleet: MemoryFleet, link: Link, count: int) -> None:
    """The broker may have lost what it kept; when the connection ends, nothing can be published."""
    device = fleet.enrol()
    fleet.app.parts.fleet.set_config("cam-1", {"sample_bytes_per_day": 9})
    fleet.turn()
    device.heard.clear()
    fleet.app.parts.ingest.receive(LinkChange(link, "so"))
    fleet.turn()
    fleet.turn()
    assert len([item for item in device.heard if item.topic.endswith("/desired")]) == count


def test_a_refused_message_is_told_of_its_sender(fleet: MemoryFleet) -> None:
    """A device of the fleet is named as one; what a stranger calls itself is told as its word."""
    device = fleet.enrol()
    device.say("tele/drift", b"garbage")
    device.say("state", State(state=DeviceState.READY), site="paris")
    device.transport.publish("tf/1/berlin/ghost/tele/drift", b"garbage")
    fleet.turn()
    events = fleet.app.parts.events.after(0)
    assert [(event.code, event.device, event.data.get("sender")) for event in events] == [
        ("message_invalid", "cam-1", None), ("wrong_site", "cam-1", None), ("message_invalid", None, "ghost"),
    ]  # fmt: skip
    assert [event.data["topic"].split("/", 2)[2] for event in events] == [
        "berlin/cam-1/tele/drift", "paris/cam-1/state", "berlin/ghost/tele/drift",
    ]  # fmt: skip


def test_a_sample_goes_to_its_keeper_once(fleet: MemoryFleet) -> None:
    """Redelivery does not keep it twice; a keeper that refuses makes an event, not an endless retry."""
    kept = []

    def keep(device: str, sample: Sample, now_ms: int) -> None:
        kept.append((device, sample.sha256, now_ms))
        if sample.sha256 == "bad":
            raise ServerError("Expected an image, got none")

    fleet.app.parts.ingest.keep_sample = keep
    device = fleet.enrol()
    for seq, digest in ((0, "good"), (0, "good"), (1, "bad")):
        device.say("tele/sample", Sample(boot=BOOT, seq=seq, sha256=digest))
    fleet.turn()
    assert [digest for _, digest, _ in kept] == ["good", "bad"]
    assert device.watermark(Stream.SAMPLE) == 1
    assert "server" in fleet.codes()


def _refuse_batches_of_13(fleet: MemoryFleet) -> None:
    """Let the database refuse these rows, as another kind of database might."""
    refusal = "BEGIN SELECT RAISE(ABORT, 'not such a row'); END"
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text(f"CREATE TRIGGER t BEFORE INSERT ON batches WHEN NEW.n = 13 {refusal}"))


def test_a_batch_that_no_database_takes_is_acknowledged_and_told(fleet: MemoryFleet) -> None:
    """The device would send it for ever; the other messages of the batch are stored."""
    device = fleet.enrol()
    _refuse_batches_of_13(fleet)
    device.say("tele/hw", Batch(stream=Stream.HW, boot=BOOT, seq=0, oldest_seq=0, t0_ms=5, n=13))
    device.report(0)
    fleet.turn()
    assert (device.watermark(Stream.HW), device.watermark()) == (0, 0)
    assert fleet.codes() == ["not_storable"]
    figures = fleet.app.parts.ingest.figures
    assert (figures.refused, figures.accepted, len(fleet.app.parts.windows.since(0))) == (1, 1, 1)


def test_a_message_that_can_not_even_be_skipped_waits(fleet: MemoryFleet) -> None:
    """The store refuses in between: nothing is acknowledged that it does not know of."""
    device = fleet.enrol()
    _refuse_batches_of_13(fleet)
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE events RENAME TO away"))
    device.say("tele/hw", Batch(stream=Stream.HW, boot=BOOT, seq=0, oldest_seq=0, t0_ms=5, n=13))
    fleet.app.parts.ingest.turn(fleet.clock())
    assert device.watermark(Stream.HW) is None
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO events"))
    fleet.turn()
    assert device.watermark(Stream.HW) == 0


def test_a_full_disk_holds_back_the_sample_alone(fleet: MemoryFleet) -> None:
    """It is not acknowledged, so it is sent again; the other messages are stored and count once."""
    ingest, kept = fleet.app.parts.ingest, []
    ingest.keep_sample = _full_disk
    device = fleet.enrol()
    device.report(0)
    device.say("tele/sample", Sample(boot=BOOT, seq=0, sha256="a"))
    fleet.turn()
    assert (device.watermark(), device.watermark(Stream.SAMPLE)) == (0, None)
    assert [event.code for event in fleet.app.parts.events.latest(5, device="cam-1")] == ["sample_not_kept"]
    ingest.keep_sample = lambda *sample: kept.append(sample)
    device.say("tele/sample", Sample(boot=BOOT, seq=0, sha256="a"))
    fleet.turn()
    assert (len(kept), device.watermark(Stream.SAMPLE)) == (1, 0)


def _full_disk(_device: str, _sample: Sample, _now_ms: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("table", ["windows", "events"])
def test_a_fault_that_could_not_be_stored_is_told_later(
    fleet: MemoryFleet, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    """Once, with what came with it or alone; meanwhile nothing says that the store works again."""
    device = fleet.enrol()
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO away"))
    device.say("tele/drift", b"garbage")
    if table == "windows":
        device.report(0)
    for _ in range(3):
        fleet.app.parts.ingest.turn(fleet.clock())
    assert not [text for text in caplog.messages if text.startswith("Works again")]
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE away RENAME TO {table}"))
    fleet.turn()
    fleet.turn()
    assert fleet.codes() == ["message_invalid"]


def test_takes_nothing_more_while_the_store_refuses(fleet: MemoryFleet) -> None:
    """One batch waits, however long the outage; the inbox limits the rest."""
    device, ingest = fleet.enrol(), fleet.app.parts.ingest
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE windows RENAME TO away"))
    for seq in range(3):
        device.report(seq)
        ingest.turn(fleet.clock())
    assert len(ingest._retry) == 1
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO windows"))
    fleet.turn()
    assert device.watermark() == 2


def test_a_message_that_was_cleared_is_no_message(fleet: MemoryFleet) -> None:
    """An empty payload is how MQTT deletes a retained message."""
    device = fleet.enrol()
    for leaf in LEAVES:
        device.say(leaf, b"")
    device.report(0)
    fleet.turn()
    assert (fleet.codes(), fleet.app.parts.ingest.figures.refused, device.watermark()) == ([], 0, 0)


def test_the_lag_is_how_long_the_oldest_message_waits(fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only messages in the inbox count, not stored ones."""
    now_s = 10.0
    monkeypatch.setattr("server.ingest.ingest.time", SimpleNamespace(monotonic=lambda: now_s))
    device, ingest = fleet.enrol(), fleet.app.parts.ingest
    ingest.turn(fleet.clock())
    assert ingest.lag_s() == 0.0
    for now_s, lag_s in ((10.0, 0.0), (12.0, 2.0)):
        device.report(int(now_s))
        assert ingest.lag_s() == lag_s
    ingest.turn(fleet.clock())
    assert ingest.lag_s() == 0.0


@pytest.mark.parametrize("table", ["windows", "devices"])
def test_the_lag_counts_from_the_first_refusal_of_the_store(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Refused messages have left the inbox and still wait, however often they are tried again."""
    now_s = 10.0
    monkeypatch.setattr("server.ingest.ingest.time", SimpleNamespace(monotonic=lambda: now_s, sleep=lambda _s: None))
    device, ingest = fleet.enrol(), fleet.app.parts.ingest
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO away"))
    for now_s, lag_s in ((20.0, 0.0), (25.0, 5.0), (31.0, 11.0)):
        device.report(int(now_s))
        ingest.turn(fleet.clock())
        assert ingest.lag_s() == lag_s
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE away RENAME TO {table}"))
    fleet.turn()
    assert ingest.lag_s() == 0.0


def test_what_two_refusals_leave_is_all_tried_again(fleet: MemoryFleet) -> None:
    """A batch that is stored one by one keeps each message that the store refuses."""
    ingest = fleet.app.parts.ingest

    def refuse(_ingest: Ingest, batch: list[Arrival], _now_ms: int) -> None:
        if len(batch) > 1:
            raise ValueError("one of them")
        raise sa.exc.OperationalError("", {}, Exception("locked"))

    device = fleet.enrol()
    device.report(0)
    device.report(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ingest, "_commit", refuse)
        ingest.turn(fleet.clock())
    fleet.turn()
    assert device.watermark() == 1


def test_a_device_is_known_the_moment_it_is_enrolled(fleet: MemoryFleet) -> None:
    """A message a moment before, or a lookup that found it unknown, changes nothing; the clock does not advance."""
    device = fleet.enrol()
    device.transport.publish("tf/1/berlin/cam-2/state", encode(State(state=DeviceState.READY)))
    fleet.turn()
    other = fleet.enrol("cam-2")
    other.say("state", State(state=DeviceState.READY))
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-2").state is DeviceState.READY
    assert fleet.codes() == ["unknown_device"]


def test_what_came_while_the_registry_was_away_is_kept(fleet: MemoryFleet) -> None:
    """A state is sent once: a store that refuses the look-up must not lose it."""
    device = fleet.enrol()
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE devices RENAME TO away"))
    device.say("state", State(state=DeviceState.READY))
    fleet.app.parts.ingest.turn(fleet.clock())
    with fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO devices"))
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").state is DeviceState.READY


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20)
    | st.integers(-(2**70), 2**70) | st.sampled_from([10**400, "\ud800", "\x00", "x" * 70_000, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
FROM_DEVICE = {
    "state": State(state=DeviceState.READY, at_ms=5, boot=BOOT),
    "reported": Reported(at_ms=5, boot=BOOT, current=InstalledRelease(release="m-1")),
    "event": Event(boot=BOOT, at_ms=5, code="committed", severity=Severity.INFO),
    "res": Response(id="a"),
    "get": Get(),
    "tele/infer": Batch(boot=BOOT, stream=Stream.INFER, rows=({"n": 1},)),
    "tele/hw": Batch(boot=BOOT, stream=Stream.HW, rows=({"rss_bytes": 1},)),
    "tele/answer": Batch(boot=BOOT, stream=Stream.ANSWER, rows=({"id": "a"},)),
}


@st.composite
def payloads(draw: Callable[[st.SearchStrategy[object]], object], whole: bytes) -> bytes:
    """Draw random bytes, ``whole`` cut or with another value in one field, or a document nested beyond every limit."""
    way = draw(st.sampled_from(["bytes", "cut", "field", "field", "field", "deep"]))
    if way == "bytes":
        return draw(st.binary(max_size=200))  # type: ignore[return-value]  # as drawn
    if way == "cut":
        return whole[: draw(st.integers(0, len(whole)))]  # type: ignore[misc]  # as drawn
    if way == "deep":
        return draw(st.sampled_from([b"[", b'{"a":'])) * 50_000  # type: ignore[operator]  # as drawn
    document = json.loads(whole)
    field = draw(st.sampled_from([*document, "unknown"]))
    return json.dumps(document | {field: draw(JSON_VALUES)}).encode()


@pytest.mark.parametrize("leaf", [*FROM_DEVICE, "tele/drift", "tele/sample"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_arrives_on_a_topic_of_the_server_the_next_report_counts(
    fleet: MemoryFleet, leaf: str, data: st.DataObject
) -> None:
    """Random bytes and mutated documents: nothing is raised or left over, and a valid report is acknowledged."""
    device = fleet.enrol(f"cam-{data.draw(st.integers(0, 2**60))}")
    if leaf in FROM_DEVICE:
        device.say(leaf, data.draw(payloads(encode(FROM_DEVICE[leaf]))))
    else:
        device.say(leaf, data.draw(st.binary(max_size=400)))
    device.report(0)
    fleet.turn()
    assert device.watermark() == 0
    assert (fleet.app.parts.ingest._retry, fleet.app.parts.ingest._unread) == ([], [])


@pytest.mark.stores
def test_what_another_process_has_counted_is_not_counted_again(fleet: MemoryFleet) -> None:
    """Messages of one device may go to any process that ingests: what each knows of a stream is asked of the store."""
    parts, device = fleet.app.parts, fleet.enrol()
    if not parts.database.is_shared:
        pytest.skip("one process alone ingests into SQLite")
    other = Ingest(database=parts.database, fleet=parts.fleet, outbox=parts.outbox, config=parts.ingest.config)

    def hear(ingest: Ingest, seq: int) -> None:
        topic = f"tf/1/{device.identity.site}/{device.identity.device}/tele/drift"
        ingest.handle([Incoming(topic, encode_report(make_report(seq)))], fleet.clock())

    for ingest, seq in ((parts.ingest, 0), (other, 1), (parts.ingest, 1), (other, 0), (parts.ingest, 3), (other, 2)):
        hear(ingest, seq)
    assert [(window.n, window.reports) for window in parts.windows.since(0)] == [(5, 1)] * 4
    assert (parts.ingest.figures.duplicates, other.figures.duplicates) == (1, 1)
    assert device.watermark() == 3
