"""Invalid messages: reported once a minute per sender and kind, in texts that fit a database and a terminal."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from server.cli import main
from server.ingest.faults import FaultEvents, RejectedMessage, printable, shortened
from server.ingest.windows import WindowReport, check_report
from tests.server.conftest import MemoryFleet
from wire.drift_report import DriftReport, encode_report, open_report
from wire.errors import HistogramError
from wire.histogram import Counters, Shape

REPORT = DriftReport(
    boot="ab" * 8,
    seq=1,
    oldest_seq=0,
    window_start_ms=10**12,
    window_len_ms=3_600_000,
    context=0,
    artifact="cd" * 16,
    ref_id="ef" * 16,
    counters=Counters(Shape(1, 0), 3, (3,) + (0,) * 15 + (0,)),
    late=False,
)


def test_a_fault_is_told_once_a_minute_and_counted_always() -> None:
    """The next report, after exactly a minute, has the number of those in between."""
    faults = FaultEvents()
    for now_ms in (0, 1, 59_999, 60_000, 119_999):
        faults.add(now_ms, "garbage", "no JSON", sender="cam-1")
    rows = faults.take()
    assert [(row["at_ms"], row["text"]) for row in rows] == [
        (0, "no JSON"),
        (60_000, "no JSON (2 more like it before)"),
    ]
    assert (faults.counts, faults.rows) == ({"garbage": 5}, ())


def test_senders_and_kinds_of_fault_are_told_apart() -> None:
    """One bad device hides no other."""
    faults = FaultEvents()
    for sender, code in (("cam-1", "garbage"), ("cam-2", "garbage"), ("cam-1", "clock_skew"), ("cam-1", "garbage")):
        faults.add(0, code, "so", sender=sender)
    assert len(faults.take()) == 3


@pytest.mark.parametrize(
    ("sender", "registered", "device", "data"),
    [("cam-1", True, "cam-1", {}), ("who", False, None, {"sender": "who"}), ("", False, None, {})],
)
def test_only_a_device_of_the_fleet_is_named_as_one(
    sender: str, device: str | None, data: dict[str, str], *, registered: bool
) -> None:
    """The name of a stranger is quoted as its own claim."""
    faults = FaultEvents()
    faults.add(0, "garbage", "so", sender=sender, registered=registered)
    (row,) = faults.take()
    assert (row["device"], row["data"]) == (device, data)


def test_senders_without_end_take_no_memory_without_end() -> None:
    """At 10,000 senders the next one clears the memory: each of them may then be reported again."""
    faults = FaultEvents()
    for i in range(10_000):
        faults.add(0, "garbage", "so", sender=f"cam-{i}")
    faults.add(1, "garbage", "so", sender="cam-0")
    assert len(faults.take()) == 10_000
    faults.add(2, "garbage", "so", sender="another")
    faults.add(3, "garbage", "so", sender="cam-0")
    assert [row["at_ms"] for row in faults.take()] == [2, 3]
    for i in range(10_001):
        faults.add(60_100, "garbage", "so", sender=f"cam-{i}")
    assert len(faults.rows) == 10_000, "what the store does not take has a bound too"


@pytest.mark.parametrize(
    ("text", "clean"), [("a\n\tb", "a\n\tb"), ("a\0b", "a\ufffdb"), ("\ud800", "?"), ("\x1b[31m", "\ufffd[31m")]
)
def test_text_is_what_a_terminal_can_show(text: str, clean: str) -> None:
    """Lines and tabs stay, control characters do not."""
    assert printable(text) == clean


@pytest.mark.parametrize(("length", "cut"), [(100, False), (101, True)])
def test_a_text_that_is_cut_says_how_long_it_was(length: int, *, cut: bool) -> None:
    """At the limit it is complete."""
    found = shortened("x" * length, 100)
    assert len(found) == 100
    assert found.endswith(f"... (cut from {length} characters)") is cut


@pytest.mark.parametrize(
    ("report", "taken"),
    [
        (replace(REPORT, context=255), True), (replace(REPORT, context=256), False),
        (replace(REPORT, window_len_ms=1), True), (replace(REPORT, window_len_ms=0), False),
        (replace(REPORT, window_start_ms=2**53 - 1), True), (replace(REPORT, window_start_ms=2**53), False),
        (replace(REPORT, window_len_ms=2**53 - 1), True), (replace(REPORT, window_len_ms=2**53), False),
    ],
)  # fmt: skip
def test_a_window_is_taken_up_to_the_bounds_of_the_store(report: DriftReport, *, taken: bool) -> None:
    """Both sides of each."""
    sealed = WindowReport(open_report(encode_report(report)), b"words")
    if taken:
        assert check_report(sealed) == b"words"
    else:
        with pytest.raises(HistogramError, match="Expected a window with a length"):
            check_report(sealed)


def test_counts_that_do_not_fit_are_refused() -> None:
    """They could not be stored as they are."""
    with pytest.raises(HistogramError, match="counts up to 4294967295"):
        check_report(WindowReport(open_report(encode_report(REPORT)), None))


def test_the_head_of_a_refused_message_is_kept_once_an_hour_for_each_sender_and_code() -> None:
    """Enough to see what came; a device that sends garbage all day fills no disk."""
    faults, message = FaultEvents(), RejectedMessage("tf/1/a/cam-1/state", b"{" + b"x" * 5_000)
    for now_ms in range(0, 7_200_001, 60_000):
        faults.add(now_ms, "message_invalid", "no JSON", sender="cam-1", registered=True, message=message)
    faults.add(0, "message_invalid", "no JSON", sender="cam-2", registered=True, message=message)
    faults.add(0, "clock_skew", "off", sender="cam-1", registered=True)
    kept = [row for row in faults.take() if "payload" in row["data"]]  # type: ignore[operator]
    assert [(row["at_ms"], row["device"]) for row in kept] == [
        (0, "cam-1"), (3_600_000, "cam-1"), (7_200_000, "cam-1"), (0, "cam-2"),
    ]  # fmt: skip
    data = kept[0]["data"]
    assert isinstance(data, dict)
    assert (data["topic"], data["bytes"]) == ("tf/1/a/cam-1/state", 5_001)
    assert base64.b64decode(data["payload"]) == b"{" + b"x" * 511


def test_refused_messages_can_be_looked_at(fleet: MemoryFleet) -> None:
    """Text as text, other bytes in hex; of one device only, if wanted."""
    for device, payload in (("cam-1", b"{ no JSON"), ("cam-2", b"\x00\xff")):
        fleet.enrol(device).say("state", payload)
    fleet.turn()
    shown = CliRunner().invoke(main, ["refused", str(fleet.state.path), "--json"])
    rows = json.loads(shown.stdout)
    assert [(row["device"], row["head"], row["bytes"]) for row in rows] == [
        ("cam-2", "00ff", 2),
        ("cam-1", "{ no JSON", 9),
    ]
    only = CliRunner().invoke(main, ["refused", str(fleet.state.path), "--device", "cam-1"]).stdout.splitlines()
    assert (len(only), "cam-1" in only[1]) == (2, True)
