"""Rows of devices, releases, events and rollouts for scripts, as JSON or as tab-separated values."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from server.client import AuditInfo, DeviceInfo, ReleaseInfo, VerdictInfo
from server.drift.alarms.records import ReplayedPath
from server.drift.commissions import Commission
from server.drift.ledger import StoredVerdict
from server.drift.places import NewPlace
from server.fleet.fleet import Device
from server.fleet.liveness import Presence
from server.registry.events import LoggedEvent
from server.registry.versions import Release
from server.rollout.figures.forecast import total
from server.rollout.figures.sequential import failing
from server.rollout.model import IN_FLIGHT, IN_VAIN, Member, Rollout
from server.rollout.thresholds import count_members, removed_count, replaced_count, waiting

Row = Mapping[str, object]
_BLANKS = str.maketrans({"\t": " ", "\n": " ", "\r": " "})

DEVICE_COLUMNS = (
    "device", "site", "state", "release", "phase", "desired_release", "last_seen_ms", "presence", "concern", "tags",
    "title",
)  # fmt: skip
ENDED_COLUMNS = ("device", "site", "ended", "ended_ms", "ended_why")
RELEASE_COLUMNS = (
    "release",
    "model",
    "targets",
    "registered_ms",
    "running",
    "withdrawn_ms",
    "withdrawn_why",
    "withdrawn_by",
    "still_on",
)
AUDIT_COLUMNS = (
    "release", "devices", "scenes", "wrong", "at_least", "at_most", "allowed", "harmful", "since_ms", "waiting",
    "samples_per_day",
)  # fmt: skip
EVENT_COLUMNS = ("id", "at_ms", "severity", "kind", "code", "device", "text")
REFUSED_COLUMNS = ("id", "at_ms", "device", "code", "topic", "bytes", "text", "head")
ROLLOUT_COLUMNS = (
    "id", "release", "phase", "committed", "under_way", "failed", "stuck", "pending", "devices", "created_ms", "text",
    "replaced", "removed", "air_bytes", "bundle_bytes", "scope", "forecast_bytes",
)  # fmt: skip
GROUP_COLUMNS = (
    "group", "open", "devices", "committed", "under_way", "failed", "stuck", "pending", "needs_committed_ratio",
    "pauses_above_ratio", "forecast_bytes", "air_bytes", "skipped_by",
)  # fmt: skip
TROUBLE_COLUMNS = ("device", "group", "standing", "code", "replaced_by", "settled_ms")

PLACE_COLUMNS = (
    "device", "site", "state", "release", "asks", "audited", "wrong", "lower_risk", "upper_risk", "source_risk", "text",
)  # fmt: skip
VERDICT_COLUMNS = (
    "id", "kind", "devices", "since_ms", "until_ms", "windows", "provisional", "release", "cause", "action",
    "dismissed_by",
)  # fmt: skip


REPLAY_COLUMNS = ("device", "from_ms", "since_baseline", "windows", "log_value", "derived", "log_threshold", "same")


def replay_row(path: ReplayedPath, log_threshold: float) -> Row:
    """Return the row of a device whose evidence was derived again; ``derived`` is None if it was not."""
    return {
        "device": path.device, "from_ms": path.from_ms, "since_baseline": path.since_baseline,
        "windows": len(path.log_values), "log_value": path.log_value,
        "derived": path.log_values[-1] if path.log_values else None, "log_threshold": log_threshold,
        "same": path.same, "log_values": list(path.log_values), "missing": path.missing,
    }  # fmt: skip


def verdict_row(verdict: StoredVerdict) -> Row:
    """Return the row of a verdict; ``until_ms`` is 0 while it is open, ``action`` what a person does about it."""
    return {
        "id": verdict.id, "kind": verdict.kind.value, "devices": list(verdict.devices),
        "since_ms": verdict.first_window_ms, "until_ms": verdict.closed_ms, "windows": verdict.windows,
        "provisional": verdict.provisional, "release": verdict.release, "model": verdict.model,
        "attributes": dict(verdict.attributes), "detail": verdict.detail, "cause": verdict.cause,
        "action": verdict.action, "last_window_ms": verdict.last_window_ms, "opened_ms": verdict.opened_ms,
        "dismissed_ms": verdict.dismissed_ms, "dismissed_by": verdict.dismissed_by,
        "dismissed_why": verdict.dismissed_why,
    }  # fmt: skip


def verdict_info_row(verdict: VerdictInfo) -> Row:
    """Return the same row of a verdict that the API answered with."""
    return {
        "id": verdict.id, "kind": verdict.kind, "devices": list(verdict.devices), "since_ms": verdict.first_window_ms,
        "until_ms": verdict.closed_ms, "windows": verdict.windows, "provisional": verdict.provisional,
        "release": verdict.release, "model": verdict.model, "attributes": dict(verdict.attributes),
        "detail": verdict.detail, "cause": verdict.cause, "action": verdict.action,
        "last_window_ms": verdict.last_window_ms, "opened_ms": verdict.opened_ms,
        "dismissed_ms": verdict.dismissed_ms, "dismissed_by": verdict.dismissed_by,
        "dismissed_why": verdict.dismissed_why,
    }  # fmt: skip


COMMISSION_COLUMNS = ("id", "device", "from_ms", "decided_ms", "decided_by", "attribute", "value", "why")


def commission_row(commission: Commission) -> Row:
    """Return the row of a commission."""
    return asdict(commission)


def place_row(place: NewPlace) -> Row:
    """Return the row of a place; its error rate there lies between ``lower_risk`` and ``upper_risk``."""
    risks = {name: round(getattr(place, name), 4) for name in ("wrong", "lower_risk", "upper_risk", "source_risk")}
    return {**asdict(place), **risks, "state": place.state.value}


def device_row(device: Device, presence: Presence) -> Row:
    """Return the row of a device; by ``presence``, ``state`` is its current or its last reported one.

    ``concern``: what it does with its inputs while it answers none, else "".
    """
    update = device.reported.update if device.reported else None
    return {
        "device": device.device, "site": device.site, "attributes": dict(device.attributes),
        "state": device.state.value, "release": device.release,
        "phase": update.phase.value if update and update.phase else "", "code": update.code if update else "",
        "desired_gen": device.desired_gen, "desired_release": device.desired_release,
        "last_seen_ms": device.last_seen_ms, "enrolled_ms": device.enrolled_ms,
        "ended": device.ended, "ended_ms": device.ended_ms, "ended_why": device.ended_why,
        "presence": presence.value, "concern": device.answers_nothing, "tags": list(device.tags),
        "title": device.title, "muted_ms": device.muted_ms, "muted_until_ms": device.muted_until_ms,
        "muted_why": device.muted_why, "muted_by": device.muted_by,
    }  # fmt: skip


def audit_rows(audits: Sequence[AuditInfo]) -> list[Row]:
    """Return one row for each group of each release that is audited."""
    return [
        {
            "release": audit.release, "devices": f"{group.attribute} {group.value}" if group.attribute else "all",
            "scenes": group.risk.scenes, "wrong": round(group.risk.wrong, 3),
            "at_least": round(group.risk.at_least, 4), "at_most": round(group.risk.at_most, 4),
            "allowed": round(group.allowed, 4), "harmful": group.harmful, "since_ms": group.risk.since_ms,
            "waiting": audit.waiting, "samples_per_day": audit.samples_per_day,
        }
        for audit in audits for group in audit.groups
    ]  # fmt: skip


def release_rows(
    releases: Sequence[Release] | Sequence[ReleaseInfo], devices: Sequence[Device] | Sequence[DeviceInfo]
) -> list[Row]:
    """Return one row per release, over all target classes, in the order of publication."""
    running = Counter(device.release for device in devices)
    targets: dict[str, list[Release | ReleaseInfo]] = {}
    for release in releases:
        targets.setdefault(release.name, []).append(release)
    return [
        {
            "release": name, "model": found[0].model, "targets": ",".join(one.target for one in found),
            "registered_ms": found[0].registered_ms, "running": running[name],
            "withdrawn_ms": found[0].withdrawn_ms, "withdrawn_why": found[0].withdrawn_why,
            "withdrawn_by": found[0].withdrawn_by,
            "still_on": [one.device for one in devices if one.release == name] if found[0].withdrawn_ms else [],
        }
        for name, found in targets.items()
    ]  # fmt: skip


def event_row(event: LoggedEvent) -> Row:
    """Return the row of an event."""
    return {
        "id": event.id, "at_ms": event.at_ms, "severity": event.severity.value, "kind": event.kind, "code": event.code,
        "device": event.device or "", "text": event.text, "data": dict(event.data),
        "boot": event.boot, "seq": event.seq,
    }  # fmt: skip


def refused_row(event: LoggedEvent) -> Row:
    """Return the row of a refused message: the event that tells of it, and the first bytes of the message."""
    head = base64.b64decode(str(event.data.get("payload", "")))
    text = head.decode("utf-8", "replace")
    return {
        "id": event.id, "at_ms": event.at_ms, "device": event.device or event.data.get("sender", ""),
        "code": event.code, "topic": event.data.get("topic", ""), "bytes": event.data.get("bytes", 0),
        "text": event.text, "head": text if text.isprintable() else head.hex(),
    }  # fmt: skip


def rollout_row(rollout: Rollout) -> Row:
    """Return the row of a rollout with its number of devices by standing; a failure counts even if replaced."""
    counts, likely = count_members(rollout.members), total(rollout.members)
    return {
        "id": rollout.id, "release": rollout.release, "phase": rollout.phase.value,
        "committed": counts.committed, "failed": counts.failed, "stuck": counts.stuck, "pending": counts.pending,
        "under_way": sum(member.standing in IN_FLIGHT for member in rollout.members), "devices": counts.total,
        "replaced": replaced_count(rollout.members), "removed": removed_count(rollout.members),
        "created_ms": rollout.created_ms, "updated_ms": rollout.updated_ms, "code": rollout.code, "text": rollout.text,
        "air_bytes": sum(member.air_bytes for member in rollout.members),
        "bundle_bytes": sum(member.bundle_bytes for member in rollout.members),
        "failing": asdict(failing(rollout)),
        "waiting": waiting(rollout.members), "cautions": dict(rollout.cautions),
        "scope": rollout.scope.text, "newcomers": rollout.dynamic,
        "forecast_bytes": likely.air_bytes if likely else None, "forecast_upper": likely.upper if likely else 0,
        "groups": [group.name for group in rollout.groups],
        "bytes_by_group": {group.name: _air(rollout.group_members(at)) for at, group in enumerate(rollout.groups)},
        "skipped": {group.name: group.skipped_by for group in rollout.groups if group.skipped_by},
    }  # fmt: skip


def rollout_lines(rollout: Rollout) -> list[str]:
    """Return what a person asks first about one rollout: a line each, its name and its value, without what is empty."""
    shown = {
        "rollout": rollout.id, "release": rollout.release, "phase": rollout.phase.value, "text": rollout.text,
        "scope": rollout.scope.text, "created by": rollout.created_by, "approved by": ", ".join(rollout.approvals),
        "failing": failing(rollout).text if rollout.opened else "",
    }  # fmt: skip
    return name_lines(shown)


def name_lines(shown: Mapping[str, object]) -> list[str]:
    """Return a line for each name and its value, without what is empty."""
    return [f"{name:<11} {value}".translate(_BLANKS) for name, value in shown.items() if value]


def group_rows(rollout: Rollout) -> list[Row]:
    """Return a row for each group: its devices by standing, what it needs, and its bytes."""
    rows: list[Row] = []
    for at, group in enumerate(rollout.groups):
        members = rollout.group_members(at)
        counts = count_members(members)
        rows.append({
            "group": group.name, "open": "yes" if at < rollout.opened else "no", "devices": counts.total,
            "committed": counts.committed, "under_way": sum(one.standing in IN_FLIGHT for one in members),
            "failed": counts.failed, "stuck": counts.stuck, "pending": counts.pending,
            "needs_committed_ratio": group.success_ratio, "pauses_above_ratio": group.error_ratio,
            "skipped_by": group.skipped_by, **_air(members),
        })  # fmt: skip
    return rows


def trouble_rows(rollout: Rollout) -> list[Row]:
    """Return a row for each device that failed or is stuck, in the order of groups and names."""
    found = sorted((one for one in rollout.members if one.standing in IN_VAIN), key=lambda one: (one.group, one.device))
    return [
        {
            "device": one.device, "group": rollout.groups[one.group].name, "standing": one.standing.value,
            "code": one.code, "replaced_by": one.replaced_by, "settled_ms": one.settled_ms,
        }
        for one in found
    ]  # fmt: skip


def _air(members: Sequence[Member]) -> Row:
    """Return what the devices of a group were to fetch, None if nobody forecast it, and what they have fetched."""
    likely = total(members)
    return {
        "forecast_bytes": likely.air_bytes if likely else None, "forecast_upper": likely.upper if likely else 0,
        "air_bytes": sum(member.air_bytes for member in members),
    }  # fmt: skip


def as_json(rows: Sequence[Row]) -> str:
    """Return ``rows`` as a JSON array, one object per line."""
    return "[" + ",\n ".join(json.dumps(row) for row in rows) + "]"


def as_tsv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return a header line and a line per row; tabs and line ends inside a value become spaces, lists have commas."""
    lines = [columns, *([_text(row[name]).translate(_BLANKS) for name in columns] for row in rows)]
    return "\n".join("\t".join(line) for line in lines)


def _text(value: object) -> str:
    if value is None:
        return ""
    return ",".join(str(one) for one in value) if isinstance(value, list) else str(value)
