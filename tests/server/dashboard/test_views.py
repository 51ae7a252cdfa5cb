"""The content of the pages, without a browser."""

from dataclasses import replace

import pytest

from server.dashboard.views import (
    Cut,
    Tone,
    ago,
    answer_rows,
    clock_time,
    device_row,
    event_row,
    evidence_share,
    phase_status,
)
from server.dashboard.views import evidence_status as said
from server.fleet.fleet import Device
from server.registry.events import LoggedEvent
from wire.messages import DeviceState, InstalledRelease, Reported, Severity, UpdatePhase, UpdateStatus

NOW_MS = 1_795_000_000_000


def device(name: str = "gate-01", state: DeviceState = DeviceState.READY, reported: Reported | None = None) -> Device:
    """Return a device that has just reported."""
    return Device(
        device=name,
        site="harbour",
        attributes={},
        state=state,
        reported=reported,
        desired=None,
        desired_gen=0,
        desired_release="",
        last_seen_ms=NOW_MS,
        enrolled_ms=NOW_MS,
    )


@pytest.mark.parametrize(
    ("passed_ms", "expected"),
    [
        (0, "just now"),
        (9_999, "just now"),
        (-5_000, "just now"),
        (34_000, "30 s ago"),
        (60_000, "1 min ago"),
        (3_599_000, "59 min ago"),
        (7_200_000, "2 h ago"),
        (200_000_000, "2 d ago"),
    ],
)
def test_says_how_long_ago_something_was(passed_ms: int, expected: str) -> None:
    """One unit is enough, and a clock that is ahead is not an error."""
    assert ago(NOW_MS - passed_ms, NOW_MS) == expected


def test_never_and_no_time_are_said_as_such() -> None:
    """Zero means that there is none."""
    assert ago(0, NOW_MS) == "never"
    assert clock_time(0) == ""
    assert clock_time(253_402_300_799_999) == "9999-12-31 23:59:59"
    assert clock_time(253_402_300_800_000) == clock_time(2**63 - 1) == clock_time(-1) == ""
    assert clock_time(NOW_MS) == "2026-11-18 11:06:40"


def test_evidence_is_a_share_of_its_threshold() -> None:
    """In logs; below nothing is nothing, and no evidence is not zero evidence."""
    assert evidence_share(3.0, 6.0) == 0.5
    assert evidence_share(-2.0, 6.0) == 0.0
    assert evidence_share(None, 6.0) is None
    assert evidence_share(3.0, 0.0) is None


def test_only_the_server_s_verdict_is_called_drift() -> None:
    """The page doesn't decide: 120 % that was not flagged is not an alarm."""
    assert said(0.3).tone is Tone.GOOD
    assert said(0.8).tone is Tone.WARN
    assert said(1.2).tone is Tone.WARN
    assert said(1.2, flagged=True).text == "drift, 120 %"
    assert said(None).text == "no data yet"


@pytest.mark.parametrize(
    ("update", "text", "tone"),
    [
        (None, "no report yet", Tone.CALM),
        (UpdateStatus(phase=None), "unknown", Tone.CALM),
        (UpdateStatus(phase=UpdatePhase.COMMITTED), "committed", Tone.GOOD),
        (UpdateStatus(phase=UpdatePhase.DOWNLOADING, done_bytes=1, total_bytes=3), "downloading 33 %", Tone.BUSY),
        (UpdateStatus(phase=UpdatePhase.DOWNLOADING), "downloading", Tone.BUSY),
        (UpdateStatus(phase=UpdatePhase.REFUSED, code="digest_mismatch"), "refused: digest mismatch", Tone.BAD),
        (UpdateStatus(phase=UpdatePhase.ROLLED_BACK, code="child_hung"), "rolled back: child hung", Tone.WARN),
    ],
)
def test_says_how_far_an_update_is(update: UpdateStatus | None, text: str, tone: Tone) -> None:
    """Progress and reasons are part of the word."""
    assert (phase_status(update).text, phase_status(update).tone) == (text, tone)


def test_a_device_that_was_never_heard_has_a_row() -> None:
    """Enrolled and silent is a state a person must see."""
    row = device_row(device(state=DeviceState.INIT), NOW_MS, None, flagged=False)
    assert (row.release, row.phase.text, row.evidence.text) == ("none", "no report yet", "no data yet")


