"""A release that made it worse: paused once, and never again after a person resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.rollout.model import Group, Rollout, RolloutPhase
from server.rollout.regressions import Regressions

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


def _turn(fleet: MemoryFleet) -> RolloutPhase:
    parts = fleet.app.parts
    Regressions(parts.drift.verdicts, parts.rollouts).turn(fleet.clock())
    return parts.rollouts.get("r").phase


def _alarm(fleet: MemoryFleet, *devices: str) -> None:
    verdict = DriftVerdict(kind=VerdictKind.RELEASE_REGRESSION, devices=devices, detail="m-2")
    finding = Finding(verdict=verdict, cause="less confident", release="m-2", model="m")
    fleet.app.parts.drift.verdicts.note([finding], 0, 1, quiet_ms=100, judged=True)


def test_a_resumed_rollout_stays_resumed_after_a_restart(fleet: MemoryFleet) -> None:
    """An operator's decision about a verdict holds as long as the verdict is open."""
    fleet.app.parts.rollouts.ledger.add(
        Rollout(
            id="r",
            release="m-2",
            groups=(Group(name="canary", success_ratio=1.0, error_ratio=0.0),),
            phase=RolloutPhase.RUNNING,
        )
    )
    assert _turn(fleet) is RolloutPhase.RUNNING
    _alarm(fleet, "cam-1")
    assert _turn(fleet) is RolloutPhase.PAUSED
    fleet.app.parts.rollouts.resume("r")
    assert _turn(fleet) is RolloutPhase.RUNNING
    fleet.restart()
    assert _turn(fleet) is RolloutPhase.RUNNING


def test_the_next_verdict_pauses_again(fleet: MemoryFleet) -> None:
    """A new alarm counts again, whatever was decided about the previous one."""
    fleet.app.parts.rollouts.ledger.add(
        Rollout(
            id="r",
            release="m-2",
            groups=(Group(name="canary", success_ratio=1.0, error_ratio=0.0),),
            phase=RolloutPhase.RUNNING,
        )
    )
    _alarm(fleet, "cam-1")
    assert _turn(fleet) is RolloutPhase.PAUSED
    fleet.app.parts.rollouts.resume("r")
    fleet.app.parts.drift.verdicts.note([], 200, 200, quiet_ms=100, judged=True)
    _alarm(fleet, "cam-1")
    assert _turn(fleet) is RolloutPhase.PAUSED
