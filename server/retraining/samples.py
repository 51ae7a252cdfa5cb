"""Samples from the fleet: checked, stored once by content, labelled by people, packed for a worker.

An image is stored as ``samples/<sha256>.<png|jpg>``; written to a temporary file, synced, renamed. A label belongs to
a model and the image: every sample of both, from any device, gets the label, and another model that saw the same image
has labels of its own, as its question is another. A label must fit the model that took the sample, a class or numbers:
a typing error would fail the job that trains with it. The label that a device's user gave with a correction is only a
claim, shown to the person who labels. Of images that two people label (``[retraining] second_person``) the label is
the one that two have given: until then they have none, so that nothing is trained or judged with it. Images that nobody
labels expire, the oldest first; the file stays as long as a sample of any model shows it.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import logging
import threading
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.errors import LabelRefusedError, LabelTakenError, SampleRefusedError, ServerError, UnknownSampleError
from server.people import ActorKind, By, actor_of
from server.retraining.config import RetrainingConfig
from server.retraining.harm import AuditedSample
from server.retraining.labelling import LabelForm
from server.retraining.labels.agreement import LabelAnswer, for_two, settled
from server.store import retraining as store
from server.store.database import Database
from server.store.labels import answers as answers_store
from server.store.lists import learning as lists
from server.store.lists.paging import Page
from wire.canonical import sha256_hex
from wire.durable import write_atomically
from wire.errors import WireError
from wire.messages import Sample

_LOG = logging.getLogger(__name__)
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg"}
STEADY = "audit"
"""The name of the request of the steady audit: on a device, each takes the place of the one before."""
ONCE = "once"
"""How the name of a request begins that went to one device only."""
_DAY_MS = 86_400_000
_MAX_LABEL = 100
_MAX_KEY = 64
_LANES = ("audit", "drift", "correction")
_SERVER = "the server"
UNSURE, BROKEN = "unsure", "broken"
MARKS = {UNSURE: "can't tell", BROKEN: "picture broken"}
"""Why an image can't be labelled, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSample:
    """One sample. ``predicted`` is the index of the model's class; ``label`` a class name or numbers, "" before.

    ``claimed``: what the device's user says that it is, in the lane ``correction``. ``model``: the model that took it,
    to which the label belongs; the digest of its artifact, as long as no release here is of that.
    """

    id: int
    device: str
    sha256: str
    media_type: str
    length_bytes: int
    lane: str
    inclusion_ratio: float
    predicted: int
    confidence: float
    artifact_sha256: str
    at_ms: int
    received_ms: int
    label: str
    label_by: str
    labelled_ms: int = 0
    claimed: str = ""
    request: str = ""
    model: str = ""

    @property
    def file_name(self) -> str:
        """The name of the image's file."""
        return f"{self.sha256}.{EXTENSIONS[self.media_type]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChange:
    """A label that ``label_by`` gave an image and ``changed_by`` replaced by ``new_label``; "": took off."""

    label: str
    label_by: str
    labelled_ms: int
    new_label: str
    changed_by: str
    changed_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimChange:
    """What the user of ``device`` had said of an image, and said otherwise with the correction ``new_claimed``."""

    device: str
    claimed: str
    new_claimed: str
    changed_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStore:
    """All samples of one server; ``folder`` is ``samples`` in its state directory. Safe to share between threads.

    ``form_of`` returns the labels that fit an artifact, by its digest and model; ``model_of`` its model on a device at
    a time (UTC ms).
    """

    database: Database
    folder: Path
    config: RetrainingConfig = field(default_factory=RetrainingConfig)
    form_of: Callable[[str, str], LabelForm] = lambda _artifact_sha256, _model: LabelForm()
    model_of: Callable[[str, str, int], str] = lambda artifact_sha256, _device, _at_ms: artifact_sha256
    _files: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def accept(self, device: str, sample: Sample, now_ms: int) -> None:
        """Store a sample of ``device``; storing the same sample twice changes nothing.

        Of several corrections of one input, by its digest and time, the last counts: they are one sample of the device
        and model, which gets its claim. Samples of the same image at other times get it too. What their claim was is
        kept (``claim_changes``). Only the first counts toward the daily limit: the others take no room.

        Raises:
            SampleRefusedError: If it is too large, does not match its digest, or exceeds the device's daily limit.
        """
        with self.database.begin() as connection:
            if store.has_sample(connection, device, sample.boot, sample.seq):
                return
            today_bytes = store.sample_bytes(connection, device, now_ms - _DAY_MS)
        data, at_ms = self._checked(sample), sample.at_ms or now_ms
        model = self.model_of(sample.artifact_sha256, device, at_ms)
        row = {
            "device": device, "boot": sample.boot, "seq": sample.seq, "sha256": sample.sha256,
            "media_type": sample.media_type, "length_bytes": len(data), "request": sample.request,
            "lane": sample.lane, "inclusion_ratio": sample.inclusion_ratio, "predicted": sample.predicted,
            "confidence": sample.confidence, "artifact_sha256": sample.artifact_sha256,
            "at_ms": at_ms, "received_ms": now_ms, "model": model,
            "claimed": sample.label if sample.lane == "correction" else "",
        }  # fmt: skip
        with self._files:  # between its file and its row no other thread lets an older sample of the image expire
            again = self._again(device, model, sample)
            if again is None and today_bytes + len(data) > self.config.max_device_bytes_per_day:
                limit = self.config.max_device_bytes_per_day
                raise SampleRefusedError(f"Expected at most {limit} bytes a day, got {today_bytes} before")
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            final = self.folder / f"{sample.sha256}.{EXTENSIONS[sample.media_type]}"
            if not final.exists():
                write_atomically(final, data)
            with self.database.begin() as connection:
                known = store.known_label(connection, model, sample.sha256)
                if known is not None:
                    row |= {name: known[name] for name in ("label", "label_by", "labelled_ms")}
                if again is None:
                    store.insert_sample(connection, row)
                elif again["boot"] == sample.boot and again["seq"] > sample.seq:
                    return  # delivered again, after one that the user made later
                else:
                    store.set_sample_key(connection, again["id"], sample.boot, sample.seq)
                if row["claimed"]:  # a user who corrects a correction has one opinion: the last
                    store.replace_claims(connection, device, model, sample.sha256, str(row["claimed"]), now_ms)

    def _again(self, device: str, model: str, sample: Sample) -> sa.RowMapping | None:
        """Return the sample of the input that ``sample`` corrects again, None if it does not."""
        if sample.lane != "correction":
            return None
        with self.database.begin() as connection:
            return store.correction_of(connection, device, model, sample.sha256, sample.at_ms)

    def _checked(self, sample: Sample) -> bytes:
        limit_bytes = self.config.max_sample_bytes
        if sample.media_type not in EXTENSIONS or sample.lane not in _LANES:
            message = f"Expected a PNG or JPEG of lane {' or '.join(_LANES)}, got {sample.media_type!r} {sample.lane!r}"
            raise SampleRefusedError(message[:300])
        if len(sample.label) > _MAX_LABEL or not sample.label.isprintable():
            message = f"Expected a label of at most {_MAX_LABEL} printable characters, got {sample.label[:40]!r}"
            raise SampleRefusedError(message)
        if len(sample.request) > _MAX_KEY or len(sample.artifact_sha256) > _MAX_KEY:
            got = f"{len(sample.request)} and {len(sample.artifact_sha256)}"
            message = f"Expected request and artifact_sha256 of at most {_MAX_KEY} characters, got {got}"
            raise SampleRefusedError(message)
        if len(sample.data) > limit_bytes * 4 // 3 + 4:
            message = f"Expected a sample of at most {limit_bytes} bytes, got {len(sample.data) * 3 // 4}"
            raise SampleRefusedError(message)
        try:
            data = base64.b64decode(sample.data, validate=True)
        except (binascii.Error, ValueError) as error:
            message = f"Expected a sample in base64, got: {error}"
            raise SampleRefusedError(message) from error
        if not data or sha256_hex(data) != sample.sha256:
            message = f"Expected SHA-256 {sample.sha256[:12]}…, got {sha256_hex(data)[:12]}…"
            raise SampleRefusedError(message)
        return data

    def latest(
        self, *, unlabelled: bool = False, limit: int = 100, after: int | None = None
    ) -> tuple[StoredSample, ...]:
        """Return the newest samples; with ``unlabelled``, each unlabelled image of a model once, oldest first.

        ``after``: the id of the last sample of the previous page.
        """
        with self.database.begin() as connection:
            rows = store.latest_samples(connection, unlabelled=unlabelled, limit=limit, after=after)
            return tuple(stored_sample(row) for row in rows)

    def page(  # noqa: PLR0913 - a filter and a place in the list
        self, *, unlabelled: bool = False, device: str = "", model: str = "", lane: str = "", label: str = "",
        limit: int = 100, cursor: str | None = None,
    ) -> Page[StoredSample]:  # fmt: skip
        """Return a page of samples in the order of ``latest``; "" for any.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            return lists.sample_page(
                connection, unlabelled=unlabelled, device=device, model=model, lane=lane, label=label, limit=limit,
                cursor=cursor,
            ).of(stored_sample)  # fmt: skip

    def sample(self, sample: int) -> StoredSample:
        """Return one sample.

        Raises:
            UnknownSampleError: If there is none of that id.
        """
        missing = UnknownSampleError(f"Expected the id of a sample, got {sample}: see GET /api/samples")
        return stored_sample(self.database.row(lambda connection: store.one_sample(connection, sample), missing))

    def image(self, sample: StoredSample) -> bytes:
        """Return the encoded image.

        Raises:
            UnknownSampleError: If its file is missing.
        """
        try:
            return (self.folder / sample.file_name).read_bytes()
        except OSError as error:
            message = f"Expected the image of sample {sample.id}, got: {error.strerror}"
            raise UnknownSampleError(message) from error

    def label(
        self, sample: int, label: str, by: By, now_ms: int, *, replaces: str | None = None, seen: bool = False
    ) -> StoredSample:  # fmt: skip
        """Label a sample's image for its model; return the sample with its label.

        That may be an equal one of another person. Samples of other models keep what they have. An image that two
        people label has none until two have given the same one.

        A label is never replaced unawares: whoever changes one names it in ``replaces``, and what it was is kept
        (``changes``). ``seen``: whether the person had the model's answer in view.

        Raises:
            UnknownSampleError: If there is no such sample.
            LabelRefusedError: If the label is empty, too long, or does not fit the model that took the sample; if
                ``by`` names nobody, or nobody that was proved where two people label; or if there is no label to
                replace.
            LabelTakenError: If the image has another label than ``label`` and ``replaces``.
        """
        known, label = self.sample(sample), label.strip()
        if problem := self.problem(known, label, by):
            raise LabelRefusedError(problem)
        two = self.of_two(known)
        with self.database.begin() as connection:
            self.label_in(connection, known, label, by, now_ms, two=two, replaces=replaces, seen=seen)
        if two:
            return self.sample(sample)
        found = self.sample(sample)
        if not found.label:
            message = f"Expected sample {sample} labelled {str(replaces)[:40]!r}, got one without a label"
            raise LabelRefusedError(f"{message}: label it without replacing one")
        if found.label != label:
            raise _taken(found, replaces)
        return found

    def problem(self, known: StoredSample, label: str, by: By) -> str:
        """Return why ``by`` can't label a sample as ``label``, "" if nothing is against it."""
        if not label or len(label) > _MAX_LABEL or not label.isprintable():
            return f"Expected a label of 1 to {_MAX_LABEL} printable characters, got {label[:40]!r}"
        self._labeller(by)
        if problem := self.form_of(known.artifact_sha256, known.model).problem(label):
            return problem
        actor = actor_of(by)
        if actor.kind is not ActorKind.USER and self.of_two(known):
            return (
                f"Expected a person for an image that two people label ([retraining] second_person), got {actor.name}, "
                "whom nobody proved: log in by name, or use a personal token"
            )
        return ""

    def label_in(  # noqa: PLR0913 - who labels what as what, when, in place of what, knowing what
        self, connection: sa.Connection, known: StoredSample, label: str, by: By, now_ms: int, *, two: bool,
        replaces: str | None = None, seen: bool = False,
    ) -> bool:  # fmt: skip
        """Label an image in a transaction, if nothing is against it (``problem``); return whether that changed one.

        ``two``: whether two people label it; the rest as of ``label``.

        Raises:
            LabelTakenError: If the image has another label than ``label`` and ``replaces``.
        """
        who = self._labeller(by)
        if two:
            self._label_of_two(connection, known, label, by, now_ms, replaces=replaces, seen=seen)
            return True
        labelled = self._set_label(connection, known, label, who, now_ms, replaces)
        if labelled:
            self._answer(connection, known, who, label, now_ms, blind=replaces is None, seen=seen)
            data = {"label": label, "was": replaces or "", "model": known.model, "image": known.sha256}
            record_act(connection, by, "sample.label", str(known.id), now_ms, data=data)
        return labelled

    def of_two(self, sample: StoredSample) -> bool:
        """Return whether two people label the sample's image: classes alone, numbers of two people rarely equal."""
        share = self.config.share_for_two(sample.model)
        if not share or not for_two(sample.model, sample.sha256, share):
            return False
        return not self._known_form(sample.artifact_sha256, sample.model).values

    def answers(self, sample: StoredSample) -> tuple[LabelAnswer, ...]:
        """Return what each person has labelled the sample's image as, the first first."""
        with self.database.begin() as connection:
            return tuple(map(answer_of, answers_store.answers_of(connection, sample.model, sample.sha256)))

    def take_back(self, sample: int, by: By, now_ms: int) -> StoredSample:
        """Take back what ``by`` has labelled a sample's image as; return the sample.

        The label goes if it was that person's, and is kept (``changes``).

        Raises:
            UnknownSampleError: If there is no such sample.
            LabelRefusedError: If the person has not labelled it, or ``by`` names nobody.
            LabelTakenError: If another person has changed the label since.
        """
        known, who = self.sample(sample), self._labeller(by)
        with self.database.begin() as connection:
            answers_store.lock_image(connection, known.model, known.sha256)
            if not answers_store.take_answer_back(connection, known.model, known.sha256, who):
                message = f"Expected a sample that {who} has labelled, got sample {sample}: change its label instead"
                raise LabelRefusedError(message)
            row = store.known_label(connection, known.model, known.sha256)
            if row is not None and self.of_two(known):
                self._settle_image(connection, known, who, now_ms)
            elif row is not None:
                if row["label_by"] != who:
                    raise _taken(stored_sample(row), None)
                self._set_label(connection, known, "", who, now_ms, row["label"])
            data = {"label": "" if row is None else row["label"], "model": known.model, "image": known.sha256}
            record_act(connection, by, "sample.take_back", str(sample), now_ms, data=data)
        return self.sample(sample)

    def mark(self, sample: int, mark: str, by: By, now_ms: int) -> None:
        """Say why a sample's image can't be labelled, by one of ``MARKS``; "" takes the mark off.

        A marked image waits for nobody's label until it gets one, or the mark is taken off.

        Raises:
            UnknownSampleError: If there is no such sample.
            LabelRefusedError: If it has a label, the mark is none of ``MARKS``, or ``by`` names nobody.
        """
        known, who = self.sample(sample), self._labeller(by)
        if mark and mark not in MARKS:
            raise LabelRefusedError(f"Expected a mark ({', '.join(MARKS)}), got {mark[:40]!r}")
        with self.database.begin() as connection:
            answers_store.lock_image(connection, known.model, known.sha256)
            row = store.known_label(connection, known.model, known.sha256)
            if row is not None:
                message = f"Expected a sample without a label to mark, got one labelled {row['label']!r}"
                raise LabelRefusedError(f"{message}: take the label back first, or change it")
            answers_store.put_mark(connection, known.model, known.sha256, mark, who, now_ms)
            data = {"mark": mark, "model": known.model, "image": known.sha256}
            record_act(connection, by, "sample.mark", str(sample), now_ms, data=data)

    def _labeller(self, by: By) -> str:
        """Return the name that stays with a label.

        Raises:
            LabelRefusedError: If ``by`` names nobody.
        """
        who = " ".join(actor_of(by).name.split())[:_MAX_LABEL] if by else ""
        if not who:
            message = "Expected the name of the person who labels, got none: it stays with the label"
            raise LabelRefusedError(message)
        return who

    def _label_of_two(  # noqa: PLR0913 - as of label
        self, connection: sa.Connection, known: StoredSample, label: str, by: By, now_ms: int, *,
        replaces: str | None, seen: bool,
    ) -> None:  # fmt: skip
        """Store what a person labels an image as that two people label; it gets the label that two have given."""
        who = self._labeller(by)
        answers_store.lock_image(connection, known.model, known.sha256)
        row = store.known_label(connection, known.model, known.sha256)
        was = None if row is None else str(row["label"])
        if row is not None and was not in (label, replaces):
            raise _taken(stored_sample(row), replaces)
        if row is not None and not answers_store.answers_of(connection, known.model, known.sha256):
            # labelled before two people were wanted: the first of the two
            self._answer(connection, known, row["label_by"], str(was), int(row["labelled_ms"]), blind=True)
        self._answer(connection, known, who, label, now_ms, blind=row is None, seen=seen)
        now = self._settle_image(connection, known, who, now_ms)
        data = {"label": label, "was": was or "", "now": now, "model": known.model, "image": known.sha256}
        record_act(connection, by, "sample.label", str(known.id), now_ms, data=data)

    @staticmethod
    def _answer(  # noqa: PLR0913 - who labels what as what, when, knowing what
        connection: sa.Connection, known: StoredSample, who: str, label: str, now_ms: int, *, blind: bool,
        seen: bool = False,
    ) -> None:  # fmt: skip
        """Store what a person labels an image as; it is marked no more, and kept for that person no more."""
        model, sha256, first = known.model, known.sha256, label if blind else ""
        answers_store.put_answer(connection, model, sha256, who, label, now_ms, first=first, seen=seen)
        answers_store.put_mark(connection, model, sha256, "", who, now_ms)
        answers_store.end_leases(connection, who, model, sha256)

    def _settle_image(self, connection: sa.Connection, known: StoredSample, who: str, now_ms: int) -> str:
        """Give an image that two people label the label that two have given, or take it off; return it."""
        row = store.known_label(connection, known.model, known.sha256)
        was = None if row is None else str(row["label"])
        found = answers_store.answers_of(connection, known.model, known.sha256)
        label = settled(one["label"] for one in found)
        if label != (was or ""):
            people = ", ".join(one["person"] for one in found if one["label"] == label)[:_MAX_LABEL]
            self._set_label(connection, known, label, people or who, now_ms, was)
        return label

    @staticmethod
    def _set_label(
        connection: sa.Connection, known: StoredSample, label: str, who: str, now_ms: int, replaces: str | None
    ) -> bool:  # fmt: skip
        """Set the label of an image in place of ``replaces``, "": take it off; return whether it was so.

        Raises:
            LabelTakenError: If another change was faster: nothing of this one is kept.
        """
        values: dict[str, object] = {"label": label, "label_by": who, "labelled_ms": now_ms}
        if not label:
            values = {"label": None, "label_by": None, "labelled_ms": 0}
        if replaces is None:
            return store.label_image(connection, known.model, known.sha256, None, values)
        change = {"new_label": label, "changed_by": who, "changed_ms": now_ms}
        if replaces == label or not store.keep_label(connection, known.model, known.sha256, replaces, change):
            return False
        if not store.label_image(connection, known.model, known.sha256, replaces, values):
            row = store.known_label(connection, known.model, known.sha256)
            raise _taken(known if row is None else stored_sample(row), replaces)
        return True

    def changes(self, sample: int) -> tuple[LabelChange, ...]:
        """Return what the label of a sample's image was before, the first change first.

        Raises:
            UnknownSampleError: If there is no such sample.
        """
        known = self.sample(sample)
        names = LabelChange.__dataclass_fields__
        with self.database.begin() as connection:
            rows = store.label_changes(connection, known.model, known.sha256)
            return tuple(LabelChange(**{name: row[name] for name in names}) for row in rows)

    def claim_changes(self, sample: int) -> tuple[ClaimChange, ...]:
        """Return what users of devices had said of a sample's image before they said otherwise, the first first.

        Raises:
            UnknownSampleError: If there is no such sample.
        """
        known = self.sample(sample)
        with self.database.begin() as connection:
            rows = store.claim_changes(connection, known.model, known.sha256)
            return tuple(ClaimChange(**{name: row[name] for name in ClaimChange.__dataclass_fields__}) for row in rows)

    def settle(self, now_ms: int) -> int:
        """Take off each label that the model of its sample can't have; return of how many samples.

        What it was is kept (``changes``). Labels came to such samples when they belonged to images alone, or when no
        release here was of the artifact.
        """
        with self.database.begin() as connection:
            given = store.given_labels(connection)
        forms = {one: self._known_form(*one) for one in {(artifact, model) for model, artifact, _ in given}}
        change, taken = {"new_label": "", "changed_by": _SERVER, "changed_ms": now_ms}, 0
        bare = {"label": None, "label_by": None, "labelled_ms": 0}
        for model, artifact, label in given:
            if not forms[artifact, model].problem(label):
                continue
            with self.database.begin() as connection:
                for sha256 in store.images_labelled(connection, model, artifact, label):
                    others = store.artifacts_of_image(connection, model, sha256) - {artifact}
                    if all(self._known_form(other, model).problem(label) for other in others):
                        store.keep_label(connection, model, sha256, label, change)
                        taken += store.label_image(connection, model, sha256, label, bare)
        if taken:
            _LOG.warning("Took off labels that the samples' models can't have. samples=%s", taken)
        return taken

    def _known_form(self, artifact_sha256: str, model: str) -> LabelForm:
        try:
            return self.form_of(artifact_sha256, model)
        except (ServerError, WireError):  # a bundle that is missing or damaged: nobody knows
            return LabelForm()

    def labelled_last(self, limit: int) -> tuple[StoredSample, ...]:
        """Return one sample of each image of a model that has a label, the one labelled last first."""
        with self.database.begin() as connection:
            return tuple(stored_sample(row) for row in store.last_labelled(connection, limit))

    def expire(self, now_ms: int) -> int:
        """Let the oldest images that wait for a label expire, beyond ``max_waiting`` of each lane.

        Return how many files were deleted: an image that a sample of another model shows stays.
        """
        unneeded: list[str] = []
        with self._files:
            for lane in _LANES:
                with self.database.begin() as connection:
                    answered = answers_store.has_answer()  # what a person has looked at stays
                    unneeded += store.expire_samples(connection, lane, self.config.max_waiting, now_ms, answered)
            for sha256 in unneeded:
                for extension in EXTENSIONS.values():
                    (self.folder / f"{sha256}.{extension}").unlink(missing_ok=True)
        return len(unneeded)

    def expired(self, since_ms: int) -> int:
        """Return how many samples have expired since a time."""
        with self.database.begin() as connection:
            return store.count_samples(connection, expired_since_ms=since_ms)[2]

    def received(self, device: str, request: str) -> int:
        """Return how many samples of ``request`` came from ``device`` and have not expired."""
        with self.database.begin() as connection:
            return store.count_of_request(connection, device, request)

    def labelled(self, devices: Sequence[str], since_ms: int, model: str) -> tuple[StoredSample, ...]:
        """Return the labelled samples of ``devices`` that releases of ``model`` took since a time, by id."""
        with self.database.begin() as connection:
            return tuple(stored_sample(row) for row in store.labelled_samples(connection, devices, since_ms, model))

    def labelled_uniformly(self, model: str, without: Sequence[str], limit: int) -> tuple[StoredSample, ...]:
        """Return the newest labelled samples of ``model`` that were drawn uniformly, newest first.

        ``without``: devices whose samples are left out.
        """
        with self.database.begin() as connection:
            rows = store.newest_labelled(connection, "audit", model, without, limit)
            return tuple(stored_sample(row) for row in rows)


