"""Alerts as their page shows them."""

from __future__ import annotations

from dataclasses import replace

from server.alerts.ledger import DeliveryState, WaitingRoute
from server.alerts.model import Alert, AlertHistory, AlertKind, AlertSeverity, AlertState
from server.dashboard.alerting import alert_card, history_lines, waiting_text
from server.dashboard.views import Tone

NOW_MS, HOUR_MS = 1_800_000_000_000, 3_600_000
ALERT = Alert(
    id=7, key="away:site:north", subject="", kind=AlertKind.AWAY, severity=AlertSeverity.ALARM, title="Site north",
    cause="3 lost", action="look", devices=tuple(f"cam-{number:02}" for number in range(50)), device_count=200,
    sites=("north",), opened_ms=NOW_MS - HOUR_MS, seen_ms=NOW_MS,
)  # fmt: skip
SENT = DeliveryState(
    id=1, route="pager", event="opened", key="ab", created_ms=NOW_MS, attempts=0, next_ms=0, failed_ms=0, error="",
    delivered_ms=0, answer="",
)  # fmt: skip


def test_a_card_counts_the_devices_that_it_leaves_out() -> None:
    """Eight are shown of two hundred."""
    card = alert_card(ALERT, NOW_MS)
    assert (len(card.devices.rows), card.devices.more, card.severity.tone) == (8, 192, Tone.BAD)
    assert (card.state.text, card.over) == ("open", False)


def test_each_state_says_who_and_how_long() -> None:
    """Snoozed, owned, resolved by a person or by itself; back again."""
    snoozed = replace(ALERT, state=AlertState.SNOOZED, snoozed_until_ms=NOW_MS + HOUR_MS, owner="ada")
    assert alert_card(snoozed, NOW_MS).state.text == "snoozed for 1 h, ada looks after it"
    over = replace(ALERT, state=AlertState.RESOLVED, resolved_ms=NOW_MS - HOUR_MS)
    assert alert_card(over, NOW_MS).state.text.endswith(": its cause is over")
    assert alert_card(replace(over, resolved_by="bo"), NOW_MS).state.text.endswith(" by bo")
    assert alert_card(replace(ALERT, reopened=1), NOW_MS).since.endswith(", came back")
    assert alert_card(replace(ALERT, reopened=3), NOW_MS).since.endswith(", came back 3 times")


def test_history_and_deliveries_are_one_story() -> None:
    """In the order of time; what was not accepted has the reason."""
    acts = [AlertHistory(id=1, at_ms=NOW_MS, act="opened", by="", text="Site north")]
    acts.append(AlertHistory(id=2, at_ms=NOW_MS + 9, act="taken", by="ada", text=""))
    failed = replace(SENT, route="mail", created_ms=NOW_MS + 5, attempts=3, error="got 535")
    lines = history_lines(acts, [replace(SENT, delivered_ms=NOW_MS + 3, answer="204"), failed])
    assert [line.text for line in lines] == [
        "opened: Site north", "sent opened by pager: 204", "not sent yet: opened by mail: tried 3 times: got 535",
        "taken by ada: -",
    ]  # fmt: skip
    assert lines[2].tone is Tone.BAD


def test_a_route_that_was_not_tried_yet_is_no_failure() -> None:
    """What waits for its first try is on its way."""
    route = WaitingRoute(route="pager", waiting=2, since_ms=NOW_MS - HOUR_MS, attempts=4, error="got 500")
    assert waiting_text([replace(route, attempts=0)], NOW_MS) == ""
    assert waiting_text([route], NOW_MS) == "pager: 2 not delivered for 1 h: got 500"
