"""Samples and retraining as the pages show them; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.dashboard.finding.addresses import page_of
from server.dashboard.views import Cut, PageLink, Status, Tone, ago, clock_time
from server.retraining.audit import ModelAudit
from server.retraining.harm import GroupRisk
from server.retraining.labelling import LabelForm
from server.retraining.policy import GATHERING, OVER, RetrainingPhase, Trigger
from server.retraining.samples import ClaimChange, LabelChange, StoredSample
from server.rollout.thresholds import devices

_WAY = (
    RetrainingPhase.SUSPECTED, RetrainingPhase.COLLECTING, RetrainingPhase.HARMFUL, RetrainingPhase.PROPOSED,
    RetrainingPhase.TRAINING, RetrainingPhase.GATED, RetrainingPhase.ROLLOUT, RetrainingPhase.SETTLED,
)  # fmt: skip
_PHASES = {
    RetrainingPhase.SUSPECTED: Status("suspected", Tone.WARN),
    RetrainingPhase.COLLECTING: Status("collecting samples", Tone.BUSY),
    RetrainingPhase.HARMFUL: Status("harmful, needs labels", Tone.WARN),
    RetrainingPhase.PROPOSED: Status("waits for a worker", Tone.BUSY),
    RetrainingPhase.TRAINING: Status("training", Tone.BUSY),
    RetrainingPhase.GATED: Status("passed its gates", Tone.GOOD),
    RetrainingPhase.ROLLOUT: Status("rolling out", Tone.BUSY),
    RetrainingPhase.SETTLED: Status("settled", Tone.GOOD),
    RetrainingPhase.ROLLED_BACK: Status("rolled back", Tone.BAD),
    RetrainingPhase.WITHDRAWN: Status("withdrawn", Tone.CALM),
    RetrainingPhase.FAILED: Status("failed", Tone.BAD),
}
_ASKS = {RetrainingPhase.COLLECTING: "Train anyway", RetrainingPhase.GATED: "Approve rollout"}
_NAMED = 6
_STILL_S = 0.5  # longer than most people take for the second click of two
_LANES = {
    "audit": "audit: drawn uniformly",
    "drift": "drift: looks new",
    "correction": "correction: a user of the device said so",
}


@dataclass(slots=True)
class Moves:
    """When each image of a page came where it is, so that a click meant for the image before it is no label.

    An image that is labelled leaves its place to the next one: a double click would label both.
    """

    _places: dict[int, tuple[int, float]] = field(default_factory=dict)

    def note(self, shown: Sequence[int], now_s: float) -> None:
        """Note the samples that the page shows, in their order; nothing moves on a page that showed none."""
        before = self._places
        self._places = {
            sample: before[sample]
            if before.get(sample, (-1, 0.0))[0] == place
            else (place, now_s if before else -math.inf)
            for place, sample in enumerate(shown)
        }

    def just_moved(self, sample: int, now_s: float) -> bool:
        """Return whether ``sample`` came where it is less than half a second ago."""
        return sample in self._places and now_s - self._places[sample][1] < _STILL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCard:
    """One image that waits for a label; ``form`` are the labels that fit its ``model``."""

    id: int
    device: str
    model: str
    guess: str
    lane: str
    taken: str
    form: LabelForm


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One labelled image in the list of those labelled last."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class RetrainingStage:
    """One stage of a retraining: passed, current, or to come."""

    name: str
    tone: Tone
    now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerCard:
    """One retraining; ``ask`` is the button that a person may press now, "" for none; ``look``: as ``look_text``."""

    id: int
    model: str
    phase: Status
    words: str
    text: str
    devices: Cut[str]
    opened: str
    release: str
    result: str
    stages: tuple[RetrainingStage, ...]
    ask: str
    open: bool
    look: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """The error rate of one release on some devices, in words."""

    where: str
    text: str
    status: Status


def audit_rows(audit: ModelAudit) -> tuple[AuditRow, ...]:
    """Return the rows of one release: all devices first, then what is harmful, then the rest."""
    ordered = [*audit.groups[:1], *sorted(audit.groups[1:], key=lambda group: not group.harmful)]
    return tuple(AuditRow(f"{audit.release} on {group.name}", risk_text(group), _harm(group)) for group in ordered)


def risk_text(group: GroupRisk) -> str:
    """Return an error rate in words: the labels, the bounds, what is allowed, and since when."""
    risk = group.risk
    if not risk.scenes:
        return "no labels of the steady audit yet"
    since = f", since {clock_time(risk.since_ms)} UTC" if group.harmful else ""
    allowed = f"allowed {group.allowed:.1%}" if group.allowed < 1 else "made without labels: nobody knows what is usual"
    return (
        f"{risk.wrong:.3g} of {risk.scenes} labelled scenes wrong: error rate {risk.at_least:.1%} to "
        f"{risk.at_most:.1%}, {allowed}{since}"
    )


def asked_text(audit: ModelAudit) -> str:
    """Return what the devices of a release are asked for, in words."""
    if audit.not_asked:
        return f"{audit.release}: not audited: {audit.not_asked}"
    if not audit.samples_per_day:
        return f"{audit.model}: the steady audit is off ([audit] of server.toml)"
    if not audit.asked_ms:
        return f"{audit.model}: the devices are asked within an hour after their first windows"
    return (
        f"{audit.model}: {audit.samples_per_day:g} a day of {audit.images_per_day:,.0f} inferences, "
        f"{devices(audit.devices)} asked at {clock_time(audit.asked_ms)} UTC"
    )


def _harm(group: GroupRisk) -> Status:
    if group.harmful:
        return Status("wrong too often", Tone.BAD)
    within = bool(group.risk.scenes) and group.risk.at_most <= group.allowed < 1
    return Status("within what is allowed", Tone.GOOD) if within else Status("not shown either way", Tone.CALM)


def guess_text(sample: StoredSample, form: LabelForm) -> str:
    """Return what the model said of a sample, in words."""
    known = 0 <= sample.predicted < len(form.classes)
    name = form.classes[sample.predicted] if known else f"class {sample.predicted}"
    guess = f"{name}, {100 * sample.confidence:.0f} % sure"
    if form.refusal:
        guess = "its answer is more than one class"
    elif form.values:
        guess = f"predicts {', '.join(form.values)}"
    elif sample.predicted < 0:
        guess = "no prediction"
    return guess


def sample_card(sample: StoredSample, form: LabelForm) -> SampleCard:
    """Return the card of one sample; ``form`` are the labels that fit the model that took it.

    It says when the sample was taken, not how long ago: a list is built anew when its text changes, and a click that
    was under way to a button of before is lost.
    """
    guess = guess_text(sample, form)
    if sample.claimed:
        guess = f"{guess}; a user says {sample.claimed}"
    return SampleCard(
        id=sample.id,
        device=sample.device,
        model=_model_text(sample),
        guess=guess,
        lane=_LANES[sample.lane],
        taken=f"{clock_time(sample.at_ms)} UTC",
        form=form,
    )


def labelled_row(sample: StoredSample) -> LabelledRow:
    """Return the row of a labelled sample."""
    label = _label_text(sample.label, sample.label_by, sample.labelled_ms)
    return LabelledRow(sample.id, f"{_model_text(sample)}: {label}")


def _model_text(sample: StoredSample) -> str:
    known = sample.model and sample.model != sample.artifact_sha256
    return sample.model if known else "a model that no release here is of"


def label_lines(sample: StoredSample, changes: Sequence[LabelChange]) -> tuple[str, ...]:
    """Return every label that an image has had, with who gave it and when (UTC), the newest first; () without one."""
    before = [_label_text(one.label, one.label_by, one.labelled_ms) for one in reversed(changes)]
    now = [_label_text(sample.label, sample.label_by, sample.labelled_ms)] if sample.label else []
    return (*now, *(f"before: {text}" for text in before))


def claim_lines(changes: Sequence[ClaimChange]) -> tuple[str, ...]:
    """Return what users of devices said of an image before their last correction, the newest first."""
    return tuple(
        f"a user of {one.device} said {one.claimed}, and at {clock_time(one.changed_ms)} UTC {one.new_claimed}"
        for one in reversed(changes)
    )


def _label_text(label: str, by: str, at_ms: int) -> str:
    return f"{label}, by {by or 'somebody'}" + (f", {clock_time(at_ms)} UTC" if at_ms else "")


def look_text(look: int, taken: int, most: int) -> str:
    """Return which look at its gate split a retraining is, of the ``taken`` ones, and how many of ``most`` are left.

    "" for a retraining that has no look yet, or that was made before looks were counted.
    """
    if not look:
        return ""
    left = max(most - taken, 0)
    rest = f"{left} left" if left else "none left: the next one needs a release that was judged on new rows"
    return f"Look {look} at the gate split of its base release; of {most} looks {rest}."


def trigger_card(trigger: Trigger, now_ms: int, *, look: str = "") -> TriggerCard:
    """Return the card of one retraining; ``look`` as by ``look_text``."""
    asks = trigger.approvable and not trigger.approved
    return TriggerCard(
        id=trigger.id,
        model=trigger.model,
        phase=_PHASES[trigger.phase],
        words=trigger.words,
        text=trigger.text,
        devices=Cut.of(trigger.devices, _NAMED),
        opened=f"opened {ago(trigger.opened_ms, now_ms)}",
        release=trigger.release,
        result=trigger.result,
        stages=stages(trigger.phase),
        ask=_ASKS[trigger.phase] if asks else "",
        open=trigger.phase not in OVER,
        look=look,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """What is done about a verdict: the retraining ``id`` and its phase, in words, and the next act of a person.

    ``ask``: the button that approves, "" for none; ``links``: texts and addresses of what it has led to so far;
    ``over``: whether it has ended.
    """

    id: int
    phase: Status
    text: str
    ask: str
    links: tuple[PageLink, ...]
    over: bool


def under_way(trigger: Trigger) -> UnderWay:
    """Return what is done about a verdict by its retraining."""
    links = []
    if trigger.phase in GATHERING:
        links.append(PageLink("Label samples", "/label"))
    if trigger.job:
        links.append(PageLink("Its job", page_of("job", trigger.job)))
    if trigger.result:
        links.append(PageLink(trigger.result, page_of("release", trigger.result)))
    if trigger.rollout:
        links.append(PageLink("Its rollout", page_of("rollout", trigger.rollout)))
    links.append(PageLink("Its retraining", page_of("retraining", str(trigger.id))))
    asks = trigger.approvable and not trigger.approved
    return UnderWay(
        id=trigger.id, phase=_PHASES[trigger.phase], text=trigger.text, ask=_ASKS[trigger.phase] if asks else "",
        links=tuple(links), over=trigger.phase in OVER,
    )  # fmt: skip


def stages(phase: RetrainingPhase) -> tuple[RetrainingStage, ...]:
    """Return the stages of a retraining with their progress; none is current if it ended early."""
    here = _WAY.index(phase) if phase in _WAY else -1
    return tuple(
        RetrainingStage(
            step.value,
            Tone.GOOD if index < here or phase is RetrainingPhase.SETTLED else Tone.CALM,
            now=index == here and phase is not RetrainingPhase.SETTLED,
        )
        for index, step in enumerate(_WAY)
    )
