"""A release that made it worse: paused, and held until the verdict ends or a person takes it on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from server.cli import main
from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.errors import ReleaseRegressedError, VerdictKeptError
from server.rollout.model import Group, Member, Rollout, RolloutPhase
from server.rollout.regressions import Regressions
from server.rollout.resuming import How
from wire.canonical import sha256_hex
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

_GROUPS = (Group(name="canary", success_ratio=1.0, error_ratio=0.0), Group(name="rest", success_ratio=1, error_ratio=0))


def _add(fleet: MemoryFleet, phase: RolloutPhase = RolloutPhase.RUNNING, release: str = "m-2", opened: int = 0) -> None:
    members = (Member(device="cam-1", group=0),) if opened else ()
    fleet.app.parts.rollouts.ledger.add(
        Rollout(id="r", release=release, groups=_GROUPS, phase=phase, members=members, opened=opened)
    )


def _turn(fleet: MemoryFleet) -> RolloutPhase:
    parts = fleet.app.parts
    Regressions(parts.drift.verdicts, parts.rollouts).turn(fleet.clock())
    return parts.rollouts.get("r").phase


def _alarm(fleet: MemoryFleet, *devices: str, kind: VerdictKind = VerdictKind.RELEASE_REGRESSION) -> int:
    verdict = DriftVerdict(kind=kind, devices=devices, detail="m-2")
    finding = Finding(verdict=verdict, cause="less confident", release="m-2", model="m")
    fleet.app.parts.drift.verdicts.note([finding], 0, 1_764_500_000_000, quiet_ms=100, judged=True)
    return fleet.app.parts.drift.verdicts.open()[-1].id


def _dismiss(fleet: MemoryFleet, verdict: int, why: str = "a cure") -> None:
    fleet.app.parts.drift.verdicts.dismiss(verdict, why, fleet.clock(), by="ada")


def test_a_dismissed_verdict_holds_no_rollout_after_a_restart(fleet: MemoryFleet) -> None:
    """An operator's decision about a verdict holds as long as the verdict is open."""
    _add(fleet)
    assert _turn(fleet) is RolloutPhase.RUNNING
    number = _alarm(fleet, "cam-1")
    assert _turn(fleet) is RolloutPhase.PAUSED
    _dismiss(fleet, number)
    fleet.app.parts.rollouts.resume("r")
    assert _turn(fleet) is RolloutPhase.RUNNING
    fleet.restart()
    assert _turn(fleet) is RolloutPhase.RUNNING
    acts = [(one.act, one.account, one.subject) for one in fleet.app.parts.acts.after(0, 99)]
    paused = [("rollout.pause", "server", "r"), ("verdict.dismiss", "ada", str(number))]
    assert acts[-3:] == [*paused, ("rollout.resume", "an operator", "r")]


def test_the_next_verdict_pauses_again(fleet: MemoryFleet) -> None:
    """A new alarm counts again, whatever was decided about the previous one."""
    _add(fleet)
    _dismiss(fleet, _alarm(fleet, "cam-1"))
    assert _turn(fleet) is RolloutPhase.RUNNING, "dismissed before the turn"
    fleet.app.parts.drift.verdicts.note([], 200, 200, quiet_ms=100, judged=True)
    _alarm(fleet, "cam-1")
    assert _turn(fleet) is RolloutPhase.PAUSED


@pytest.mark.parametrize("devices", [("cam-1",), ("cam-1", "cam-2", "cam-3")])
def test_while_it_is_open_no_way_leads_on(fleet: MemoryFleet, devices: tuple[str, ...]) -> None:
    """Neither by resuming in any way, nor by a skip, nor by looking at what they would do; the refusal says why."""
    _add(fleet, opened=1)
    number = _alarm(fleet, *devices)
    assert _turn(fleet) is RolloutPhase.PAUSED
    rollouts = fleet.app.parts.rollouts
    for how in How:
        with pytest.raises(ReleaseRegressedError, match=f"verdict {number}, open since 2025-11-30 10:53 UTC on cam-1"):
            rollouts.resume("r", how)
    for act in ("resume", "skip"):
        with pytest.raises(ReleaseRegressedError, match=f"verdicts dismiss DIR {number} --why REASON"):
            rollouts.foresee("r", act, group="canary")
    with pytest.raises(ReleaseRegressedError, match="label the samples of these devices"):
        rollouts.skip("r", "canary", by="ada")
    (shown,) = rollouts.up_to_date(rollouts.get("r"))
    assert f"verdict {number}, open since" in shown.text
    assert rollouts.foresee("r", "abort").text, "a way out stays open"
    fleet.app.parts.drift.verdicts.note([], 200, 200, quiet_ms=100, judged=True)
    assert rollouts.foresee("r", "skip", group="canary").opens == ("rest",), "the verdict ended"


