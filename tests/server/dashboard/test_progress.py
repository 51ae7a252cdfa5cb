"""The texts for rollouts, samples and retraining."""

from dataclasses import replace

import pytest

from server.dashboard.learning import (
    Moves,
    asked_text,
    audit_rows,
    label_lines,
    labelled_row,
    look_text,
    sample_card,
    stages,
    trigger_card,
)
from server.dashboard.progress import SafetyLine, actions, replay_text, rollout_card, safety_line
from server.dashboard.views import Status, Tone
from server.retraining.audit import ModelAudit
from server.retraining.harm import GroupRisk, Risk
from server.retraining.labelling import LabelForm
from server.retraining.policy import RetrainingPhase, Trigger
from server.retraining.samples import LabelChange, StoredSample
from server.rollout.model import OPEN_PHASES, Group, Member, MemberStanding, Rollout, RolloutPhase
from server.wording import in_bytes
from wire.shadow import ShadowCounts, ShadowOrder, ShadowPair

NOW_MS = 1_795_000_000_000
ROLLOUT = Rollout(
    id="r1",
    release="digits-2",
    groups=(
        Group(name="canary", success_ratio=1.0, error_ratio=0.5),
        Group(name="rest", success_ratio=0.9, error_ratio=0.2),
    ),
    members=(
        Member(device="a", group=0, standing=MemberStanding.COMMITTED, air_bytes=1000),
        Member(device="b", group=0, standing=MemberStanding.FAILED, code="digest_mismatch", air_bytes=500),
        Member(device="c", group=0, standing=MemberStanding.CANCELLED),
        Member(device="d", group=1),
    ),
    phase=RolloutPhase.RUNNING,
    opened=1,
)
SAMPLE = StoredSample(
    id=7,
    device="gate-01",
    sha256="ab",
    media_type="image/png",
    length_bytes=10,
    lane="audit",
    inclusion_ratio=1.0,
    predicted=1,
    confidence=0.5,
    artifact_sha256="cd",
    at_ms=NOW_MS,
    received_ms=NOW_MS,
    label="",
    label_by="",
)
TRIGGER = Trigger(
    id=1,
    model="digits",
    cause="cohort",
    words="darker",
    verdict=1,
    devices=("gate-01",),
    since_ms=0,
    release="digits-1",
)


def test_a_click_right_after_an_image_came_where_it_is_was_meant_for_the_one_before() -> None:
    """Only those that moved wait; on a page that was empty of notes nothing has moved."""
    moves = Moves()
    moves.note([1, 2, 3], 100.0)
    assert not moves.just_moved(2, 100.0)
    moves.note([1, 3, 4], 110.0)
    assert [moves.just_moved(one, 110.3) for one in (1, 3, 4)] == [False, True, True]
    moves.note([1, 3, 4], 110.4)  # shown again, where they were
    assert [moves.just_moved(one, 110.6) for one in (1, 3, 4)] == [False, False, False]
    assert not moves.just_moved(2, 110.1)  # it is gone: its label is settled by the store


def test_a_group_counts_only_who_takes_part() -> None:
    """Cancelled devices leave the denominator."""
    card = rollout_card(ROLLOUT, NOW_MS)
    canary, rest = card.groups
    assert (canary.committed, canary.failed, canary.total) == (1, 1, 2)
    assert (rest.total, rest.committed_ratio) == (1, 0.0)
    assert ["not open yet" in [one.text for one in group.states] for group in (canary, rest)] == [False, True]
    assert canary.members.rows[1].standing.text == "failed: digest mismatch"
    assert card.air == "1.5 kB fetched"


def risk(value: str, at_least: float, at_most: float, *, scenes: int = 100) -> GroupRisk:
    """Return the error rate of a site, with 7 % allowed."""
    found = Risk(scenes=scenes, wrong=12.0, at_least=at_least, at_most=at_most, since_ms=NOW_MS - 86_400_000)
    return GroupRisk(attribute="site" if value else "", value=value, devices=("a",), risk=found, allowed=0.07)