def test_the_row_says_what_the_device_runs() -> None:
    """The release is the one that the device reports, not its assignment."""
    row = device_row(device(reported=Reported(current=InstalledRelease("digits-1"))), NOW_MS, 0.2, flagged=False)
    assert (row.release, row.wanted, row.evidence_ratio) == ("digits-1", "", 0.2)


def test_what_a_device_said_last_is_not_what_it_is_now() -> None:
    """Silent, never seen and lost devices are neither ready nor connected, and their old evidence is not green."""
    silent = device_row(device(), NOW_MS + 7_200_001, 0.1, flagged=False)
    never = device_row(replace(device(state=DeviceState.READY), last_seen_ms=0), NOW_MS, None, flagged=False)
    lost = device_row(device(state=DeviceState.LOST), NOW_MS, 0.1, flagged=False)
    assert (silent.state.text, never.state.text) == ("silent, was ready", "never connected")
    assert {row.evidence.tone for row in (silent, lost)} == {Tone.CALM}
    assert lost.evidence.text == "10 % at its last report"
    here = device_row(device(), NOW_MS, 0.1, flagged=False)
    assert [row.there for row in (silent, never, lost, here)] == [False, False, False, True]


def test_every_device_state_has_a_word() -> None:
    """A new state must not break the page."""
    assert all(device_row(device(state=state), NOW_MS, None, flagged=False).state.text for state in DeviceState)


def test_an_event_says_what_happened_once() -> None:
    """Kind and code are not repeated when they are the same."""
    event = LoggedEvent(
        id=1,
        at_ms=NOW_MS,
        kind="update",
        code="digest_mismatch",
        severity=Severity.ERROR,
        text="refused",
        device="gate-01",
    )
    assert event_row(event).what == "update: digest mismatch"
    assert event_row(event).severity.tone is Tone.BAD
    assert (
        event_row(LoggedEvent(id=2, at_ms=NOW_MS, kind="alarm", code="alarm", severity=Severity.INFO, text="")).what
        == "alarm"
    )


@pytest.mark.parametrize(("limit", "expected"), [(2, Cut(("a", "b"), 1)), (3, Cut(("a", "b", "c"), 0))])
def test_a_list_that_is_cut_says_how_many_are_not_shown(limit: int, expected: Cut[str]) -> None:
    """The first twenty can't be mistaken for all."""
    assert Cut.of(["a", "b", "c"], limit) == expected


def test_answers_are_shown_newest_first_and_each_input_once() -> None:
    """An input that was answered again after a crash stands once; what is no answer is left out."""
    first = [{"id": "a", "label": "cat", "confidence": 0.914, "supported": True}, {"id": "b", "values": {"power": 2.5}}]
    second = [{"id": "b", "values": {"power": 2.5}}, {"id": "c", "error": "image_invalid"}, {"id": 7}]
    rows = answer_rows([second, first], 10)
    assert [(row.id, row.answer, row.confidence, row.supported.text) for row in rows] == [
        ("c", "none: image invalid", "", ""),
        ("b", "power 2.5", "", "this release can't tell"),
        ("a", "cat", "91 %", "yes"),
    ]
    assert len(answer_rows([second, first], 2)) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"labels": ["cat", "dog"], "values": {"cat": 0.9, "dog": 0.8, "owl": 0.1}}, "cat, dog"),
        ({"labels": [], "values": {"cat": 0.1}}, "no label applies"),
        ({"boxes": [{}, {}, {}], "values": {"cat": 2.0, "dog": 1.0, "owl": 0.0}}, "2 cat, 1 dog"),
        ({"labels": ["cat", "dog"], "scores": {"cat": 0.9, "dog": 0.8, "owl": 0.1}}, "cat 90%, dog 80%"),
        ({"boxes": [{"score": 0.7}, {"score": 0.925}], "values": {"cat": 2.0}}, "2 cat; surest 92%"),
        ({"boxes": [], "values": {"cat": 0.0}}, "no box"),
        (
            {"label": "anomaly", "anomalous": True, "scores": {"anomaly": 0.9, "threshold": 0.25}},
            "anomaly: anomaly 0.9, threshold 0.25",
        ),
        (
            {"label": "yes", "events": [{"label": "yes", "state": "began"}, {"label": "no", "state": "ended"}]},
            "yes began, no ended",
        ),
        ({"error": "image_invalid", "labels": ["cat"]}, "none: image invalid"),
    ],
)
def test_the_answer_of_each_task_is_told_in_words(answer: dict, said: str) -> None:
    """What it says, not the probability of what it does not say."""
    assert answer_rows([[{"id": "a", **answer}]], 1)[0].answer == said
