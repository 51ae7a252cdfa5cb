"""Samples from the fleet: checked, stored once by content, labelled by people, packed for a worker.

An image is stored as ``samples/<sha256>.<png|jpg>``; written to a temporary file, synced, renamed. A label belongs to
a model and the image: every sample of both, from any device, gets the label, and another model that saw the same image
has labels of its own, as its question is another. A label must fit the model that took the sample, a class or numbers:
a typing error would fail the job that trains with it. The label that a device's user gave with a correction is only a
claim, shown to the person who labels. Images that nobody labels expire, the oldest first; the file stays as long as a
sample of any model shows it.
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
from server.people import By, actor_of
from server.retraining.config import RetrainingConfig
from server.retraining.harm import AuditedSample
from server.retraining.labelling import LabelForm
from server.store import retraining as store
from server.store.database import Database
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

    def label(self, sample: int, label: str, by: By, now_ms: int, *, replaces: str | None = None) -> StoredSample:
        """Label a sample's image for its model; return the sample with its label.

        That may be an equal one of another person. Samples of other models keep what they have.

        A label is never replaced unawares: whoever changes one names it in ``replaces``, and what it was is kept
        (``changes``).

        Raises:
            UnknownSampleError: If there is no such sample.
            LabelRefusedError: If the label is empty, too long, or does not fit the model that took the sample; if
                ``by`` names nobody; or if there is no label to replace.
            LabelTakenError: If the image has another label than ``label`` and ``replaces``.
        """
        known, label = self.sample(sample), label.strip()
        who = " ".join(actor_of(by).name.split())[:_MAX_LABEL] if by else ""
        if not who:
            message = "Expected the name of the person who labels, got none: it stays with the label"
            raise LabelRefusedError(message)
        if not label or len(label) > _MAX_LABEL or not label.isprintable():
            message = f"Expected a label of 1 to {_MAX_LABEL} printable characters, got {label[:40]!r}"
            raise LabelRefusedError(message)
        if problem := self.form_of(known.artifact_sha256, known.model).problem(label):
            raise LabelRefusedError(problem)
        values = {"label": label, "label_by": who, "labelled_ms": now_ms}
        change = {"new_label": label, "changed_by": who, "changed_ms": now_ms}
        with self.database.begin() as connection:
            labelled = False
            if replaces is None:
                labelled = store.label_image(connection, known.model, known.sha256, None, values)
            elif replaces != label and store.keep_label(connection, known.model, known.sha256, replaces, change):
                labelled = store.label_image(connection, known.model, known.sha256, replaces, values)
                if not labelled:  # another change was faster: nothing of this one is kept
                    row = store.known_label(connection, known.model, known.sha256)
                    raise _taken(known if row is None else stored_sample(row), replaces)
            if labelled:
                data = {"label": label, "was": replaces or "", "model": known.model, "image": known.sha256}
                record_act(connection, by, "sample.label", str(sample), now_ms, data=data)
        found = self.sample(sample)
        if not found.label:
            message = f"Expected sample {sample} labelled {str(replaces)[:40]!r}, got one without a label"
            raise LabelRefusedError(f"{message}: label it without replacing one")
        if found.label != label:
            raise _taken(found, replaces)
        return found

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
                    unneeded += store.expire_samples(connection, lane, self.config.max_waiting, now_ms)
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
    chosen = distinct(samples)
    known = {sample.sha256 for sample in chosen}
    others = [sample for sample in distinct(watched) if sample.sha256 not in known]
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
