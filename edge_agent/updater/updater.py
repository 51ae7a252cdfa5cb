"""The update shell: persists the record, then takes the step it names; blocking work runs on the worker.

Order rules:

1. The record is written before each step; every step is idempotent, so a restart takes the persisted one again.
2. A ``desired`` of an older generation is ignored, of the same one too; a newer one ends the attempt in flight
   (on probation: rolls it back first, unless it is the same release). One of the same attempt (other settings
   only) is stored and starts nothing. One without a release ends the attempt and leaves the current release.
3. Results carry the token of their job; those of an ended attempt are dropped.
4. An attempt refused for a temporary reason (``refusals``) is deferred and restarts at ``offered``, with back-off;
   nothing that depends on the time is judged while the time is not known.
5. A proved release may be compared with the current one first (``shadow``); then it is checked again.
6. A proved release is switched to inside of its maintenance window only (``maintenance``), and if the application
   agrees (``hook``); otherwise it is deferred, and verified again when it goes on.
7. Slots: set aside what the other one holds, fill it, switch, persist probation. To go back: persist the verdict,
   switch, and fill the slot with what was set aside: a failed try does not take away the release before.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_agent.config import UpdateConfig
from edge_agent.device.disk import Disk
from edge_agent.device.last_end import LastEnd
from edge_agent.device.record_file import Condition, condition
from edge_agent.device.sane_clock import ClockWatch
from edge_agent.errors import RequestRefusedError
from edge_agent.updater.maintenance import WINDOW_CODES, closed
from edge_agent.updater.ports import (
    SUPERSEDED,
    Consent,
    Fetcher,
    FetchOrder,
    FetchProgress,
    MemoryFetcher,
    MemoryVerifier,
    Prober,
    Proof,
    Refusal,
    SwitchHook,
    TargetInfo,
    Verifier,
    Worker,
    disk_refusal,
    part_of,
)
from edge_agent.updater.probation import (
    NO_ROOM,
    Health,
    Outputs,
    PhaseResult,
    ProbationLimits,
    Tries,
    judge,
    judge_shadow,
    longest_s,
)
from edge_agent.updater.refusals import DOUBTFUL_TRIES, Course, DeviceFacts, admit, course, space
from edge_agent.updater.states import Signal, UpdateRecord, follow, same_attempt, too_late, window_open
from edge_agent.updater.storage.slots import Records, SlotRelease, Slots, other
from wire.messages import Desired, UpdatePhase, UpdateStatus
from wire.shadow import ShadowCounts, ShadowOrder, merge_shadow

_LOG = logging.getLogger(__name__)
_P = UpdatePhase
_ANSWERS = frozenset({"application_busy", "hook_failed", "hook_hung"})
_LOOK_S = 1.0  # how often a closed window is looked at
_SHADOW_KEPT_S = 45.0  # as the counts of an open window: at most so many seconds of them are lost with the agent
RECALLED = "rolled_back_on_site"
"""The code of a rollback that a person on site asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePorts:
    """The updater's dependencies. ``hardware`` and ``runtimes`` describe the device.

    ``hook``: asked before a switch, again after ``ask_again_s``; None: nobody is asked.
    ``import_verifier`` and ``import_fetcher`` take a release that a person brought, without a network; those of the
    defaults refuse each.
    """

    verifier: Verifier
    fetcher: Fetcher
    prober: Prober
    worker: Worker
    hardware: str
    runtimes: tuple[str, ...]
    hook: SwitchHook | None = None
    ask_again_s: float = 60.0
    import_verifier: Verifier = field(default_factory=lambda: MemoryVerifier({}))
    import_fetcher: Fetcher = field(default_factory=lambda: MemoryFetcher({}, Path()))


@dataclass(frozen=True, slots=True)
class Recalled:
    """A rollback by a person: the release that was given up, and the one that is current now."""

    left: SlotRelease
    current: SlotRelease

    @property
    def text(self) -> str:
        """The rollback in words, for the record and the event."""
        return f"a person on site went back from {self.left.release} to {self.current.release}"