def _taken(found: StoredSample, replaces: str | None) -> LabelTakenError:
    wanted = "without a label" if replaces is None else f"labelled {replaces[:40]!r}"
    message = f"Expected sample {found.id} {wanted}, got one that {found.label_by} has labelled {found.label!r}"
    return LabelTakenError(
        f"{message}: to change that, replace {found.label!r} (on the sample's page, or by `replaces`)"
    )


def answer_of(row: sa.RowMapping) -> LabelAnswer:
    """Return the answer in a row of the store."""
    return LabelAnswer(**{name: row[name] for name in LabelAnswer.__dataclass_fields__})


def stored_sample(row: sa.RowMapping) -> StoredSample:
    """Return the sample in a row of the store."""
    values = {name: row[name] for name in StoredSample.__dataclass_fields__}
    return StoredSample(**{**values, "label": row["label"] or "", "label_by": row["label_by"] or ""})


LABELS, WATCHED = "labels.csv", "watched.csv"
COLUMNS = ("path", "label", "slice", "lane", "sample", "source")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def distinct(samples: Iterable[StoredSample]) -> tuple[StoredSample, ...]:
    """Return one sample of each image, of one model's: the first from the audit lane if there is one, or the first."""
    found: dict[str, StoredSample] = {}
    for sample in samples:
        known = found.get(sample.sha256)
        if known is None or (known.lane != "audit" and sample.lane == "audit"):
            found[sample.sha256] = sample
    return tuple(sorted(found.values(), key=lambda sample: sample.sha256))


