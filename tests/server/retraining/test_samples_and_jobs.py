"""Samples are checked and stored once; jobs are leased to one worker at a time."""

from __future__ import annotations

import base64
import csv
import io
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.errors import (
    GateSplitUsedError,
    LabelRefusedError,
    LabelTakenError,
    LeaseLostError,
    LookMissingError,
    SampleRefusedError,
    UnknownSampleError,
)
from server.retraining.jobs import JobOrder, TrainingJob
from server.retraining.labelling import LabelForm
from server.retraining.samples import LabelChange, build_archive
from wire.canonical import sha256_hex
from wire.codec import Json
from wire.messages import Sample

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site


MODEL = b"model bytes"
SPLIT = "5" * 64
ORDER = JobOrder(
    retraining=1, model="model", base_release="model-1", base_sha256="0" * 64, cause="blurrier", labelled=3,
    gate_split=SPLIT,
)  # fmt: skip


def upload(number: int) -> Sample:
    """Return a sample; the number is its image."""
    import hashlib  # noqa: PLC0415 - small

    data = b"image %d" % number
    digest = hashlib.sha256(data).hexdigest()
    return Sample(boot="b", seq=number, at_ms=40, sha256=digest, data=base64.b64encode(data).decode())


def job(site: Site) -> TrainingJob:
    """Return a fresh job."""
    return site.service.jobs.create(
        JobOrder(
            retraining=1, model="model", base_release="model-1", base_sha256="0" * 64, cause="blurrier", labelled=3
        ),
        b"zip",
        0,
    )


@pytest.mark.stores
def test_the_same_sample_twice_is_one(site: Site) -> None:
    """Redelivery changes nothing."""
    for _ in range(2):
        site.service.samples.accept("d1", upload(1), 0)
    assert len(site.service.samples.latest()) == 1


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "0" * 64}, {"data": "***"}, {"media_type": "text/html"}, {"lane": "x"}, {"data": "A" * 4_000_000}],
)
def test_refuses_samples_that_are_not_what_they_say(site: Site, changes: dict[str, str]) -> None:
    """Nothing of a refused sample is stored."""
    with pytest.raises(SampleRefusedError):
        site.service.samples.accept("d1", replace(upload(1), **changes), 0)  # type: ignore[arg-type]
    assert site.service.samples.latest() == ()


@pytest.mark.stores
def test_a_label_belongs_to_the_image(site: Site) -> None:
    """Every sample of one image gets the label, later ones too."""
    site.service.samples.accept("d1", upload(1), 0)
    site.service.samples.label(1, "7", "me", 5)
    site.service.samples.accept("d2", upload(1), 10)
    assert [sample.label for sample in site.service.samples.latest()] == ["7", "7"]


def test_the_second_of_two_people_does_not_replace_the_first_unawares(site: Site) -> None:
    """Both saw the image without a label; an equal label stays the first person's, another one is refused."""
    samples = site.service.samples
    samples.accept("d1", upload(1), 50)
    samples.label(1, "0", "anna", 60)
    assert samples.label(1, " 0 ", "ben", 61).label_by == "anna"
    with pytest.raises(LabelTakenError, match="sample 1 without a label, got one that anna has labelled '0'"):
        samples.label(1, "1", "ben", 61)
    samples.accept("d2", upload(1), 62)
    with pytest.raises(LabelTakenError, match="anna"):
        samples.label(2, "1", "ben", 63)
    assert {(one.label, one.label_by, one.labelled_ms) for one in samples.latest()} == {("0", "anna", 60)}
    assert samples.changes(1) == ()


@pytest.mark.stores
def test_a_changed_label_keeps_what_it_was(site: Site) -> None:
    """Of every sample of the image, with who and when; whoever states another label than it has is refused."""
    samples = site.service.samples
    samples.accept("d1", upload(1), 50)
    samples.accept("d2", upload(1), 50)
    with pytest.raises(LabelRefusedError, match="got one without a label"):
        samples.label(1, "1", "ben", 55, replaces="0")
    samples.label(1, "0", "anna", 60)
    assert samples.label(1, "0", "anna", 61, replaces="0").labelled_ms == 60
    assert samples.label(2, "1", "ben", 70, replaces="0").label == "1"
    with pytest.raises(LabelTakenError, match="labelled '0', got one that ben has labelled '1'"):
        samples.label(1, "2", "cy", 80, replaces="0")
    samples.label(1, "2", "cy", 90, replaces="1")
    assert {(one.label, one.label_by, one.labelled_ms) for one in samples.latest()} == {("2", "cy", 90)}
    assert (
        samples.changes(1)
        == samples.changes(2)
        == (
            LabelChange(label="0", label_by="anna", labelled_ms=60, new_label="1", changed_by="ben", changed_ms=70),
            LabelChange(label="1", label_by="ben", labelled_ms=70, new_label="2", changed_by="cy", changed_ms=90),
        )
    )
    assert [one.id for one in samples.labelled_last(5)] == [1]