@dataclass(slots=True, kw_only=True)
class Updater:
    """One update at a time. ``activate`` makes the child serve a release (None: none); ``changed`` gets each phase.

    ``compare`` makes it run a release beside the one that serves (None: none any more).
    """

    state: Path
    disk: Disk
    ports: UpdatePorts
    config: UpdateConfig
    activate: Callable[[SlotRelease | None], None]
    changed: Callable[[UpdateRecord], None]
    compare: Callable[[SlotRelease | None], None] = lambda _challenger: None
    record: UpdateRecord = field(default_factory=UpdateRecord)
    health: Health = field(default_factory=Health)
    usual: Outputs = field(default_factory=Outputs)
    usual_tries: Tries = field(default_factory=Tries)
    damage: str = ""
    watch: ClockWatch = field(default_factory=ClockWatch)
    chance: random.Random = field(default_factory=random.Random)
    _token: int = 0
    _waiting: bool = False
    _progress: FetchProgress = field(default_factory=FetchProgress)
    _tries: int = 0
    _doubts: int = 0
    _again_s: float = 0.0
    _was_sane: bool = True
    _retry_s: float = float("inf")
    _probation_s: float = 0.0
    _deadline_s: float = float("inf")
    _proof: Proof | None = None
    _shadow_end_s: float = float("inf")
    _shadow_kept_s: float = 0.0

    @property
    def slots(self) -> Slots:
        """The slots below the state directory."""
        return Slots(self.state, self.disk)

    @property
    def _records(self) -> Records:
        return Records(self.state, self.disk)

    @property
    def _fetcher(self) -> Fetcher:
        return self.ports.import_fetcher if self.record.imported else self.ports.fetcher

    @property
    def status(self) -> UpdateStatus:
        """The update's status for ``reported``."""
        return self.record.status(self._progress.done_bytes, self._progress.fetched_bytes)

    def resume(self, now_ms: int, now_s: float, ended: LastEnd) -> None:
        """Read the persisted record and take its step again; ``damage`` then names what could not be read.

        ``ended``: how the agent's previous run ended, which may be the fault of a release in probation.
        """
        self.record, self.damage = self._records.read()
        self._count_on()
        if self.record.phase is _P.PROBATION and not self.record.code and ended is not LastEnd.IN_ORDER:
            machine = ended is LastEnd.MACHINE
            allowed = self.config.max_machine_ends if machine else self.config.max_boots
            count = self.slots.count_start(self.record.slot, machine=machine)
            if count > allowed:  # a release that keeps crashing the agent, or the machine, must not stay
                what = "ends of the machine" if machine else "starts"
                text = f"Expected a healthy start, got {count} {what} in probation"
                self._keep(replace(self.record, code="child_crashed", text=text))
        elif self.record.phase is _P.SHADOW and ended is not LastEnd.IN_ORDER:
            self._keep(replace(self.record, shadow_starts=self.record.shadow_starts + 1))
            if self.record.shadow_starts > self.config.max_boots:
                text = f"Expected an agent that runs on beside a challenger, got {self.record.shadow_starts} ends of it"
                self._refuse(Refusal("challenger_crashed", text), now_ms)
        self._step(now_ms, now_s)

    def offer(self, desired: Desired, now_ms: int, now_s: float) -> bool:
        """Take a desired state; return whether it led to a phase that ``changed`` was called with."""
        if desired.gen <= self.record.desired.gen:
            return False
        if same_attempt(self.record, desired):
            self._records.write(replace(self.record, desired=desired))
            self.record = replace(self.record, desired=desired)
            return False
        if self.record.phase is _P.PROBATION and not self.record.code:
            if desired.sha256 == self.record.desired.sha256:
                self._enter(replace(self.record, desired=desired))
                return True
            self._roll_back(SUPERSEDED.code, SUPERSEDED.text, now_ms)
        same = self.record.phase is _P.COMMITTED and desired.sha256 == self.record.desired.sha256
        replay = self.record.replay if same else None  # what it answered again stays true
        answered = self.record.answered if same else None
        record = UpdateRecord(
            phase=self.record.phase, desired=desired, fetched_bytes=0, replay=replay, answered=answered
        )
        self._begin(record, now_ms, now_s)
        return True

    def turn(self, now_ms: int, now_s: float) -> None:
        """Judge windows, deadlines, retries and probation."""
        record, sane = self.record, self.watch.fault is None
        if sane and not self._was_sane:
            self._again_s = now_s  # what waited for the clock need not wait out its back-off
        self._was_sane = sane
        if record.phase is _P.PROBATION:
            self._judge(now_ms, now_s)
        elif record.in_flight and self.watch.known and too_late(record.desired, now_ms):
            self._refuse(Refusal("deadline_passed", "the window or deadline of this attempt is over"), now_ms)
        elif record.phase is _P.DEFERRED and self._open(now_ms) and now_s >= self._again_s and not self._waiting:
            self._go_on(now_ms, now_s)
        elif now_s >= self._retry_s:
            self._retry_s = float("inf")
            self._step(now_ms, now_s)
        elif record.phase is _P.SHADOW:
            self._judge_shadow(now_ms, now_s)
        elif now_s >= self._deadline_s:
            self._end_job()
            self._fail(Refusal("stuck", f"Expected an end of {record.phase} in time, got none"), now_ms, now_s)

    def finished(self, token: int, result: object, now_ms: int, now_s: float) -> None:
        """Take the result of a job."""
        if token != self._token or not self._waiting:
            return
        self._waiting = False
        self._deadline_s = float("inf")
        if isinstance(result, OSError):
            if result.errno in {errno.EAGAIN, errno.ENOMEM}:
                result = Refusal("launch_failed", f"Expected to start a job, got: {result}")
            else:
                result = disk_refusal(result, f"Expected to read and write below {self.state}, got: {result}")
        elif isinstance(result, Exception):
            _LOG.error("update job failed phase=%s", self.record.phase, exc_info=result)
            result = Refusal(getattr(result, "code", "internal"), f"{type(result).__name__}: {result}"[:300])
        if isinstance(result, Refusal):
            self._fail(result, now_ms, now_s)
        elif self.record.phase is _P.OFFERED and isinstance(result, TargetInfo):
            self._admit(result, now_ms, now_s)
        elif self.record.phase is _P.DOWNLOADING:
            self._enter(follow(replace(self.record, text=self._progress.how), Signal.FETCHED, now_ms))
            self._step(now_ms, now_s)
        elif self.record.phase is _P.VERIFYING and isinstance(result, Proof):
            self._proof = result
            self._consider(result, now_ms, now_s)
        elif isinstance(result, Consent):
            self._agreed(now_ms, now_s)

    def compared(self, counts: ShadowCounts, now_s: float) -> bool:
        """Add counts of the shadow; return whether they were written, as they are now and then.

        Raises:
            OSError: If they can't be written.
        """
        if self.record.phase is not _P.SHADOW:
            return False
        before = self.record.shadow or ShadowCounts()
        self.record = replace(self.record, shadow=merge_shadow((before, counts)))
        if now_s < self._shadow_kept_s:
            return False
        self._shadow_kept_s = now_s + _SHADOW_KEPT_S
        self._records.write(self.record)
        return True

    def replayed(self, counts: ShadowCounts) -> bool:
        """Keep how the new release answered inputs of the one before; return whether that is news.

        Raises:
            OSError: If it can't be written.
        """
        known = self.record.replay
        if self.record.phase not in {_P.PROBATION, _P.COMMITTED} or (known and known.n + known.errors):
            return False
        self._keep(replace(self.record, replay=counts))
        return True

    def answered(self) -> bool:
        """Record that a release that was committed without one has answered inputs; return whether that is news.

        The text that says why it had answered none ends: the event of the commit has it.

        Raises:
            OSError: If it can't be written.
        """
        record = self.record
        if record.phase is not _P.COMMITTED or record.answered != 0 or not self.health.inferences:
            return False
        self._keep(replace(record, answered=self.health.inferences, text=""))
        return True

    def stop(self) -> bool:
        """Write the counts of a shadow under way before the agent ends; return whether there is one.

        Raises:
            OSError: If they can't be written.
        """
        if self.record.phase is not _P.SHADOW:
            return False
        self._records.write(self.record)
        return True

    def challenger_ended(self, code: str, text: str, now_ms: int, now_s: float) -> None:
        """End the shadow because its challenger did: it is refused, or goes on without if there was no room for two."""
        order = self.record.desired.shadow
        if self.record.phase is not _P.SHADOW or order is None:
            return
        if code == NO_ROOM and not order.required:
            self._end_shadow(PhaseResult(True, "", f"{text}: not compared"), now_ms, now_s)
        else:
            self._end_shadow(PhaseResult(True, code, text), now_ms, now_s)

    def floor(self) -> int | None:
        """Return the security floor, None when it is lost."""
        trial = self.record.phase in {_P.STAGED, _P.PROBATION}
        return self.slots.floor(self.record.slot if trial else "")

    def bring(self, wish: Desired, now_ms: int, now_s: float) -> None:
        """Begin to install a release that a person brought.

        It has the generation of the last ``desired``, so that the server's next one counts, whatever it names. ``wish``
        needs a release, target, digest, length and probation.

        Raises:
            RequestRefusedError: If another release is in its probation.
            OSError: If it can't be written.
        """
        if self.record.phase in {_P.STAGED, _P.PROBATION}:
            text = f"Expected no release in its probation, got {self.record.desired.release}"
            raise RequestRefusedError("busy", f"{text}: import it when that has ended (edge-agent status)")
        old = self.record.desired
        desired = replace(wish, gen=old.gen, attempt=old.attempt, config=old.config)
        record = UpdateRecord(phase=self.record.phase, desired=desired, imported=True, fetched_bytes=0)
        self._begin(record, now_ms, now_s)

    def recall(self, leaving: str, now_ms: int) -> Recalled:
        """Go back to the release before the one that should run, as a person on site decided; return both.

        It stays until the server assigns another release. ``leaving``: the digest that the person saw as current, ""
        for any. The release that is left is given up: its slot is emptied. An attempt in flight goes on.

        Raises:
            RequestRefusedError: If there is no release before, or it may not or can't run.
            OSError: If it can't be written. A rollback that is persisted is finished later.
        """
        record, slots = self.record, self.slots
        held, committed = slots.read(record.slot), committed_release(record)
        trial = record.phase is _P.PROBATION
        own = trial or (held is not None and committed is not None and held.sha256 == committed.sha256)
        name = record.slot if own else slots.current_name()  # its slot, also if the other is current because it fails
        bad, good = slots.read(name), slots.read(other(name))
        if trial and record.previous_slot != other(name):
            good = None
        if bad is None:
            text = "Expected an installed release, got none: roll one out on the server"
            raise RequestRefusedError("no_release", text)
        found = Recalled(bad, self._way_back(bad, good, leaving))
        slots.clear_starts(other(name))  # asked for: it may try again
        if trial:
            self._roll_back(RECALLED, found.text, now_ms)
        elif own:
            slots.set_aside(None)  # a commit that a power cut ended before it could
            verdict = replace(record, code=RECALLED, text=found.text, previous_slot=other(name))
            self._keep(follow(verdict, Signal.RECALL, now_ms))
            self._finish_roll_back(now_ms)
        else:  # the record is about another release
            slots.switch(other(name))
            slots.empty(name)
            self.activate(found.current)
            self.reclaim()
        self.usual, self.usual_tries = Outputs(), Tries()  # were those of the release that was left
        if self.record.phase is _P.SHADOW:  # what was compared was compared with it
            self._keep(replace(self.record, shadow=None))
        return found

    def _way_back(self, bad: SlotRelease, good: SlotRelease | None, leaving: str) -> SlotRelease:
        """Return ``good`` if the device may go back to it from ``bad``."""
        if self.record.phase is _P.STAGED or (self.record.phase is _P.PROBATION and self.record.code):
            text = "Expected no change of releases under way, got one: look at edge-agent status"
            raise RequestRefusedError("busy", text)
        current = self.slots.current()
        if current is not None and leaving not in {"", current.sha256}:
            text = f"Expected the release that was current when it was asked, got {current.release}: it has changed"
            raise RequestRefusedError("changed", f"{text}; look at edge-agent status")
        if good is None:
            text = f"Expected a committed release before {bad.release} on this device, got none"
            hint = "roll one out on the server (of another model: rollouts create --move), or use edge-agent import"
            raise RequestRefusedError("no_previous", f"{text}: {hint}")
        floor = self.floor()
        if floor is None:
            text = "Expected the security floor in floor.json, its copy or a slot, got none that is whole"
            text = f"{text}: what serves goes on; enrol this device again in a new --state"
            raise RequestRefusedError("floor_lost", text)
        if good.security_floor < floor:
            text = f"Expected {good.release} to have a security floor of at least {floor}, got {good.security_floor}"
            raise RequestRefusedError(
                "below_security_floor", f"{text}: {bad.release} closed a hole; assign a newer one"
            )
        if condition(self.slots.bundle(good.sha256), good.sha256) is not Condition.WHOLE:
            text = f"Expected the bundle of {good.release} as it was installed, got a damaged one or none"
            raise RequestRefusedError("bundle_damaged", f"{text}: a running agent fetches it again from the server")
        return good

    def reclaim(self, keep: frozenset[str] | None = None) -> None:
        """Remove bundles that no slot points at, except ``keep``: by default the bundle of the attempt in flight.

        The release that was set aside goes, too, once the attempt that took its slot has ended.

        One that can't be removed is not an error: ``repair`` calls this again after each inspection.
        """
        if keep is None:
            keep = frozenset({self.record.desired.sha256} if self.record.in_flight else ())
        try:
            if self.record.phase not in {_P.STAGED, _P.PROBATION}:
                self.slots.set_aside(None)
            self.slots.reclaim(keep)
        except OSError as error:
            _LOG.warning("old bundles could not be removed error=%s", error)

    def postpone(self, until_s: float) -> None:
        """Take the step again at ``until_s``: the disk failed."""
        self._end_job()
        self._retry_s = until_s

    def _go_on(self, now_ms: int, now_s: float) -> None:
        """Offer a deferred update again, unless its window is still closed or the application is to be asked first."""
        record, hook = self.record, self.ports.hook
        if record.code in WINDOW_CODES and (shut := closed(record.desired, now_ms, known=self.watch.known)):
            self._again_s = now_s + _LOOK_S
            if (shut.code, shut.until_ms) != (record.code, record.until_ms):  # the clock was set
                self._notify_first(replace(record, code=shut.code, text=shut.text, until_ms=shut.until_ms))
            return
        if record.code in _ANSWERS and hook is not None:
            self._ask(hook)
            return
        self._reopen(now_ms, now_s)

    def _reopen(self, now_ms: int, now_s: float) -> None:
        record, opened = self.record, follow(self.record, Signal.OPEN, now_ms)
        if record.code:  # the reason why it was deferred stays until it gets beyond that point
            self.record = replace(opened, since_ms=record.since_ms)
        else:
            self._enter(opened)
        self._step(now_ms, now_s)

    def _agreed(self, now_ms: int, now_s: float) -> None:
        """Switch, or after a wait verify again first: then the application is asked once more."""
        if self.record.phase is _P.VERIFYING and self._proof is not None:
            self._consider(self._proof, now_ms, now_s, agreed=True)
        elif self.record.phase is _P.DEFERRED:
            self._reopen(now_ms, now_s)

    def _begin(self, record: UpdateRecord, now_ms: int, now_s: float) -> None:
        """End the attempt in flight and begin the one of ``record``, which has its phase."""
        self._undo_switch()
        self._end_job()
        self._progress = FetchProgress()
        self._tries = self._doubts = 0
        self._again_s = 0.0
        floor = self.floor()
        if floor is not None:  # before the first slot is filled: from then on a floor that is missing was lost
            self.slots.raise_floor(floor)
        self._records.write_gen(record.desired.gen)
        self._enter(follow(record, Signal.OFFER if record.desired.sha256 else Signal.CLEAR, now_ms))
        self._step(now_ms, now_s)

    def _judge_shadow(self, now_ms: int, now_s: float) -> None:
        order, counts = self.record.desired.shadow or ShadowOrder(), self.record.shadow or ShadowCounts()
        too_long = now_s >= self._shadow_end_s
        self._end_shadow(judge_shadow(order, counts, self.config.max_error_ratio, too_long=too_long), now_ms, now_s)

    def _end_shadow(self, result: PhaseResult, now_ms: int, now_s: float) -> None:
        if result.over and result.code:
            self._refuse(Refusal(result.code, result.text), now_ms)
        elif result.over:
            self.compare(None)
            self._enter(replace(follow(self.record, Signal.COMPARED, now_ms), shadow_over=True, text=result.text))
            self._step(now_ms, now_s)

    def _fail(self, refusal: Refusal, now_ms: int, now_s: float) -> None:
        if refusal.code == "digest_mismatch" and self.record.phase is _P.VERIFYING:
            self.disk.remove(self.slots.bundle(self.record.desired.sha256))
        kind = course(refusal.code)
        self._doubts += kind is Course.DOUBTFUL
        if kind is Course.FINAL or self._doubts >= DOUBTFUL_TRIES:
            self._refuse(refusal, now_ms)
            return
        # deferred with its reason; the same reason again is neither reported nor written again
        old, config = self.record, self.config
        if refusal.code in _ANSWERS:
            wait_s = self.ports.ask_again_s
        else:
            self._tries += 1
            ceiling_s = min(config.defer_max_s, config.retry_min_s * 2.0 ** min(self._tries, 30))
            wait_s = max(config.retry_min_s, self.chance.uniform(0.0, ceiling_s))
        self._again_s, until_ms = now_s + wait_s, now_ms + round(wait_s * 1000)
        waiting = follow(old, Signal.WAIT, now_ms)
        record = replace(waiting, code=refusal.code, text=refusal.text, until_ms=until_ms)
        if refusal.code == "no_space":
            self.reclaim(frozenset())  # what others write is worth more than half of a download
        if old.phase in {_P.OFFERED, _P.DEFERRED} and old.code == refusal.code:
            self.record = replace(record, since_ms=old.since_ms)
        else:
            self._notify_first(record)

    def _open(self, now_ms: int) -> bool:
        """Return whether the maintenance window is open; never while the time is unknown."""
        desired = self.record.desired
        bound = bool(desired.not_before_ms or desired.not_after_ms)
        return window_open(desired, now_ms) and (self.watch.known or not bound)

    def _admit(self, target: TargetInfo, now_ms: int, now_s: float) -> None:
        free_bytes = max(0, self.disk.free_bytes(self.state) - self.config.reserve_bytes)
        facts = DeviceFacts(
            hardware=self.ports.hardware,
            runtimes=self.ports.runtimes,
            security_floor=self.floor(),
            free_bytes=free_bytes,
        )
        blob = self.slots.bundle(target.sha256)
        held = [path.stat().st_size for path in (blob, part_of(blob)) if path.exists()]
        refusal = admit(self.record.desired, target, facts) or space(
            target.length_bytes, max(held, default=0), free_bytes
        )
        if refusal is not None:
            self._fail(refusal, now_ms, now_s)
            return
        record = replace(
            self.record, code="", text="", until_ms=0, length_bytes=target.length_bytes,
            security_floor=target.custom.security_floor, artifact_sha256=target.custom.artifact_sha256,
            deltas=target.custom.deltas,
        )  # fmt: skip
        self._enter(follow(replace(record, held_bytes=self._held_bytes(record)), Signal.ACCEPTED, now_ms))
        self._step(now_ms, now_s)

    def _consider(self, proof: Proof, now_ms: int, now_s: float, *, agreed: bool = False) -> None:
        """Switch to the proved release, unless it is to be compared first, its window is closed, or to be ``agreed``.

        The shadow needs no window: the release answers nobody in it.
        """
        order = self.record.desired.shadow
        wanted = order is not None and order.seconds > 0 and not self.record.shadow_over
        if wanted and self.slots.current() is not None:
            self._enter(replace(follow(self.record, Signal.COMPARE, now_ms), shadow=ShadowCounts()))
            self._step(now_ms, now_s)
            return
        shut, hook = closed(self.record.desired, now_ms, known=self.watch.known), self.ports.hook
        if shut is not None:
            waiting = follow(self.record, Signal.WAIT, now_ms)
            self._notify_first(replace(waiting, code=shut.code, text=shut.text, until_ms=shut.until_ms))
            return
        if hook is not None and not agreed and self.slots.current() is not None:
            self._ask(hook)
            return
        current = self.slots.current_name()
        held = self.slots.read(other(current))
        self.slots.set_aside(held if held is not None and held.sha256 != self.record.desired.sha256 else None)
        record = replace(
            self.record, slot=other(current), previous_slot=current, latency_budget_ms=proof.latency_budget_ms,
            class_shares=proof.class_shares, usual_shares=self.usual.shares,
            usual_error_ratio=self.usual_tries.error_ratio,
        )  # fmt: skip
        self._enter(follow(record, Signal.PROVED, now_ms))
        self._step(now_ms, now_s)

    def _step(self, now_ms: int, now_s: float) -> None:
        """Take the step of the record's phase; may be taken again after a crash."""
        record = self.record
        if record.phase is _P.OFFERED:
            self._check(now_ms, now_s)
        elif record.phase is _P.DOWNLOADING:
            rates = [rate for rate in (record.desired.max_bytes_per_s, self.config.max_bytes_per_s) if rate]
            order = FetchOrder(record.desired.sha256, record.length_bytes, min(rates, default=0), deltas=record.deltas)
            progress = self._progress = FetchProgress(fetched_bytes=self._progress.fetched_bytes)
            self._run(lambda: self._fetcher.fetch(order, progress), float("inf"))
        elif record.phase is _P.VERIFYING:
            self._run(lambda: _prove(self.slots.bundle(record.desired.sha256), record, self.ports.prober),
                      now_s + self.config.probe_deadline_s)  # fmt: skip
        elif record.phase is _P.SHADOW:
            self._shadow_end_s = now_s + longest_s(record.desired.shadow or ShadowOrder())
            self.compare(_release(record))
        elif record.phase is _P.STAGED:
            self.slots.fill(record.slot, _release(record))
            self.slots.clear_starts(record.slot)
            self.slots.switch(record.slot)
            self._enter(follow(record, Signal.SWITCHED, now_ms))
            self._begin_probation(now_ms, now_s)
        elif record.phase is _P.PROBATION:
            self._begin_probation(now_ms, now_s)
        elif record.phase in {_P.REFUSED, _P.DEFERRED}:
            self._records.write(record)  # again, if the disk was full before

    def _ask(self, hook: SwitchHook) -> None:
        current, release = self.slots.current(), self.record.desired.release
        before = current.release if current is not None else ""
        self._run(lambda: hook.ask(release, before), float("inf"))  # it has a time limit of its own

    def _check(self, now_ms: int, now_s: float) -> None:
        desired, current = self.record.desired, self.slots.current()
        if current is not None and current.sha256 == desired.sha256:
            record = replace(self.record, code="", text="", slot=self.slots.current_name())
            record = replace(
                record, length_bytes=current.length_bytes or desired.length_bytes,
                security_floor=current.security_floor, latency_budget_ms=current.latency_budget_ms,
            )  # fmt: skip
            self.slots.clear_starts(record.slot)  # asked for again: it may try again
            self._enter(follow(record, Signal.PRESENT, now_ms))
            self.activate(current)
        elif not self._open(now_ms):
            until_ms = desired.not_before_ms if self.watch.known else 0
            self._enter(follow(replace(self.record, code="", text="", until_ms=until_ms), Signal.WAIT, now_ms))
        elif self.watch.fault is not None:
            text = "Expected a clock that may judge whether signed metadata has expired, got one that can not be right"
            self._fail(Refusal(self.watch.fault.value, f"{text}: it is set by the network, or set it"), now_ms, now_s)
        else:
            verifier = self.ports.import_verifier if self.record.imported else self.ports.verifier
            self._run(lambda: verifier.check(desired.target), now_s + self.config.verify_deadline_s)

    def _begin_probation(self, now_ms: int, now_s: float) -> None:
        if self.record.code:
            self._finish_roll_back(now_ms)
            return
        self.health, self.usual, self.usual_tries = Health(), Outputs(), Tries()
        self._probation_s = now_s
        self.activate(_release(self.record))

    def _judge(self, now_ms: int, now_s: float) -> None:
        limits = ProbationLimits(
            probation_s=self.record.desired.probation_s,
            max_error_ratio=self.config.max_error_ratio,
            latency_p95_ms=self.record.latency_budget_ms,
            latency_slack_ratio=self.config.latency_slack_ratio,
            class_shares=self.record.class_shares,
            usual_shares=self.record.usual_shares,
            usual_error_ratio=self.record.usual_error_ratio,
        )
        verdict = judge(self.health, limits, now_s - self._probation_s)
        if verdict.over and verdict.code:
            self._roll_back(verdict.code, verdict.text, now_ms)
        elif verdict.over:
            self._commit(verdict.text, now_ms)

    def _commit(self, text: str, now_ms: int) -> None:
        self.slots.raise_floor(self.record.security_floor)
        self.slots.clear_starts(self.record.slot)
        replay = self.record.replay
        if replay is None and self.record.previous_slot:  # started anew since the switch: no input was kept over it
            replay = ShadowCounts()
        record = replace(self.record, text=text, replay=replay, answered=self.health.inferences)
        self._enter(follow(record, Signal.HEALTHY, now_ms))
        self.reclaim()

    def _roll_back(self, code: str, text: str, now_ms: int) -> None:
        self._keep(replace(self.record, code=code, text=text))
        self._finish_roll_back(now_ms)

    def _finish_roll_back(self, now_ms: int) -> None:
        record, slots = self.record, self.slots
        slots.switch(record.previous_slot)
        self._vacate(record.slot)
        self._enter(follow(record, Signal.UNHEALTHY, now_ms))
        self.activate(slots.current())
        self.reclaim()

    def _vacate(self, name: str) -> None:
        """Give a slot back what it held before the attempt, which may be nothing."""
        before = self.slots.aside()
        if before is None:
            self.slots.empty(name)
        else:
            self.slots.fill(name, before)
            self.slots.clear_starts(name)  # those of the release that failed

    def _refuse(self, refusal: Refusal, now_ms: int) -> None:
        self._undo_switch()
        self._end_job()
        record = replace(follow(self.record, Signal.REFUSE, now_ms), code=refusal.code, text=refusal.text)
        self.record = record
        self.reclaim()
        self._notify_first(record)

    def _notify_first(self, record: UpdateRecord) -> None:
        """Notify of a phase before persisting it: the disk may be full."""
        self.record = record = self._counted(record)
        self.changed(record)
        self._records.write(record)

    def _undo_switch(self) -> None:
        """Undo what was done to the slots before the phase could be written: the release has had no probation."""
        record, slots = self.record, self.slots
        held = slots.read(record.slot) if record.phase is _P.STAGED else None
        if held is None or held.sha256 != record.desired.sha256:
            return
        switched = slots.current_name() == record.slot
        if switched:
            slots.switch(record.previous_slot)
        self._vacate(record.slot)
        if switched:
            self.activate(slots.current())

    def _enter(self, record: UpdateRecord) -> None:
        self._keep(record)
        self.changed(record)

    def _keep(self, record: UpdateRecord) -> None:
        record = self._counted(record)
        self._records.write(record)
        self.record = record

    def _counted(self, record: UpdateRecord) -> UpdateRecord:
        """Return ``record`` with what its attempt has fetched so far, unless that is not known."""
        if record.fetched_bytes is None:
            return record
        return replace(record, fetched_bytes=self._progress.fetched_bytes)

    def _count_on(self) -> None:
        """Count on after a restart: what came since the record was written is what is more of its files now."""
        record = self.record
        whole = record.phase in {_P.VERIFYING, _P.SHADOW, _P.STAGED, _P.PROBATION, _P.COMMITTED}
        self._progress = FetchProgress(
            done_bytes=record.length_bytes if whole else 0, fetched_bytes=record.fetched_bytes or 0
        )
        held_bytes = self._held_bytes(record) if record.phase is _P.DOWNLOADING else record.held_bytes
        if held_bytes != record.held_bytes:
            self._progress.fetched_bytes += max(0, held_bytes - record.held_bytes)
            self._keep(replace(record, held_bytes=held_bytes))

    def _held_bytes(self, record: UpdateRecord) -> int:
        """Return how much of the parts and patches of ``record`` is here; a whole bundle may be made, not fetched."""
        patches = [self.slots.bundle(delta.sha256) for delta in record.deltas]
        files = (part_of(self.slots.bundle(record.desired.sha256)), *patches, *map(part_of, patches))
        return sum(path.stat().st_size for path in files if path.exists())

    def _run(self, job: Callable[[], object], deadline_s: float) -> None:
        self._token += 1
        self._waiting = True
        self._deadline_s = deadline_s
        self.ports.worker.run(self._token, job)

    def _end_job(self) -> None:
        self._token += 1
        self._waiting = False
        self._progress.cancelled.set()
        self.compare(None)
        self._retry_s = self._deadline_s = float("inf")


def committed_release(record: UpdateRecord) -> SlotRelease | None:
    """Return the release that was committed by ``record``, None if its update ended otherwise."""
    if record.phase is not _P.COMMITTED or not record.desired.sha256 or not record.slot:
        return None
    return _release(record)


def _release(record: UpdateRecord) -> SlotRelease:
    desired = record.desired
    return SlotRelease(
        release=desired.release,
        sha256=desired.sha256,
        security_floor=record.security_floor,
        latency_budget_ms=record.latency_budget_ms,
        length_bytes=record.length_bytes,
    )


def _prove(path: Path, record: UpdateRecord, prober: Prober) -> Proof | Refusal:
    from edge_agent.updater.proof import prove  # noqa: PLC0415 - 1 MB, used only during an update

    return prove(path, record, prober)
