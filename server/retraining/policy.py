"""The state machine of retraining: all transitions of a trigger, pure.

watch -> suspected -> collecting -> harmful -> proposed -> training -> gated -> rollout -> settled | rolled_back
          withdrawn: the alarm ended before anything was proposed (a suspected one at once, others after the patience),
                     its drift is that of another trigger, or a person withdrew it
          failed: a gate failed, or no worker could train

Only a cohort, site or fleet verdict starts it, and a new place where labels have shown harm; ``device_fault`` and
``release_regression`` never do. A person's
approval replaces the proof of harm, and starts the rollout if that is not automatic. Harm is proved by an
anytime-valid lower bound of the error rate from audit samples (``harm``); what the steady audit shows to be harmful
begins with that phase.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from server.drift.ledger import StoredVerdict
from server.drift.verdicts import VerdictKind
from server.fleet.fleet import Device
from server.retraining.config import RetrainingConfig
from server.retraining.harm import LabelledScene, lower_bound
from server.retraining.labelling import NOTHING

_MOST_TEXT = 300


class RetrainingPhase(StrEnum):
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


OVER = frozenset(
    {RetrainingPhase.SETTLED, RetrainingPhase.ROLLED_BACK, RetrainingPhase.WITHDRAWN, RetrainingPhase.FAILED}
)
GATHERING = frozenset({RetrainingPhase.COLLECTING, RetrainingPhase.HARMFUL})
BEFORE_JOB = GATHERING | {RetrainingPhase.SUSPECTED}
APPROVABLE = frozenset({RetrainingPhase.COLLECTING, RetrainingPhase.GATED})
RETRAINABLE = frozenset({VerdictKind.COHORT, VerdictKind.SITE, VerdictKind.FLEET, VerdictKind.NEW_PLACE})


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
    phase: RetrainingPhase = RetrainingPhase.SUSPECTED
    approved: bool = False
    job: str = ""
    result: str = ""
    rollout: str = ""
    text: str = ""
    asked_ms: int = 0
    opened_ms: int = 0
    updated_ms: int = 0

    @property
    def approvable(self) -> bool:
        """Whether a person may approve it in this phase."""
        return self.phase in APPROVABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """The state of the trigger's job: ``queued``, ``leased``, ``done`` or ``failed``; "" for no job.

    ``look``: which look at the gate split it is, 0: not counted.
    """

    state: str = ""
    release: str = ""
    text: str = ""
    look: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFacts:
    """The input of the policy. ``audited``: the scenes of uniform samples that have a label.

    ``labelled``: images with a label that a model can be trained with; ``nothing``: those that show no class
    (``labelling.NOTHING``), with which none is. ``quiet_ms``: how long ago the verdict closed, 0 while it is open.
    ``rollout``: ``open``, ``succeeded``, ``failed``, "" for none. ``takers``: whether a device is left that can run
    the result. ``not_trained``: why no worker trains on inputs of its release, "" if one does.
    """

    windows: int = 0
    quiet_ms: int = 0
    labelled: int = 0
    nothing: int = 0
    audited: tuple[LabelledScene, ...] = ()
    source_risk: float = 0.0
    job: JobFacts = field(default_factory=JobFacts)
    rollout: str = ""
    takers: bool = True
    not_trained: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSite:
    """What a certificate says of a site that was watched and not trained on; ``name``: as in the worker's data."""

    name: str
    harmful: bool
    harmless: bool
    text: str


def watched_in(certificate: Mapping[str, object]) -> tuple[JudgedSite, ...]:
    """Return the watched sites in the document of a certificate; what can't be read counts as not shown harmless."""
    found = certificate.get("watched")
    sites = []
    for item in found if isinstance(found, list) else []:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            continue
        drop, limit, verdict = item.get("drop"), item.get("limit"), item.get("verdict")
        above = isinstance(drop, int | float) and isinstance(limit, int | float) and drop > limit
        worse = verdict == "fail" or above
        sites.append(JudgedSite(name=item["name"], harmful=worse, harmless=verdict == "pass" and not worse,
                                text=str(item.get("text") or "")[:_MOST_TEXT]))  # fmt: skip
    return tuple(sites)


