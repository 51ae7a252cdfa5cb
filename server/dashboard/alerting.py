"""Alerts as their page shows them; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.alerts.ledger import DeliveryState, WaitingRoute
from server.alerts.model import Alert, AlertHistory, AlertSeverity, AlertState, NoticeEvent
from server.dashboard.views import Cut, Status, Tone, ago, clock_time
from server.wording import duration

SNOOZES = {"1 hour": 3_600, "4 hours": 14_400, "1 day": 86_400, "1 week": 604_800}
"""How long an alert may be snoozed by a click, in seconds."""
_NAMED = 8
_SEVERITIES = {
    AlertSeverity.ATTENTION: Status("a person should look", Tone.WARN),
    AlertSeverity.ALARM: Status("a person must act", Tone.BAD),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLine:
    """One line of the history of an alert, or of its deliveries."""

    at: str
    text: str
    tone: Tone = Tone.CALM


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCard:
    """One alert. ``lines``: its history and deliveries, if they were asked for. ``over``: it is resolved."""

    id: int
    title: str
    severity: Status
    state: Status
    cause: str
    action: str
    devices: Cut[str]
    where: str
    since: str
    page: str
    verdict: int
    over: bool
    lines: tuple[AlertLine, ...] = ()


def alert_card(alert: Alert, now_ms: int, lines: Sequence[AlertLine] = ()) -> AlertCard:
    """Return the card of one alert."""
    more = alert.device_count - min(_NAMED, len(alert.devices))
    since = f"opened {ago(alert.opened_ms, now_ms)}"
    since += f", came back {alert.reopened} times" if alert.reopened > 1 else ", came back" * alert.reopened
    since += "; its cause is gone" if alert.gone_ms and alert.state is not AlertState.RESOLVED else ""
    return AlertCard(
        id=alert.id,
        title=alert.title,
        severity=_SEVERITIES[alert.severity],
        state=_state(alert, now_ms),
        cause=alert.cause,
        action=alert.action,
        devices=Cut(alert.devices[:_NAMED], max(more, 0)),
        where=f"Sites: {', '.join(alert.sites[:_NAMED])}" if alert.sites else "",
        since=since,
        page=alert.page,
        verdict=alert.verdict,
        over=alert.state is AlertState.RESOLVED,
        lines=tuple(lines),
    )


def _state(alert: Alert, now_ms: int) -> Status:
    mine = f", {alert.owner} looks after it" if alert.owner else ""
    if alert.state is AlertState.SNOOZED:
        return Status(f"snoozed for {duration(max(alert.snoozed_until_ms - now_ms, 0))}{mine}", Tone.CALM)
    if alert.state is AlertState.RESOLVED:
        by = f" by {alert.resolved_by}" if alert.resolved_by else ": its cause is over"
        return Status(f"resolved {ago(alert.resolved_ms, now_ms)}{by}", Tone.GOOD)
    return Status(f"{alert.state}{mine}", Tone.BUSY if alert.state is AlertState.ACKNOWLEDGED else Tone.WARN)


def history_lines(history: Sequence[AlertHistory], deliveries: Sequence[DeliveryState]) -> tuple[AlertLine, ...]:
    """Return what happened to an alert and how it was delivered, oldest first."""
    acts = [
        (one.at_ms, f"{one.act}{f' by {one.by}' if one.by else ''}: {one.text or '-'}", Tone.CALM) for one in history
    ]
    sent = [(one.delivered_ms or one.created_ms, *_delivery(one)) for one in deliveries]
    return tuple(
        AlertLine(at=clock_time(at_ms), text=text, tone=tone)
        for at_ms, text, tone in sorted([*acts, *sent], key=lambda line: line[0])
    )


def _delivery(one: DeliveryState) -> tuple[str, Tone]:
    what = f"{NoticeEvent(one.event)} by {one.route}"
    if one.delivered_ms:
        return f"sent {what}: {one.answer}", Tone.GOOD
    return f"not sent yet: {what}" + (f": tried {one.attempts} times: {one.error}" if one.attempts else ""), Tone.BAD


def waiting_text(routes: Sequence[WaitingRoute], now_ms: int) -> str:
    """Return which routes have something that no receiver has accepted, in words; "" if there is none."""
    late = [(one, duration(now_ms - one.since_ms)) for one in routes if one.attempts]
    return "; ".join(f"{one.route}: {one.waiting} not delivered for {since}: {one.error}" for one, since in late)
