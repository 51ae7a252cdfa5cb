"""Records which settings of policy a server starts with, when they differ from those of its last start.

Who may write ``server.toml`` is decided by the files of the machine, so the record names the file and what changed,
and not a person.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from server.access.audit_log import AuditLog
from server.people import SERVER_ACTOR
from wire.canonical import canonical_bytes
from wire.codec import Json
from wire.errors import MessageError

ACT = "policy.change"
TABLES = ("access", "audit", "certificates", "drift", "enrolment", "ingest", "retention", "retraining", "rollout")
"""The tables of ``server.toml`` that decide what the server does; none of them holds a secret."""


def policy_of(config: object) -> dict[str, Json]:
    """Return the settings of policy by ``table.key``."""
    found: dict[str, Json] = {}
    for table in TABLES:
        section = getattr(config, table)
        for one in fields(section):
            value = getattr(section, one.name)
            found[f"{table}.{one.name}"] = _plain(value)
    return found


def note_policy(log: AuditLog, config: object, now_ms: int) -> bool:
    """Record the settings of policy if they changed since they were recorded last; return whether they did.

    The first record of a server has all of them as they are.
    """
    now = policy_of(config)
    last = log.last_of(ACT)
    before = last.data["settings"] if last is not None else {}
    known: Mapping[str, Json] = before if isinstance(before, Mapping) else {}
    changed: dict[str, Json] = {
        key: [known.get(key), now.get(key)] for key in sorted({*known, *now}) if known.get(key) != now.get(key)
    }
    if not changed:
        return False
    data: dict[str, Json] = {"settings": now, "changed": changed if last is not None else {}}
    log.add(SERVER_ACTOR, ACT, "server.toml", now_ms, data=data)
    return True


def _plain(value: object) -> Json:
    """Return ``value`` as JSON would give it back, so that it is compared with what was recorded."""
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    try:
        plain: Json = json.loads(canonical_bytes(value))
    except MessageError:  # a value that JSON lacks
        return str(value)
    return plain
