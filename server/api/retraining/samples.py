"""``/api/samples``: the samples that devices uploaded, for labelling."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from server.api.auth import Auth
from server.api.values import StoredNumber, ValueBody
from server.clock import Clock
from server.retraining.samples import SampleStore


class SampleBody(ValueBody):
    """One sample; ``label`` is "" until a person labels it. ``predicted`` is the index of the model's class."""

    id: int
    device: str
    sha256: str
    media_type: str
    length_bytes: int
    lane: str
    inclusion_ratio: float
    predicted: int
    confidence: float
    at_ms: int
    label: str
    label_by: str


class SamplesBody(BaseModel):
    """Samples, newest first; unlabelled ones oldest first, each image once."""

    samples: list[SampleBody]


class LabelBody(BaseModel, extra="forbid"):
    """A label and the person who assigns it: a class of the model, or its numbers, separated by spaces."""

    label: str | int | float = Field(union_mode="left_to_right")
    by: str = Field(max_length=100)


def router(auth: Auth, samples: SampleStore, clock: Clock) -> APIRouter:
    """Return the routes for operators."""
    routes = APIRouter(tags=["samples"], dependencies=[Depends(auth.operator)])

    @routes.get("/api/samples")
    def list_samples(
        unlabelled: bool = False,  # noqa: FBT001, FBT002 - a query
        limit: Annotated[int, Query(ge=1, le=5000)] = 100,
        after: StoredNumber | None = None,
    ) -> SamplesBody:
        """Return samples; ``after``: the id of the last sample of the previous page."""
        found = samples.latest(unlabelled=unlabelled, limit=limit, after=after)
        return SamplesBody(samples=[SampleBody.of(one) for one in found])

    @routes.get("/api/samples/{sample}/image")
    def image(sample: StoredNumber) -> Response:
        """Return the encoded image."""
        known = samples.sample(sample)
        headers = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return Response(samples.image(known), media_type=known.media_type, headers=headers)

    @routes.put("/api/samples/{sample}/label")
    def label(sample: StoredNumber, body: LabelBody) -> SampleBody:
        """Label the image of a sample."""
        return SampleBody.of(samples.label(sample, str(body.label), body.by, clock()))

    return routes
