"""A label belongs to a model and a picture: two models that see one picture are asked different questions of it."""

from __future__ import annotations

import csv
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.dashboard.learning import claim_lines, labelled_row, sample_card
from server.registry.lineage import note_transition
from server.retraining.config import RetrainingConfig
from server.retraining.labelling import LabelForm
from server.retraining.samples import (
    STEADY,
    ClaimChange,
    LabelChange,
    SampleStore,
    StoredSample,
    audited_samples,
    build_archive,
)
from server.store.database import Database
from server.store.fleet import insert_device, update_device
from wire.canonical import sha256_hex
from wire.codec import encode
from wire.messages import InstalledRelease, Reported

from .conftest import MODEL, sample

if TYPE_CHECKING:
    from .conftest import Site

OTHER, LATER, UNKNOWN = b"another model's bytes", b"the next release's bytes", b"nobody's bytes"


@pytest.fixture
def samples(site: Site) -> SampleStore:
    """Releases of two models, and a second one of the first; d1 and d2 see with any of them."""
    site.release(1, model=OTHER, name="other")
    site.release(2, model=LATER)
    return site.service.samples


def seen(
    samples: SampleStore, number: int, *, model: bytes, image: int = 1, label: str = "", device: str = "d1"
) -> StoredSample:  # fmt: skip
    """Let ``device`` send its sample ``number``: an image as ``model`` answered it, corrected if there is a label."""
    lane = "correction" if label else "audit"
    samples.accept(device, replace(sample(image, lane=lane, model=model), seq=number, label=label), 50 + number)
    return samples.latest(limit=1)[0]


def test_a_label_of_one_model_is_none_of_another(samples: SampleStore) -> None:
    """The same picture, before and after it was labelled; both wait, and both are named among those labelled last."""
    first, other = seen(samples, 1, model=MODEL), seen(samples, 2, model=OTHER)
    assert [one.id for one in samples.latest(unlabelled=True)] == [first.id, other.id]
    samples.label(first.id, "0", "anna", 60)
    assert seen(samples, 3, model=OTHER).label == ""
    assert samples.label(other.id, "1", "ben", 61).label == "1"
    assert seen(samples, 4, model=MODEL, device="d2").label == "0"
    assert [(one.model, one.label) for one in samples.labelled_last(5)] == [("other", "1"), ("model", "0")]
    assert labelled_row(samples.sample(other.id)).text.startswith("other: 1, by ben")
    assert samples.changes(first.id) == samples.changes(other.id) == ()


def test_releases_of_one_model_share_it(samples: SampleStore) -> None:
    """The question is the same, whichever of them answered."""
    samples.label(seen(samples, 1, model=MODEL).id, "0", "anna", 60)
    assert seen(samples, 2, model=LATER).label == "0"


def test_a_change_is_of_one_model(samples: SampleStore) -> None:
    """The other model's label stays, without a change; each page has its own."""
    first, other = seen(samples, 1, model=MODEL), seen(samples, 2, model=OTHER)
    for one in (first, other):
        samples.label(one.id, "0", "anna", 60)
    samples.label(other.id, "1", "ben", 70, replaces="0")
    assert (samples.sample(first.id).label, samples.changes(first.id)) == ("0", ())
    assert [one.label for one in samples.changes(other.id)] == ["0"]


def test_what_a_worker_gets_is_the_model_s_own(samples: SampleStore) -> None:
    """One picture is class 0 for one model and 1 for the other."""
    for model, label, number in ((MODEL, "0", 1), (OTHER, "1", 2)):
        samples.label(seen(samples, number, model=model).id, label, "anna", 60)
    for name, label in (("model", "0"), ("other", "1")):
        found = samples.labelled(["d1"], 0, name)
        with zipfile.ZipFile(io.BytesIO(build_archive(found, str, samples.image))) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        assert [row["label"] for row in rows] == [label]


