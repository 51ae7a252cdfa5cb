"""The overall status of fleet and server: there is no problem only while no signal reports one. Pure.

Missing knowledge is a signal of its own: a device that never connected, or whose drift is not judged, is not in
order. To add a signal, add a field to ``Signals`` and a line to ``WORDS``; ``overall`` needs no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from server.wording import listed

NEAR_RATIO = 0.6  # evidence from this share of its threshold on is shown as near; it raises no alarm
_NAMED = 6


class Level(StrEnum):
    """How urgent a status is, least urgent first."""

    WELL = "well"
    UNKNOWN = "unknown"  # nothing bad is known, but not everything is known
    ATTENTION = "attention"  # a person should look
    ALARM = "alarm"  # a person must act


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """All possible problems, each with the names of what it concerns; all are empty in a healthy fleet.

    ``devices``: how many there are. Devices: ``lost`` (connection broke), ``silent`` (connected, but they send
    nothing), ``disconnected`` (in order), ``never_seen``, ``degraded`` (or in safe mode), ``answers_nothing`` (their
    release runs and reads none of their inputs; each with what it does with them), ``update_failed`` (refused or rolled
    back), ``withdrawn`` (run a release that was withdrawn), ``clock_off``. Drift: ``faulty``,
    ``flagged``, ``near`` (from ``NEAR_RATIO`` of the threshold on), ``unjudged`` (no evidence yet or lately, or still
    compared with training), ``pools_near``, ``collecting`` (pools that open nothing yet, such as that of the whole
    fleet before the baselines of most devices are complete), ``verdicts``. ``harmed``: releases that the labels of
    uniform samples show to be wrong more often than allowed.
    Rollouts: ``paused``, ``unproven`` (wait for the first input that a committed device answers), ``stalled`` (wait
    for devices that are away, and for nothing else), ``unapproved``, ``failed``, ``aborting``, ``members_failed``.
    ``server``: unhealthy parts of the server; ``metadata``: signed metadata that is damaged, has expired or will soon,
    or that devices refuse as older than what they have seen;
    ``settings``: those of server.toml without effect, as they name what does not exist or is never asked for;
    ``undelivered``: routes whose receiver has not accepted an alert for a while.
    ``muted``: devices that nothing is told of, each with until when; they are in no other signal of a device alone.
    """

    devices: int = 0
    lost: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    disconnected: tuple[str, ...] = ()
    never_seen: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    answers_nothing: tuple[str, ...] = ()
    update_failed: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    clock_off: tuple[str, ...] = ()
    faulty: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    pools_near: tuple[str, ...] = ()
    collecting: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    harmed: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    stalled: tuple[str, ...] = ()
    unapproved: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    aborting: tuple[str, ...] = ()
    members_failed: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    undelivered: tuple[str, ...] = ()
    muted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConcern:
    """One problem; ``names``: the devices, releases or rollouts that it concerns."""

    signal: str
    level: Level
    text: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overall:
    """The status: the worst level, a sentence, and every concern, most urgent first."""

    level: Level
    text: str
    concerns: tuple[OpenConcern, ...]


_DEVICES, _NO_DEVICES = "devices", "there is no device yet"
WORDS: Mapping[str, tuple[Level, str, str]] = {
    "server": (Level.ALARM, "the server is unwell", "the server is unwell"),
    "metadata": (Level.ALARM, "signed metadata needs a person", "signed metadata need a person"),
    "lost": (Level.ALARM, "device is lost", "devices are lost"),
    "faulty": (Level.ALARM, "device has a fault", "devices have a fault"),
    "failed": (Level.ALARM, "rollout failed", "rollouts failed"),
    "flagged": (Level.ALARM, "device drifts", "devices drift"),
    "verdicts": (Level.ALARM, "verdict is open", "verdicts are open"),
    "harmed": (Level.ALARM, "release is wrong too often", "releases are wrong too often"),
    "paused": (Level.ATTENTION, "rollout is paused", "rollouts are paused"),
    "unproven": (
        Level.ATTENTION,
        "rollout waits for a first answer of its devices",
        "rollouts wait for a first answer of theirs",
    ),
    "stalled": (
        Level.ATTENTION,
        "rollout waits for devices that are away",
        "rollouts wait for devices that are away",
    ),
    "aborting": (Level.ATTENTION, "rollout is being aborted", "rollouts are being aborted"),
    "members_failed": (Level.ATTENTION, "device failed in a rollout", "devices failed in rollouts"),
    "unapproved": (Level.ATTENTION, "rollout waits for approval", "rollouts wait for approval"),
    "settings": (Level.ATTENTION, "setting has no effect", "settings have no effect"),
    "undelivered": (Level.ALARM, "route of alerts fails", "routes of alerts fail"),
    "answers_nothing": (Level.ALARM, "device answers nothing", "devices answer nothing"),
    "silent": (Level.ATTENTION, "device is silent", "devices are silent"),
    "degraded": (Level.ATTENTION, "device is degraded", "devices are degraded"),
    "update_failed": (Level.ATTENTION, "device did not take its update", "devices did not take their update"),
    "withdrawn": (Level.ATTENTION, "device runs a withdrawn release", "devices run a withdrawn release"),
    "clock_off": (Level.ATTENTION, "device has a wrong clock", "devices have a wrong clock"),
    "near": (Level.ATTENTION, "device is near or over its threshold", "devices are near or over their threshold"),
    "pools_near": (Level.ATTENTION, "pool is near or over its threshold", "pools are near or over their threshold"),
    "disconnected": (Level.ATTENTION, "device is disconnected", "devices are disconnected"),
    "never_seen": (Level.UNKNOWN, "device has never connected", "devices have never connected"),
    "collecting": (Level.UNKNOWN, "pool is not judged for drift yet", "pools are not judged for drift yet"),
    "muted": (Level.UNKNOWN, "device is muted", "devices are muted"),
    "unjudged": (Level.UNKNOWN, "device is not judged for drift now", "devices are not judged for drift now"),
}
_NO_PROBLEM = (
    "No problems: every device reports and is judged, no evidence is near its threshold, no rollout needs a person."
)
_LEVELS = tuple(Level)


def overall(signals: Signals) -> Overall:
    """Return the status that follows from ``signals``."""
    concerns = []
    for signal in (field.name for field in fields(signals) if field.name != _DEVICES):
        names = getattr(signals, signal)
        if names:
            level, one, many = WORDS[signal]
            counted = one if one == many else f"{len(names)} {one if len(names) == 1 else many}"
            concerns.append(
                OpenConcern(signal=signal, level=level, text=f"{counted}: {listed(names, _NAMED)}", names=names)
            )
    if signals.devices == 0:
        concerns.append(OpenConcern(signal=_DEVICES, level=Level.UNKNOWN, text=_NO_DEVICES, names=()))
    ordered = tuple(sorted(concerns, key=lambda concern: -_LEVELS.index(concern.level)))
    if not ordered:
        return Overall(Level.WELL, _NO_PROBLEM, ())
    return Overall(ordered[0].level, "; ".join(concern.text for concern in ordered), ordered)
