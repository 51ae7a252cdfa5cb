"""What people should look at again: images on which they differ, labels that are likely wrong, and marked images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import sqlalchemy as sa

from server.errors import ServerError
from server.retraining.labels.agreement import PEOPLE, LabelAnswer, RaterAgreement, agreements, for_two, settled
from server.retraining.labels.doubts import MIN_DOUBT, LabelledAnswer, doubts
from server.retraining.samples import SampleStore, answer_of, stored_sample
from server.store import retraining as samples_store
from server.store.database import Database
from server.store.labels import answers as store
from wire.errors import WireError

MOST = 50
"""So many of each list are shown."""
_JUDGED = 5_000  # the newest labels that are compared with the model's answers
_COMPARED = 5_000  # the newest images of two people


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputedSample:
    """An image that two people or more labelled otherwise. ``answers``: of each person, with the name."""

    sample: int
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtedSample:
    """An image whose label is wrong with the probability ``doubt``, 0..1, by what the model ``predicted``."""

    sample: int
    label: str
    label_by: str
    predicted: str
    confidence: float
    doubt: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedSample:
    """An image that ``person`` can't label, by one of ``samples.MARKS``, since ``at_ms`` (UTC)."""

    sample: int
    mark: str
    person: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReview:
    """What of one model people should look at again, at most ``MOST`` of each; and how far people agree.

    ``share``: of its images two people label, 0..1. ``one_answer``: so many of them wait for a second person.
    ``not_doubted``: why no label is doubted, "" if they could be.
    """

    model: str
    share: float
    one_answer: int
    disputed: tuple[DisputedSample, ...]
    doubted: tuple[DoubtedSample, ...]
    not_doubted: str
    marked: tuple[MarkedSample, ...]
    agreement: tuple[RaterAgreement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReview:
    """The review of one server. Safe to share between threads."""

    database: Database
    samples: SampleStore

    def of(self, model: str) -> ModelReview:
        """Return what of ``model`` people should look at again."""
        with self.database.begin() as connection:
            open_answers = store.unsettled_answers(connection, model)
            sample_of = samples_store.first_samples(connection, model, {row["sha256"] for row in open_answers})
            marked = store.marked_samples(connection, model, MOST)
            twice = store.twice_answered(connection, model, _COMPARED)
            labelled = samples_store.labelled_images(connection, model, _JUDGED)
        share = self.samples.config.share_for_two(model)
        waiting = list(_by_image(open_answers))
        disputed = [
            DisputedSample(sample=sample_of[sha256], answers=tuple((answer.person, answer.label) for answer in answers))
            for sha256, answers in waiting
            if sha256 in sample_of and len(answers) >= PEOPLE and not settled(one.label for one in answers)
        ]
        doubted, why = self._doubted(model, labelled)
        return ModelReview(
            model=model,
            share=share,
            one_answer=sum(len(answers) == 1 for _, answers in waiting),
            disputed=tuple(sorted(disputed, key=lambda one: one.sample)[:MOST]),
            doubted=doubted,
            not_doubted=why,
            marked=tuple(
                MarkedSample(sample=row["id"], mark=row["mark"], person=row["person"], at_ms=row["at_ms"])
                for row in marked
            ),
            agreement=agreements(answers for sha256, answers in _by_image(twice) if for_two(model, sha256, share)),
        )

    def _doubted(self, model: str, labelled: Sequence[sa.RowMapping]) -> tuple[tuple[DoubtedSample, ...], str]:
        """Return the labels that are likely wrong, the likeliest first, and why none is doubted."""
        classes: dict[str, tuple[str, ...]] = {}
        rows = []
        for row in map(stored_sample, labelled):
            if row.artifact_sha256 not in classes:
                try:
                    classes[row.artifact_sha256] = self.samples.form_of(row.artifact_sha256, model).classes
                except (ServerError, WireError):  # a bundle that is missing or damaged: nobody knows its classes
                    classes[row.artifact_sha256] = ()
            names = classes[row.artifact_sha256]
            if 0 <= row.predicted < len(names) and row.label in names:
                rows.append((row, names[row.predicted]))
        known = [
            LabelledAnswer(label=row.label, predicted=predicted, confidence=row.confidence) for row, predicted in rows
        ]
        chances, why = doubts(known, max(map(len, classes.values()), default=0))
        found = [
            DoubtedSample(
                sample=row.id, label=row.label, label_by=row.label_by, predicted=predicted, confidence=row.confidence,
                doubt=round(float(chance), 3),
            )
            for (row, predicted), chance in zip(rows, chances, strict=True)
            if chance >= MIN_DOUBT
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda one: (-one.doubt, one.sample))[:MOST]), why


def _by_image(rows: Sequence[sa.RowMapping]) -> Iterator[tuple[str, tuple[LabelAnswer, ...]]]:
    """Yield the answers for each image, of rows in the order of images."""
    for sha256, group in groupby(rows, key=lambda row: str(row["sha256"])):
        yield sha256, tuple(map(answer_of, group))
