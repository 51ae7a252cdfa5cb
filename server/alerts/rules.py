"""Decides how alerts follow their causes; pure.

The rules, in their order (``docs/how-to/get-alerts.md``, "When an alert opens and ends"):

1. A cause has one alert: that of its key; else the oldest open one of a cause that goes on in it; else one that was
   resolved within ``reopen_s`` and had this key or this subject; else a new one.
2. A cause that flickers opens no alert before it has lasted ``after_s`` (the watch keeps the time).
3. An alert ends by itself when its cause is gone: at once, or if the cause flickers after ``clear_s``, four times as
   long after each return, at most an hour. So one that comes and goes is sent a few times and then stays open.
4. An alert that a person resolved while its cause lasted stays resolved until the cause was gone for that time and came
   back, or is more severe.
5. While all devices of a cause are muted it opens no alert, and one that is open ends at once. When the mute ends and
   the cause is there, it opens again as after 1 and 2.
6. Something is sent when an alert opens, opens again, gets worse or ends; nothing while it is snoozed, but its end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from server.alerts.config import AlertsConfig
from server.alerts.model import (
    BY_A_MUTE,
    MAX_DEVICES,
    MAX_SITES,
    UNRESOLVED,
    Alert,
    AlertAct,
    AlertCause,
    AlertState,
    NoticeEvent,
)

_LONGEST_MS = 3_600_000
_SEEN_EVERY_MS = 60_000  # an alert whose cause lasts is written this often, not each turn
_SLOWER = 4
_MANY = 3  # devices more than were told, beside twice as many


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStep:
    """What becomes of one alert: ``after`` has the id 0 if it is new. ``notice``: what is sent, None for nothing."""

    after: Alert
    act: AlertAct | None = None
    notice: NoticeEvent | None = None


def settle(
    known: Sequence[Alert], causes: Sequence[AlertCause], now_ms: int, config: AlertsConfig,
    held: Collection[str] = frozenset(),
) -> tuple[AlertStep, ...]:  # fmt: skip
    """Return the changes of alerts at ``now_ms`` (UTC ms) that follow from ``causes``; none where nothing changes.

    ``held``: the keys of causes that are not among them because their devices are muted.
    ``known``: the alerts that are not resolved, and those that may open again.
    """
    left = {one.id: one for one in sorted(known, key=lambda one: one.id)}
    steps, unmatched = list[AlertStep | None](), list[AlertCause]()
    for cause in causes:
        same = next((one for one in left.values() if one.key == cause.key and one.state in UNRESOLVED), None)
        if same is None:
            unmatched.append(cause)
        else:
            steps.append(_goes_on(left.pop(same.id), cause, now_ms))
    for cause in unmatched:
        older = _older(tuple(left.values()), cause, now_ms, config)
        if older is None:
            steps.append(_opened(cause, now_ms))
        elif left.pop(older.id).state in UNRESOLVED:
            steps.append(_goes_on(older, cause, now_ms))
        else:
            steps.append(_came_back(older, cause, now_ms, config))
    wholes = {key: cause for cause in causes for key in cause.continues}
    steps += [
        _is_muted(one, now_ms) if one.key in held and one.key not in wholes
        else _is_gone(one, wholes.get(one.key), now_ms, config)
        for one in left.values()
    ]  # fmt: skip
    return tuple(step for step in steps if step is not None)


def clear_ms(alert: Alert, config: AlertsConfig) -> int:
    """Return how long the cause of ``alert`` must be gone before the alert ends, in ms."""
    if not alert.flickers:
        return 0
    return int(min(1000 * config.clear_s * _SLOWER ** min(alert.reopened, 10), max(_LONGEST_MS, 1000 * config.clear_s)))


def _older(left: Sequence[Alert], cause: AlertCause, now_ms: int, config: AlertsConfig) -> Alert | None:
    """Return the alert of which ``cause`` is the continuation or the return."""
    for one in left:
        if one.state in UNRESOLVED and one.key in cause.continues:
            return one
    since_ms = now_ms - int(1000 * config.reopen_s)
    for one in reversed(left):
        alike = one.key == cause.key or (cause.subject and one.subject == cause.subject)
        if one.state is AlertState.RESOLVED and alike and (not one.gone_ms or one.resolved_ms >= since_ms):
            return one
    return None


def _opened(cause: AlertCause, now_ms: int) -> AlertStep:
    blank = Alert(
        key=cause.key, subject="", kind=cause.kind, severity=cause.severity, title="", cause="", action="",
        opened_ms=now_ms, seen_ms=now_ms, told_devices=len(cause.devices),
    )  # fmt: skip
    after = _updated(blank, cause, now_ms)
    return AlertStep(after=after, act=AlertAct("opened", "", cause.title), notice=NoticeEvent.OPENED)


def _goes_on(alert: Alert, cause: AlertCause, now_ms: int) -> AlertStep | None:
    """Return the step of an alert whose cause is there."""
    after = _updated(alert, cause, now_ms)
    worse = cause.severity.rank > alert.severity.rank
    count = len(cause.devices)
    many = count >= 2 * alert.told_devices and count - alert.told_devices >= _MANY
    if alert.state is AlertState.SNOOZED and (worse or now_ms >= alert.snoozed_until_ms):
        text = "It got more severe" if worse else "The snooze is over, and its cause is still there"
        after = replace(after, state=AlertState.OPEN, snoozed_until_ms=0, told_devices=count)
        notice = NoticeEvent.CHANGED if worse else NoticeEvent.REOPENED
        return AlertStep(after=after, act=AlertAct(notice.value, "", text), notice=notice)
    if alert.state is not AlertState.SNOOZED and (worse or many):
        text = f"Now {cause.severity}: {cause.title}" if worse else f"{count} devices, {alert.told_devices} before"
        after = replace(after, told_devices=count)
        return AlertStep(after=after, act=AlertAct("changed", "", text), notice=NoticeEvent.CHANGED)
    if alert.key != cause.key:
        return AlertStep(after=after, act=AlertAct("goes_on", "", f"Goes on as: {cause.title}"))
    return _same(alert, after)


def _came_back(alert: Alert, cause: AlertCause, now_ms: int, config: AlertsConfig) -> AlertStep | None:
    """Return the step of a resolved alert whose cause is there, still or again."""
    long_gone = bool(alert.gone_ms) and now_ms - alert.gone_ms >= clear_ms(alert, config)
    again = long_gone or alert.resolved_by == BY_A_MUTE
    worse = cause.severity.rank > alert.severity.rank
    after = _updated(alert, cause, now_ms)
    if not again and not worse:
        return _same(alert, after)
    text = f"Came back: {cause.title}" if again else f"Now {cause.severity}: {cause.title}"
    after = replace(
        after, state=AlertState.OPEN, resolved_ms=0, resolved_by="", reopened=alert.reopened + 1,
        snoozed_until_ms=0, told_devices=len(cause.devices),
    )  # fmt: skip
    return AlertStep(after=after, act=AlertAct("reopened", "", text), notice=NoticeEvent.REOPENED)


def _is_gone(alert: Alert, whole: AlertCause | None, now_ms: int, config: AlertsConfig) -> AlertStep | None:
    """Return the step of an alert whose cause is not there; ``whole``: the cause in which it goes on, if any."""
    since_ms = alert.gone_ms or now_ms
    after = replace(alert, gone_ms=since_ms)
    if alert.state is AlertState.RESOLVED:
        return None if alert.gone_ms else AlertStep(after=after)
    if whole is None and now_ms - since_ms < clear_ms(alert, config):
        return None if alert.gone_ms else AlertStep(after=after)
    text = f"Goes on as: {whole.title}" if whole is not None else "Its cause is over"
    after = replace(after, state=AlertState.RESOLVED, resolved_ms=now_ms, snoozed_until_ms=0)
    return AlertStep(after=after, act=AlertAct("resolved", "", text), notice=NoticeEvent.RESOLVED)


def _is_muted(alert: Alert, now_ms: int) -> AlertStep | None:
    """Return the step of an alert whose devices are muted; one that a person resolved stays as it is."""
    if alert.state is AlertState.RESOLVED:
        return None
    after = replace(
        alert, state=AlertState.RESOLVED, resolved_ms=now_ms, resolved_by=BY_A_MUTE, snoozed_until_ms=0,
        gone_ms=alert.gone_ms or now_ms,
    )  # fmt: skip
    act = AlertAct("resolved", "", "Its devices are muted; its cause may be there")
    return AlertStep(after=after, act=act, notice=NoticeEvent.RESOLVED)


def _same(alert: Alert, after: Alert) -> AlertStep | None:
    """Return the step to ``after`` if more changed than when its cause was seen, or that was a while ago."""
    late = after.seen_ms - alert.seen_ms >= _SEEN_EVERY_MS
    return AlertStep(after=after) if late or replace(after, seen_ms=alert.seen_ms) != alert else None


def _updated(alert: Alert, cause: AlertCause, now_ms: int) -> Alert:
    """Return ``alert`` with what its cause is now."""
    return replace(
        alert, key=cause.key, subject=cause.subject or cause.key, kind=cause.kind, severity=cause.severity,
        title=cause.title, cause=cause.cause, action=cause.action, page=cause.page, verdict=cause.verdict,
        devices=tuple(sorted(cause.devices))[:MAX_DEVICES], device_count=len(cause.devices),
        sites=tuple(sorted(cause.sites))[:MAX_SITES], flickers=cause.flickers, seen_ms=now_ms, gone_ms=0,
    )  # fmt: skip
