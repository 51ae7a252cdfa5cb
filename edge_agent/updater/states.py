"""The update state machine: every transition in one table, and what is persisted. Pure.

Decides which phase follows which signal. Does not act: ``updater`` does, after it has persisted the record.
One rule keeps exactly one of {old, new} current over any crash: the record is written first, then the step it
names is taken, and every step is idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from edge_agent.errors import TransitionError
from wire.codec import OMIT_DEFAULT
from wire.messages import Desired, UpdatePhase, UpdateStatus
from wire.shadow import ShadowCounts
from wire.tuf_target import Delta


class Signal(StrEnum):
    """What happened to an update."""

    OFFER = "offer"  # a desired of a higher generation
    CLEAR = "clear"  # a desired of a higher generation that names no release
    WAIT = "wait"  # outside the maintenance window, or refused for a reason that passes
    OPEN = "open"  # the window has opened, or it is time for another try
    PRESENT = "present"  # the release is current already
    ACCEPTED = "accepted"  # signed metadata agrees, and the release may run here
    FETCHED = "fetched"  # the bundle is in the blob folder and its digest is right
    PROVED = "proved"  # bundle checked, golden vectors and budgets within limits
    COMPARE = "compare"  # proved, and to be compared with the release that serves
    COMPARED = "compared"  # the shadow is over: the bundle is checked again, hours may have passed
    SWITCHED = "switched"  # the slot is current
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    REFUSE = "refuse"
    RECALL = "recall"  # a person on site goes back to the release before


_P, _S = UpdatePhase, Signal
TRANSITIONS: Mapping[tuple[UpdatePhase, Signal], UpdatePhase] = {
    (_P.IDLE, _S.OFFER): _P.OFFERED,
    (_P.COMMITTED, _S.OFFER): _P.OFFERED,
    (_P.ROLLED_BACK, _S.OFFER): _P.OFFERED,
    (_P.REFUSED, _S.OFFER): _P.OFFERED,
    (_P.OFFERED, _S.OFFER): _P.OFFERED,
    (_P.DEFERRED, _S.OFFER): _P.OFFERED,
    (_P.DOWNLOADING, _S.OFFER): _P.OFFERED,
    (_P.VERIFYING, _S.OFFER): _P.OFFERED,
    (_P.SHADOW, _S.OFFER): _P.OFFERED,
    (_P.STAGED, _S.OFFER): _P.OFFERED,
    (_P.IDLE, _S.CLEAR): _P.IDLE,
    (_P.COMMITTED, _S.CLEAR): _P.IDLE,
    (_P.ROLLED_BACK, _S.CLEAR): _P.IDLE,
    (_P.REFUSED, _S.CLEAR): _P.IDLE,
    (_P.OFFERED, _S.CLEAR): _P.IDLE,
    (_P.DEFERRED, _S.CLEAR): _P.IDLE,
    (_P.DOWNLOADING, _S.CLEAR): _P.IDLE,
    (_P.VERIFYING, _S.CLEAR): _P.IDLE,
    (_P.SHADOW, _S.CLEAR): _P.IDLE,
    (_P.STAGED, _S.CLEAR): _P.IDLE,
    (_P.OFFERED, _S.WAIT): _P.DEFERRED,
    (_P.DOWNLOADING, _S.WAIT): _P.DEFERRED,
    (_P.VERIFYING, _S.WAIT): _P.DEFERRED,
    (_P.DEFERRED, _S.WAIT): _P.DEFERRED,
    (_P.DEFERRED, _S.OPEN): _P.OFFERED,
    (_P.OFFERED, _S.PRESENT): _P.COMMITTED,
    (_P.OFFERED, _S.ACCEPTED): _P.DOWNLOADING,
    (_P.DOWNLOADING, _S.FETCHED): _P.VERIFYING,
    (_P.VERIFYING, _S.PROVED): _P.STAGED,
    (_P.VERIFYING, _S.COMPARE): _P.SHADOW,
    (_P.SHADOW, _S.COMPARED): _P.VERIFYING,
    (_P.STAGED, _S.SWITCHED): _P.PROBATION,
    (_P.PROBATION, _S.HEALTHY): _P.COMMITTED,
    (_P.PROBATION, _S.UNHEALTHY): _P.ROLLED_BACK,
    (_P.COMMITTED, _S.RECALL): _P.PROBATION,  # with a ``code``: which it has failed at once
    (_P.OFFERED, _S.REFUSE): _P.REFUSED,
    (_P.DEFERRED, _S.REFUSE): _P.REFUSED,
    (_P.DOWNLOADING, _S.REFUSE): _P.REFUSED,
    (_P.VERIFYING, _S.REFUSE): _P.REFUSED,
    (_P.SHADOW, _S.REFUSE): _P.REFUSED,
    (_P.STAGED, _S.REFUSE): _P.REFUSED,
}
IN_FLIGHT = frozenset({_P.OFFERED, _P.DEFERRED, _P.DOWNLOADING, _P.VERIFYING, _P.SHADOW, _P.STAGED, _P.PROBATION})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRecord:
    """``update.json``.

    In probation a ``code`` means: decided to roll back, maybe not done yet. While deferred it names the awaited
    condition; none: the maintenance window.

    ``length_bytes``, ``security_floor``, ``artifact_sha256`` and ``deltas`` come from signed metadata, ``slot`` is the
    bundle's slot, ``previous_slot`` the slot that was current before (empty: none), ``latency_budget_ms`` the
    manifest's, ``class_shares`` how often the reference predicts each class, ``usual_shares`` how often the previous
    release did on this device, ``usual_error_ratio`` the share of inputs that the previous release could not serve.
    ``until_ms``: when a deferred update goes on, 0 if that is unknown. ``imported``: a person brought the
    release; it lies in ``import`` below the state directory.
    ``fetched_bytes``: what the attempt received over the network; None: it began with an older agent, which did not
    count. ``held_bytes``: what was here of its files when its download began, so that what came before a kill is known.
    ``shadow``: the counts of its shadow, ``shadow_over`` whether that is over, ``shadow_starts`` how often the agent or
    the machine ended in it. ``replay``: how the release answers inputs that the one before had served.
    ``answered``: how many inputs it has answered, once it is committed.
    """

    phase: UpdatePhase | None = UpdatePhase.IDLE
    desired: Desired = field(default_factory=Desired)
    code: str = ""
    text: str = ""
    since_ms: int = 0
    length_bytes: int = 0
    security_floor: int = 0
    artifact_sha256: str = ""
    deltas: tuple[Delta, ...] = ()
    slot: str = ""
    previous_slot: str = ""
    latency_budget_ms: float = 0.0
    class_shares: tuple[float, ...] = ()
    usual_shares: tuple[float, ...] = ()
    usual_error_ratio: float = 0.0
    until_ms: int = field(default=0, metadata=OMIT_DEFAULT)
    imported: bool = field(default=False, metadata=OMIT_DEFAULT)
    fetched_bytes: int | None = field(default=None, metadata=OMIT_DEFAULT)
    held_bytes: int = field(default=0, metadata=OMIT_DEFAULT)
    shadow: ShadowCounts | None = field(default=None, metadata=OMIT_DEFAULT)
    shadow_over: bool = field(default=False, metadata=OMIT_DEFAULT)
    shadow_starts: int = field(default=0, metadata=OMIT_DEFAULT)
    replay: ShadowCounts | None = field(default=None, metadata=OMIT_DEFAULT)
    answered: int | None = field(default=None, metadata=OMIT_DEFAULT)

    @property
    def in_flight(self) -> bool:
        """Whether an update is in progress."""
        return self.phase in IN_FLIGHT

    def status(self, done_bytes: int, fetched_bytes: int) -> UpdateStatus:
        """Return the update's status for ``reported``; the bytes are those of its progress so far."""
        return UpdateStatus(
            phase=self.phase,
            gen=self.desired.gen,
            release=self.desired.release,
            code=self.code,
            text=self.text,
            since_ms=self.since_ms,
            done_bytes=done_bytes,
            total_bytes=self.length_bytes,
            until_ms=self.until_ms if self.phase is UpdatePhase.DEFERRED else 0,
            fetched_bytes=None if self.fetched_bytes is None else fetched_bytes,
            shadow=self.shadow,
            replay=self.replay,
            answered=self.answered if self.phase is UpdatePhase.COMMITTED else None,
        )


