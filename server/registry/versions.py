"""The releases that may be rolled out: those of the signed targets metadata whose bundle is stored here.

Does not decide who may add one: ``trust`` verifies the build host's signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.errors import UnknownReleaseError
from server.people import By
from server.registry.blobs import Blobs
from server.registry.lineage import served_by
from server.retraining.labelling import LabelForm
from server.store import registry as store
from server.store.database import Database
from server.store.labels.answers import adopt_answers
from server.store.lists.paging import Page
from server.store.lists.registry import release_page
from server.store.retraining import adopt_samples
from wire.bundle import CERTIFICATE, Bundle, parse_bundle
from wire.codec import Json, decode, encode, parse_json
from wire.errors import MessageError
from wire.reference import Reference, read_reference
from wire.tuf_target import TargetCustom

_REFERENCE = "reference.bin"
_MAX_CERTIFICATE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release for one target class.

    ``name`` is ``<model>-<version>``, ``target`` the target class (``gateway``), ``path`` the TUF target path
    (as in ``Desired.target``), ``sha256`` and ``length_bytes`` the bundle's. ``withdrawn_ms`` is 0 as long as it
    may be rolled out.
    """

    name: str
    model: str
    version: int
    target: str
    path: str
    sha256: str
    length_bytes: int
    certificate: Mapping[str, Json]
    custom: TargetCustom
    registered_ms: int
    withdrawn_ms: int = 0
    withdrawn_why: str = ""
    withdrawn_by: str = ""