def source_of(sample: StoredSample, block_s: float) -> str:
    """Return the source of ``sample``: its device and its block of ``block_s`` seconds; for 0 the image itself.

    Samples of one source are frames of one scene, as far as time can tell.
    """
    return f"{sample.device}/{int(sample.at_ms / (1000 * block_s))}" if block_s else sample.sha256


def audited_samples(
    labelled: Iterable[StoredSample], form_of: Callable[[str, str], LabelForm], block_s: float
) -> list[AuditedSample]:
    """Return what the labels of uniform samples say of the model that took each, for ``harm``.

    Left out are samples of other lanes, of models that predict numbers (a device reports none to compare), and of
    artifacts that no release here has: nobody knows what their predictions mean. Those of the steady audit, which asks
    all devices by one probability, have none: they count alike. ``block_s`` as in ``source_of``.
    """
    found, forms = [], dict[tuple[str, str], LabelForm]()
    for sample in labelled:
        of = (sample.artifact_sha256, sample.model)
        form = forms.get(of)
        if form is None:
            form = forms[of] = form_of(*of)
        if sample.lane != "audit" or not form.classes:
            continue
        right = 0 <= sample.predicted < len(form.classes) and form.classes[sample.predicted] == sample.label
        source = source_of(sample, block_s)
        found.append(AuditedSample(
            source=source, at_ms=sample.at_ms, wrong=not right,
            inclusion_ratio=0.0 if sample.request == STEADY else sample.inclusion_ratio,
        ))  # fmt: skip
    return found


