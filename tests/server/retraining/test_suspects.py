"""A release that answers otherwise is worse or not by labels: asked of a few devices, decided with bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.drift.ledger import Finding
from server.drift.suspects import SuspectDevice, SuspectState
from server.drift.suspects import Suspects as Ledger
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.retraining.asking import ASKS
from server.retraining.config import AuditConfig, RetrainingConfig
from server.retraining.policy import RetrainingPhase, Trigger
from server.retraining.suspects import DEVICES, SuspectReleases
from server.store.commissions import insert_commissions
from server.store.fleet import insert_device, update_device
from tests.server.retraining.conftest import sample

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site

DAY_MS = 86_400_000
OLDER = b"the model before"


def _alarm(site: Site, devices: tuple[str, ...] = ("d1",)) -> SuspectReleases:
    """Return the service that asks, after the release of ``devices`` was found to answer otherwise."""
    verdict = DriftVerdict(kind=VerdictKind.RELEASE_REGRESSION, devices=devices, detail="model-1")
    finding = Finding(verdict=verdict, cause="less confident", release="model-1", model="model")
    site.service.verdicts.note([finding], 10, 10, quiet_ms=20, judged=True)
    return SuspectReleases(
        suspects=Ledger(site.service.verdicts), audit=site.audit, samples=site.service.samples,
        versions=site.service.versions, config=site.service.config,
    )  # fmt: skip


def _turn(asking: SuspectReleases, now_ms: int) -> tuple[SuspectDevice, ...]:
    """Return the suspects after a turn at ``now_ms``."""
    asking._next_ms = 0
    asking.turn(now_ms)
    return asking.suspects.all()


def test_a_device_is_asked_for_thirty_uniform_samples_once_while_they_wait(site: Site) -> None:
    """Again a day later only if the first were labelled and show neither; at most four times."""
    asking = _alarm(site)
    (suspect,) = _turn(asking, 100)
    assert (suspect.asks, suspect.state) == (1, SuspectState.OPEN)
    assert suspect.words == "d1: whether they are worse its labels will tell, none yet"
    assert [command.arguments["count"] for command in site.commands()] == [30]
    assert _turn(replace(asking), 2 * DAY_MS)[0].asks == 1
    for number in range(6):
        site.upload(30, wrong=3, start=30 * number)
        (suspect,) = _turn(asking, (number + 3) * DAY_MS)
    assert (suspect.asks, suspect.state) == (ASKS, SuspectState.OPEN)


def test_labels_decide_that_it_is_not_worse_or_worse(site: Site) -> None:
    """None wrong of thirty, where a twentieth is ordinary; or half, which an event says, too."""
    asking = _alarm(site)
    _turn(asking, 100)
    site.upload(30, wrong=0)
    (suspect,) = _turn(asking, 200)
    assert (suspect.state, suspect.decided_ms) == (SuspectState.HARMLESS, 200)
    assert suspect.words.startswith("d1: not worse, 0 of 30 labelled scenes wrong: risk between 0% and 14%, up to 15%")
    (event,) = site.service.events.latest(1)
    assert (event.code, "resume the rollout" in event.text) == ("release_harmless", True)


def test_labels_that_show_more_errors_than_before_say_so(site: Site) -> None:
    """Fifteen wrong of thirty."""
    asking = _alarm(site)
    _turn(asking, 100)
    site.upload(30, wrong=15)
    (suspect,) = _turn(asking, 200)
    assert suspect.state is SuspectState.WORSE
    assert site.service.events.latest(1)[0].code == "release_worse"


def test_what_labels_show_of_the_release_before_is_what_it_is_compared_with(site: Site) -> None:
    """A cure: seven of ten wrong before, three of thirty now. By the gates alone it is not decided."""
    asking = _alarm(site)
    _turn(asking, 100)
    site.upload(30, wrong=3)
    assert _turn(asking, 200)[0].state is SuspectState.OPEN
    site.release(2, model=OLDER)
    site.upload(60, wrong=42, start=100, model=OLDER)
    (suspect,) = _turn(asking, 300)
    assert suspect.state is SuspectState.HARMLESS
    assert suspect.allowed_risk > 0.45


def test_labels_from_before_the_device_was_commissioned_again_do_not_count(site: Site) -> None:
    """Seven of ten were wrong through the old lens: three of thirty through the new one are no cure by that."""
    asking, last_ms = _alarm(site), sample(59).at_ms
    row = {"device": "d1", "attribute": "", "value": "", "decided_ms": 0, "decided_by": "Ada", "why": "lens"}
    with site.service.triggers.database.begin() as connection:
        insert_commissions(connection, [{**row, "from_ms": last_ms + 1}])
    site.release(2, model=OLDER)
    site.upload(60, wrong=42, model=OLDER)
    site.upload(30, wrong=3, start=100)
    (suspect,) = _turn(asking, 300)
    assert (suspect.state, suspect.audited) == (SuspectState.OPEN, 30)
    assert suspect.allowed_risk < 0.16


def test_a_release_that_is_worse_than_a_bad_one_is_worse(site: Site) -> None:
    """Where the release before had three of ten wrong, nine of ten are more; four of ten show nothing."""
    asking = _alarm(site)
    site.release(2, model=OLDER)
    site.upload(60, wrong=18, start=100, model=OLDER)
    site.upload(30, wrong=12)
    assert _turn(asking, 200)[0].state is SuspectState.OPEN
    site.upload(60, wrong=60, start=200)
    assert _turn(asking, 300)[0].state is SuspectState.WORSE


def _ten_devices(site: Site) -> tuple[str, ...]:
    """Return d1 and nine more, which are in the fleet."""
    with site.service.triggers.database.begin() as connection:
        for number in range(9):
            row = {"device": f"e{number}", "site": "west", "attributes": {}, "password_hash": "", "enrolled_ms": 0}
            insert_device(connection, row)
    return ("d1", *(f"e{number}" for number in range(9)))


def test_a_device_that_sent_none_is_asked_again_once_a_day_and_makes_way(site: Site) -> None:
    """It was away, or refused: it counts as no ask, and does not keep the others from being asked for ever."""
    asking = _alarm(site, _ten_devices(site))
    assert len(_turn(asking, 100)) == DEVICES
    assert {one.text for one in _turn(asking, 99 + DAY_MS)} == {""}
    silent = _turn(asking, 100 + DAY_MS)
    assert [(one.asks, "its owner does not allow it" in one.words) for one in silent] == [(1, True)] * DEVICES
    assert len(_turn(asking, 200 + DAY_MS)) == 2 * DEVICES


def test_a_few_devices_are_asked_at_a_time(site: Site) -> None:
    """Of ten; one that is decided makes way for the next."""
    asking = _alarm(site, _ten_devices(site))
    assert len(_turn(asking, 100)) == DEVICES
    site.upload(30, wrong=0)
    _turn(asking, 200)
    assert len(_turn(asking, 300)) == DEVICES + 1


def test_a_device_that_left_the_fleet_says_so_and_makes_way(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It can't be asked: three others are, and it is not looked for again at each turn."""
    asking = _alarm(site, _ten_devices(site))
    with site.service.triggers.database.begin() as connection:
        for name in ("d1", "e0"):
            update_device(connection, name, {"ended": "removed", "ended_ms": 50})
    _turn(asking, 100)
    found = {one.device: one for one in _turn(asking, 200)}
    assert sorted(found) == ["d1", "e0", "e1", "e2", "e3"]
    assert [one.asks for _, one in sorted(found.items())] == [0, 0, 1, 1, 1]
    assert found["d1"].words.endswith("it left the fleet and sends no samples")
    with caplog.at_level("INFO"):
        assert {one.asked_ms for one in _turn(asking, 300)} == {100, 200}
    assert not caplog.records


