"""Questions to a device and its answers in words."""

from __future__ import annotations

import pytest

from server.dashboard.commands import certificate_text, command_view
from server.fleet.fleet import SentCommand
from wire.codec import to_document
from wire.messages import BenchmarkAnswer, LogsAnswer

NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000


def sent(verb: str, **answer: object) -> SentCommand:
    """Return a command that was sent five seconds ago and may wait for a minute."""
    given = {"answered_ms": 0, "ok": False, "code": "", "text": "", "data": {}, **answer}
    times = {"issued_ms": NOW_MS - 5000, "expires_ms": NOW_MS + 55_000}
    return SentCommand(id="c", device="d", verb=verb, **times, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("now_ms", "text"), [(NOW_MS + 55_000, "asked 1 min ago"), (NOW_MS + 55_001, "no answer")])
def test_a_question_waits_until_it_expires(now_ms: int, text: str) -> None:
    """At its expiry the device may still answer."""
    assert command_view(sent("logs"), now_ms).status.text == text


def test_a_log_is_shown_line_by_line_with_what_is_left_out() -> None:
    """An empty one is said to be empty."""
    found = command_view(sent("logs", answered_ms=NOW_MS, ok=True, data=to_document(LogsAnswer(("a", "b"), 7))), NOW_MS)
    assert (found.lines, found.note[:7], found.status.text) == (("a", "b"), "7 older", "answered just now")
    assert command_view(sent("logs", answered_ms=NOW_MS, ok=True), NOW_MS).lines == ("no lines",)


def test_a_benchmark_is_one_sentence_of_figures() -> None:
    """With what disturbed it; what was not measured is left out."""
    figures = BenchmarkAnswer(
        release="m-3", runs=200, p50_ms=0.4123, p95_ms=0.5, p99_ms=0.61, peak_memory_bytes=48_000_000, shared=True
    )
    found = command_view(sent("benchmark", answered_ms=NOW_MS, ok=True, data=to_document(figures)), NOW_MS)
    runs = "m-3: 0.412 ms a run (p50), 0.5 (p95), 0.61 (p99) over 200 runs"
    assert found.lines == (f"{runs}; at most 48 MB of memory; timed beside the model that serves",)


@pytest.mark.parametrize(
    ("answer", "status", "note"),
    [
        ({"code": "busy_updating", "text": "later"}, "refused: busy updating", "later"),
        ({"ok": True, "data": {"runs": "many"}}, "an answer that can't be read", "Expected BenchmarkAnswer.runs"),
    ],
)
def test_a_refusal_and_an_answer_of_another_version_are_told(answer: dict, status: str, note: str) -> None:
    """Neither breaks the page."""
    found = command_view(sent("benchmark", answered_ms=NOW_MS, **answer), NOW_MS)
    assert (found.status.text, found.note[: len(note)], found.lines) == (status, note, ())


@pytest.mark.parametrize(
    ("expires_ms", "required", "text"),
    [
        (None, False, "none: it has a password"),
        (None, True, "none: it can't connect, enrol it again"),
        (NOW_MS, False, "expired on 2026-11-18: enrol it again with a new claim"),
        (NOW_MS + 1, False, "valid until 2026-11-18, 0 days"),
        (NOW_MS + 30 * DAY_MS, False, "valid until 2026-12-18, 30 days"),
    ],
)
def test_a_certificate_says_until_when_it_is_valid(expires_ms: int | None, text: str, *, required: bool) -> None:
    """Or what to do."""
    assert certificate_text(expires_ms, NOW_MS, required=required) == text
