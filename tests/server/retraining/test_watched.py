"""A retrained release goes last to sites where nothing shows that it is harmless, and never where it is worse."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.fleet.fleet import Device
from server.retraining.policy import JudgedSite, cautions, watched_in
from server.rollout.config import RolloutConfig
from server.rollout.create import RolloutOptions, draft
from server.store.fleet import insert_device
from tests.server.retraining.conftest import sample
from wire.messages import DeviceState

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site

SHOWN = {"name": "east", "verdict": "pass", "drop": 0.0, "limit": 0.02, "text": "drop 0.00 %"}
UNSURE = {"name": "north", "verdict": "inconclusive", "drop": 0.01, "limit": 0.02, "text": "drop 1.00 %"}
WORSE = {"name": "miboe", "verdict": "inconclusive", "drop": 0.03, "limit": 0.02, "text": "drop 3.00 %"}


def add(site: Site, device: str, where: str, **attributes: str) -> None:
    """Enrol a device that runs the first release."""
    with site.service.fleet.database.begin() as connection:
        row = {"device": device, "site": where, "attributes": attributes, "password_hash": "", "enrolled_ms": 0}
        insert_device(connection, row)
    site.service.fleet.set_desired(device, release="model-1", target="t", sha256="ab" * 32, length_bytes=9)


def retrained(site: Site, certificate: dict[str, object]) -> RolloutOptions:
    """Return the rollout that the server asks for when a job has ended with ``certificate``."""
    site.alarm(3)
    site.upload(30, wrong=20)
    for _ in range(5):
        site.service.turn(1_000)
    job = site.service.jobs.lease("w", 2_000)
    assert job is not None
    site.release(2)
    site.service.jobs.done(job.id, "w", "model-2", certificate, 3_000)  # type: ignore[arg-type]
    for _ in range(3):
        site.service.turn(4_000)
    return site.rollouts.requests[0]


def test_each_site_gets_it_as_its_own_rows_show(site: Site) -> None:
    """Shown harmless: as ever; unsure or without labels: last; measured worse, by site or attribute: not at all."""
    add(site, "d3", "east")
    add(site, "d4", "north")
    add(site, "d5", "east", make="miboe")
    add(site, "d6", "nowhere")
    asked = retrained(site, {"watched": [SHOWN, UNSURE, WORSE]})
    assert asked.canary == ("d1",)
    assert asked.withheld == {"d5": "not at all: worse at 'miboe': drop 3.00 %"}
    assert asked.last == {
        "d4": "last: not shown harmless at 'north': drop 1.00 %",
        "d6": "last: no labelled sample of 'nowhere' shows that it is harmless there",
    }


@pytest.mark.parametrize("certificate", [{}, {"watched": []}, {"watched": "x"}, {"watched": [3, {"name": 4}]}])
def test_a_certificate_without_watched_sites_holds_nobody_back(site: Site, certificate: dict[str, object]) -> None:
    """An older worker judges no sites: the rollout is as before."""
    add(site, "d3", "east")
    asked = retrained(site, certificate)
    assert (asked.withheld, asked.last) == ({}, {})


@pytest.mark.parametrize(("drop", "verdict", "harmful"), [
    (0.02, "pass", False), (0.0201, "inconclusive", True), (0.01, "fail", True), (float("nan"), "odd", False),
])  # fmt: skip
def test_a_site_is_harmed_when_it_is_measured_worse_than_allowed(drop: float, verdict: str, *, harmful: bool) -> None:
    """At the limit it is not; a verdict that nobody knows shows nothing, so that the site comes last."""
    (found,) = watched_in({"watched": [{"name": "x", "verdict": verdict, "drop": drop, "limit": 0.02}]})
    assert (found.harmful, found.harmless) == (harmful, verdict == "pass")


def test_the_drifted_devices_are_never_held_back() -> None:
    """The release was made for them, whatever it does at their site to others."""
    judged = (JudgedSite(name="west", harmful=True, harmless=False, text="worse"),)
    taker = Device(
        device="d1", site="west", attributes={}, state=DeviceState.READY, reported=None, desired=None, desired_gen=0,
        desired_release="", last_seen_ms=0, enrolled_ms=0,
    )  # fmt: skip
    takers = [taker, replace(taker, device="d2")]
    withheld, last = cautions(takers, ("d1",), judged)
    assert (list(withheld), last) == (["d2"], {})


def test_a_worker_gets_the_uniform_labels_of_other_sites_in_a_list_of_their_own(site: Site) -> None:
    """Only those of the lane ``audit``; ``labels.csv`` has the drifted devices' alone."""
    add(site, "d3", "east")
    for number, lane in ((100, "audit"), (101, "audit"), (102, "drift")):
        site.service.samples.accept("d3", sample(number, lane=lane), 50)
    site.alarm(3)
    site.upload(30, wrong=20)
    for _ in range(5):
        site.service.turn(1_000)
    job = site.service.jobs.lease("w", 2_000)
    assert job is not None
    with zipfile.ZipFile(site.service.jobs.samples(job.id)) as archive:
        rows = {
            name: list(csv.DictReader(io.StringIO(archive.read(name).decode())))
            for name in ("labels.csv", "watched.csv")
        }
        assert all(row["path"] in archive.namelist() for listed in rows.values() for row in listed)
    assert (job.labelled, len(rows["labels.csv"]), len(rows["watched.csv"])) == (30, 30, 2)
    assert {row["slice"] for row in rows["watched.csv"]} == {"east"}


def test_those_that_come_last_are_a_group_of_their_own(site: Site) -> None:
    """Canary, all others, then they; who is withheld is no member, and is named with the reason."""
    for number in range(3, 7):
        add(site, f"d{number}", "east")
    request = RolloutOptions(
        release="model-1", canary=("d1",), last={"d4": "unsure", "gone": "x"}, withheld={"d5": "worse"}
    )
    devices = site.service.fleet.devices()
    made = draft(request, RolloutConfig(), devices, site.service.versions.releases(), identity="r", now_ms=0)
    groups = [[member.device for member in made.group_members(index)] for index in range(len(made.groups))]
    assert [group.name for group in made.groups] == ["canary", "group 2", "rest"]
    assert groups == [["d1"], ["d2", "d3", "d6"], ["d4"]]
    assert made.cautions == {"d4": "unsure", "d5": "worse"}