@pytest.fixture
def twins(site: Site) -> Site:
    """Two models whose bundles hold one file, with classes in another order; d2 and d3 are of the second."""
    site.release(3, name="twin", labels=("1", "0"))
    fleet, names = site.service.fleet, ("", "model-1", "twin-3")
    with fleet.database.begin() as connection:
        insert_device(connection, {"device": "d3", "site": "east", "attributes": {}, "password_hash": "",
                                   "enrolled_ms": 0})  # fmt: skip
        for device, at_ms, release in (("d1", 10, 1), ("d2", 10, 1), ("d2", 2_000, 2)):
            report = Reported(at_ms=at_ms, current=InstalledRelease(release=names[release]))
            note_transition(connection, device, Reported(), report, 5_000)
            update_device(connection, device, {"reported": encode(report).decode()})
    fleet.set_desired("d3", release="twin-3", target="pi", sha256="ab" * 32, length_bytes=9)
    return site


@pytest.mark.parametrize(
    ("device", "at_ms", "model"),
    [("d1", 3_000, "model"), ("d2", 1_000, "model"), ("d2", 3_000, "twin"), ("d2", 5, "twin"), ("d3", 5, "twin"),
     ("gone", 5, "model")],
)  # fmt: skip
def test_of_two_models_with_one_file_a_sample_is_of_the_one_that_its_device_served(
    twins: Site, device: str, at_ms: int, model: str
) -> None:
    """That which ran when it was taken, by the last report, or by assignment; else the first release with the file."""
    samples = twins.service.samples
    samples.accept(device, replace(sample(1), at_ms=at_ms), 6_000)
    (known,) = samples.latest()
    assert known.model == model
    (scene,) = audited_samples([replace(known, label="1")], twins.service.versions.label_form, 0.0)
    assert scene.wrong == (model == "model")  # it predicted class 0, which is "1" of the twin


def test_labels_of_one_model_are_no_harm_of_another_with_the_same_file(twins: Site) -> None:
    """d1's answers are wrong, d2's twin's are not: the audit's rows, pools and retraining are each model's own."""
    for number in range(45):
        for device, own in (("d1", 100), ("d2", 200)):
            one = replace(sample(own + number), boot=device * 8, request=STEADY)
            twins.service.samples.accept(device, one, 10**9)
    for known in twins.service.samples.latest(limit=100):
        twins.service.samples.label(known.id, "1", "anna", 10**9)
    first, second = twins.audit.audits()
    assert [(one.model, one.groups[0].risk.scenes, one.groups[0].risk.wrong) for one in (first, second)] == [
        ("model", 45, 45), ("twin", 45, 0),
    ]  # fmt: skip
    twins.service.turn(10**9 + 1)
    assert [(one.model, one.devices) for one in twins.service.triggers.all()] == [("model", ("d1",))]


def test_the_samples_of_a_busy_model_crowd_out_no_other(site: Site, samples: SampleStore) -> None:
    """What a retraining is judged by elsewhere is asked of its own model, and of devices that did not drift."""
    for number, model, device in ((1, MODEL, "d2"), (2, OTHER, "d2"), (3, MODEL, "d1"), (4, OTHER, "d2")):
        samples.label(seen(samples, number, model=model, image=number, device=device).id, "0", "anna", 60)
    assert [one.id for one in samples.labelled_uniformly("model", ["d1"], 1)] == [1]
    assert [one.id for one in samples.labelled_uniformly("model", [], 9)] == [3, 1]
    del site


def test_a_claim_is_of_one_model_and_the_former_is_kept(samples: SampleStore) -> None:
    """A user who corrects a correction says so of the model that answered; another device's user has his own claim."""
    seen(samples, 1, model=OTHER, label="1")
    seen(samples, 2, model=MODEL, label="0", device="d2")
    for number, label in ((3, "0"), (4, "0"), (5, "none of these"), (6, "1")):
        seen(samples, number, model=MODEL, label=label)
    claims = {(one.device, one.model): one.claimed for one in samples.latest()}
    assert claims == {("d1", "other"): "1", ("d2", "model"): "0", ("d1", "model"): "1"}
    changes = samples.claim_changes(3)  # one input of one device and model: one sample
    assert changes == (
        ClaimChange(device="d1", claimed="0", new_claimed="none of these", changed_ms=55),
        ClaimChange(device="d1", claimed="none of these", new_claimed="1", changed_ms=56),
    )
    assert samples.claim_changes(1) == ()
    assert claim_lines(changes)[0].startswith("a user of d1 said none of these, and at 1970-01-01")


