"""The shell of ``reconcile``: collects the facts, performs the actions, and reports both.

It runs at the start, when a release was committed or a child crashed, and periodically; bundles that no slot needs are
removed then. It pauses while an update is staged or on probation, in between two releases. Blocking work runs on the
worker.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from edge_agent.device.record_file import Condition, condition
from edge_agent.updater.ports import FetchOrder, FetchProgress, Refusal
from edge_agent.updater.states import UpdateRecord
from edge_agent.updater.storage.reconcile import Choose, Fetch, InstalledFacts, Note, RepairPlan, SlotFacts, reconcile
from edge_agent.updater.storage.slots import NAMES, SlotRelease
from edge_agent.updater.updater import Updater, committed_release
from wire.messages import Severity, UpdatePhase

_LOG = logging.getLogger(__name__)
TOKEN = 0  # of repair's jobs; those of updates begin at 1
_STANDS_BACK = frozenset({UpdatePhase.STAGED, UpdatePhase.PROBATION})
_RETRY_S = 10.0

Report = Callable[[str, Severity, str], None]


@dataclass(frozen=True, slots=True)
class Inspected:
    """The facts that the worker found; ``record``: the update's record when the inspection began."""

    facts: InstalledFacts
    record: UpdateRecord


@dataclass(frozen=True, slots=True)
class Fetched:
    """A bundle was downloaded again, or why not."""

    release: SlotRelease
    refusal: Refusal | None


@dataclass(slots=True, kw_only=True)
class Repair:
    """Keeps the installed releases intact. Runs in the loop's thread, except for the jobs.

    ``report`` gets a code, a severity and a text; ``request_desired`` makes the server send ``desired``
    again. ``served`` returns the digest of the bundle that the child serves.
    """

    updater: Updater
    period_s: float
    report: Report
    served: Callable[[], str]
    request_desired: Callable[[], None]
    chance: random.Random = field(default_factory=random.Random)
    code: str = ""
    text: str = ""
    _due_s: float = float("-inf")
    _busy: bool = False
    _fetching: str = ""
    _resting: bool = False
    _failures: int = 0
    _progress: FetchProgress = field(default_factory=FetchProgress)

    def soon(self) -> None:
        """Inspect in the next turn."""
        self._due_s = float("-inf")

    def turn(self, now_s: float) -> None:
        """Inspect when it is due.

        Raises:
            OSError: If a damaged copy can't be written again.
        """
        if self._fetching and self.updater.record.in_flight and self._fetching == self.updater.record.desired.sha256:
            self._progress.cancelled.set()  # the update downloads it, into the same file
        if self._busy or now_s < self._due_s or self.updater.record.phase in _STANDS_BACK:
            return
        self._due_s = now_s + self.period_s
        for name in self.updater.slots.restore():
            self.report("record_mended", Severity.WARNING, f"slots: one of the two files of {name} was damaged or gone")
        record, served, limit = self.updater.record, self.served(), self.updater.config.max_boots
        self._busy = True
        self.updater.ports.worker.run(TOKEN, lambda: Inspected(self._look(record, served, limit), record))

    def finished(self, result: object, now_s: float) -> None:
        """Take the result of a job.

        Raises:
            OSError: If an action can't write; the inspection is repeated.
        """
        self._busy, self._fetching = False, ""
        if isinstance(result, Inspected):
            if result.record != self.updater.record or result.facts.current != self.updater.slots.current_name():
                self.soon()  # it has changed since
            else:
                self._act(reconcile(result.facts))
                if not self.code and not self.updater.record.in_flight:  # a power cut may have kept an update from it
                    self.updater.reclaim()
        elif isinstance(result, Fetched):
            self._fetched(result, now_s)
        else:
            error = result if isinstance(result, Exception) else None
            _LOG.error("looking at what is installed failed result=%r", result, exc_info=error)
            self._due_s = now_s + _RETRY_S

    def _look(self, record: UpdateRecord, served: str, limit: int) -> InstalledFacts:
        slots = self.updater.slots
        found = {}
        for name in NAMES:
            release, kept = slots.look(name)
            state, noted = Condition.ABSENT, True
            if release is not None:
                bundle = slots.bundle(release.sha256)
                state = condition(bundle, release.sha256)
                noted = bool(release.length_bytes)
                if not noted:  # an older agent's record, without a length
                    known = record.length_bytes if record.desired.sha256 == release.sha256 else 0
                    length_bytes = bundle.stat().st_size if state is Condition.WHOLE else known
                    release, noted = replace(release, length_bytes=length_bytes), not length_bytes
            found[name] = SlotFacts(
                release=release, noted=noted, record=kept, bundle=state, tired=slots.boots(name) > limit
            )
        committed = committed_release(record)
        where = condition(slots.bundle(committed.sha256), committed.sha256) if committed else Condition.ABSENT
        return InstalledFacts(
            current=slots.current_name(), pointer=slots.pointer()[1], slots=found, committed=committed,
            committed_bundle=where, served=served, floor=self.updater.floor(),
        )  # fmt: skip

    def _act(self, plan: RepairPlan) -> None:
        if plan.code != self.code:
            self._report_plan(plan)
        self.code, self.text = plan.code, plan.text
        slots = self.updater.slots
        for action in plan.actions:
            if isinstance(action, Note):
                slots.fill(action.slot, action.release)
            elif isinstance(action, Choose):
                before = slots.current()
                slots.switch(action.slot)
                after = slots.current()
                if before is not None:
                    self.report("slot_chosen", Severity.WARNING, f"slot {action.slot} is current")
                self.updater.activate(after)
        if plan.rest or self._resting:
            self._resting = plan.rest
            self.updater.activate(None if plan.rest else slots.current())
        fetches = [action for action in plan.actions if isinstance(action, Fetch)]
        if fetches:
            release, record = fetches[0].release, self.updater.record
            if record.in_flight and record.desired.sha256 == release.sha256:
                return  # the update downloads it, into the same file
            fetcher, progress = self.updater.ports.fetcher, FetchProgress()
            self._busy, self._progress, self._fetching = True, progress, release.sha256
            order = FetchOrder(release.sha256, release.length_bytes, self.updater.config.max_bytes_per_s)
            self.updater.ports.worker.run(TOKEN, lambda: Fetched(release, fetcher.fetch(order, progress)))
        elif plan.code == "release_lost":
            self.request_desired()

    def _report_plan(self, plan: RepairPlan) -> None:
        if plan.code:
            self.report(plan.code, Severity.WARNING, plan.text)
        else:
            self.report("repaired", Severity.INFO, f"the installed release is complete again after {self.code}")

    def _fetched(self, result: Fetched, now_s: float) -> None:
        if result.refusal is None:
            self._failures = 0
            slots = self.updater.slots
            for name in NAMES:  # the damaged bundle caused the failed starts, not the release
                held = slots.read(name)
                if held is not None and held.sha256 == result.release.sha256:
                    slots.clear_starts(name)
                    if name == slots.current_name():
                        self._resting = False
                        self.updater.activate(held)
            self.soon()
            return
        if not self._failures:
            self.report("repair_failed", Severity.WARNING, f"[{result.refusal.code}] {result.refusal.text}"[:300])
        self._failures += 1
        config = self.updater.config
        ceiling_s = min(self.period_s, config.retry_min_s * 2.0 ** min(self._failures, 30))
        self._due_s = now_s + max(config.retry_min_s, self.chance.uniform(0.0, ceiling_s))
