"""A fleet of several models: a retraining has devices and samples of its own model only."""

from __future__ import annotations

import csv
import io
import zipfile
from typing import TYPE_CHECKING

from server.drift.ledger import Finding
from server.drift.suspects import Suspects, SuspectState
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.retraining.suspects import SuspectReleases
from server.store.fleet import insert_device, update_device
from wire.codec import encode
from wire.messages import InstalledRelease, Reported

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site

OTHER = b"bytes of another model"


def two_alarms(site: Site) -> None:
    """Let the devices of two models drift at one site, in four windows."""
    site.release(1, model=OTHER, name="other")
    for device in ("o1", "o2"):
        with site.service.fleet.database.begin() as connection:
            row = {"device": device, "site": "west", "attributes": {}, "password_hash": "", "enrolled_ms": 0}
            insert_device(connection, row)
    of_models = [("model", ("d1", "d2"), "darker"), ("other", ("o1", "o2"), "noisier")]
    for window in range(4):
        found = [
            Finding(
                verdict=DriftVerdict(kind=VerdictKind.SITE, devices=devices, attributes=(("site", "west"),)),
                cause=cause, release=f"{model}-1", model=model,
            )
            for model, devices, cause in of_models
        ]  # fmt: skip
        site.service.verdicts.note(found, window * 10, window * 10, quiet_ms=20, judged=True)


def turns(site: Site, count: int = 6) -> None:
    """Run some turns."""
    for _ in range(count):
        site.service.turn(1_000)


def test_each_model_has_a_retraining_with_its_devices(site: Site) -> None:
    """Of two alarms at one site at once, with the same key; the devices of each are asked once."""
    two_alarms(site)
    turns(site)
    found = {one.model: (one.devices, one.words, one.phase.value) for one in site.service.triggers.open()}
    assert found == {
        "model": (("d1", "d2"), "darker", "collecting"),
        "other": (("o1", "o2"), "noisier", "collecting"),
    }
    assert len(site.commands()) == 8


def test_an_alarm_that_ends_leaves_that_of_the_other_model(site: Site) -> None:
    """The verdicts have the same key, and only one is found on."""
    two_alarms(site)
    verdict = DriftVerdict(kind=VerdictKind.SITE, devices=("o1",), attributes=(("site", "west"),))
    finding = Finding(verdict=verdict, cause="noisier", release="other-1", model="other")
    site.service.verdicts.note([finding], 100, 100, quiet_ms=20, judged=True)
    assert [(one.model, one.windows) for one in site.service.verdicts.open()] == [("other", 5)]


def test_a_sample_of_another_model_trains_nothing(site: Site) -> None:
    """A device took it before it got this model: its label fits by chance, and it neither counts nor is packed."""
    site.release(1, model=OTHER, name="other")
    site.alarm(3)
    site.upload(30, wrong=20, model=OTHER)
    turns(site)
    (trigger,) = site.service.triggers.all()
    assert (trigger.phase.value, trigger.text.endswith("; 0 labelled")) == ("collecting", True)
    site.upload(25, wrong=20, start=30)
    turns(site)
    job = site.service.jobs.lease("w", 2_000)
    assert job is not None
    with zipfile.ZipFile(site.service.jobs.samples(job.id)) as archive:
        assert len(list(csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"))))) == job.labelled == 25


def test_a_device_that_runs_another_model_by_now_is_not_asked(site: Site) -> None:
    """What it would send is of that one."""
    site.release(1, model=OTHER, name="other")
    reported = Reported(current=InstalledRelease(release="other-1"))
    with site.audit.database.begin() as connection:
        update_device(connection, "d2", {"reported": encode(reported).decode()})
    site.alarm(3)
    turns(site)
    assert {message.topic.split("/")[3] for message in site.heard if "/cmd/" in message.topic} == {"d1"}


def test_labels_of_another_model_excuse_no_release(site: Site) -> None:
    """The device was wrong on everything under the model before: this one is not compared with that."""
    site.release(1, model=OTHER, name="other")
    verdict = DriftVerdict(kind=VerdictKind.RELEASE_REGRESSION, devices=("d1",), detail="model-1")
    finding = Finding(verdict=verdict, cause="less confident", release="model-1", model="model")
    site.service.verdicts.note([finding], 10, 10, quiet_ms=20, judged=True)
    service = site.service
    asking = SuspectReleases(
        suspects=Suspects(service.verdicts), audit=site.audit, samples=service.samples, versions=service.versions,
        config=service.config,
    )  # fmt: skip
    site.upload(60, wrong=60, start=100, model=OTHER)
    site.upload(30, wrong=15)
    asking.turn(100)
    assert asking.suspects.all()[0].state is SuspectState.WORSE