def packed(
    samples: Iterable[StoredSample], watched: Iterable[StoredSample]
) -> tuple[tuple[StoredSample, ...], tuple[StoredSample, ...]]:
    """Return the samples of an archive, and those of other devices to watch in it: each image once, in one of both."""
    chosen = distinct(samples)
    known = {sample.sha256 for sample in chosen}
    return chosen, tuple(sample for sample in distinct(watched) if sample.sha256 not in known)


def build_archive(
    samples: Iterable[StoredSample],
    slice_of: Callable[[str], str],
    image_of: Callable[[StoredSample], bytes],
    block_s: float = 0.0,
    watched: Iterable[StoredSample] = (),
) -> bytes:
    """Return the zip: ``labels.csv`` with ``COLUMNS``, and ``images/<sha256>.<ext>``.

    ``slice_of`` names a device's slice; ``block_s`` as in ``source_of``. ``watched``: samples of sites that did not
    drift, which a ``watched.csv`` lists in the same way; an older worker leaves them alone.

    Raises:
        UnknownSampleError: If an image file is missing.
    """
    chosen, others = packed(samples, watched)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for listing, listed in ((LABELS, chosen), (WATCHED, others)):
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            for sample in listed:
                path, source = f"images/{sample.file_name}", source_of(sample, block_s)
                writer.writerow([path, sample.label, slice_of(sample.device), sample.lane, sample.id, source])
            if listing == LABELS or listed:
                archive.writestr(_entry(listing), text.getvalue().encode())
        for sample in (*chosen, *others):
            archive.writestr(_entry(f"images/{sample.file_name}"), image_of(sample))
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr, entry.create_system = 0o644 << 16, 3
    return entry
