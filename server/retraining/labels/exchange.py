"""Labels out to files and in from them: an import is planned first, and is done whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from server.access.audit_log import record_act
from server.errors import LabelTakenError, ServerError
from server.people import By
from server.retraining.labelling import LabelForm
from server.retraining.labels.files import (
    FileRow,
    LabelFormat,
    RowProblem,
    labelling_config,
    read_labels,
    write_csv,
    write_label_studio,
)
from server.retraining.samples import SampleStore, StoredSample, stored_sample
from server.store import retraining as store
from server.store.database import Database
from wire.canonical import sha256_hex
from wire.codec import Json
from wire.errors import WireError

MOST = 1_000
MOST_PICTURES = 200
"""So many samples at once: pictures of 100 KiB are 27 MB in base64."""
SHOWN = 100
"""So many problems and conflicts are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedLabels:
    """One part of a file. ``next``: the id of the sample after which the next part begins, 0 at the end.

    ``config``: the labelling configuration for Label Studio, "" for CSV.
    """

    text: str
    rows: int
    next: int
    config: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What an import does, and did if ``done``. ``new``: images that get a label, ``changed``: another one, ``same``.

    ``conflicts``: rows whose image has got another label since the file was made; ``problems``: rows that can't be
    used. Both name the first ``SHOWN``; ``conflicting`` and ``refused`` count them all.
    """

    rows: int
    new: int
    changed: int
    same: int
    conflicting: int
    refused: int
    conflicts: tuple[RowProblem, ...]
    problems: tuple[RowProblem, ...]
    done: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    """One label that an import gives; ``replaces``: the one that the image has, None for none."""

    label: str
    sample: StoredSample
    replaces: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelExchange:
    """Exports and imports of one server. Safe to share between threads."""

    database: Database
    samples: SampleStore

    def export(self, model: str, form: LabelFormat, *, after: int = 0, unlabelled: bool = False) -> ExportedLabels:
        """Return the images of ``model``, each once, that come after the sample ``after``; ``unlabelled``: these only.

        Raises:
            UnknownSampleError: If a picture's file is missing.
        """
        pictures = form is LabelFormat.LABEL_STUDIO
        most = MOST_PICTURES if pictures else MOST
        with self.database.begin() as connection:
            rows = store.images_after(connection, model, after, most + 1, unlabelled=unlabelled)
        found, more = [stored_sample(row) for row in rows[:most]], len(rows) > most
        forms = {one: self._form(one, model) for one in dict.fromkeys(sample.artifact_sha256 for sample in found)}
        text, config = write_csv(found), ""
        if pictures:
            text = write_label_studio(found, self.samples.image, lambda one: forms[one.artifact_sha256])
            config = labelling_config(next(reversed(forms.values()), LabelForm()))
        return ExportedLabels(text=text, rows=len(found), next=found[-1].id if more else 0, config=config)

    def plan(
        self, form: LabelFormat, text: str, by: By, now_ms: int, *, dry_run: bool = True, keep_newer: bool = False
    ) -> ImportPlan:  # fmt: skip
        """Return what the import of a file does; do it unless ``dry_run``, or a row is wrong or in conflict.

        ``keep_newer``: rows in conflict are left out, and the rest is imported. All labels are given in one
        transaction, each with its act, by the name of who imports.

        Raises:
            LabelFileError: If it is no file of this format, or too large.
            LabelRefusedError: If ``by`` names nobody.
            LabelTakenError: If a label changed meanwhile; nothing was imported.
        """
        rows, problems = read_labels(form, text)
        count = len(rows) + len(problems)
        samples, lost = self._found(rows)
        problems += lost
        steps: dict[tuple[str, str], _Step] = {}
        conflicts: list[RowProblem] = []
        same = 0
        for row in rows:
            sample = samples.get(row.row)
            if sample is None:
                continue
            label = self._label(row, sample)
            image, before = (sample.model, sample.sha256), steps.get((sample.model, sample.sha256))
            if before is not None and before.label != label:
                problems.append(RowProblem(row.row, f"Expected one label for an image, got {before.label!r} before"))
            elif problem := self._problem(sample, label, by):
                problems.append(RowProblem(row.row, problem))
            elif sample.label == label or before is not None:
                same += 1
            elif sample.label and sample.labelled_ms > row.based_ms:
                newer = f"sample {sample.id} is {sample.label!r} by {sample.label_by} since, the file has {label!r}"
                conflicts.append(RowProblem(row.row, newer))
            else:
                steps[image] = _Step(label, sample, sample.label or None)
        problems.sort(key=lambda one: one.row)
        plan = ImportPlan(
            rows=count, new=sum(one.replaces is None for one in steps.values()),
            changed=sum(one.replaces is not None for one in steps.values()), same=same, conflicting=len(conflicts),
            refused=len(problems), conflicts=tuple(conflicts[:SHOWN]), problems=tuple(problems[:SHOWN]),
        )  # fmt: skip
        if dry_run or problems or (conflicts and not keep_newer):
            return plan
        about: dict[str, Json] = {"file_sha256": sha256_hex(text.encode()), "format": form.value, "rows": count}
        self._do(tuple(steps.values()), by, now_ms, about)
        return replace(plan, done=True)

    def _do(self, steps: Iterable[_Step], by: By, now_ms: int, about: Mapping[str, Json]) -> None:
        ready = [(step, self.samples.of_two(step.sample)) for step in steps]
        with self.database.begin() as connection:
            for step, two in ready:
                labelled = self.samples.label_in(
                    connection, step.sample, step.label, by, now_ms, two=two, replaces=step.replaces
                )
                if not labelled:
                    message = f"Expected sample {step.sample.id} as it was at the plan, got another label"
                    raise LabelTakenError(f"{message}: nothing was imported; plan it again")
            record_act(
                connection, by, "labels.import", str(about["format"]), now_ms, data={**about, "given": len(ready)}
            )

    def _found(self, rows: list[FileRow]) -> tuple[dict[int, StoredSample], list[RowProblem]]:
        """Return the sample of each row, and the rows whose sample is not here."""
        by_image = {}
        with self.database.begin() as connection:
            for model in {row.model for row in rows if row.model and row.sha256}:
                images = {row.sha256 for row in rows if row.model == model}
                for sha256, number in store.first_samples(connection, model, images).items():
                    by_image[model, sha256] = number
            ids = {by_image.get((row.model, row.sha256), row.sample) for row in rows}
            known = {row["id"]: stored_sample(row) for row in store.samples_with(connection, ids)}
        found, lost = {}, []
        for row in rows:
            sample = known.get(by_image.get((row.model, row.sha256), row.sample))
            if sample is None:
                named = row.sample or row.sha256[:12]
                lost.append(RowProblem(row.row, f"Expected a sample of this server, got {named}"))
            elif row.sha256 not in ("", sample.sha256) or row.model not in ("", sample.model):
                text = f"Expected the picture of sample {sample.id}, got another one: is the file of another server?"
                lost.append(RowProblem(row.row, text))
            else:
                found[row.row] = sample
        return found, lost

    def _label(self, row: FileRow, sample: StoredSample) -> str:
        """Return the label of a row in the words of the server: numbers in the model's order, and as they were."""
        form = self._form(sample.artifact_sha256, sample.model)
        numbers = dict(row.numbers)
        label = (
            " ".join(numbers[name] for name in form.values)
            if numbers and set(form.values) == set(numbers)
            else row.label
        )
        if form.values and sample.label:
            try:
                if [float(one) for one in label.split()] == [float(one) for one in sample.label.split()]:
                    return sample.label
            except ValueError:
                pass  # no numbers: the check of the label says so
        return label

    def _problem(self, sample: StoredSample, label: str, by: By) -> str:
        try:
            return self.samples.problem(sample, label, by)
        except WireError as error:
            return f"Expected a release whose classes are known, got: {error}"

    def _form(self, artifact_sha256: str, model: str) -> LabelForm:
        try:
            return self.samples.form_of(artifact_sha256, model)
        except (ServerError, WireError):
            return LabelForm()