def test_an_audit_names_harm_first_after_all_devices() -> None:
    """A bound above what is allowed is bad, one below it good, and neither is said as neither."""
    groups = (risk("", 0.05, 0.1), risk("east", 0.01, 0.06), risk("west", 0.08, 0.2))
    audit = ModelAudit(model="digits", release="digits-1", samples_per_day=5, asked_ms=NOW_MS, devices=3, groups=groups)
    rows = audit_rows(audit)
    assert [(row.where, row.status.tone) for row in rows] == [
        ("digits-1 on all devices", Tone.CALM),
        ("digits-1 on site west", Tone.BAD),
        ("digits-1 on site east", Tone.GOOD),
    ]
    assert rows[1].text.startswith("12 of 100 labelled scenes wrong: error rate 8.0% to 20.0%, allowed 7.0%, since ")
    assert "5 a day" in asked_text(audit)
    assert ", 1 device asked at " in asked_text(replace(audit, devices=1))
    assert "is off" in asked_text(replace(audit, samples_per_day=0))
    assert "within an hour after their first windows" in asked_text(replace(audit, asked_ms=0))
    assert audit_rows(replace(audit, groups=(risk("", 0, 1, scenes=0),)))[0].text == "no labels of the steady audit yet"


def test_an_empty_group_is_no_division_by_zero() -> None:
    """A group may have lost all its devices."""
    assert rollout_card(replace(ROLLOUT, members=()), NOW_MS).groups[0].committed_ratio == 0.0


@pytest.mark.parametrize("phase", RolloutPhase)
def test_only_buttons_that_make_sense_are_offered(phase: RolloutPhase) -> None:
    """A finished rollout can't be controlled, a running one can be aborted."""
    offered = actions(phase)
    assert ("abort" in offered) == (phase in OPEN_PHASES - {RolloutPhase.ABORTING})
    assert rollout_card(replace(ROLLOUT, phase=phase), NOW_MS).actions == offered


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (7, "7 B"), (1500, "1.5 kB"), (420_000, "420 kB"), (3_210_000_000, "3.21 GB")]
)
def test_says_bytes_for_people(count: int, text: str) -> None:
    """Three figures are enough."""
    assert in_bytes(count) == text


def test_a_sample_names_the_class_where_it_is_known() -> None:
    """Otherwise the number is all there is."""
    assert sample_card(SAMPLE, LabelForm(classes=("no", "yes"))).guess == "yes, 50 % sure"
    assert sample_card(SAMPLE, LabelForm()).guess == "class 1, 50 % sure"
    assert sample_card(replace(SAMPLE, predicted=-1), LabelForm()).guess == "no prediction"
    assert sample_card(SAMPLE, LabelForm(values=("litres",))).guess == "predicts litres"


def test_what_can_be_labelled_looks_the_same_a_minute_later() -> None:
    """A list that says how long ago builds its buttons anew each minute, and a click under way is lost."""
    taken = sample_card(replace(SAMPLE, at_ms=1_700_000_000_000), LabelForm()).taken
    assert taken == "2023-11-14 22:13:20 UTC"


def test_a_label_has_its_history_the_newest_first() -> None:
    """With name and time; nothing before somebody has labelled it."""
    change = LabelChange(
        label="3", label_by="", labelled_ms=1_000, new_label="8", changed_by="ben", changed_ms=61_000
    )  # fmt: skip
    labelled = replace(SAMPLE, label="8", label_by="ben", labelled_ms=61_000)
    assert label_lines(SAMPLE, ()) == ()
    assert label_lines(labelled, (change,)) == (
        "8, by ben, 1970-01-01 00:01:01 UTC", "before: 3, by somebody, 1970-01-01 00:00:01 UTC"
    )  # fmt: skip
    row = labelled_row(replace(labelled, model="digits"))
    assert row.text == f"digits: {label_lines(labelled, ())[0]}", "a picture is listed once for each model"


@pytest.mark.parametrize("phase", RetrainingPhase)
def test_every_phase_of_a_retraining_can_be_shown(phase: RetrainingPhase) -> None:
    """A phase has a text, and a button only if a person decides."""
    card = trigger_card(replace(TRIGGER, phase=phase), NOW_MS)
    assert card.phase.text
    assert bool(card.ask) == (phase in {RetrainingPhase.COLLECTING, RetrainingPhase.GATED})
    assert trigger_card(replace(TRIGGER, phase=phase, approved=True), NOW_MS).ask == ""


@pytest.mark.parametrize(("look", "taken", "said"), [
    (0, 5, ""), (1, 1, "Look 1 at the gate split of its base release; of 3 looks 2 left."),
    (2, 3, "of 3 looks none left: the next one needs"), (3, 4, "of 3 looks none left"),
])  # fmt: skip
def test_a_retraining_says_which_look_it_is_and_how_many_are_left(look: int, taken: int, said: str) -> None:
    """Nothing before there is a job; later looks of others count for what is left."""
    text = look_text(look, taken, 3)
    assert text.startswith(said) if look < 2 else said in text
    assert bool(text) == bool(look)
    assert trigger_card(TRIGGER, NOW_MS, look=text).look == text


