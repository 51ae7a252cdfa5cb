"""One drift has one retraining, however its verdict is grouped; that of an ended verdict ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.retraining.policy import RetrainingPhase

if TYPE_CHECKING:
    from server.retraining.policy import Trigger
    from tests.server.retraining.conftest import Site

FLEET, WEST = "fleet::", "site:site=west:"


def _note(site: Site, window: int, *found: tuple[str, tuple[str, ...]]) -> None:
    """Note one window with findings of these keys and devices, and let the service act."""
    findings = [
        Finding(
            verdict=DriftVerdict(
                kind=VerdictKind(key.partition(":")[0]), devices=devices, model="model",
                attributes=(("site", "west"),) if key == WEST else (),
            ),
            cause="blurrier", release="model-1", model="model", streams=("laplacian_log",),
        )
        for key, devices in found
    ]  # fmt: skip
    site.service.verdicts.note(findings, window * 10, window * 10, quiet_ms=20, judged=True)
    for turn in range(3):
        site.service.turn(window * 10 + turn + 1)


def _of(*triggers: Trigger) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.phase.value, one.cause, one.devices) for one in reversed(triggers)]


def test_a_retraining_follows_its_verdict(site: Site) -> None:
    """From the fleet to a site, with the windows of both; devices that are left out send no more samples."""
    _note(site, 0, (FLEET, ("d1", "d2")))
    assert _of(*site.service.triggers.all()) == [("suspected", FLEET, ("d1", "d2"))]
    for window in (1, 2):
        _note(site, window, (WEST, ("d1",)))
    assert _of(*site.service.triggers.all()) == [("collecting", WEST, ("d1",))]
    assert any("is of a site now" in one.text for one in site.service.events.latest(20))


def test_devices_that_are_left_out_send_no_more_samples(site: Site) -> None:
    """They were asked when the verdict was of the fleet; those that stay go on."""
    for window in range(3):
        _note(site, window, (FLEET, ("d1", "d2")))
    _note(site, 3, (WEST, ("d1",)))
    asked = [site.service.fleet.device(one).desired.config["sample_bytes_per_day"] for one in ("d1", "d2")]  # type: ignore[union-attr]
    assert asked == [100_000, 0]


def test_a_trained_release_stays_that_of_the_fleet(site: Site) -> None:
    """What a job was made of does not change after it, and the verdict that goes on starts no second one."""
    for window in range(3):
        _note(site, window, (FLEET, ("d1", "d2")))
    (trigger,) = site.service.triggers.all()
    site.upload(30, wrong=20)
    for window in (3, 4):
        _note(site, window, (FLEET, ("d1", "d2")))
    _note(site, 5, (WEST, ("d1",)))
    (trigger,) = site.service.triggers.all()
    assert (trigger.cause, trigger.devices) == (FLEET, ("d1", "d2"))
    assert trigger.phase in {RetrainingPhase.PROPOSED, RetrainingPhase.TRAINING}


@pytest.mark.parametrize("key", [FLEET, WEST])
def test_a_suspicion_ends_with_its_verdict(site: Site, key: str) -> None:
    """At once, as nothing was asked for yet; the next alarm begins another one."""
    _note(site, 0, (key, ("d1", "d2")))
    for window in (1, 2, 3):
        _note(site, window)
    (trigger,) = site.service.triggers.all()
    assert (trigger.phase, trigger.text) == (RetrainingPhase.WITHDRAWN, "the alarm is over")
    _note(site, 4, (key, ("d1", "d2")))
    assert [one.phase.value for one in site.service.triggers.all()] == ["suspected", "withdrawn"]


def test_verdicts_that_become_one_have_one_retraining(site: Site) -> None:
    """The other ends, with the reason in its history; what goes on has the devices and samples of both."""
    _note(site, 0, (WEST, ("d1",)), ("cohort::", ("d2",)))
    assert len(site.service.triggers.open()) == 2
    _note(site, 1, (FLEET, ("d1", "d2")))
    first, second = sorted(site.service.triggers.all(), key=lambda one: one.phase.value)
    assert (first.phase, first.devices, first.cause) == (RetrainingPhase.SUSPECTED, ("d1", "d2"), FLEET)
    assert (second.phase.value, second.text) == (
        "withdrawn",
        f"one drift with retraining {first.id}, which goes on with its devices",
    )
    _note(site, 2, (FLEET, ("d1", "d2")))
    assert _of(*site.service.triggers.open()) == [("collecting", FLEET, ("d1", "d2"))]
    assert len(site.service.triggers.all()) == 2


def test_a_person_withdraws_a_drift_once(site: Site) -> None:
    """Also if the verdict goes on as another one."""
    _note(site, 0, (FLEET, ("d1", "d2")))
    site.service.withdraw(site.service.triggers.all()[0].id, 5)
    _note(site, 1, (WEST, ("d1",)))
    assert [one.phase.value for one in site.service.triggers.all()] == ["withdrawn"]


def test_one_device_is_the_reason_of_none(site: Site) -> None:
    """Before and after a verdict of several devices."""
    _note(site, 0, ("device_local::", ("d1",)))
    _note(site, 1, (WEST, ("d1", "d2")))
    assert len(site.service.triggers.all()) == 1
    for window in range(2, 9):
        _note(site, window, ("device_local::", ("d1",)))
    (trigger,) = site.service.triggers.all()
    assert trigger.phase is RetrainingPhase.SUSPECTED