def follow(record: UpdateRecord, signal: Signal, now_ms: int) -> UpdateRecord:
    """Return the record in the phase that ``signal`` leads to.

    Raises:
        TransitionError: If the table has no such transition.
    """
    phase = TRANSITIONS.get((record.phase or UpdatePhase.IDLE, signal))
    if phase is None:
        message = f"Expected a signal that {record.phase} knows, got {signal}"
        raise TransitionError(message)
    return replace(record, phase=phase, since_ms=now_ms)


def same_attempt(record: UpdateRecord, desired: Desired) -> bool:
    """Return whether ``desired`` only changes settings, so that no new attempt starts.

    The server numbers its assignments (``attempt``); a ``desired`` without a number, from an older server, is
    always a new attempt. Without a release there is nothing to attempt.
    """
    same = replace(record.desired, gen=desired.gen, config=desired.config) == desired
    return same and (desired.attempt > 0 or not desired.sha256)


def window_open(desired: Desired, now_ms: int) -> bool:
    """Return whether the maintenance window is open; a bound of 0 means none."""
    return now_ms >= desired.not_before_ms and (desired.not_after_ms == 0 or now_ms <= desired.not_after_ms)


def too_late(desired: Desired, now_ms: int) -> bool:
    """Return whether the attempt must end: the deadline, or the end of the window, has passed."""
    ends = [end_ms for end_ms in (desired.deadline_ms, desired.not_after_ms) if end_ms]
    return any(now_ms > end_ms for end_ms in ends)