@pytest.mark.stores
@pytest.mark.parametrize("replaces", [None, "0"])
def test_of_two_people_at_the_same_time_one_is_told(site: Site, replaces: str | None) -> None:
    """Both look at the sample before either stores a label: the slower one changes nothing, and no change is noted."""
    samples = site.service.samples
    samples.accept("d1", upload(1), 50)
    if replaces is not None:
        samples.label(1, replaces, "anna", 60)
    first = replace(samples, form_of=lambda *_: samples.label(1, "8", "ben", 70, replaces=replaces) and LabelForm())
    with pytest.raises(LabelTakenError, match="ben has labelled '8'"):
        first.label(1, "9", "cy", 71, replaces=replaces)
    assert samples.sample(1).label == "8"
    assert [one.changed_by for one in samples.changes(1)] == (["ben"] if replaces else [])


def test_a_correction_has_the_user_s_label_as_a_claim_only(site: Site) -> None:
    """It waits for a person's label as any sample; a label in another lane is no claim."""
    site.service.samples.accept("d1", replace(upload(1), lane="correction", label="7"), 0)
    site.service.samples.accept("d1", replace(upload(2), label="7"), 0)
    found = {sample.lane: (sample.claimed, sample.label) for sample in site.service.samples.latest(unlabelled=True)}
    assert found == {"correction": ("7", ""), "audit": ("", "")}


def test_the_last_of_several_corrections_counts(site: Site) -> None:
    """Of one device: another one's user has an opinion of his own, and a sample that was drawn has none."""
    accept = site.service.samples.accept
    accept("d1", upload(1), 0)
    corrected = replace(upload(1), lane="correction", label="7")
    accept("d1", replace(corrected, seq=9, at_ms=corrected.at_ms + 1), 0)  # the same picture at another time
    for device, seq, label in (("d1", 2, "7"), ("d2", 3, "3"), ("d1", 4, "none of these"), ("d1", 2, "7")):
        accept(device, replace(corrected, seq=seq, label=label), 0)
    found = sorted((one.device, one.lane, one.claimed) for one in site.service.samples.latest())
    assert found == [
        ("d1", "audit", ""), ("d1", "correction", "none of these"), ("d1", "correction", "none of these"),
        ("d2", "correction", "3"),
    ]  # fmt: skip


@pytest.mark.stores
def test_an_input_that_is_corrected_again_is_one_sample(site: Site) -> None:
    """With the last claim, the others in its history; it takes no room, so the daily limit does not refuse it."""
    once = replace(upload(1), lane="correction", label="3")
    room = replace(site.service.samples.config, max_device_bytes_per_day=len(base64.b64decode(once.data)))
    samples = replace(site.service.samples, config=room)
    for seq, label in ((1, "3"), (2, "5"), (3, "5"), (4, "1")):
        samples.accept("d1", replace(once, seq=seq, label=label), seq)
    (found,) = samples.latest()
    assert (found.claimed, found.received_ms) == ("1", 1)
    changes = [(one.claimed, one.new_claimed) for one in samples.claim_changes(found.id)]
    assert changes == [("3", "5"), ("5", "1")]
    with pytest.raises(SampleRefusedError, match="day"):
        samples.accept("d1", upload(5), 5)


@pytest.mark.parametrize("label", ["a" * 101, "a\n", "\x00"])
def test_a_claim_that_can_not_be_shown_is_refused(site: Site, label: str) -> None:
    """A device is another's machine."""
    with pytest.raises(SampleRefusedError, match="printable"):
        site.service.samples.accept("d1", replace(upload(1), lane="correction", label=label), 0)
    site.service.samples.accept("d1", replace(upload(1), lane="correction", label="a" * 100), 0)


def test_labels_are_checked(site: Site) -> None:
    """An empty label and an unknown sample are refused."""
    site.service.samples.accept("d1", upload(1), 0)
    with pytest.raises(LabelRefusedError):
        site.service.samples.label(1, "  ", "me", 5)
    with pytest.raises(LabelRefusedError, match="name of the person"):
        site.service.samples.label(1, "1", " \t ", 5)
    with pytest.raises(UnknownSampleError):
        site.service.samples.label(99, "1", "me", 5)


def test_a_label_is_a_class_of_the_model_that_took_the_image(site: Site) -> None:
    """A typo is refused with the names that would do; it would end the job that trains with it."""
    site.service.samples.accept("d1", replace(upload(1), artifact_sha256=sha256_hex(MODEL)), 0)
    with pytest.raises(LabelRefusedError, match=r"\(0, 1\) or 'none of these', got '7'"):
        site.service.samples.label(1, "7", "me", 5)
    assert site.service.samples.label(1, " 1 ", "me", 5).label == "1"


def test_the_archive_lists_each_image_once(site: Site) -> None:
    """Same samples, same bytes; the CSV has the agreed columns."""
    for number in (1, 2):
        site.service.samples.accept("d1", upload(number), 0)
        site.service.samples.label(number, str(number), "me", 5)
    labelled = site.service.samples.labelled(["d1"], 0, upload(1).artifact_sha256)
    data = build_archive([*labelled, *labelled], lambda device: f"site of {device}", site.service.samples.image)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        assert sorted(archive.namelist()) == sorted(["labels.csv", *(row["path"] for row in rows)])
    assert {(row["label"], row["slice"], row["lane"]) for row in rows} == {
        ("1", "site of d1", "audit"), ("2", "site of d1", "audit"),
    }  # fmt: skip


