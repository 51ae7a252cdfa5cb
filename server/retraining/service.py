"""Starts triggers from verdicts and from harm that labels show, advances them with the policy, performs the steps.

Requests samples from devices, creates jobs and rollouts; does not decide when a step is due (the policy does). A step
is performed before its phase is stored, and the phase refers to its result by id: a crash in between leaves at worst a
second job that nothing waits for. An existing rollout of the result, made before a crash or by a person, is adopted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from server.access.audit_log import act_of, record_act
from server.drift.ledger import StoredVerdict, Verdicts
from server.drift.places import Places
from server.drift.verdicts import VerdictKind
from server.errors import NotRetrainedError, ServerError, TriggerPhaseError
from server.fleet.fleet import Device, Fleet
from server.people import SERVER_ACTOR, SOMEBODY, By
from server.registry.events import EventLog
from server.registry.versions import Versions
from server.retraining.audit import SETTING, SteadyAudit
from server.retraining.config import RetrainingConfig
from server.retraining.harm import DEVICE, scenes_of
from server.retraining.jobs import GivenSample, JobOrder, Jobs
from server.retraining.ledger import Triggers
from server.retraining.policy import (
    BEFORE_JOB,
    GATHERING,
    OVER,
    RETRAINABLE,
    JobFacts,
    NextStep,
    RetrainingPhase,
    Trigger,
    TriggerFacts,
    advance,
    cautions,
    may_open,
    may_start,
    merged,
    watched_in,
    withdrawn,
)
from server.retraining.samples import (
    ONCE,
    SampleStore,
    StoredSample,
    audited_samples,
    build_archive,
    distinct,
    packed,
)
from server.rollout.create import RolloutOptions
from server.rollout.model import Rollout, RolloutPhase
from server.rollout.selection import candidates
from wire.codec import Json
from wire.messages import Severity

_LOG = logging.getLogger(__name__)
_NAMED = 20  # devices in the record of an act
_SAMPLE_TTL_S = 3_600.0
_MOST_WATCHED = 5_000
_AUDITED_EVERY_MS = 60_000
_IN_VAIN = frozenset({RolloutPhase.ABORTING, RolloutPhase.ABORTED, RolloutPhase.FAILED})


class Rollouts(Protocol):
    """The part of rollouts that retraining uses; ``rollout.service.RolloutService`` implements it."""

    def create(self, request: RolloutOptions, *, by: By = SOMEBODY) -> Rollout:
        """Create a rollout, as ``by`` wants it."""

    def get(self, rollout: str) -> Rollout:
        """Return one rollout."""

    def list(self) -> tuple[Rollout, ...]:
        """Return every rollout, newest first."""


@dataclass(slots=True, kw_only=True)
class RetrainingService:
    """Retraining of one server. Only one thread calls ``turn``; any may withdraw."""

    triggers: Triggers
    verdicts: Verdicts
    samples: SampleStore
    jobs: Jobs
    fleet: Fleet
    versions: Versions
    rollouts: Rollouts
    audit: SteadyAudit
    events: EventLog
    config: RetrainingConfig = field(default_factory=RetrainingConfig)
    _audited_ms: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def withdraw(self, trigger: int, now_ms: int, *, by: By = SOMEBODY) -> Trigger:
        """End a retraining for a person: its job ends, devices stop sending samples; a rollout continues.

        Raises:
            UnknownTriggerError: If there is none of that id.
            TriggerPhaseError: If it is over.
        """
        with self._lock:
            known = self.triggers.trigger(trigger)
            if known.phase in OVER:
                message = f"Expected a retraining that is not over, got {trigger}, which is {known.phase}"
                raise TriggerPhaseError(message)
            ended = withdrawn(known, now_ms)
            if known.job:
                self.jobs.withdraw(known.job, now_ms)
            if known.phase in GATHERING:
                self._stop_collecting(known)
            self.triggers.put(ended, act_of(by, "retraining.withdraw", str(trigger), now_ms))
            self._say(ended, now_ms)
            return ended

    def approve(self, trigger: int, *, by: By = SOMEBODY) -> Trigger:
        """Record a person's approval: of training without proof of harm, or of the rollout.

        Raises:
            UnknownTriggerError: If there is none of that id.
            NotRetrainedError: If no worker trains on inputs of its release; with what to do instead.
            TriggerPhaseError: If it awaits no approval.
        """
        known = self.triggers.trigger(trigger)
        release = next((one for one in self.versions.releases() if one.name == known.release), None)
        not_trained = "" if release is None or known.job else self.audit.why_not(release)
        if not_trained and known.phase not in OVER:
            message = f"Expected a retraining that a worker can carry out, got {trigger}, of {known.release} with "
            raise NotRetrainedError(message + not_trained)
        act = act_of(by, "retraining.approve", str(trigger), self.fleet.clock(), {"phase": known.phase.value})
        return self.triggers.approve(trigger, act)

    def turn(self, now_ms: int) -> None:
        """Open triggers for new verdicts, then advance every open one by at most one step."""
        with self._lock:
            found = self.verdicts.open()
            harmed = Places(self.verdicts).harmful()
            alarms = {
                (one.model, one.key): one for one in found
                if one.kind is not VerdictKind.NEW_PLACE or one.id in harmed
            }  # fmt: skip
            self._regroup(found, now_ms)
            known = self.triggers.all() if alarms else ()
            for alarm in alarms.values():
                if may_start(alarm, known, self.config, now_ms):
                    opened = self.triggers.add(Trigger(
                        id=0, model=alarm.model, cause=alarm.key, words=alarm.cause, verdict=alarm.id,
                        devices=alarm.devices, since_ms=alarm.first_window_ms, release=alarm.release,
                        opened_ms=now_ms, updated_ms=now_ms,
                    ))  # fmt: skip
                    self._say(opened, now_ms)
            if now_ms - self._audited_ms >= _AUDITED_EVERY_MS:
                self._audited_ms = now_ms
                self._open_for_harm(now_ms)
            for trigger in self.triggers.open():
                try:
                    self._move(trigger, alarms.get((trigger.model, trigger.cause)), now_ms)
                except ServerError as error:
                    self._stumble(trigger, error, now_ms)

    def _regroup(self, found: Sequence[StoredVerdict], now_ms: int) -> None:
        """Let triggers follow verdicts that are of other devices now, or that go on in another verdict.

        A verdict has one trigger: a second one ends, and the first has its devices and its samples. A job that is made
        already stays as it is: its release passes the gates on the samples that it had.
        """
        alarms = {one.id: one for one in found if one.kind in RETRAINABLE}
        for trigger in self.triggers.open():
            verdict = alarms.get(self._goes_on_in(trigger.verdict))
            if verdict is None or (verdict.id, verdict.key) == (trigger.verdict, trigger.cause):
                continue
            others = [one for one in self.triggers.open() if one.id != trigger.id and one.model == trigger.model]
            other = next((one for one in others if one.verdict == verdict.id or one.cause == verdict.key), None)
            if trigger.phase not in BEFORE_JOB:
                self.triggers.put(replace(trigger, verdict=verdict.id))
            elif other is not None:
                self._merge(trigger, other, now_ms)
            else:
                self._follow(trigger, verdict, now_ms)

    def _goes_on_in(self, verdict: int) -> int:
        """Return the id of the verdict in which ``verdict`` goes on; its own if it does not go on in another."""
        known = self.verdicts.verdict(verdict) if verdict else None
        return verdict if known is None or not known.part_of else self._goes_on_in(known.part_of)

    def _follow(self, trigger: Trigger, verdict: StoredVerdict, now_ms: int) -> None:
        """Let ``trigger`` be of what its verdict is of now; devices that are left out send no more samples."""
        if trigger.phase in GATHERING:
            self._stop_collecting(replace(trigger, devices=tuple(sorted({*trigger.devices} - {*verdict.devices}))))
        moved = replace(
            trigger, verdict=verdict.id, cause=verdict.key, devices=verdict.devices, release=verdict.release
        )
        self.triggers.put(moved)
        text = f"{trigger.model}: retraining {trigger.id} is of a {verdict.kind} now: {verdict.cause}"
        self.events.add(
            now_ms, "retraining", trigger.phase.value, Severity.INFO, text, data={"retraining": trigger.id}
        )  # fmt: skip

    def _merge(self, trigger: Trigger, other: Trigger, now_ms: int) -> None:
        """End ``trigger``; ``other`` is of the same drift and goes on with its devices and samples."""
        together = tuple(sorted({*trigger.devices, *other.devices}))
        if other.phase in BEFORE_JOB:
            self.triggers.put(replace(other, since_ms=min(trigger.since_ms, other.since_ms), devices=together))
        if trigger.phase in GATHERING and other.phase not in GATHERING:
            self._stop_collecting(trigger)
        ended = merged(trigger, other.id, now_ms)
        self.triggers.put(ended)
        self._say(ended, now_ms)

    def _open_for_harm(self, now_ms: int) -> None:
        """Start a trigger where labels show harm to all devices of a release, or to a cohort; not for one device."""
        for audit in self.audit.audits():
            for group in audit.groups:
                cause = f"audit of {audit.release}: {group.name}"
                if not group.harmful or group.attribute == DEVICE:
                    continue
                if not may_open(audit.model, cause, self.triggers.all(), self.config, now_ms):
                    continue
                opened = self.triggers.add(Trigger(
                    id=0, model=audit.model, cause=cause, verdict=0, devices=group.devices, release=audit.release,
                    words=f"labels of uniform samples: wrong on {group.name} more often than allowed",
                    since_ms=group.risk.since_ms, phase=RetrainingPhase.HARMFUL, opened_ms=now_ms, updated_ms=now_ms,
                    text=f"risk at least {group.risk.at_least:.1%}, allowed {group.allowed:.1%}",
                ))  # fmt: skip
                self._say(opened, now_ms)

    def _move(self, trigger: Trigger, alarm: StoredVerdict | None, now_ms: int) -> None:
        if alarm is not None:
            together = tuple(sorted({*trigger.devices, *alarm.devices}))
            trigger = replace(trigger, devices=together, words=alarm.cause, verdict=alarm.id)
        if trigger.phase is RetrainingPhase.GATED and not trigger.rollout:
            found = (
                one.id for one in self.rollouts.list() if one.release == trigger.result and one.phase not in _IN_VAIN
            )
            trigger = replace(trigger, rollout=next(found, ""))
        moved, step = advance(trigger, self._facts(trigger, alarm, now_ms), self.config, now_ms)
        if step is NextStep.CREATE_JOB:
            moved = replace(moved, job=self._propose(moved, now_ms))
        elif step is NextStep.CREATE_ROLLOUT:
            moved = replace(moved, rollout=self._roll_out(moved))
        if moved.phase in GATHERING:
            moved = self._collect(moved, now_ms)
        if trigger.phase in GATHERING and moved.phase not in GATHERING:
            self._stop_collecting(moved)
        self.triggers.put(moved)
        if moved.phase is not trigger.phase:
            self._say(moved, now_ms)

    def _stumble(self, trigger: Trigger, error: ServerError, now_ms: int) -> None:
        """Keep the phase and record the error; the next turn tries again."""
        text = f"{error.code}: {error}"
        if text != trigger.text:
            _LOG.warning("Retraining step failed, trying again. retraining=%s error=%s", trigger.id, text)
            self.triggers.put(replace(trigger, text=text))
            self.events.add(now_ms, "retraining", error.code, Severity.WARNING, f"{trigger.model}: {text}")

    def _facts(self, trigger: Trigger, alarm: StoredVerdict | None, now_ms: int) -> TriggerFacts:
        if trigger.job:
            job, rollout = self.jobs.job(trigger.job).facts, self._rollout_facts(trigger.rollout)
            takers = trigger.phase is not RetrainingPhase.GATED or bool(self._takers(trigger.result))
            return TriggerFacts(job=job, rollout=rollout, takers=takers)
        known = alarm or self.verdicts.verdict(trigger.verdict)
        quiet_ms = 0 if alarm or known is None else max(now_ms - known.closed_ms, 0)
        release = self.versions.release(trigger.release)
        form = self.versions.label_form_of_bundle(release.sha256)
        labelled = distinct(self._labelled(trigger))
        drawn = [one for one in labelled if len(trigger.devices) == 1 or not one.request.startswith(ONCE)]
        audited = audited_samples(drawn, self.versions.label_form, self.config.source_block_s)
        reference = self.versions.reference(release.custom.ref_id)
        return TriggerFacts(
            windows=known.windows if known else 0,
            quiet_ms=quiet_ms,
            labelled=sum(form.can_train(sample.label) for sample in labelled),
            nothing=sum(not form.can_train(sample.label) for sample in labelled),
            audited=scenes_of(audited),
            source_risk=reference.risk if reference else 0.0,
            job=JobFacts(),
            rollout="",
            not_trained=form.not_asked,
        )

    def _labelled(self, trigger: Trigger) -> list[StoredSample]:
        """Return the trigger's samples that its model took and whose label fits it: any other would fail the job."""
        form = self.versions.label_form_of_bundle(self.versions.release(trigger.release).sha256)
        labelled = self.samples.labelled(trigger.devices, trigger.since_ms, trigger.model)
        return [sample for sample in labelled if not form.problem(sample.label)]

    def _watched(self, trigger: Trigger) -> list[StoredSample]:
        """Return the newest labelled samples of the model, drawn uniformly, of its devices that did not drift."""
        release = self.versions.release(trigger.release)
        form = self.versions.label_form_of_bundle(release.sha256)
        models = {one.name: one.model for one in self.versions.releases()}
        devices = {one.device for one in self.fleet.devices() if models.get(one.desired_release) == release.model}
        found = self.samples.labelled_uniformly(trigger.model, trigger.devices, _MOST_WATCHED)
        drawn = [sample for sample in found if sample.device in devices]
        return [sample for sample in drawn if not form.problem(sample.label) and form.can_train(sample.label)]

    def _takers(self, release: str) -> tuple[Device, ...]:
        return candidates(self.fleet.devices(), self.versions.releases(), release)

    def _rollout_facts(self, rollout: str) -> str:
        if not rollout:
            return ""
        phase = self.rollouts.get(rollout).phase
        if phase is RolloutPhase.SUCCEEDED:
            return "succeeded"
        return "failed" if phase in {RolloutPhase.ABORTED, RolloutPhase.FAILED} else "open"

    def _collect(self, trigger: Trigger, now_ms: int) -> Trigger:
        """Request samples from the devices, if somebody opted in and the last request is old enough.

        Not of a device that runs another model by now: what it sends is none of this one.
        """
        config = self.config
        due = not trigger.asked_ms or now_ms - trigger.asked_ms >= config.request_interval_s * 1000
        if config.sample_bytes_per_day <= 0 or not due:
            return trigger
        audit = max(round(config.samples_per_request * config.audit_share), 1)
        allowed_bytes = config.sample_bytes_per_day + self._audit_bytes()
        models = {one.name: one.model for one in self.versions.releases()}
        asked = [one for one in map(self.fleet.device, trigger.devices)
                 if models.get(one.release, trigger.model) == trigger.model]  # fmt: skip
        names: dict[str, Json] = {"devices": len(asked), "first": [one.device for one in asked[:_NAMED]]}
        with self.events.database.begin() as connection:  # before any is asked: pictures leave a device
            record_act(connection, SERVER_ACTOR, "retraining.ask", str(trigger.id), now_ms,
                       data={"model": trigger.model, "samples": config.samples_per_request, **names})  # fmt: skip
        for known in asked:
            device = known.device
            if known.desired is None or known.desired.config.get(SETTING) != allowed_bytes:
                self.fleet.set_config(device, {SETTING: allowed_bytes})
            for lane, count in (("audit", audit), ("drift", config.samples_per_request - audit)):
                arguments: dict[str, Json] = {
                    "request": f"r{trigger.id}-{lane}-{now_ms // 1000}", "count": count, "lane": lane,
                    "budget_bytes": config.sample_bytes_per_day * count // config.samples_per_request,
                }  # fmt: skip
                self.fleet.send_command(device, "samples", arguments, _SAMPLE_TTL_S)
        text = f"{config.samples_per_request} samples asked of {', '.join(one.device for one in asked[:6])}"
        self.events.add(now_ms, "retraining", "samples_requested", Severity.INFO, text)
        return replace(trigger, asked_ms=now_ms)

    def _stop_collecting(self, trigger: Trigger) -> None:
        if self.config.sample_bytes_per_day > 0:
            for device in trigger.devices:
                self.fleet.set_config(device, {SETTING: self._audit_bytes()})

    def _audit_bytes(self) -> int:
        return self.audit.config.device_bytes_per_day if self.audit.config.enabled else 0

    def _propose(self, trigger: Trigger, now_ms: int) -> str:
        base = self.versions.release(trigger.release)
        gate_split = self.versions.gate_split(base.sha256)
        self.jobs.next_look(trigger.model, gate_split)  # before the samples are packed, at every turn
        sites = {device.device: device.site for device in self.fleet.devices()}
        form = self.versions.label_form_of_bundle(base.sha256)
        labelled = [sample for sample in self._labelled(trigger) if form.can_train(sample.label)]
        drifted, watched = packed(labelled, self._watched(trigger))
        block_s = self.config.source_block_s
        data = build_archive(
            drifted, lambda device: sites.get(device, device), self.samples.image, block_s, watched
        )  # fmt: skip
        order = JobOrder(
            retraining=trigger.id,
            model=trigger.model,
            base_release=base.name,
            base_sha256=base.sha256,
            cause=trigger.words,
            labelled=len(drifted),
            gate_split=gate_split,
        )
        given = [GivenSample.of(one, watched=False) for one in drifted]
        given += [GivenSample.of(one, watched=True) for one in watched]
        return self.jobs.create(order, data, now_ms, given).id

    def _roll_out(self, trigger: Trigger) -> str:
        """Create a rollout whose canaries are drifted devices, or others if all drifted ones have the release.

        It goes last to sites at which it is not shown to be harmless, and not at all to those where it is worse.
        """
        self.versions.release(trigger.result)
        takers = self._takers(trigger.result)
        judged = watched_in(self.jobs.job(trigger.job).certificate)
        withheld, last = cautions(takers, frozenset(trigger.devices), judged)
        names = {device.device for device in takers}
        canary = [device for device in trigger.devices if device in names][: self.config.canary]
        request = RolloutOptions(
            release=trigger.result,
            canary=tuple(canary) or self.config.canary,
            probation_s=self.config.probation_s,
            approved=True,
            withheld=withheld,
            last=last,
        )
        return self.rollouts.create(request, by=SERVER_ACTOR).id

    def _say(self, trigger: Trigger, now_ms: int) -> None:
        needs_a_person = {*OVER, RetrainingPhase.HARMFUL} - {RetrainingPhase.SETTLED}
        severity = Severity.WARNING if trigger.phase in needs_a_person else Severity.INFO
        text = f"{trigger.model}: {trigger.phase}" + (f", {trigger.text}" if trigger.text else f", {trigger.words}")
        self.events.add(now_ms, "retraining", trigger.phase.value, severity, text, data={"retraining": trigger.id})