def test_the_way_shows_where_a_retraining_is() -> None:
    """Steps before the current one are good, one is current, and a retraining that ended early has no current step."""
    tones = [(stage.tone, stage.now) for stage in stages(RetrainingPhase.HARMFUL)[:4]]
    assert tones == [(Tone.GOOD, False), (Tone.GOOD, False), (Tone.CALM, True), (Tone.CALM, False)]
    assert not any(stage.now for stage in stages(RetrainingPhase.WITHDRAWN))
    assert all(stage.tone is Tone.GOOD for stage in stages(RetrainingPhase.SETTLED))


@pytest.mark.parametrize(
    ("air_bytes", "bundle_bytes", "text"),
    [(0, 0, ""), (0, 400, "400 B of bundles on devices that don't count"),
     (39_000, 152_000, "39 kB fetched, 152 kB of bundles on devices that don't count")],
)  # fmt: skip
def test_what_older_agents_say_is_no_traffic(air_bytes: int, bundle_bytes: int, text: str) -> None:
    """Bundles that are there may have come as patches: the two figures are never added."""
    members = (Member(device="a", group=0, air_bytes=air_bytes), Member(device="b", group=0, bundle_bytes=bundle_bytes))
    assert rollout_card(replace(ROLLOUT, members=members), NOW_MS).air == text


def test_a_shadow_is_told_without_a_claim_of_error() -> None:
    """Inputs, labels that differ and the most frequent pair, summed over the devices; nothing without a shadow."""
    seen = ShadowCounts(seconds=30, n=90, disagreed=4, pairs=(ShadowPair("3", "", 4),))
    members = tuple(replace(member, shadow=seen) for member in ROLLOUT.members[:2])
    text = "in the shadow of 2 devices: 180 inputs compared in 60 s, 8 (4.4 %) with two labels, most often 3 → none (8)"
    assert rollout_card(replace(ROLLOUT, members=members), NOW_MS).shadow == text
    assert rollout_card(ROLLOUT, NOW_MS).shadow == rollout_card(ROLLOUT, NOW_MS).shadow_means == ""


@pytest.mark.parametrize(("max_ratio", "says"), [(1.0, "not known."), (0.02, "a device refuses it above 2 %.")])
def test_a_shadow_says_what_it_means(max_ratio: float, says: str) -> None:
    """Which label is right is not known; a limit is named where there is one."""
    means = rollout_card(replace(ROLLOUT, shadow=ShadowOrder(60.0, max_ratio)), NOW_MS).shadow_means
    assert means.endswith(says)


def test_a_replay_names_the_devices_that_had_nothing_to_answer() -> None:
    """Inputs answered again and other labels; without any device that told, nothing."""
    some, none = ShadowCounts(n=60, disagreed=6, pairs=(ShadowPair("3", "8", 6),)), ShadowCounts()
    members = (replace(ROLLOUT.members[0], replay=some), replace(ROLLOUT.members[1], replay=none))
    text = "inputs of the release before, answered again on 1 device: 60, 6 (10.0 %) with two labels"
    assert rollout_card(replace(ROLLOUT, members=members), NOW_MS).replay == (
        f"{text}, most often 3 → 8 (6); 1 had kept none"
    )
    assert replay_text([none]) == "1 device had kept no inputs of the release before to answer again"
    assert rollout_card(ROLLOUT, NOW_MS).replay == replay_text([]) == ""


def test_whether_an_update_is_safe_is_said_from_its_figures() -> None:
    """Nothing known, none failed, some failed, and held by a verdict; a rollout of one device too."""
    groups = (Group(name="canary", success_ratio=1.0, error_ratio=0.5),)

    def line(*standings: MemberStanding, held: tuple[int, ...] = ()) -> SafetyLine:
        members = tuple(Member(device=f"d{at}", group=0, standing=one) for at, one in enumerate(standings))
        phase = RolloutPhase.PAUSED if held else RolloutPhase.RUNNING
        rollout = Rollout(id="r", release="m-2", groups=groups, members=members, phase=phase, opened=1, created_ms=1)
        return safety_line(rollout_card(rollout, 2, held))

    one = MemberStanding.COMMITTED
    assert line(MemberStanding.ASSIGNED).safe.text == "no device has an outcome yet"
    assert line(one).safe == Status("none failed of 1 so far", Tone.BUSY)
    assert line(one, one, MemberStanding.FAILED, MemberStanding.STUCK).safe.text == "2 failed or stuck, 2 committed"
    assert line(one, held=(3, 4)).safe == Status("held: a release made it worse (verdict 3, 4)", Tone.BAD)
    assert line(one, MemberStanding.FAILED).groups[0].startswith("canary: 1 of 2 committed, 1 failed")
