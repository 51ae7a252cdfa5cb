"""``/api/labels/export`` and ``/api/labels/import``: files of labels, as CSV or as the JSON of Label Studio."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from server.api.auth import Auth, Caller, signed
from server.api.values import StoredNumber, ValueBody
from server.clock import Clock
from server.people import MAX_NAME
from server.retraining.labels.exchange import LabelExchange
from server.retraining.labels.files import MAX_CHARACTERS, LabelFormat


class ExportBody(ValueBody):
    """One part of a file, of so many ``rows``; ``next``: the ``after`` of the next part, 0 at the end.

    ``config``: the labelling configuration of Label Studio, "" for CSV.
    """

    text: str
    rows: int
    next: int
    config: str


class ImportBody(BaseModel, extra="forbid"):
    """A file of labels. ``dry_run``: only say what it would do; ``keep_newer``: leave rows in conflict out."""

    format: LabelFormat
    text: str = Field(max_length=MAX_CHARACTERS)
    dry_run: bool = True
    keep_newer: bool = False
    by: str = Field(default="", max_length=MAX_NAME)


class RowBody(ValueBody):
    """Why a row can't be used, or what it is in conflict with."""

    row: int
    text: str


class PlanBody(ValueBody):
    """What an import does, and did if ``done``: so many images get a label, another one, or have the ``same``.

    ``conflicts``: images that got another label since the file was made; ``problems``: rows that can't be used; the
    first 100 of each, ``conflicting`` and ``refused`` in all. With any of them nothing is imported.
    """

    rows: int
    new: int
    changed: int
    same: int
    conflicting: int
    refused: int
    conflicts: list[RowBody]
    problems: list[RowBody]
    done: bool


def router(auth: Auth, exchange: LabelExchange, clock: Clock) -> APIRouter:
    """Return the routes: the export for viewers, the import for labellers."""
    routes = APIRouter(tags=["samples"], dependencies=[Depends(auth.view)])

    @routes.get("/api/labels/export")
    def export(
        model: Annotated[str, Query(min_length=1, max_length=127)],
        format: LabelFormat = LabelFormat.CSV,  # noqa: A002 - the name of the parameter
        *,
        after: StoredNumber = 0,
        unlabelled: bool = False,
    ) -> ExportBody:
        """Return samples of a model with their labels, in parts."""
        return ExportBody.of(exchange.export(model, format, after=after, unlabelled=unlabelled))

    @routes.post("/api/labels/import", dependencies=[Depends(auth.label)])
    def give(body: ImportBody, caller: Caller) -> PlanBody:
        """Plan an import, or do it, whole or not at all; who imports is who labels."""
        by = signed(caller, body.by)
        plan = exchange.plan(
            body.format, body.text, by, clock(), dry_run=body.dry_run, keep_newer=body.keep_newer
        )  # fmt: skip
        return PlanBody.of(plan)

    return routes
