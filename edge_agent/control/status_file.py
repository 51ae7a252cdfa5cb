"""``status.json``: the running agent's last status, and whether it can still be true.

Decides when the file is written (changes at once, figures once a minute: a write each second wears out flash) and how
a reader judges it. The lock decides whether an agent runs, because the file outlives a killed process. The file's age
is measured by the monotonic clock, which is valid within one boot of the machine; a held lock proves that the boot is
the same. Written without a flush to the disk: it is only for readers on the running machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_agent.device.disk import DISK_FULL, DISK_READ_ONLY, trouble, write_error
from edge_agent.device.lock import holder
from edge_agent.device.record_file import read_record, record_bytes
from edge_agent.errors import IdentityError
from wire.codec import Json
from wire.errors import MessageError
from wire.messages import ANSWERS_NOTHING

FILE = "status.json"
EVERY_S = 60.0
STALE_S = 3 * EVERY_S
"""A running loop writes every ``EVERY_S``; the rest allows for a machine whose disk hangs."""
_LATE_S = 1.5 * EVERY_S
_AT = "written_monotonic_s"


class AgentHealth(StrEnum):
    """The reader's verdict."""

    SERVING = "serving"
    NOT_RUNNING = "not running"
    STALE = "stale"
    WAITING = "waiting for a first release"
    REFUSED = "refused by the broker"
    DEGRADED = "degraded"
    ANSWERS_NOTHING = "answers nothing"


@dataclass(slots=True)
class StatusFile:
    """Writes the file below ``state``. ``facts`` are worth a write when they change, ``figures`` once a minute."""

    state: Path
    _facts: Mapping[str, Json] | None = None
    _due_s: float = float("-inf")

    def write(self, facts: Mapping[str, Json], figures: Mapping[str, Json], now_s: float) -> bool:
        """Write the file if it is due; return whether it was. ``now_s``: of the monotonic clock.

        Raises:
            OSError: If it can't be written; the next call tries again.
        """
        if facts == self._facts and now_s < self._due_s:
            return False
        path = self.state / FILE
        new = path.with_suffix(".new")
        data = record_bytes({**figures, **facts, _AT: time.monotonic()})
        try:
            new.write_bytes(data)
            new.replace(path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            _write_over(path, data)
        self._facts, self._due_s = dict(facts), now_s + EVERY_S
        return True


def _write_over(path: Path, data: bytes) -> None:
    """Overwrite the file in place: on a full disk an agent that serves must not look like one that hangs."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data.ljust(os.fstat(descriptor).st_size), 0)  # padded: a reader never sees half
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """The file as read. ``pid`` of 0: no agent runs; ``age_s`` of -1: unknown."""

    document: Mapping[str, Json]
    health: AgentHealth
    pid: int
    age_s: float


def read_status(state: Path) -> AgentStatus:
    """Return the last status of the agent on ``state``, with the verdict on it.

    Raises:
        IdentityError: If no agent has ever written one there.
    """
    pid = holder(state)
    try:
        document = read_record(state / FILE)
        written_s = time.time() - (state / FILE).stat().st_mtime
    except (OSError, MessageError) as error:
        message = f"Expected the status of an agent in {state}, got: {error}: start it with edge-agent run"
        raise IdentityError(message) from error
    at_s = document.pop(_AT, None)
    age_s = time.monotonic() - at_s if pid and isinstance(at_s, int | float) else written_s
    age_s = round(age_s, 1) if age_s >= 0 else -1.0  # a clock was set back, or another boot wrote it
    late = pid != 0 and age_s > _LATE_S  # before that, a read-only mount may be the reader's own
    reason = trouble(state, write_error(state) if late else None)
    unwritable = reason == DISK_FULL or (late and reason == DISK_READ_ONLY)
    if unwritable:  # the agent can't write it
        document |= {"state": "degraded", "reason": reason}
    return AgentStatus(
        document=document,
        health=AgentHealth.DEGRADED if pid and unwritable else _health(document, pid, age_s),
        pid=pid,
        age_s=age_s,
    )


def _health(document: Mapping[str, Json], pid: int, age_s: float) -> AgentHealth:
    """Return the first verdict that applies; an earlier one makes later ones irrelevant."""
    if not pid:
        return AgentHealth.NOT_RUNNING
    if not 0 <= age_s <= STALE_S:
        return AgentHealth.STALE
    if document.get("current") is None and document.get("serving") is not True and document.get("state") != "degraded":
        return AgentHealth.REFUSED if document.get("refused") else AgentHealth.WAITING  # what it waits for can't come
    if document.get("serving") is True and document.get("reason") == ANSWERS_NOTHING:
        return AgentHealth.ANSWERS_NOTHING
    if document.get("serving") is not True or document.get("safe_mode") is True or document.get("state") == "degraded":
        return AgentHealth.DEGRADED
    return AgentHealth.SERVING
