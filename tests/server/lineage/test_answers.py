"""The questions that lineage answers, on a server that went through the whole loop."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from server.app.retention import Housekeeping
from server.errors import UnknownDeviceError, UnknownJobError, UnknownReleaseError, UnknownSampleError
from server.registry.statements import stated
from server.retraining.jobs import JobOrder
from server.store.retraining import JOB_SAMPLES, SAMPLES
from server.store.rollouts import ROLLOUTS, newest_rollout
from tests.server.conftest import EPOCH_MS

from .conftest import INPUTS, Loop, person, publish

_YEAR_MS = 366 * 86_400_000


def edges(loop: Loop, release: str = "digits-2") -> set[tuple[str, str, str]]:
    """Return the edges of a release's graph as kind, kind and where it is known from."""
    found = loop.answers.of_release(release).edges
    return {(one.source.partition(":")[0], one.target.partition(":")[0], one.known_from) for one in found}


@pytest.mark.stores
def test_a_release_says_what_it_was_made_of_who_approved_it_and_where_it_runs(loop: Loop) -> None:
    """Data and recipe from the signed bundle, labels with their people, the approval, and counts of devices."""
    graph = loop.answers.of_release("digits-2")
    assert (loop.node(graph, "data").id, loop.node(graph, "recipe").id) == (INPUTS["data"], INPUTS["recipe"])
    assert loop.node(graph, "labels").facts["by"] == {"carla": 5, "dan": 4}
    assert loop.node(graph, "gates", "digits-2").words == "pass against float: 2 of 2 gates passed"
    assert loop.node(graph, "devices").facts == {"now": 1, "ever": 1, "sites": {"berlin": 1}}
    assert [act.by for act in loop.node(graph, "rollout").acts if act.act == "rollout.approve"] == ["anna"]
    assert [(act.by, act.act) for act in loop.node(graph, "release", "digits-2").acts] == [("maria", "release.publish")]
    asked = loop.node(graph, "retraining").acts
    assert [act.by for act in asked if act.act == "retraining.approve"] == ["anna"]
    assert {act.act for act in loop.node(graph, "job").acts} >= {"job.create", "job.done"}
    assert f"Rollout {loop.rollouts[1]} of digits-2: running; approved by anna." in graph.answers
    assert graph.left_out == {}


def test_each_step_says_where_it_is_known_from(loop: Loop) -> None:
    """The signed bundle, the server's rows, the worker's word and the devices' reports are different witnesses."""
    assert edges(loop) >= {
        ("data", "run", "the signed bundle"), ("job", "run", "the worker's report"),
        ("samples", "labels", "the server's own record"), ("release", "devices", "the device's report"),
        ("release", "job", "the server's own record"), ("verdict", "retraining", "the server's own record"),
    }  # fmt: skip


def test_a_device_says_what_it_ran_at_a_time_since_when_and_what_that_was_made_of(loop: Loop) -> None:
    """Before and after the update, before its first report, and with the labels of what it runs now."""
    now = loop.answers.of_device("cam-1", loop.fleet.clock())
    (run,) = [one for one in now.nodes if one.kind == "run_on_device"]
    assert (run.facts["release"], run.facts["bundle"], run.facts["until_ms"]) == ("digits-2", loop.second, 0)
    assert loop.node(now, "labels").facts["by"] == {"carla": 5, "dan": 4}
    assert now.answers[0].startswith("cam-1 ran digits-2 at 2027-01-15 08:00:0")
    before = loop.answers.of_device("cam-1", EPOCH_MS + 3_500)
    (ran,) = [one for one in before.nodes if one.kind == "run_on_device"]
    assert (ran.facts["release"], ran.facts["until_ms"]) == ("digits-1", run.facts["from_ms"])
    assert loop.rollouts[0] in {one.id for one in before.nodes if one.kind == "rollout"}
    unknown = loop.node(loop.answers.of_device("cam-1", 5), "release")
    assert (unknown.known, unknown.words) == (False, "not known: it had reported nothing by then")


def test_windows_of_another_file_than_the_release_are_said(loop: Loop) -> None:
    """The device's report and its windows are two witnesses; where they differ, nobody is believed in silence."""
    loop.devices["cam-1"].report(1, start_ms=loop.fleet.clock() - EPOCH_MS)
    loop.fleet.turn()
    (run,) = [one for one in loop.answers.of_device("cam-1", loop.fleet.clock()).nodes if one.kind == "run_on_device"]
    assert run.facts["counted_by"] == ["cd" * 16]
    assert "its drift windows of then name another file (cdcdcdcdcdcd)" in run.words