def test_none_is_approved_and_none_begins_approved(fleet: MemoryFleet) -> None:
    """Of the release; the release before can go out, and the rollout that waits can be made."""
    fleet.enrol("cam-1")
    fleet.turn()
    for version in (1, 2):
        data, versions = b"bundle %d" % version, fleet.app.parts.versions
        versions.blobs.put(sha256_hex(data), [data])
        custom = TargetCustom(model="m", version=version, target="gateway")
        path = target_path("m", version, "gateway")
        versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=version)
    number, client = _alarm(fleet, "cam-1"), fleet.client()
    answer = client.post("/api/rollouts", json={"release": "m-2", "approved": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "release_regressed")
    made = client.post("/api/rollouts", json={"release": "m-2"}).json()
    assert f"verdict {number}" in made["text"]
    approve = f"/api/rollouts/{made['id']}/approve"
    assert client.post(approve).json()["code"] == "release_regressed"
    assert client.get(f"/api/rollouts/{made['id']}/foresight?act=approve").status_code == 409
    assert client.post(f"/api/rollouts/{made['id']}/abort").status_code == 200
    fleet.turn()
    fleet.turn()
    assert client.post("/api/rollouts", json={"release": "m-1", "approved": True}).status_code == 201


def test_a_verdict_of_another_kind_or_release_holds_nothing(fleet: MemoryFleet) -> None:
    """A drifting site is no reason against a release, and ``m-2`` none against ``m-21``."""
    _alarm(fleet, "cam-1", kind=VerdictKind.SITE)
    _add(fleet, RolloutPhase.AWAITING_APPROVAL)
    assert fleet.app.parts.rollouts.approve("r").phase is RolloutPhase.RUNNING
    _alarm(fleet, "cam-1")
    assert not fleet.app.parts.rollouts.regressed("m-21")
    assert fleet.app.parts.rollouts.regressed("m-2")


def test_a_dismissal_has_a_name_and_a_reason(fleet: MemoryFleet) -> None:
    """By command and REST; what holds nothing, is over or unknown is refused; the verdict itself stays open."""
    site, number = _alarm(fleet, "cam-2", kind=VerdictKind.SITE), _alarm(fleet, "cam-1")
    client, verdicts = fleet.client(), fleet.app.parts.drift.verdicts
    number = next(one.id for one in verdicts.open() if one.kind is VerdictKind.RELEASE_REGRESSION)
    with pytest.raises(VerdictKeptError, match="Expected the reason"):
        verdicts.dismiss(number, "  ", 5)
    assert client.post(f"/api/verdicts/{number}/dismiss", json={"why": ""}).status_code == 422
    assert client.post(f"/api/verdicts/{site}/dismiss", json={"why": "x"}).json()["code"] == "verdict_kept"
    assert client.post("/api/verdicts/99/dismiss", json={"why": "x"}).json()["code"] == "unknown_verdict"
    command = ["verdicts", "dismiss", str(fleet.state.path), str(number), "--why", "a cure", "--by", "ada"]
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, done.stdout) == (0, f"{number} dismissed by ada\n")
    again = client.post(f"/api/verdicts/{number}/dismiss", json={"why": "later", "by": "bob"}).json()
    assert (again["dismissed_by"], again["dismissed_why"], again["closed_ms"]) == ("ada", "a cure", 0)
    told = [one for one in fleet.app.parts.events.latest() if one.code == "verdict_dismissed"]
    assert [one.data["by"] for one in told] == ["ada"]
    verdicts.note([], 200, 200, quiet_ms=100, judged=True)
    with pytest.raises(VerdictKeptError, match="which is over"):
        verdicts.dismiss(number, "x", 5)
