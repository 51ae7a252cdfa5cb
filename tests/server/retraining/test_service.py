"""From a verdict to a settled rollout, on a real store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.access.audit_log import AuditLog
from server.drift.verdicts import VerdictKind
from server.errors import LeaseLostError, TriggerPhaseError
from server.people import SERVER_ACTOR
from server.registry.blobs import Blobs
from server.rollout.create import RolloutOptions
from server.rollout.model import RolloutPhase
from server.store.fleet import DEVICES
from tests.server.retraining.conftest import sample

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site


def turns(site: Site, count: int = 4, now_ms: int = 1_000) -> str:
    """Run some turns; return the phase of the newest trigger."""
    for _ in range(count):
        site.service.turn(now_ms)
    known = site.service.triggers.all()
    return known[0].phase.value if known else ""


def test_a_persisted_site_alarm_becomes_a_rolled_out_model(site: Site) -> None:
    """Every state from suspicion to settled, in its order, each for its reason."""
    site.alarm(1)
    assert turns(site) == "suspected"
    site.alarm(3)
    assert turns(site) == "collecting"
    site.upload(30, wrong=20)
    assert turns(site) == "proposed"
    job = site.service.jobs.lease("w", 2_000)
    assert job is not None
    assert (job.labelled, job.base_release, turns(site)) == (30, "model-1", "training")
    site.release(2)
    site.service.jobs.done(job.id, "w", "model-2", {}, 3_000)
    assert turns(site) == "rollout"
    assert (site.rollouts.requests[0].release, site.rollouts.requests[0].canary) == ("model-2", ("d1",))
    assert site.rollouts.by == [SERVER_ACTOR], "it is no person's own rollout"
    site.rollouts.phase = RolloutPhase.SUCCEEDED
    assert turns(site) == "settled"


def test_devices_are_asked_for_samples_once_an_interval(site: Site) -> None:
    """Each device gets requests for both lanes, with the opt-in budget, and not again in the next turn."""
    site.alarm(3)
    turns(site, 6)
    asked = [(command.verb, command.arguments["lane"]) for command in site.commands()]
    assert asked == [("samples", "audit"), ("samples", "drift")] * 2
    assert site.service.fleet.device("d1").desired.config == {"sample_bytes_per_day": 100_000}  # type: ignore[union-attr]


def test_harmless_drift_is_not_retrained_without_a_person(site: Site) -> None:
    """Labels without errors show no harm; an approval replaces the proof."""
    site.alarm(3)
    turns(site)
    site.upload(30, wrong=1)
    assert turns(site) == "collecting"
    trigger = site.service.triggers.all()[0].id
    site.service.approve(trigger, by="ada")
    assert turns(site) == "proposed"
    made, act = AuditLog(site.service.triggers.database).latest(2)
    assert (act.act, act.account, act.subject) == ("retraining.approve", "ada", str(trigger))
    assert (made.act, made.account, made.data["retraining"]) == ("job.create", "server", trigger)


def test_asking_devices_for_pictures_is_an_act_of_the_server(site: Site) -> None:
    """One record for all that are asked, with how many and which."""
    site.alarm(3)
    turns(site)
    acts = [one for one in AuditLog(site.service.triggers.database).after(0, 99) if one.act == "retraining.ask"]
    assert [(one.account, one.data["devices"], one.data["first"]) for one in acts] == [("server", 2, ["d1", "d2"])]


def test_a_scene_that_is_seen_often_is_one_observation(site: Site) -> None:
    """Thirty wrong answers about one scene prove no harm; thirty scenes do."""
    site.alarm(3)
    turns(site)
    for number in range(30):
        site.service.samples.accept("d1", replace(sample(number), at_ms=40 + number), 50)
    for known in site.service.samples.latest(unlabelled=True, limit=100):
        site.service.samples.label(known.id, "1", "a person", 60)
    assert turns(site) == "collecting"
    assert "1 of 1 audited scenes wrong" in site.service.triggers.all()[0].text
    site.upload(30, wrong=30, start=30)
    assert turns(site) == "proposed"


def test_corrections_are_no_proof_of_harm(site: Site) -> None:
    """Users correct what is wrong, so the share of errors among corrections says nothing of the model."""
    site.alarm(3)
    turns(site)
    site.upload(30, wrong=1)
    site.upload(30, wrong=30, lane="correction", start=30)
    assert turns(site) == "collecting"


def test_a_rollout_waits_for_a_person_where_it_is_not_automatic(by_hand: Site) -> None:
    """Without a person it stops after the gates."""
    by_hand.alarm(3)
    turns(by_hand)
    by_hand.upload(30, wrong=20)
    turns(by_hand)
    job = by_hand.service.jobs.lease("w", 2_000)
    by_hand.release(2)
    by_hand.service.jobs.done(job.id if job else "", "w", "model-2", {}, 3_000)
    assert turns(by_hand) == "gated"
    by_hand.service.triggers.approve(by_hand.service.triggers.all()[0].id)
    assert turns(by_hand) == "rollout"


def gated(site: Site) -> None:
    """Bring a trigger to its trained release, model-2."""
    site.alarm(3)
    turns(site)
    site.upload(30, wrong=20)
    turns(site)
    job = site.service.jobs.lease("w", 2_000)
    site.release(2)
    site.service.jobs.done(job.id if job else "", "w", "model-2", {}, 3_000)


def test_a_rollout_that_is_there_is_adopted(site: Site) -> None:
    """The server crashed after it had created the rollout: otherwise the next one would be refused for ever."""
    gated(site)
    site.rollouts.create(RolloutOptions(release="model-2", canary=1))
    site.rollouts.refuses = True
    assert turns(site) == "rollout"
    assert site.service.triggers.all()[0].rollout == "r1"
    site.rollouts.phase = RolloutPhase.SUCCEEDED
    assert turns(site) == "settled"


def test_a_rollout_by_hand_needs_no_approval(by_hand: Site) -> None:
    """A person who rolls the release out has approved it; an aborted rollout does not count."""
    gated(by_hand)
    by_hand.rollouts.create(RolloutOptions(release="model-2", canary=1))
    by_hand.rollouts.phase = RolloutPhase.ABORTED
    assert turns(by_hand) == "gated"
    by_hand.rollouts.phase = RolloutPhase.RUNNING
    assert turns(by_hand) == "rollout"


def test_nobody_left_to_update_is_settled(site: Site) -> None:
    """A rollout for no device is always refused; the retraining is over then."""
    gated(site)
    with site.service.triggers.database.begin() as connection:
        connection.execute(DEVICES.update().values(attributes={"target": "other"}))
    site.rollouts.refuses = True
    assert turns(site) == "settled"


def test_the_canary_is_a_device_that_can_take_the_release(site: Site) -> None:
    """With a drifted device that can't run it, the whole rollout would be refused."""
    gated(site)
    with site.service.triggers.database.begin() as connection:
        connection.execute(DEVICES.update().where(DEVICES.c.device == "d1").values(attributes={"target": "other"}))
    assert turns(site) == "rollout"
    assert site.rollouts.requests[0].canary == ("d2",)