def test_a_server_that_may_not_ask_says_so(site: Site) -> None:
    """The reason stands with the suspect, and the device is asked an hour after somebody allowed it."""
    asking = _alarm(site)
    off = replace(site.audit, config=AuditConfig(), retraining=RetrainingConfig())
    (suspect,) = _turn(replace(asking, audit=off), 100)
    assert (suspect.asks, "sample_bytes_per_day" in suspect.words) == (0, True)
    assert _turn(asking, 3_600_099)[0].asks == 0
    assert _turn(asking, 3_600_100)[0].asks == 1


def test_a_release_is_made_for_the_devices_of_its_retraining_unless_they_are_the_fleet(site: Site) -> None:
    """On the average of a fleet nothing is known of one site."""
    for number, cause in enumerate(("site:site=west:", "fleet::"), start=2):
        site.service.triggers.add(Trigger(
            id=0, model="model", cause=cause, words="", verdict=0, devices=("d1",), since_ms=0, release="model-1",
            phase=RetrainingPhase.SETTLED, result=f"model-{number}",
        ))  # fmt: skip
    assert site.service.triggers.made_for() == {"model-2": ("d1",)}


@pytest.mark.usefixtures("without_labels")
def test_a_release_that_was_made_without_labels_is_worse_only_than_the_one_before(site: Site) -> None:
    """Half wrong is no harm where nobody knows what is ordinary; where the one before had none wrong it is."""
    asking = _alarm(site)
    _turn(asking, 100)
    site.upload(30, wrong=15)
    assert _turn(asking, 200)[0].state is SuspectState.OPEN
    site.release(2, model=OLDER)
    site.upload(60, wrong=0, start=100, model=OLDER)
    assert _turn(asking, 300)[0].state is SuspectState.WORSE