@pytest.mark.stores
def test_a_job_is_one_workers_until_its_lease_expires(site: Site) -> None:
    """Another worker gets it only after silence, and then the first has lost it."""
    first = job(site)
    assert site.service.jobs.lease("a", 0) is not None
    assert site.service.jobs.lease("b", 1_000) is None
    assert site.service.jobs.lease("a", 2_000) is not None
    assert site.service.jobs.lease("b", 500_000) is not None
    with pytest.raises(LeaseLostError):
        site.service.jobs.done(first.id, "a", "model-2", {}, 500_001)


def test_a_released_job_is_free_at_once(site: Site) -> None:
    """Ctrl-C at the worker returns the job without using up an attempt."""
    first = job(site)
    site.service.jobs.lease("a", 0)
    site.service.jobs.failed(first.id, "a", "released", "", 1)
    again = site.service.jobs.lease("b", 2)
    assert again is not None
    assert again.attempts == 1


def test_a_job_that_kills_its_workers_ends(site: Site) -> None:
    """After three silent workers it is failed."""
    first = job(site)
    for turn in range(3):
        site.service.jobs.lease(f"w{turn}", turn * 1_000_000)
    assert site.service.jobs.lease("w3", 9_000_000) is None
    assert site.service.jobs.job(first.id).state == "failed"


def test_a_job_that_kills_the_same_worker_ends(site: Site) -> None:
    """A worker that returns under its name and leases its job again uses one more attempt."""
    first = job(site)
    attempts = [known.attempts for turn in range(3) if (known := site.service.jobs.lease("w", turn)) is not None]
    assert attempts == [1, 2, 3]
    assert site.service.jobs.lease("w", 4) is None
    assert (site.service.jobs.job(first.id).state, site.service.jobs.job(first.id).code) == ("failed", "abandoned")


def test_samples_of_one_device_and_time_share_a_source(site: Site) -> None:
    """Frames of one scene are never trained on and judged by at once: the build host splits by this column."""
    for number, at_ms in ((1, 0), (2, 599_999), (3, 600_000)):
        site.service.samples.accept("d1", replace(upload(number), at_ms=at_ms), 1_000_000)
        site.service.samples.label(number, str(number), "me", 5)
    samples = site.service.samples.labelled(["d1"], 0, upload(1).artifact_sha256)
    for block_s, sources in ((600.0, 2), (0.0, 3)):
        data = build_archive(samples, lambda device: device, site.service.samples.image, block_s)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        assert len({row["source"] for row in rows}) == sources


def test_each_job_is_the_next_look_at_its_gate_split(site: Site) -> None:
    """A failed job is a look too; another split, or another model, has looks of its own."""
    jobs = site.service.jobs
    first = jobs.create(ORDER, b"", 0)
    leased = jobs.lease("w", 1)
    assert leased is not None
    jobs.failed(leased.id, "w", "gate_fail", "worse", 2)
    second = jobs.create(ORDER, b"", 3)
    assert (first.look, second.look, second.facts.look) == (1, 2, 2)
    assert jobs.create(replace(ORDER, gate_split="f" * 64), b"", 3).look == 1
    assert jobs.create(replace(ORDER, model="other"), b"", 3).look == 1


@pytest.mark.parametrize(("look", "taken"), [(None, False), (1, False), ("2", False), (2, True), (3, True)])
def test_a_certificate_proves_the_look_of_its_job(site: Site, look: object, taken: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """One of an earlier look was judged with risk that is spent; a later one counts on from there."""
    jobs = site.service.jobs
    first = jobs.create(ORDER, b"", 0)
    jobs.withdraw(first.id, 1)
    jobs.create(ORDER, b"", 2)
    leased = jobs.lease("w", 3)
    assert leased is not None
    certificate: dict[str, Json] = {} if look is None else {"look": look, "gate_split": SPLIT}  # type: ignore[dict-item]
    if not taken:
        with pytest.raises(LookMissingError, match="look 2 at the gate split or a later one"):
            jobs.done(leased.id, "w", "model-2", certificate, 4)
        return
    assert jobs.done(leased.id, "w", "model-2", certificate, 4).look == look
    assert jobs.next_look("model", SPLIT) == look + 1  # type: ignore[operator]


def test_a_gate_split_is_used_up(site: Site) -> None:
    """The message says what is needed; nothing is stored."""
    jobs = replace(site.service.jobs, config=replace(site.service.jobs.config, max_looks=2))
    for _ in range(2):
        jobs.create(ORDER, b"", 0)
    with pytest.raises(GateSplitUsedError, match=r"at most 2 retrainings of model .* publish a release that"):
        jobs.create(ORDER, b"", 0)
    assert jobs.looks("model", SPLIT) == 2
    assert jobs.create(replace(ORDER, gate_split="f" * 64), b"", 0).look == 1