def test_a_withdrawn_retraining_stays_withdrawn(site: Site) -> None:
    """Its job ends, and the same alarm starts no other one; a new alarm does."""
    site.alarm(3)
    turns(site)
    site.upload(30, wrong=20)
    turns(site)
    job = site.service.jobs.lease("w", 2_000)
    ended = site.service.withdraw(site.service.triggers.all()[0].id, 2_500, by="ada")
    (act,) = AuditLog(site.service.triggers.database).latest(1)
    assert (act.act, act.account, act.at_ms) == ("retraining.withdraw", "ada", 2_500)
    assert (ended.phase.value, turns(site), len(site.service.triggers.all())) == ("withdrawn", "withdrawn", 1)
    with pytest.raises(LeaseLostError):
        site.service.jobs.heartbeat(job.id if job else "", "w", 3_000)
    with pytest.raises(TriggerPhaseError, match="not over"):
        site.service.withdraw(ended.id, 3_000)
    site.service.verdicts.note([], 100, 100, quiet_ms=20, judged=True)
    site.alarm(1)
    assert turns(site) == "suspected"


def test_labels_are_looked_up_once_a_bundle(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a sample, twice a second: a bundle has megabytes."""
    site.alarm(3)
    turns(site)
    site.upload(30, wrong=1)
    opened: list[str] = []
    read = Blobs.read
    monkeypatch.setattr(Blobs, "read", lambda blobs, sha256: opened.append(sha256) or read(blobs, sha256))
    turns(site, 6)
    assert len(opened) <= 1


def test_too_few_labels_wait(site: Site) -> None:
    """Harm alone is not enough: there must be something to train and to judge with."""
    site.alarm(3)
    turns(site)
    site.upload(19, wrong=15)
    assert turns(site) == "harmful"


def test_what_the_gates_refused_cools_down(site: Site) -> None:
    """A failed job ends the trigger with the gate's text, and the same alarm does not start another at once."""
    site.alarm(3)
    turns(site)
    site.upload(30, wrong=20)
    turns(site)
    job = site.service.jobs.lease("w", 2_000)
    site.service.jobs.failed(job.id if job else "", "w", "gate_fail", "accuracy_drop fail: 3 points", 3_000)
    assert turns(site, 8) == "failed"
    assert "3 points" in site.service.triggers.all()[0].text
    assert len(site.service.triggers.all()) == 1


@pytest.mark.parametrize("kind", [VerdictKind.DEVICE_FAULT, VerdictKind.RELEASE_REGRESSION, VerdictKind.DEVICE_LOCAL])
def test_faults_and_regressions_never_retrain(site: Site, kind: VerdictKind) -> None:
    """A broken device or release is repaired, not learnt."""
    site.alarm(5, kind)
    assert turns(site) == ""


def test_an_alarm_that_ends_withdraws(site: Site) -> None:
    """A trigger that stays quiet before any proposal is dropped, and the devices stop uploading."""
    site.alarm(3)
    turns(site)
    site.service.verdicts.note([], 100, 100, quiet_ms=20, judged=True)
    assert turns(site, now_ms=100 + 7_200_001) == "withdrawn"
    assert site.service.fleet.device("d1").desired.config == {"sample_bytes_per_day": 0}  # type: ignore[union-attr]


def test_only_waiting_triggers_can_be_approved(site: Site) -> None:
    """A suspicion is nothing to approve."""
    site.alarm(1)
    turns(site)
    with pytest.raises(TriggerPhaseError):
        site.service.triggers.approve(site.service.triggers.all()[0].id)


def test_a_used_up_gate_split_starts_no_training(site: Site) -> None:
    """The trigger waits, and says what is needed; the next release with fresh gate rows lets it go on."""
    site.service.jobs = replace(site.service.jobs, config=replace(site.service.config, max_looks=1))
    site.alarm(3)
    turns(site)
    site.upload(30, wrong=20)
    turns(site)
    job = site.service.jobs.lease("w", 2_000)
    site.service.jobs.failed(job.id if job else "", "w", "gate_fail", "accuracy_drop fail: 3 points", 3_000)
    turns(site)
    site.alarm(4)
    assert turns(site, 8, now_ms=10_000_000) == "harmful"
    assert "gate_split_used: Expected at most 1 retrainings of model" in site.service.triggers.all()[0].text
    assert site.service.jobs.lease("w", 10_000_000) is None
