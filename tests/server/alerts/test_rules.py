"""How an alert follows its cause: opened, kept, damped, taken over, resolved and opened again."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from server.alerts.config import AlertsConfig
from server.alerts.model import MAX_DEVICES, Alert, AlertCause, AlertKind, AlertSeverity, AlertState, NoticeEvent
from server.alerts.rules import clear_ms, settle

CONFIG = AlertsConfig()
NOW_MS, MINUTE_MS, HOUR_MS = 1_800_000_000_000, 60_000, 3_600_000
CAUSE = AlertCause(
    key="away:device:cam-1", kind=AlertKind.AWAY, severity=AlertSeverity.ATTENTION, title="Device cam-1 is silent",
    cause="nothing comes", action="look", devices=("cam-1",), sites=("north",),
)  # fmt: skip
FLICKERING = replace(CAUSE, flickers=True)


class Book:
    """The alerts, and everything that was sent about them."""

    def __init__(self) -> None:
        """Begin without any."""
        self.alerts: dict[int, Alert] = {}
        self.sent: list[str] = []

    def see(self, now_ms: int, *causes: AlertCause) -> Alert:
        """Let the alerts follow ``causes``; return the newest."""
        for step in settle(tuple(self.alerts.values()), causes, now_ms, CONFIG):
            number = step.after.id or len(self.alerts) + 1
            self.alerts[number] = replace(step.after, id=number)
            self.sent += [step.notice.value] if step.notice else []
        return self.alerts[max(self.alerts)]

    def person(self, **changes: object) -> None:
        """Let a person change the newest alert."""
        self.alerts[max(self.alerts)] = replace(self.alerts[max(self.alerts)], **changes)  # type: ignore[arg-type]


def test_one_cause_is_one_alert_as_long_as_it_lasts() -> None:
    """It is sent once, however often it is seen, and once more when it is over."""
    book = Book()
    for minute in range(5):
        book.see(NOW_MS + minute * MINUTE_MS, CAUSE)
    found = book.see(NOW_MS + 5 * MINUTE_MS)
    assert (len(book.alerts), found.state, found.resolved_by) == (1, AlertState.RESOLVED, "")
    assert book.sent == ["opened", "resolved"]


def test_an_alert_that_nothing_changes_is_written_once_a_minute() -> None:
    """A turn each 15 s must not write each time."""
    known = Book().see(NOW_MS, CAUSE)
    assert settle((known,), (CAUSE,), NOW_MS + MINUTE_MS - 1, CONFIG) == ()
    assert [step.notice for step in settle((known,), (CAUSE,), NOW_MS + MINUTE_MS, CONFIG)] == [None]


def test_a_cause_that_returns_within_the_time_opens_the_same_alert_again() -> None:
    """After that time it is a new one."""
    book = Book()
    book.see(NOW_MS, CAUSE)
    book.see(NOW_MS + 1)
    again = book.see(NOW_MS + 1 + int(1000 * CONFIG.reopen_s), CAUSE)
    assert (len(book.alerts), again.reopened, again.state, again.resolved_ms) == (1, 1, AlertState.OPEN, 0)
    book.see(NOW_MS + 10 * HOUR_MS)
    book.see(NOW_MS + 10 * HOUR_MS + 1 + int(1000 * CONFIG.reopen_s), CAUSE)
    assert (len(book.alerts), book.sent) == (2, ["opened", "resolved", "reopened", "resolved", "opened"])


def test_a_drift_that_comes_back_as_another_verdict_is_the_same_alert() -> None:
    """Its key is new, its subject is not."""
    book, verdict = Book(), replace(CAUSE, key="verdict:1", subject="verdict:digits|site:site=north:")
    book.see(NOW_MS, verdict)
    book.see(NOW_MS + HOUR_MS)
    again = book.see(NOW_MS + 2 * HOUR_MS, replace(verdict, key="verdict:2"))
    assert (len(book.alerts), again.key, again.reopened) == (1, "verdict:2", 1)


def test_a_flickering_cause_ends_only_after_it_is_gone_for_a_while() -> None:
    """One look without it is no end; at the bound it is."""
    book, wait_ms = Book(), int(1000 * CONFIG.clear_s)
    book.see(NOW_MS, FLICKERING)
    book.see(NOW_MS + 1)
    assert book.see(NOW_MS + wait_ms).state is AlertState.OPEN
    assert book.see(NOW_MS + 1 + wait_ms).state is AlertState.RESOLVED


def test_a_cause_that_comes_and_goes_each_two_minutes_is_sent_a_few_times_a_day() -> None:
    """Each return makes the end wait four times as long, until it outlasts the pauses."""
    book = Book()
    for step in range(5_760):  # a day of looks, each 15 s
        book.see(NOW_MS + 15_000 * step, *([FLICKERING] if step % 8 < 3 else []))
    assert (len(book.alerts), book.sent) == (1, ["opened", "resolved", "reopened"])


def test_the_wait_grows_fourfold_up_to_an_hour() -> None:
    """By value: 1, 4, 16, 60 minutes."""
    alert = Book().see(NOW_MS, FLICKERING)
    waits = [clear_ms(replace(alert, reopened=times), CONFIG) // MINUTE_MS for times in range(5)]
    assert waits == [1, 4, 16, 60, 60]


def test_what_a_person_resolved_stays_so_while_its_cause_lasts() -> None:
    """Only a cause that was gone and came back opens it again."""
    book = Book()
    book.see(NOW_MS, CAUSE)
    book.person(state=AlertState.RESOLVED, resolved_ms=NOW_MS + 1, resolved_by="ada")
    assert book.see(NOW_MS + 20 * HOUR_MS, CAUSE).state is AlertState.RESOLVED
    book.see(NOW_MS + 21 * HOUR_MS)
    assert book.see(NOW_MS + 22 * HOUR_MS).gone_ms == NOW_MS + 21 * HOUR_MS
    assert book.sent == ["opened"]


def test_what_a_person_resolved_opens_again_when_it_is_more_severe() -> None:
    """A silent device that is lost."""
    book = Book()
    book.see(NOW_MS, CAUSE)
    book.person(state=AlertState.RESOLVED, resolved_ms=NOW_MS + 1, resolved_by="ada")
    found = book.see(NOW_MS + 2, replace(CAUSE, severity=AlertSeverity.ALARM))
    assert (found.state, found.severity, book.sent) == (AlertState.OPEN, AlertSeverity.ALARM, ["opened", "reopened"])


def test_a_snoozed_alert_is_silent_until_its_time() -> None:
    """Then it opens again and is sent, if its cause is there."""
    book = Book()
    book.see(NOW_MS, CAUSE)
    book.person(state=AlertState.SNOOZED, snoozed_until_ms=NOW_MS + HOUR_MS)
    many = replace(CAUSE, devices=tuple(f"cam-{number}" for number in range(50)))
    assert book.see(NOW_MS + HOUR_MS - 1, many).state is AlertState.SNOOZED
    assert book.see(NOW_MS + HOUR_MS, many).state is AlertState.OPEN
    assert book.sent == ["opened", "reopened"]


def test_a_snoozed_alert_says_that_it_is_over() -> None:
    """Nobody has to look at the end of the snooze."""
    book = Book()
    book.see(NOW_MS, CAUSE)
    book.person(state=AlertState.SNOOZED, snoozed_until_ms=NOW_MS + HOUR_MS)
    assert book.see(NOW_MS + 1).state is AlertState.RESOLVED
    assert book.sent == ["opened", "resolved"]


def test_twice_the_devices_are_news_and_a_few_more_are_not() -> None:
    """Both sides of the bound: twice as many, and at least three more."""

    def of(count: int) -> AlertCause:
        return replace(CAUSE, devices=tuple(f"cam-{number:03}" for number in range(count)))

    book = Book()
    book.see(NOW_MS, of(2))
    book.see(NOW_MS + 1, of(4))
    assert book.sent == ["opened"]
    found = book.see(NOW_MS + 2, of(5))
    assert (book.sent, found.device_count) == (["opened", "changed"], 5)
    found = book.see(NOW_MS + 3, of(200))
    assert (book.sent[2:], found.device_count, len(found.devices)) == (["changed"], 200, MAX_DEVICES)


def test_a_cause_that_goes_on_in_another_keeps_the_alert() -> None:
    """Of three devices that were alerts of their own, the oldest goes on as the site's; the others end and say so."""
    book = Book()
    single = [replace(CAUSE, key=f"away:device:cam-{number}", devices=(f"cam-{number}",)) for number in (1, 2, 3)]
    book.see(NOW_MS, *single)
    site = replace(
        CAUSE, key="away:site:north", title="Site north", devices=("cam-1", "cam-2", "cam-3"),
        continues=tuple(one.key for one in single),
    )  # fmt: skip
    book.see(NOW_MS + 1, site)
    assert [one.state for one in book.alerts.values()] == [AlertState.OPEN, AlertState.RESOLVED, AlertState.RESOLVED]
    assert book.alerts[1].key == "away:site:north"
    assert book.sent == ["opened"] * 3 + ["resolved"] * 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 240), st.sets(st.integers(0, 3))), max_size=40), st.booleans())
def test_there_is_never_a_second_alert_of_one_cause(looks: list[tuple[int, set[int]]], flickers: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever comes and goes: at most one unresolved alert a key, and each is sent opened before anything else."""
    book, now_ms = Book(), NOW_MS
    for minutes, there in looks:
        now_ms += minutes * MINUTE_MS
        causes = [replace(CAUSE, key=f"away:device:{one}", flickers=flickers) for one in sorted(there)]
        for step in settle(tuple(book.alerts.values()), causes, now_ms, CONFIG):
            number = step.after.id or len(book.alerts) + 1
            assert (step.notice is NoticeEvent.OPENED) == (step.after.id == 0)
            book.alerts[number] = replace(step.after, id=number)
        unresolved = [one.key for one in book.alerts.values() if one.state is not AlertState.RESOLVED]
        assert len(unresolved) == len(set(unresolved))
        assert {f"away:device:{one}" for one in there} == {
            one.key for one in book.alerts.values() if one.state is not AlertState.RESOLVED and not one.gone_ms
        }
