"""Approval by others than the one who created a rollout, where ``[rollout] approvers`` asks for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.dashboard.progress import rollout_card
from server.errors import ApprovalRefusedError
from server.people import SERVER_ACTOR, Actor, ActorKind
from server.rollout.create import RolloutOptions
from server.rollout.model import Rollout, RolloutPhase
from server.rollout.service import RolloutService
from wire.canonical import sha256_hex
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from conftest import MemoryFleet


def person(name: str) -> Actor:
    """Return a person who has logged in."""
    return Actor(account=name, kind=ActorKind.USER)


ADA, BOB, EVE = map(person, ("ada", "bob", "eve"))
ROBOT = Actor(account="operator", kind=ActorKind.TOKEN, said="bob")


@pytest.fixture
def service(fleet: MemoryFleet) -> RolloutService:
    """The rollouts of a fleet with one device and a release; two others have to approve."""
    fleet.enrol("d0")
    versions, data = fleet.app.parts.versions, b"a bundle"
    versions.blobs.put(sha256_hex(data), [data])
    custom = TargetCustom(model="meter", version=1, target="gateway")
    path = target_path("meter", 1, "gateway")
    versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=1)
    fleet.app.parts.rollouts.config = replace(fleet.app.parts.rollouts.config, approvers=2)
    return fleet.app.parts.rollouts


def made(service: RolloutService, by: Actor, *, approved: bool = False) -> Rollout:
    """Create the rollout."""
    return service.create(RolloutOptions(release="meter-1", approved=approved), by=by)


def test_who_may_not_approve_is_not_asked(service: RolloutService) -> None:
    """The effects are shown to anybody who looks; who is going to approve is refused before the question."""
    rollout = made(service, ADA)
    assert service.foresee(rollout.id, "approve").text == service.foresee(rollout.id, "approve", by=BOB).text
    with pytest.raises(ApprovalRefusedError, match="ada, who created it"):
        service.foresee(rollout.id, "approve", by=ADA)
    assert service.get(rollout.id).approvals == ()


def test_it_starts_with_the_last_approval_that_it_needs(service: RolloutService) -> None:
    """Until then it waits, assigns nothing, and says how many are missing; it knows who they were."""
    rollout = made(service, ADA)
    first = service.approve(rollout.id, by=BOB)
    assert (first.phase, first.text) == (RolloutPhase.AWAITING_APPROVAL, "Approved by bob; waits for 1 more")
    assert "waits for 1 more" in rollout_card(first, 0).reason
    second = service.approve(rollout.id, by=EVE)
    assert (second.phase, second.text) == (RolloutPhase.RUNNING, "Approved by bob, eve")
    assert (second.created_by, second.approvals) == ("ada", ("bob", "eve"))


@pytest.mark.parametrize(("by", "why"), [
    (ADA, "ada, who created it"), (BOB, "bob, who has approved it already"), (ROBOT, "operator, which is no person"),
    ("eve", "eve, which is no person"), (SERVER_ACTOR, "server, which is no person"),
])  # fmt: skip
def test_an_approval_that_does_not_count_is_refused(service: RolloutService, by: Actor | str, why: str) -> None:
    """Of who created it, twice, of a program whatever it says, and of a command with a bare name."""
    rollout = made(service, ADA)
    service.approve(rollout.id, by=BOB)
    with pytest.raises(ApprovalRefusedError, match=f"got {why}"):
        service.approve(rollout.id, by=by)
    assert service.get(rollout.id).approvals == ("bob",)


def test_a_program_that_says_a_name_keeps_that_person_from_approving(service: RolloutService) -> None:
    """It said for whom it created the rollout."""
    rollout = made(service, ROBOT)
    with pytest.raises(ApprovalRefusedError, match="got bob, who created it"):
        service.approve(rollout.id, by=BOB)


def test_nobody_creates_one_that_is_approved(service: RolloutService) -> None:
    """But the rollout of a retraining, which asked for no approval, waits for it now."""
    with pytest.raises(ApprovalRefusedError, match="waits for the approval of 2 others"):
        made(service, ADA, approved=True)
    assert made(service, SERVER_ACTOR, approved=True).phase is RolloutPhase.AWAITING_APPROVAL


def test_without_the_setting_one_approval_of_anybody_suffices(service: RolloutService) -> None:
    """Also the own one, as a server of one person needs it."""
    service.config = replace(service.config, approvers=0)
    rollout = made(service, ADA)
    assert service.approve(rollout.id, by=ADA).phase is RolloutPhase.RUNNING


def test_each_approval_is_an_act(service: RolloutService, fleet: MemoryFleet) -> None:
    """Of the account that was proved."""
    rollout = made(service, ADA)
    for by in (BOB, EVE):
        service.approve(rollout.id, by=by)
    acts = [(one.act, one.account, one.subject) for one in fleet.app.parts.acts.after(0, 99)][-3:]
    assert acts == [(f"rollout.{act}", name, rollout.id)
                    for act, name in (("create", "ada"), ("approve", "bob"), ("approve", "eve"))]  # fmt: skip