@pytest.mark.stores
def test_a_wrong_label_leads_to_the_releases_that_learned_from_it_and_to_their_devices(loop: Loop) -> None:
    """With the label that the job was given, also after it was changed, and to releases made from such a one."""
    samples = loop.fleet.app.parts.retraining.samples
    wrong = samples.latest()[-1]
    samples.label(wrong.id, "0", person("eve"), loop.fleet.clock(), replaces="1")
    make_from(loop, "digits-2", 3)
    loop.runs("cam-2", "digits-3", publish(loop.fleet.app.parts.versions, 3))
    graph = loop.answers.of_sample(wrong.id)
    assert loop.node(graph, "job", loop.job).words == "given with the label '1' of carla; it is '0' now"
    assert [act.by for act in loop.node(graph, "label").acts] == ["eve", "eve"]
    assert graph.answers[1:] == (
        "digits-2 was given it: 1 report running digits-2, 1 ever did.",
        "digits-3 began from a release that was given it: 1 report running digits-3, 1 ever did.",
    )
    page = loop.answers.runs(sample=wrong.id, now=True)
    assert [(one.device, one.release, one.until_ms) for one in page.rows] == [
        ("cam-1", "digits-2", 0), ("cam-2", "digits-3", 0),
    ]  # fmt: skip
    assert loop.answers.runs(sample=wrong.id, now=False).rows == ()
    assert loop.node(loop.answers.of_job(loop.job), "samples").facts["relabelled"] == 1


def make_from(loop: Loop, base: str, version: int) -> str:
    """Let a job make another version from ``base``; return its id."""
    parts = loop.fleet.app.parts
    known = parts.versions.release(base)
    order = JobOrder(
        retraining=1, model="digits", base_release=base, base_sha256=known.sha256, cause="again", labelled=0
    )  # fmt: skip
    parts.retraining.jobs.create(order, b"", loop.fleet.clock())
    leased = parts.retraining.jobs.lease("worker-1", loop.fleet.clock())
    assert leased is not None
    parts.retraining.jobs.done(leased.id, "worker-1", f"digits-{version}", {"look": leased.look}, loop.fleet.clock())
    return leased.id


def test_a_sample_that_no_job_was_given_says_so(loop: Loop) -> None:
    """Neither a release nor a device is blamed."""
    late = loop.take(77)
    graph = loop.answers.of_sample(late)
    assert graph.answers == (f"Sample {late}: label '1' by dan.", f"No release was given sample {late} to learn from.")
    assert loop.answers.runs(sample=late).rows == ()


def test_the_same_picture_from_another_device_leads_to_the_same_releases(loop: Loop) -> None:
    """A label belongs to the picture: what learned from it learned from every sample of it."""
    again = loop.take(0, "cam-2")
    assert f"job:{loop.job}" in {f"{one.kind}:{one.id}" for one in loop.answers.of_sample(again).nodes}


@pytest.mark.stores
def test_lineage_stands_when_retention_took_telemetry(loop: Loop) -> None:
    """A year later, and after the row of a sample went: what was given, who labelled, who approved, what ran."""
    parts, sample = loop.fleet.app.parts, loop.answers.given(loop.job).rows[0].sample
    before = loop.answers.of_release("digits-2")
    loop.fleet.clock.now_ms += _YEAR_MS
    Housekeeping(database=parts.database, retention_days=1, governance_days=0).turn(loop.fleet.clock())
    with parts.database.begin() as connection:
        connection.execute(SAMPLES.delete().where(SAMPLES.c.id == sample))
    assert loop.answers.of_release("digits-2") == before
    assert loop.answers.of_device("cam-1", EPOCH_MS + 3_500).answers[0].startswith("cam-1 ran digits-1")
    gone = loop.node(loop.answers.of_sample(sample), "sample")
    assert (gone.words.startswith("its own row is gone"), gone.facts["model"]) == (True, "digits")


