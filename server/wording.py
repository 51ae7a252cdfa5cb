"""Names and times in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000


def in_bytes(count_bytes: int) -> str:
    """Return a number of bytes for people: "420 kB"; "" for none."""
    if count_bytes <= 0:
        return ""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count_bytes >= unit:
            return f"{count_bytes / unit:.3g} {name}"
    return f"{count_bytes} B"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first ``most`` of ``names`` for a sentence, with the number of the rest."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def duration(length_ms: int) -> str:
    """Return a length of time in its largest whole unit; below a minute in tens of seconds."""
    for unit_ms, name in ((_DAY_MS, "d"), (_HOUR_MS, "h"), (_MINUTE_MS, "min")):
        if length_ms >= unit_ms:
            return f"{length_ms // unit_ms} {name}"
    return f"{length_ms // (10 * _SECOND_MS) * 10} s"


def utc_time(at_ms: int) -> str:
    """Return a time in UTC ms for a sentence; the number itself where a clock told an impossible one."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"
