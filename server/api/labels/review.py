"""``/api/labels/review``: what people should look at again; marks of samples, and labels that are taken back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from server.api.auth import Auth, Caller, signed
from server.api.retraining import SampleBody
from server.api.values import StoredNumber, ValueBody
from server.clock import Clock
from server.people import MAX_NAME
from server.retraining.labels.review import LabelReview


class DisputedBody(ValueBody):
    """An image that two people or more labelled otherwise; ``answers``: pairs of a person and a label."""

    sample: int
    answers: list[tuple[str, str]]


class DoubtedBody(ValueBody):
    """An image whose label is wrong with the probability ``doubt``, 0..1, by what the model ``predicted``."""

    sample: int
    label: str
    label_by: str
    predicted: str
    confidence: float
    doubt: float


class MarkedBody(ValueBody):
    """An image that ``person`` can't label: ``mark`` is unsure or broken."""

    sample: int
    mark: str
    person: str
    at_ms: int


class AgreementBody(ValueBody):
    """How often two people gave the same label, ``agreed`` with its 95 % interval, and Cohen's kappa with its own.

    ``kappa`` is null where it means nothing, for the reason ``why_not``.
    """

    people: tuple[str, str]
    images: int
    agreed: float
    low: float
    high: float
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    why_not: str


class ReviewBody(ValueBody):
    """What of one model people should look at again, the first 50 of each.

    ``share``: of its images two people label; ``one_answer``: so many of them wait for the second; ``not_doubted``: why
    no label is doubted, "" if they could be.
    """

    model: str
    share: float
    one_answer: int
    disputed: list[DisputedBody]
    doubted: list[DoubtedBody]
    not_doubted: str
    marked: list[MarkedBody]
    agreement: list[AgreementBody]


class ByBody(BaseModel, extra="forbid"):
    """For whom a program acts; a person may leave it out."""

    by: str = Field(default="", max_length=MAX_NAME)


class MarkBody(ByBody):
    """Why an image can't be labelled: ``unsure`` or ``broken``; "" takes the mark off."""

    mark: str = Field(max_length=16)


def router(auth: Auth, review: LabelReview, clock: Clock) -> APIRouter:
    """Return the routes for viewers; marks and labels are for labellers."""
    routes = APIRouter(tags=["samples"], dependencies=[Depends(auth.view)])

    @routes.get("/api/labels/review")
    def of_model(model: Annotated[str, Query(min_length=1, max_length=127)]) -> ReviewBody:
        """Return images on which people differ, labels that are likely wrong, marked images, and how people agree."""
        return ReviewBody.of(review.of(model))

    @routes.put("/api/samples/{sample}/mark", dependencies=[Depends(auth.label)])
    def mark(sample: StoredNumber, body: MarkBody, caller: Caller) -> SampleBody:
        """Say that an image without a label can't be labelled, or take that back."""
        review.samples.mark(sample, body.mark, signed(caller, body.by), clock())
        return SampleBody.of(review.samples.sample(sample))

    @routes.post("/api/samples/{sample}/take-back", dependencies=[Depends(auth.label)])
    def take_back(sample: StoredNumber, caller: Caller, body: ByBody | None = None) -> SampleBody:
        """Take back what the caller has labelled an image as; what it was is kept."""
        by = signed(caller, (body or ByBody()).by)
        return SampleBody.of(review.samples.take_back(sample, by, clock()))

    return routes
