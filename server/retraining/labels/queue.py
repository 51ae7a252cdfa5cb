"""Whose turn an image is: the images of a model or a retraining that wait for a person, one at a time.

Two people are never given the same image, unless two are to label it: who gets an image holds a lease of it, which ends
with the label, when the person leaves, or after ``LEASE_MS``. A lease is no lock: a label given elsewhere counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from server.retraining.labels.agreement import PEOPLE, settled
from server.retraining.ledger import Triggers
from server.retraining.policy import OVER
from server.retraining.samples import SampleStore, StoredSample, stored_sample
from server.store.database import Database
from server.store.labels import answers as store

LEASE_MS = 300_000
"""So long an image is kept for who looks at it: a telephone call."""
MOST = 2_000
"""So many images are counted; more wait only where ``max_waiting`` was raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScope:
    """What a person labels: the images of ``model``, or those that a retraining with the id ``trigger`` waits for."""

    model: str
    trigger: int = 0
    devices: tuple[str, ...] = ()
    since_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The image to label now, None if there is none; ``left``: how many images, with it, wait for this person.

    ``why``: of an image that one person has labelled or more, the reason that it is asked for again.
    """

    sample: StoredSample | None
    left: int
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelQueue:
    """The queue of one server. Safe to share between threads and processes."""

    database: Database
    samples: SampleStore
    triggers: Triggers

    def scopes(self) -> tuple[tuple[LabelScope, int], ...]:
        """Return what there is to label, with the number of images that wait: open retrainings, then models."""
        with self.database.begin() as connection:
            waiting = store.models_waiting(connection)
        found = []
        for trigger in self.triggers.open():
            scope = self.of_trigger(trigger.id)
            if scope is not None and (left := len(self._waiting(scope, ""))):
                found.append((scope, left))
        return (*found, *((LabelScope(model=model), number) for model, number in sorted(waiting.items())))

    def of_trigger(self, trigger: int) -> LabelScope | None:
        """Return what a retraining waits for; None if there is no open one with this id."""
        for one in self.triggers.open():
            if one.id == trigger and one.phase not in OVER:
                return LabelScope(model=one.model, trigger=one.id, devices=one.devices, since_ms=one.since_ms)
        return None

    def take(self, scope: LabelScope, person: str, now_ms: int, skipped: Collection[int] = ()) -> Turn:
        """Return the next image for ``person``, the oldest first, and keep it for that person.

        ``skipped``: ids of samples that the person does not want now.
        """
        waiting = self._waiting(scope, person)
        with self.database.begin() as connection:
            answers: defaultdict[str, list[str]] = defaultdict(list)
            for row in store.unsettled_answers(connection, scope.model):
                answers[row["sha256"]].append(row["label"])
            others = Counter(
                row["sha256"] for row in store.leases_now(connection, scope.model, now_ms) if row["person"] != person
            )
        free = [
            one for one in waiting
            if one.id not in skipped and others[one.sha256] < self._places(one, answers[one.sha256])
        ]  # fmt: skip
        for sample in free:
            given = answers[sample.sha256]
            if self._lease(sample, person, now_ms, self._places(sample, given)):
                return Turn(sample=sample, left=len(free), why=_why(given))
        return Turn(sample=None, left=0)

    def leave(self, person: str, sample: StoredSample | None = None) -> None:
        """End the leases of ``person``: of one image, or all."""
        with self.database.begin() as connection:
            if sample is None:
                store.end_leases(connection, person)
            else:
                store.end_leases(connection, person, sample.model, sample.sha256)

    def _waiting(self, scope: LabelScope, person: str) -> tuple[StoredSample, ...]:
        with self.database.begin() as connection:
            rows = store.waiting_images(
                connection, model=scope.model, person=person, devices=scope.devices, since_ms=scope.since_ms, limit=MOST
            )
        return tuple(map(stored_sample, rows))

    def _places(self, sample: StoredSample, answers: list[str]) -> int:
        """Return how many people more may look at an image at once: those that it lacks, one where people differ."""
        return max((PEOPLE if self.samples.of_two(sample) else 1) - len(answers), 1)

    def _lease(self, sample: StoredSample, person: str, now_ms: int, places: int) -> bool:
        """Keep one of the places of an image for ``person``; return whether one was free."""
        with self.database.begin() as connection:
            if store.renew_own_lease(connection, sample.model, sample.sha256, person, now_ms + LEASE_MS):
                return True
        for number in range(places):
            place = {"model": sample.model, "sha256": sample.sha256, "place": number}
            try:
                with self.database.begin() as connection:
                    if store.renew_lease(connection, place, person, now_ms, now_ms + LEASE_MS):
                        return True
                    store.insert_lease(connection, place, person, now_ms + LEASE_MS)
                    return True
            except sa.exc.IntegrityError:  # somebody holds it
                continue
        return False


def _why(answers: list[str]) -> str:
    if len(answers) >= PEOPLE and not settled(answers):
        return "people differ: a third one decides"
    return "a second person is wanted" if answers else ""
