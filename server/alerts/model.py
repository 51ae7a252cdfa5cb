"""An alert as a value: its cause, how it stands, and what was done about it. No clock, no database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_DEVICES = 50
"""Devices of an alert that are kept with it; their number is kept beside them."""
MAX_SITES = 1_000
KINDS = ("verdict", "rollout", "away", "answers_nothing", "server", "metadata", "harmed")


class AlertKind(StrEnum):
    """What an alert is about."""

    VERDICT = "verdict"  # a drift verdict is open
    ROLLOUT = "rollout"  # a rollout stopped: paused by itself, failed, or waits for devices that are away
    AWAY = "away"  # devices are lost or silent
    ANSWERS_NOTHING = "answers_nothing"  # devices run their release and answer none of their inputs
    SERVER = "server"  # a check of the server's health fails
    METADATA = "metadata"  # signed metadata expires
    HARMED = "harmed"  # labels show that a release is wrong more often than allowed


class AlertSeverity(StrEnum):
    """How urgent an alert is, as the overall status names it; the least urgent first."""

    ATTENTION = "attention"  # a person should look
    ALARM = "alarm"  # a person must act

    @property
    def rank(self) -> int:
        """Its place in the order of urgency."""
        return tuple(AlertSeverity).index(self)


class AlertState(StrEnum):
    """How an alert stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"  # a person has seen it
    SNOOZED = "snoozed"  # nothing is sent until a time
    RESOLVED = "resolved"


UNRESOLVED = frozenset({AlertState.OPEN, AlertState.ACKNOWLEDGED, AlertState.SNOOZED})


class NoticeEvent(StrEnum):
    """Why something is sent about an alert."""

    OPENED = "opened"
    REOPENED = "reopened"  # its cause came back, or a snooze is over
    CHANGED = "changed"  # it got worse: a higher severity, or at least twice the devices
    RESOLVED = "resolved"
    TEST = "test"  # a person tries the route


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCause:
    """Something that is wrong now.

    ``key`` names it as long as it lasts; ``subject`` also when it comes back under another key, as a drift does whose
    verdict is a new one. ``continues``: keys of causes that go on in this one. ``page``: the path of the page about
    it. ``verdict``: the id of the verdict whose evidence shows it, 0 for none. ``flickers``: it comes and goes by
    itself, so it must last before it opens an alert and be gone for a while before the alert ends. ``patient``: it
    shows only once devices had time to connect again after a start of the server.
    """

    key: str
    kind: AlertKind
    severity: AlertSeverity
    title: str
    cause: str
    action: str
    subject: str = ""
    devices: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    continues: tuple[str, ...] = ()
    page: str = "/"
    verdict: int = 0
    flickers: bool = False
    patient: bool = False


BY_A_MUTE = "a mute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert with its history. Times are UTC milliseconds, 0 for never.

    ``devices``: at most ``MAX_DEVICES`` of ``device_count``. ``seen_ms``: when its cause was last there; ``gone_ms``:
    since when it is not, 0 while it is. ``reopened``: how often its cause came back. ``told_devices``: how many
    devices it had when something was sent about it last. ``resolved_by``: the person, "" if its cause ended,
    ``BY_A_MUTE`` if its devices were muted.
    ``revision`` grows with each change, so that two writers never overwrite each other.
    """

    id: int = 0
    key: str
    subject: str
    kind: AlertKind
    severity: AlertSeverity
    title: str
    cause: str
    action: str
    devices: tuple[str, ...] = ()
    device_count: int = 0
    sites: tuple[str, ...] = ()
    page: str = "/"
    verdict: int = 0
    flickers: bool = False
    state: AlertState = AlertState.OPEN
    opened_ms: int
    seen_ms: int
    gone_ms: int = 0
    snoozed_until_ms: int = 0
    resolved_ms: int = 0
    resolved_by: str = ""
    owner: str = ""
    reopened: int = 0
    told_devices: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class AlertAct:
    """Something that happened to an alert, or that a person (``by``, "" for the server) did about it."""

    act: str
    by: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertHistory:
    """One act as it is stored."""

    id: int
    at_ms: int
    act: str
    by: str
    text: str