def cautions(
    takers: Iterable[Device], drifted: Collection[str], judged: Sequence[JudgedSite]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the devices that do not get a retrained release, and those that get it last, each with the reason.

    A device is at a site of ``judged`` if that is the name of its site, or the value of one of its attributes. The
    ``drifted`` devices are what the release was made for. Without any site judged, as by an older worker, nobody waits.
    """
    withheld, last = {}, {}
    for device in takers if judged else ():
        if device.device in drifted:
            continue
        names = {device.site, *device.attributes.values()}
        own = [site for site in judged if site.name in names]
        worse = next((site for site in own if site.harmful), None)
        unsure = next((site for site in own if not site.harmless), None)
        if worse is not None:
            withheld[device.device] = f"not at all: worse at {worse.name!r}: {worse.text}"
        elif unsure is not None:
            last[device.device] = f"last: not shown harmless at {unsure.name!r}: {unsure.text}"
        elif not own:
            last[device.device] = f"last: no labelled sample of {device.site!r} shows that it is harmless there"
    return withheld, last


class NextStep(StrEnum):
    """The action that the caller must perform before the trigger enters its new phase."""

    NOTHING = "nothing"
    CREATE_JOB = "create_job"
    CREATE_ROLLOUT = "create_rollout"


def may_start(verdict: StoredVerdict, triggers: Iterable[Trigger], config: RetrainingConfig, now_ms: int) -> bool:
    """Return whether ``verdict`` starts a trigger: right kind, none open for its model and cause, cooldown over.

    A provisional one does not: three days do not show how far a fleet ordinarily moves. After a trigger was withdrawn,
    only a new verdict starts another one. A verdict has one trigger, also if its cause is another by now.
    """
    if not config.enabled or verdict.kind not in RETRAINABLE or verdict.provisional or not verdict.model:
        return False
    related = [
        one
        for one in triggers
        if one.model == verdict.model and (one.cause == verdict.key or one.verdict == verdict.id)
    ]
    cooling = [one for one in related if one.phase is not RetrainingPhase.WITHDRAWN]
    if any(one.phase is RetrainingPhase.WITHDRAWN and one.verdict == verdict.id for one in related):
        return False
    return all(one.phase in OVER for one in related) and all(
        now_ms - one.updated_ms >= config.cooldown_s * 1000 for one in cooling
    )


def may_open(model: str, cause: str, triggers: Iterable[Trigger], config: RetrainingConfig, now_ms: int) -> bool:
    """Return whether harm that the steady audit shows starts a trigger.

    Not while a retraining of the model is under way that needs no more proof, not for a cause that a person has
    withdrawn (it names the release), and only after the cooldown.
    """
    own = [one for one in triggers if one.model == model]
    related = [one for one in own if one.cause == cause]
    if not config.enabled or any(one.phase is RetrainingPhase.WITHDRAWN for one in related):
        return False
    return all(one.phase in OVER | {RetrainingPhase.SUSPECTED, RetrainingPhase.COLLECTING} for one in own) and all(
        one.phase in OVER and now_ms - one.updated_ms >= config.cooldown_s * 1000 for one in related
    )


def advance(trigger: Trigger, facts: TriggerFacts, config: RetrainingConfig, now_ms: int) -> tuple[Trigger, NextStep]:
    """Return the trigger after at most one transition, and the step to perform for it."""
    phase, text, step = _next(trigger, facts, config)
    changed = phase is not trigger.phase
    updated_ms = now_ms if changed else trigger.updated_ms
    approved = trigger.approved and not (changed and phase in {RetrainingPhase.PROPOSED, RetrainingPhase.ROLLOUT})
    result = facts.job.release if facts.job.state == "done" else trigger.result
    return replace(trigger, phase=phase, text=text, updated_ms=updated_ms, approved=approved, result=result), step


def withdrawn(trigger: Trigger, now_ms: int) -> Trigger:
    """Return the trigger as withdrawn by a person; a rollout that it started continues."""
    text = "withdrawn by an operator" + (f"; rollout {trigger.rollout} goes on" if trigger.rollout else "")
    return replace(trigger, phase=RetrainingPhase.WITHDRAWN, text=text, approved=False, updated_ms=now_ms)


def merged(trigger: Trigger, whole: int, now_ms: int) -> Trigger:
    """Return the trigger as withdrawn because its drift is that of the trigger ``whole``, which goes on with it.

    Its verdict is that one's from now on: nobody has withdrawn what is done about that.
    """
    text = f"one drift with retraining {whole}, which goes on with its devices"
    return replace(trigger, phase=RetrainingPhase.WITHDRAWN, text=text, approved=False, updated_ms=now_ms, verdict=0)


def _next(trigger: Trigger, facts: TriggerFacts, config: RetrainingConfig) -> tuple[RetrainingPhase, str, NextStep]:
    if trigger.phase not in {RetrainingPhase.SUSPECTED, *GATHERING}:
        return _later(trigger, facts, config)
    patience_ms = 0 if trigger.phase is RetrainingPhase.SUSPECTED else config.patience_s * 1000  # nothing was asked yet
    if facts.quiet_ms > patience_ms:
        return RetrainingPhase.WITHDRAWN, "the alarm is over", NextStep.NOTHING
    if facts.not_trained:
        return RetrainingPhase.SUSPECTED, f"not retrained by the server: {facts.not_trained}", NextStep.NOTHING
    if trigger.phase is RetrainingPhase.COLLECTING:
        return _collecting(trigger, facts, config)
    if trigger.phase is RetrainingPhase.HARMFUL:
        corrected = facts.audited and not any(scene.wrong for scene in facts.audited)  # a wrong label showed the harm
        again = corrected and not trigger.approved
        return _collecting(trigger, facts, config) if again else _harmful(facts, config)
    return _suspected(trigger, facts, config)


def _suspected(
    trigger: Trigger, facts: TriggerFacts, config: RetrainingConfig
) -> tuple[RetrainingPhase, str, NextStep]:  # fmt: skip
    if facts.windows >= config.persisted_windows:
        return RetrainingPhase.COLLECTING, "asking the devices for samples", NextStep.NOTHING
    return trigger.phase, f"alarm in {facts.windows} of {config.persisted_windows} windows", NextStep.NOTHING


def _collecting(
    trigger: Trigger, facts: TriggerFacts, config: RetrainingConfig
) -> tuple[RetrainingPhase, str, NextStep]:
    bound = lower_bound(facts.audited, config.confidence)
    wrong = sum(scene.wrong for scene in facts.audited)
    said = (
        f"{wrong:.3g} of {len(facts.audited)} audited scenes wrong, risk at least {bound:.0%}, "
        f"source {facts.source_risk:.0%}"
        if facts.audited else "no audited scene is labelled yet"
    )  # fmt: skip
    if trigger.approved:
        return RetrainingPhase.HARMFUL, f"approved by a person; {said}", NextStep.NOTHING
    if facts.audited and bound > facts.source_risk + config.harm_margin:
        return RetrainingPhase.HARMFUL, said, NextStep.NOTHING
    return RetrainingPhase.COLLECTING, f"{said}; {facts.labelled} labelled{_untrained(facts)}", NextStep.NOTHING


def _harmful(facts: TriggerFacts, config: RetrainingConfig) -> tuple[RetrainingPhase, str, NextStep]:
    said = f"{facts.labelled} of {config.min_labelled} labelled samples{_untrained(facts)}"
    if facts.labelled < config.min_labelled:
        step = (
            "; label samples that show a class; if the model is to know what these show, add a class and its data to "
            "the recipe, and run it"
        )
        return RetrainingPhase.HARMFUL, said + (step if facts.nothing else ""), NextStep.NOTHING
    return RetrainingPhase.PROPOSED, said, NextStep.CREATE_JOB


def _untrained(facts: TriggerFacts) -> str:
    """Return how many more labels there are that nothing is trained with, in words; "" for none."""
    verb = "is" if facts.nothing == 1 else "are"
    return f", and {facts.nothing} more {verb} {NOTHING!r}, which isn't trained with" if facts.nothing else ""


def _later(trigger: Trigger, facts: TriggerFacts, config: RetrainingConfig) -> tuple[RetrainingPhase, str, NextStep]:
    if trigger.phase in {RetrainingPhase.PROPOSED, RetrainingPhase.TRAINING}:
        return (*_training(facts.job), NextStep.NOTHING)
    if trigger.phase is RetrainingPhase.GATED:
        return _gated(trigger, facts, wanted=config.auto_rollout or trigger.approved)
    if trigger.phase is RetrainingPhase.ROLLOUT:
        ended = {"succeeded": RetrainingPhase.SETTLED, "failed": RetrainingPhase.ROLLED_BACK}.get(
            facts.rollout, RetrainingPhase.ROLLOUT
        )
        return ended, f"rollout of {trigger.result}: {facts.rollout or 'open'}", NextStep.NOTHING
    return trigger.phase, trigger.text, NextStep.NOTHING


def _gated(trigger: Trigger, facts: TriggerFacts, *, wanted: bool) -> tuple[RetrainingPhase, str, NextStep]:
    if facts.rollout in {"open", "succeeded"}:
        return RetrainingPhase.ROLLOUT, f"{trigger.result} is rolled out already", NextStep.NOTHING
    if not wanted:
        return RetrainingPhase.GATED, f"{trigger.result} passed its gates; waits for approval", NextStep.NOTHING
    if not facts.takers:
        return RetrainingPhase.SETTLED, f"no device is left to take {trigger.result}", NextStep.NOTHING
    return RetrainingPhase.ROLLOUT, f"rolling out {trigger.result}, canary first", NextStep.CREATE_ROLLOUT


def _training(job: JobFacts) -> tuple[RetrainingPhase, str]:
    look = f"; look {job.look} at the gate split" if job.look else ""
    match job.state:
        case "failed":
            return RetrainingPhase.FAILED, job.text
        case "done":
            return RetrainingPhase.GATED, f"{job.release} passed its gates"
        case "leased":
            return RetrainingPhase.TRAINING, f"a worker trains{look}"
        case _:
            return RetrainingPhase.PROPOSED, f"waits for a worker{look}"
