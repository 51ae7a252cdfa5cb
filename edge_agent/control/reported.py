"""Builds the device's reports: the ``reported`` document, its state, and the output of ``edge-agent status``. Pure.

Also counts unreadable messages and faults by kind, and limits how often each kind is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from edge_agent.control.supervisor import Supervisor
from edge_agent.errors import SourceError
from edge_agent.telemetry.spool import Spool
from edge_agent.telemetry.uplink import Uplink
from edge_agent.updater.storage.repair import Repair
from edge_agent.updater.storage.slots import SlotRelease, Slots
from edge_agent.updater.updater import Updater
from wire.codec import Json, to_document
from wire.messages import ANSWERS_NOTHING, DeviceState, InstalledRelease, Reported, UnreadInputs, UpdatePhase
from wire.software import InstalledSoftware

EVERY_MS = 60_000
KEPT_KINDS = 64


@dataclass(slots=True)
class EventLimiter:
    """Counts by kind; each kind is reported at most once in ``EVERY_MS``: never a flood of events."""

    counts: dict[str, int] = field(default_factory=dict)
    _said_ms: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str, now_ms: int) -> bool:
        """Count one; return whether to report it."""
        if kind not in self.counts and len(self.counts) >= KEPT_KINDS:
            kind = "other"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        said_ms = self._said_ms.get(kind)
        if said_ms is not None and now_ms - said_ms < EVERY_MS:
            return False
        self._said_ms[kind] = now_ms
        return True


NO_RELEASE = "no_release"
_BUSY = frozenset(
    {UpdatePhase.DOWNLOADING, UpdatePhase.VERIFYING, UpdatePhase.SHADOW, UpdatePhase.STAGED, UpdatePhase.PROBATION}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """``base``: the constant fields (boot, version, hardware, runtimes, attributes). ``disk``: its fault, or "".

    ``clock_error_ms``: of the device's own clock, and ``unread``: see ``Reported``. ``software`` takes the releases in
    the slots and the time.
    """

    base: Reported
    slots: Slots
    updater: Updater
    supervisor: Supervisor
    repair: Repair
    disk: Callable[[], str] = lambda: ""
    clock_error_ms: Callable[[], int] = lambda: 0
    unread: Callable[[], UnreadInputs | None] = lambda: None
    software: Callable[[tuple[SlotRelease, ...], int], InstalledSoftware | None] = lambda _releases, _now_ms: None

    def reported(self, now_ms: int) -> Reported:
        """Return the full document."""
        current, previous = self.slots.current(), self.slots.previous()
        kept = tuple(one for one in (current, previous) if one is not None)
        return replace(
            self.base, gen=self.updater.record.desired.gen, at_ms=now_ms, current=_installed(current),
            previous=_installed(previous), update=self.updater.status, safe_mode=self.supervisor.safe_mode,
            reason=self.reason(), clock_error_ms=self.clock_error_ms(), unread=self.unread(),
            software=self.software(kept, now_ms),
        )  # fmt: skip

    def state(self) -> DeviceState:
        """Return the state: updating, init (no release yet), degraded (not run, or answers nothing), or ready."""
        if self.updater.record.phase in _BUSY:
            return DeviceState.UPDATING
        reason = self.reason()
        if not reason:
            return DeviceState.READY
        return DeviceState.INIT if reason == NO_RELEASE else DeviceState.DEGRADED

    def reason(self) -> str:
        """Return the code of why the device is not ready; "" if it is, or if only an update is in progress."""
        if self.supervisor.safe_mode:
            return "safe_mode"
        if self.disk():
            return self.disk()
        if self.repair.code:
            return self.repair.code
        if self.supervisor.wanted is None:
            return NO_RELEASE
        if self.supervisor.serving is not None:
            return ANSWERS_NOTHING if self.unread() is not None else ""
        return SourceError.code if self.supervisor.without_source else "not_serving"

    def status(self, *, connected: bool) -> dict[str, Json]:
        """Return the part of ``edge-agent status`` that is written at once when it changes."""
        document = to_document(self.reported(0))
        del document["at_ms"]
        serving = self.supervisor.serving is not None
        return {
            **document,
            "state": self.state().value,
            "reason": self.reason(),
            "serving": serving,
            "connected": connected,
        }


def running(uplink: Uplink, spool: Spool, limiter: EventLimiter) -> dict[str, Json]:
    """Return the rest of ``edge-agent status``, up to a minute old: the spool, and counts of unreadable messages."""
    idle_s = uplink.transport.idle_s()
    return {
        "idle_s": idle_s if math.isfinite(idle_s) else -1.0, "spool_rows": spool.count(),
        "spool_bytes": spool.held_bytes, "spool_dropped": sum(spool.dropped().values()),
        "dropped": dict(spool.dropped()), "merged": spool.merged(),
        "garbage": dict(limiter.counts),
    }  # fmt: skip


def _installed(release: SlotRelease | None) -> InstalledRelease | None:
    return InstalledRelease(release.release, release.sha256) if release is not None else None