@dataclass(frozen=True, slots=True)
class Versions:
    """All releases. Safe to share between threads."""

    database: Database
    blobs: Blobs

    def releases(self) -> tuple[Release, ...]:
        """Return every release, oldest first; one entry for each target class."""
        with self.database.begin() as connection:
            return tuple(release_of(row) for row in store.all_releases(connection))

    def page(
        self, *, name: str = "", search: str = "", withdrawn: bool | None = None, limit: int = 200,
        cursor: str | None = None,
    ) -> Page[Release]:  # fmt: skip
        """Return a page of releases, oldest first; ``search``: a part of the name; ``withdrawn``: if they are or not.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            found = release_page(
                connection, name=name, search=search, withdrawn=withdrawn, limit=limit, cursor=cursor
            )  # fmt: skip
        return found.of(release_of)

    def release(self, name: str, target: str | None = None) -> Release:
        """Return the release ``name`` for the target class ``target``, by default the first.

        Raises:
            UnknownReleaseError: If there is none.
        """
        found = [release for release in self.releases() if release.name == name]
        for release in found:
            if target in {None, release.target}:
                return release
        if found:
            message = f"Expected a target of {name}, {' or '.join(one.target for one in found)}, got {target!r}"
        else:
            message = f"Expected a published release, got {name!r}: publish it with compressor publish"
        raise UnknownReleaseError(message)

    def register(
        self, path: str, custom: TargetCustom, *, sha256: str, length_bytes: int, now_ms: int, by: By = ""
    ) -> Release:
        """Store a target of verified metadata as a release; registering it again changes only its custom data.

        ``by``: who published it, "" if the server finds it again. A withdrawn release stays withdrawn. Samples of its
        artifact that came before it are its model's from now on.

        Raises:
            UnknownBlobError: If its bundle was not uploaded first.
        """
        self.blobs.path(sha256)
        known = next((release for release in self.releases() if release.path == path), None)
        row = {
            "path": path, "name": f"{custom.model}-{custom.version}", "sha256": sha256, "length_bytes": length_bytes,
            "custom": encode(custom).decode(), "registered_ms": known.registered_ms if known else now_ms,
        }  # fmt: skip
        with self.database.begin() as connection:
            store.put_release(connection, row)
            if known is None and custom.artifact_sha256:
                adopt_samples(connection, custom.artifact_sha256, custom.model, now_ms)
                adopt_answers(connection, custom.artifact_sha256, custom.model)
            if known is None and by:
                data = {"target": custom.target, "sha256": sha256}
                record_act(connection, by, "release.publish", str(row["name"]), now_ms, data=data)
        if known:
            row |= {name: getattr(known, name) for name in ("withdrawn_ms", "withdrawn_why", "withdrawn_by")}
        return release_of(row)

    def bundle(self, sha256: str) -> Bundle:
        """Return the bundle, parsed and checked.

        Raises:
            UnknownBlobError: If it is not here.
            BundleError: If it is invalid.
        """
        return parse_bundle(self.blobs.read(sha256))

    def model_of(self, artifact_sha256: str, device: str = "", at_ms: int = 0) -> str:
        """Return the model of an artifact on ``device`` at ``at_ms`` (UTC), to which labels of its samples belong.

        Releases of several models may have one artifact: it is that of the release which ran then, which runs now, or
        which the device is assigned, in this order, if it is one of them, and else the first release's. Without a
        release the artifact stands for itself, by its digest.
        """
        releases = self.releases()
        found = [one.model for one in releases if one.custom.artifact_sha256 == artifact_sha256 != ""]
        if len(set(found)) > 1:
            models = {one.name: one.model for one in releases}
            with self.database.begin() as connection:
                served = [models.get(name, "") for name in served_by(connection, device, at_ms)]
            found = [*(model for model in served if model in found), *found]
        return next(iter(found), artifact_sha256)

    def label_form(self, artifact_sha256: str, model: str = "") -> LabelForm:
        """Return the labels that fit samples of the artifact; every text does if no release here has it.

        ``model``: whose releases come first, if several models have the artifact: their classes may differ.

        Raises:
            UnknownBlobError: If its bundle is missing.
            BundleError: If it is invalid.
        """
        found = [one for one in self.releases() if one.custom.artifact_sha256 == artifact_sha256 != ""]
        release = next((one for one in found if one.model == model), next(iter(found), None))
        return LabelForm() if release is None else self.label_form_of_bundle(release.sha256)

    def label_form_of_bundle(self, sha256: str) -> LabelForm:
        """Return the labels that fit samples of a bundle; cached, because a digest always names the same bytes.

        Raises:
            UnknownBlobError: If it is not here.
            BundleError: If it is invalid.
        """
        return _label_form(self.blobs, sha256)

    def not_asked(self, release: Release) -> str:
        """Return why devices with ``release`` are asked for no samples, without what to do instead; "" if they are.

        Raises:
            UnknownBlobError: If its bundle is not here.
            BundleError: If it is invalid.
        """
        return self.label_form_of_bundle(release.sha256).not_asked_reason

    def has_pictures(self, release: Release) -> bool:
        """Return whether the inputs of ``release`` are pictures: no front end reads them.

        Raises:
            UnknownBlobError: If its bundle is not here.
            BundleError: If it is invalid.
        """
        return self.label_form_of_bundle(release.sha256).pictures

    def gate_split(self, sha256: str) -> str:
        """Return the digest of the gate rows that a bundle was judged on; "" if its certificate has none.

        Raises:
            UnknownBlobError: If it is not here.
            BundleError: If it is invalid.
        """
        return _gate_split(self.blobs, sha256)

    def reference(self, ref_id: str) -> Reference | None:
        """Return the reference profile of the release whose ``ref_id`` starts with the given (32 or 64) hex digits.

        Raises:
            UnknownBlobError: If the bundle is not here.
            BundleError: If it is invalid.
            ReferenceProfileError: If it was made by another artifact than the signed release names.
        """
        for release in self.releases():
            if ref_id and release.custom.ref_id.startswith(ref_id):
                reference = _reference(self.blobs, release.sha256)
                reference.check_artifact(release.custom.artifact_sha256)
                return reference
        return None


@lru_cache(maxsize=64)
def _reference(blobs: Blobs, sha256: str) -> Reference:
    return read_reference(parse_bundle(blobs.read(sha256)).files[_REFERENCE])


@lru_cache(maxsize=256)
def _label_form(blobs: Blobs, sha256: str) -> LabelForm:
    return LabelForm.of(parse_bundle(blobs.read(sha256)).manifest)


@lru_cache(maxsize=256)
def _gate_split(blobs: Blobs, sha256: str) -> str:
    try:
        document = parse_json(parse_bundle(blobs.read(sha256)).files[CERTIFICATE], limit_bytes=_MAX_CERTIFICATE_BYTES)
    except (KeyError, MessageError):
        return ""
    found = document.get("gate_split")
    return found[:64] if isinstance(found, str) else ""


@lru_cache(maxsize=4096)
def _custom(text: str) -> TargetCustom:
    return decode(TargetCustom, text.encode())


def release_of(row: sa.RowMapping | Mapping[str, object]) -> Release:
    """Return the release in a row of the store."""
    custom = _custom(str(row["custom"]))
    return Release(
        name=str(row["name"]), model=custom.model, version=custom.version, target=custom.target, path=str(row["path"]),
        sha256=str(row["sha256"]), length_bytes=int(str(row["length_bytes"])), certificate=custom.certificate,
        custom=custom, registered_ms=int(str(row["registered_ms"])), withdrawn_ms=int(str(row.get("withdrawn_ms", 0))),
        withdrawn_why=str(row.get("withdrawn_why", "")), withdrawn_by=str(row.get("withdrawn_by", "")),
    )  # fmt: skip
