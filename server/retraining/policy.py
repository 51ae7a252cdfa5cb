"""The state machine of retraining: all transitions of a trigger, pure.

watch -> suspected -> collecting -> harmful -> proposed -> training -> gated -> rollout -> settled | rolled_back
          withdrawn: the alarm ended before anything was proposed, or a person withdrew it
          failed: a gate failed, or no worker could train

Only a cohort, site or fleet verdict starts it; ``device_fault`` and ``release_regression`` never do. A person's
approval replaces the proof of harm, and starts the rollout if that is not automatic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from server.drift.ledger import StoredVerdict
from server.drift.verdicts import VerdictKind
from server.retraining.config import RetrainingConfig
from server.retraining.guard import lower_bound


class Phase(StrEnum):
    """The phase of a trigger."""

    SUSPECTED = "suspected"
    COLLECTING = "collecting"
    HARMFUL = "harmful"
    PROPOSED = "proposed"
    TRAINING = "training"
    GATED = "gated"
    ROLLOUT = "rollout"
    SETTLED = "settled"
    ROLLED_BACK = "rolled_back"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


OVER = frozenset({Phase.SETTLED, Phase.ROLLED_BACK, Phase.WITHDRAWN, Phase.FAILED})
GATHERING = frozenset({Phase.COLLECTING, Phase.HARMFUL})
APPROVABLE = frozenset({Phase.COLLECTING, Phase.GATED})
RETRAINABLE = frozenset({VerdictKind.COHORT, VerdictKind.SITE, VerdictKind.FLEET})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One possible retraining. ``cause``: the verdict's key; ``release``: the drifted one; ``result``: the new one."""

    id: int
    model: str
    cause: str
    words: str
    verdict: int
    devices: tuple[str, ...]
    since_ms: int
    release: str
    phase: Phase = Phase.SUSPECTED
    approved: bool = False
    job: str = ""
    result: str = ""
    rollout: str = ""
    text: str = ""
    asked_ms: int = 0
    opened_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The state of the trigger's job: ``queued``, ``leased``, ``done`` or ``failed``; "" for no job."""

    state: str = ""
    release: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The input of the policy. ``wrong`` of ``audited`` uniform samples were predicted wrong.

    ``quiet_ms``: how long ago the verdict closed, 0 while it is open. ``rollout``: ``open``, ``succeeded``,
    ``failed``, "" for none. ``takers``: whether a device is left that can run the result.
    """

    windows: int = 0
    quiet_ms: int = 0
    labelled: int = 0
    audited: int = 0
    wrong: int = 0
    source_risk: float = 0.0
    job: JobFacts = field(default_factory=JobFacts)
    rollout: str = ""
    takers: bool = True


class Step(StrEnum):
    """The action that the caller must perform before the trigger enters its new phase."""

    NOTHING = "nothing"
    CREATE_JOB = "create_job"
    CREATE_ROLLOUT = "create_rollout"


def may_start(verdict: StoredVerdict, triggers: Iterable[Trigger], config: RetrainingConfig, now_ms: int) -> bool:
    """Return whether ``verdict`` starts a trigger: right kind, none open for its model and cause, cooldown over.

    After a person has withdrawn a trigger, only a new verdict starts another one.
    """
    if not config.enabled or verdict.kind not in RETRAINABLE or not verdict.model:
        return False
    related = [one for one in triggers if (one.model, one.cause) == (verdict.model, verdict.key)]
    cooling = [one for one in related if one.phase is not Phase.WITHDRAWN]
    if any(one.phase is Phase.WITHDRAWN and one.verdict == verdict.id for one in related):
        return False
    return all(one.phase in OVER for one in related) and all(
        now_ms - one.updated_ms >= config.cooldown_s * 1000 for one in cooling
    )


def advance(trigger: Trigger, facts: Facts, config: RetrainingConfig, now_ms: int) -> tuple[Trigger, Step]:
    """Return the trigger after at most one transition, and the step to perform for it."""
    phase, text, step = _next(trigger, facts, config)
    changed = phase is not trigger.phase
    updated_ms = now_ms if changed else trigger.updated_ms
    approved = trigger.approved and not (changed and phase in {Phase.PROPOSED, Phase.ROLLOUT})
    result = facts.job.release if facts.job.state == "done" else trigger.result
    return replace(trigger, phase=phase, text=text, updated_ms=updated_ms, approved=approved, result=result), step


def withdrawn(trigger: Trigger, now_ms: int) -> Trigger:
    """Return the trigger as withdrawn by a person; a rollout that it started continues."""
    text = "withdrawn by an operator" + (f"; rollout {trigger.rollout} goes on" if trigger.rollout else "")
    return replace(trigger, phase=Phase.WITHDRAWN, text=text, approved=False, updated_ms=now_ms)


def _next(trigger: Trigger, facts: Facts, config: RetrainingConfig) -> tuple[Phase, str, Step]:
    if trigger.phase in {Phase.SUSPECTED, *GATHERING} and facts.quiet_ms > config.patience_s * 1000:
        return Phase.WITHDRAWN, "the alarm is over", Step.NOTHING
    if trigger.phase is Phase.SUSPECTED:
        if facts.windows >= config.persisted_windows:
            return Phase.COLLECTING, "asking the devices for samples", Step.NOTHING
        return trigger.phase, f"alarm in {facts.windows} of {config.persisted_windows} windows", Step.NOTHING
    if trigger.phase is Phase.COLLECTING:
        return _collecting(trigger, facts, config)
    if trigger.phase is Phase.HARMFUL:
        return _harmful(facts, config)
    return _later(trigger, facts, config)


def _collecting(trigger: Trigger, facts: Facts, config: RetrainingConfig) -> tuple[Phase, str, Step]:
    bound = lower_bound(facts.wrong, facts.audited, config.confidence)
    said = f"{facts.wrong} of {facts.audited} audited wrong, risk at least {bound:.0%}, source {facts.source_risk:.0%}"
    if trigger.approved:
        return Phase.HARMFUL, f"approved by a person; {said}", Step.NOTHING
    if facts.audited and bound > facts.source_risk + config.harm_margin:
        return Phase.HARMFUL, said, Step.NOTHING
    return Phase.COLLECTING, f"{said}; {facts.labelled} labelled", Step.NOTHING


def _harmful(facts: Facts, config: RetrainingConfig) -> tuple[Phase, str, Step]:
    said = f"{facts.labelled} of {config.min_labelled} labelled samples"
    if facts.labelled < config.min_labelled:
        return Phase.HARMFUL, said, Step.NOTHING
    return Phase.PROPOSED, said, Step.CREATE_JOB


def _later(trigger: Trigger, facts: Facts, config: RetrainingConfig) -> tuple[Phase, str, Step]:
    if trigger.phase in {Phase.PROPOSED, Phase.TRAINING}:
        return (*_training(facts.job), Step.NOTHING)
    if trigger.phase is Phase.GATED:
        return _gated(trigger, facts, wanted=config.auto_rollout or trigger.approved)
    if trigger.phase is Phase.ROLLOUT:
        ended = {"succeeded": Phase.SETTLED, "failed": Phase.ROLLED_BACK}.get(facts.rollout, Phase.ROLLOUT)
        return ended, f"rollout of {trigger.result}: {facts.rollout or 'open'}", Step.NOTHING
    return trigger.phase, trigger.text, Step.NOTHING


def _gated(trigger: Trigger, facts: Facts, *, wanted: bool) -> tuple[Phase, str, Step]:
    if facts.rollout in {"open", "succeeded"}:
        return Phase.ROLLOUT, f"{trigger.result} is rolled out already", Step.NOTHING
    if not wanted:
        return Phase.GATED, f"{trigger.result} passed its gates; waits for approval", Step.NOTHING
    if not facts.takers:
        return Phase.SETTLED, f"no device is left to take {trigger.result}", Step.NOTHING
    return Phase.ROLLOUT, f"rolling out {trigger.result}, canary first", Step.CREATE_ROLLOUT


def _training(job: JobFacts) -> tuple[Phase, str]:
    match job.state:
        case "failed":
            return Phase.FAILED, job.text
        case "done":
            return Phase.GATED, f"{job.release} passed its gates"
        case "leased":
            return Phase.TRAINING, "a worker trains"
        case _:
            return Phase.PROPOSED, "waits for a worker"