def test_a_job_of_before_is_listed_from_its_archive(loop: Loop) -> None:
    """Without the people, whom no archive names; one whose archive is gone or damaged stays unknown."""
    jobs, database = loop.fleet.app.parts.retraining.jobs, loop.fleet.app.parts.database
    listed = loop.answers.given(loop.job).rows
    with database.begin() as connection:
        connection.execute(JOB_SAMPLES.delete())
    assert not loop.node(loop.answers.of_release("digits-2"), "samples").known
    assert (jobs.settle(), jobs.settle()) == (1, 0)
    found = loop.answers.given(loop.job).rows
    assert [(one.sample, one.device, one.sha256, one.label, one.watched) for one in found] == [
        (one.sample, one.device, one.sha256, one.label, one.watched) for one in listed
    ]
    labels = loop.node(loop.answers.of_release("digits-2"), "labels")
    assert (labels.known, labels.words) == (False, "by people who are not known (9)")
    with database.begin() as connection:
        connection.execute(JOB_SAMPLES.delete())
    (jobs.folder / f"{loop.job}.zip").write_bytes(b"PK damaged")
    assert jobs.settle() == 0


def test_what_a_bundle_does_not_state_is_said(loop: Loop) -> None:
    """No certificate, no card, no digests; then no bundle at all."""
    versions = loop.fleet.app.parts.versions
    digest = publish(versions, 9, bare=True)
    graph = loop.answers.of_release("digits-9")
    assert [(one.kind, one.words) for one in graph.nodes if not one.known] == [
        ("data", "not known: the bundle states no digest of data or recipe"),
        ("gates", "not known: the bundle has no certificate (gate.json)"),
    ]
    assert "No rollout of digits-9 was made: nobody approved one." in graph.answers
    stated.cache_clear()
    versions.blobs.path(digest).unlink()
    run = loop.node(loop.answers.of_release("digits-9"), "run")
    assert (run.known, "the bundle can't be read here (unknown_blob)" in run.words) == (False, True)


def test_an_answer_is_bounded(loop: Loop) -> None:
    """Many rollouts and generations: some are shown, and how many more there are is said."""
    parts = loop.fleet.app.parts
    with parts.database.begin() as connection:
        row = dict(newest_rollout(connection) or {})
        for number in range(14):
            connection.execute(ROLLOUTS.insert(), row | {"id": f"r{number}", "created_ms": number})
    for version in range(3, 17):
        publish(parts.versions, version)
        make_from(loop, f"digits-{version - 1}", version)
    graph = loop.answers.of_release("digits-2")
    assert graph.left_out["rollouts"] == 5
    assert loop.answers.of_release("digits-16").left_out["generations"] == 1
    assert len(loop.answers.of_release("digits-16").nodes) < 100


def test_lists_of_devices_and_samples_come_in_pages(loop: Loop) -> None:
    """Each row once, with a cursor of its own list."""
    first = loop.answers.given(loop.job, limit=5)
    rest = loop.answers.given(loop.job, limit=5, cursor=first.next)
    assert (first.total, rest.next) == (9, None)
    assert len({one.sample for one in (*first.rows, *rest.rows)}) == 9
    runs = loop.answers.runs(release="digits-1", limit=1)
    more = loop.answers.runs(release="digits-1", limit=1, cursor=runs.next)
    assert [(one.device, one.until_ms > 0) for one in (*runs.rows, *more.rows)] == [("cam-1", True), ("cam-2", False)]


def test_what_is_not_there_is_refused(loop: Loop) -> None:
    """By the name of what was expected."""
    with pytest.raises(UnknownReleaseError, match="got 'digits-77'"):
        loop.answers.of_release("digits-77")
    with pytest.raises(UnknownDeviceError, match="Expected a device, got 'nobody'"):
        loop.answers.of_device("nobody", 1)
    with pytest.raises(UnknownSampleError, match="got 4711"):
        loop.answers.of_sample(4711)
    with pytest.raises(UnknownJobError, match="got 'nothing'"):
        loop.answers.of_job("nothing")
    with pytest.raises(UnknownJobError):
        loop.answers.given("a\0b")


def test_a_rollout_whose_approval_nobody_recorded_says_so(loop: Loop) -> None:
    """As those of an older server, which kept no acts."""
    with loop.fleet.app.parts.database.begin() as connection:
        connection.execute(sa.text("UPDATE rollouts SET approvals = '', created_by = ''"))
        connection.execute(sa.text("DELETE FROM audit_log"))
    assert loop.node(loop.answers.of_release("digits-2"), "rollout").words == "running; who approved it is not known"