def test_an_image_stays_as_long_as_a_model_needs_it(samples: SampleStore) -> None:
    """That of one model expires; the file goes with the last sample that shows it, and never below a label."""
    keeps = replace(samples, config=RetrainingConfig(max_waiting=1))
    first, other = seen(keeps, 1, model=MODEL), seen(keeps, 2, model=OTHER)
    assert keeps.expire(100) == 0
    assert [one.id for one in keeps.latest()] == [other.id]
    assert keeps.image(other) == b"image 1"
    newer = seen(keeps, 3, model=MODEL, image=2)
    keeps.label(other.id, "1", "anna", 110)
    seen(keeps, 4, model=MODEL, image=1)  # waits, and is newer than that of image 2
    assert keeps.expire(120) == 1
    assert [one.id for one in keeps.latest()] == [4, other.id]
    assert keeps.image(other) == keeps.image(first) == b"image 1"
    assert not (keeps.folder / newer.file_name).exists()


def test_a_label_that_the_model_can_not_have_is_taken_off_and_kept_as_a_change(site: Site) -> None:
    """As those that a picture shared with another model, or that came before the release was known."""
    site.release(1, model=OTHER, name="other")
    loose = replace(site.service.samples, form_of=lambda *_: LabelForm())
    for number, model, label in ((1, OTHER, "7"), (2, MODEL, "0"), (3, UNKNOWN, "7")):
        loose.label(seen(loose, number, model=model).id, label, "anna", 60)
    samples = site.service.samples
    assert (samples.settle(90), samples.settle(91)) == (1, 0)
    assert [samples.sample(number).label for number in (1, 2, 3)] == ["", "0", "7"]
    assert samples.changes(1) == (
        LabelChange(label="7", label_by="anna", labelled_ms=60, new_label="", changed_by="the server", changed_ms=90),
    )
    assert [one.id for one in samples.latest(unlabelled=True)] == [1]
    assert samples.label(1, "1", "ben", 95).label == "1"


def test_a_label_that_one_release_of_the_model_takes_stays(site: Site, samples: SampleStore) -> None:
    """A class that the next release lost was no error when it was given."""
    samples.label(seen(samples, 1, model=MODEL).id, "0", "anna", 60)
    seen(samples, 2, model=LATER)
    later = sha256_hex(LATER)
    narrow = replace(
        samples, form_of=lambda artifact, _: LabelForm(classes=("x",) if artifact == later else ("0", "1"))
    )  # fmt: skip
    assert narrow.settle(90) == 0
    assert site.service.samples.sample(2).label == "0"


def test_an_artifact_without_a_release_stands_for_itself_until_one_is_published(
    site: Site, samples: SampleStore
) -> None:
    """Its samples are then of the model, with their labels; where the model has another one, that stays."""
    stray, _, lone = (seen(samples, number, model=UNKNOWN, image=number) for number in (1, 2, 3))
    assert stray.model == sha256_hex(UNKNOWN)
    assert sample_card(stray, LabelForm()).model == "a model that no release here is of"
    samples.label(stray.id, "1", "anna", 60)
    samples.label(lone.id, "1", "anna", 60)
    for image, label in ((1, "0"), (2, "1")):
        samples.label(seen(samples, 10 + image, model=MODEL, image=image).id, label, "ben", 70)
    waiting = seen(samples, 20, model=MODEL, image=3)
    assert waiting.label == ""
    site.release(3, model=UNKNOWN)
    assert {one.model for one in samples.latest()} == {"model"}
    assert [samples.sample(number).label for number in (1, 2, 3, waiting.id)] == ["0", "1", "1", "1"]
    assert [(one.label, one.new_label, one.changed_by) for one in samples.changes(stray.id)] == [("1", "0", "ben")]


@dataclass(frozen=True, slots=True)
class Watched(Database):
    """A database that notes at each transaction whether the files are locked."""

    lock: threading.Lock
    seen: list[bool]

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Note it, and begin."""
        self.seen.append(self.lock.locked())
        with Database.begin(self) as connection:
            yield connection


def test_nothing_expires_between_a_sample_s_file_and_its_row(samples: SampleStore) -> None:
    """An older sample of the same picture would take the file with it: rows are written and expire under one lock."""
    watched = Watched(samples.database.engine, samples._files, [])
    seen(replace(samples, database=watched), 1, model=MODEL)
    assert watched.seen == [False, True, False]  # is it here already; its row; read by the test
    watched.seen.clear()
    replace(samples, database=watched).expire(100)
    assert watched.seen == [True, True, True]
