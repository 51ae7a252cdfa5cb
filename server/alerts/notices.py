"""What is sent about an alert: the document of a webhook, from which mail and messages are written; pure.

A document is made when the alert changes and stored with it, so that what arrives late says what was so then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from server.alerts.config import AlertRoute
from server.alerts.model import Alert, AlertSeverity, NoticeEvent
from wire.codec import Json

VERSION = 1
_NAMED = 20
PROMISE = (
    "An alert is sent at least once: the same Idempotency-Key twice is one notice. A verdict is statistics: over all "
    "devices and a year a healthy fleet has false alarms, within the budget in docs/explanation/drift.md."
)
"""What an alert promises and what it does not; it stands wherever alerts are shown."""
_SUBJECTS = {
    NoticeEvent.OPENED: "",
    NoticeEvent.REOPENED: "again: ",
    NoticeEvent.CHANGED: "worse: ",
    NoticeEvent.RESOLVED: "over: ",
    NoticeEvent.TEST: "trial: ",
}


def fits(route: AlertRoute, alert: Alert, sites: Sequence[str], event: NoticeEvent) -> bool:
    """Return whether ``alert``, which concerns ``sites``, goes by ``route``."""
    if alert.severity.rank < AlertSeverity(route.severity).rank:
        return False
    if route.kinds and alert.kind.value not in route.kinds:
        return False
    if event is NoticeEvent.RESOLVED and not route.resolved:
        return False
    return not route.sites or any(fnmatchcase(site, pattern) for site in sites for pattern in route.sites)


def document_of(alert: Alert, event: NoticeEvent, now_ms: int, text: str, base_url: str) -> str:
    """Return the document about ``alert`` as JSON; ``base_url``: the server's address for people, "" if none is set."""
    found: dict[str, Json] = {
        "version": VERSION, "event": event.value, "at_ms": now_ms, "text": text,
        "alert": {
            "id": alert.id, "key": alert.key, "kind": alert.kind.value, "severity": alert.severity.value,
            "state": alert.state.value, "title": alert.title, "cause": alert.cause, "action": alert.action,
            "devices": list(alert.devices), "device_count": alert.device_count, "sites": list(alert.sites),
            "owner": alert.owner, "opened_ms": alert.opened_ms, "resolved_ms": alert.resolved_ms,
            "reopened": alert.reopened, "verdict": alert.verdict,
        },
        "link": f"{base_url}/alerts?id={alert.id}" if base_url else "",
        "page": f"{base_url}{alert.page}" if base_url else "",
        "promise": PROMISE,
    }  # fmt: skip
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def subject_of(document: dict[str, Json]) -> str:
    """Return the subject of a mail about a document: one line."""
    alert = _table(document["alert"])
    prefix = _SUBJECTS[NoticeEvent(str(document["event"]))]
    return " ".join(f"[tinyfleet {alert['severity']}] {prefix}{alert['title']}".split())[:200]


def text_of(document: dict[str, Json]) -> str:
    """Return a document in words, for a mail or a message."""
    alert = _table(document["alert"])
    devices, count = alert["devices"], alert["device_count"]
    lines = [str(alert["title"]) + ".", "", f"What:       {alert['cause']}", f"What to do: {alert['action']}"]
    if isinstance(devices, list) and devices and isinstance(count, int):
        more = count - len(devices[:_NAMED])
        named = ", ".join(str(one) for one in devices[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"Devices:    {count}: {named}")
    if isinstance(alert["sites"], list) and alert["sites"]:
        lines.append(f"Sites:      {', '.join(str(one) for one in alert['sites'][:_NAMED])}")
    lines += [f"Owner:      {alert['owner']}"] if alert["owner"] else []
    lines.append(f"Since:      {_time(alert['opened_ms'])}")
    lines.append(f"Now:        {document['event']} at {_time(document['at_ms'])}: {document['text']}")
    lines += [f"Page:       {document[name]}" for name in ("link", "page") if document[name]]
    return "\n".join([*lines, "", str(document["promise"])]) + "\n"


def _time(at_ms: Json) -> str:
    return datetime.fromtimestamp((at_ms if isinstance(at_ms, int) else 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _table(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def routes_for(
    routes: Iterable[AlertRoute], alert: Alert, sites: Sequence[str], event: NoticeEvent
) -> tuple[str, ...]:  # fmt: skip
    """Return the names of the ``routes`` by which ``alert`` goes."""
    return tuple(route.name for route in routes if fits(route, alert, sites, event))
