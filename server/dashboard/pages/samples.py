"""``/samples``: samples that devices sent; a person labels them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

from fastapi import FastAPI, Request, Response
from nicegui import ui

from server.access.roles import Need
from server.api.values import StoredNumber
from server.dashboard.learning import (
    AuditRow,
    LabelledRow,
    Moves,
    SampleCard,
    asked_text,
    audit_rows,
    labelled_row,
    sample_card,
)
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import empty, heading, live, name_field, pill
from server.dashboard.visit import Pages, Visit
from server.errors import ServerError
from server.registry.versions import Versions
from server.retraining.labelling import NOTHING, LabelForm
from wire.errors import WireError

_SHOWN = 24
_LABELLED = 12
_COUNTED = 1_000
_DAYS = 30
_DAY_MS = 86_400_000
_MAX_BUTTONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The images shown, the total number waiting, those labelled last, and what the labels of uniform ones say.

    ``expired``: how many expired without a label in the last ``_DAYS`` days. ``settings``: those of [audit] without
    effect.
    """

    cards: tuple[SampleCard, ...]
    count: int
    expired: int
    asked: tuple[str, ...]
    settings: tuple[str, ...]
    audits: tuple[AuditRow, ...]
    labelled: tuple[LabelledRow, ...]


def add_images(app: FastAPI, services: Services, sessions: Sessions) -> None:
    """Add the route that returns an image to a logged-in visitor."""

    @app.get("/samples/{sample}/image", include_in_schema=False)
    def image(request: Request, sample: StoredNumber) -> Response:
        if (refusal := sessions.refusal(request)) is not None:
            return refusal
        known = services.retraining.samples.sample(sample)
        headers = {"Cache-Control": "private, max-age=86400, immutable", "X-Content-Type-Options": "nosniff"}
        return Response(services.retraining.samples.image(known), media_type=known.media_type, headers=headers)


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/samples", "Samples", _build, text="Samples to label")


def _build(visit: Visit) -> None:
    ui.label(
        "Labels are stored with your name. A label that somebody changes later stays on the sample's page."
    ).classes("tf-muted")
    name = name_field()
    visit.look = live(lambda: _waiting(visit.services), Labelling(visit, name, Moves()).show)


@dataclass(frozen=True, slots=True)
class Labelling:
    """The images on one visitor's page, with the actions of their buttons; ``name`` returns who labels.

    ``moves``: when each image came where it is.
    """

    visit: Visit
    name: Callable[[], str]
    moves: Moves

    def show(self, waiting: Waiting) -> None:
        """Show the images that wait for a label."""
        self.moves.note([card.id for card in waiting.cards], time.monotonic())
        self._audits(waiting)
        if waiting.expired:
            ui.label(
                f"{waiting.expired} samples expired without a label in the last {_DAYS} days: only the newest ones of "
                "each kind are kept (max_waiting in [retraining] of server.toml)."
            ).classes("tf-muted")
        if not waiting.cards:
            empty(
                "Nothing to label",
                "Devices that may send samples do: for the steady audit, at a new place, and once drift is suspected.",
            )
            self._labelled(waiting)
            return
        more = f"at least {_COUNTED}" if waiting.count >= _COUNTED else str(waiting.count)
        ui.label(f"{more} images wait. Enter what the image shows, not what the model predicts.").classes("tf-muted")
        ui.link("Label one at a time, by keys", "/label").classes("tf-link")
        with ui.element("div").classes("tf-samples"):
            for card in waiting.cards:
                with ui.element("article").classes("tf-card tf-sample"):
                    self._card(card)
        self._labelled(waiting)

    def _labelled(self, waiting: Waiting) -> None:
        """Show what was labelled last, so that a mistake can be corrected."""
        if not waiting.labelled:
            return
        with ui.element("section").classes("tf-card"):
            heading("Labelled last")
            for row in waiting.labelled:
                with ui.element("div").classes("tf-row tf-small"):
                    ui.link(f"Sample {row.id}", f"/samples/{row.id}").classes("tf-link")
                    ui.label(row.text).classes("tf-muted")

    def _audits(self, waiting: Waiting) -> None:
        """Show how often each release is wrong, by the labels of samples that were drawn uniformly."""
        if not (waiting.asked or waiting.settings):
            return
        with ui.element("section").classes("tf-card"):
            heading("Audit")
            for row in waiting.audits:
                with ui.element("div").classes("tf-row tf-small"):
                    ui.label(row.where).style("font-weight: 600")
                    pill(row.status)
                    ui.label(row.text)
            for text in waiting.asked:
                ui.label(text).classes("tf-muted tf-small")
            for text in waiting.settings:
                ui.label(text).classes("tf-small")

    def _card(self, card: SampleCard) -> None:
        ui.html(f'<img src="/samples/{card.id}/image" alt="Sample {card.id}" loading="lazy">', sanitize=False)
        with ui.element("div").classes("tf-small"):
            ui.label(f"Model: {card.guess}")
            ui.label(f"{card.device}, {card.model}, {card.taken}").classes("tf-muted")
            ui.label(card.lane).classes("tf-muted")
        if card.form.refusal:
            ui.label(f"Not labelled here: {card.form.refusal}.").classes("tf-small")
        elif not self.visit.may(Need.LABEL):
            return
        elif card.form.values:
            self._number_fields(card)
        elif 0 < len(card.form.classes) <= _MAX_BUTTONS:
            with ui.element("div").classes("tf-labels"):
                for name in dict.fromkeys((*card.form.classes, NOTHING)):
                    button = ui.button(name, on_click=partial(self._label, card.id, name))
                    button.props("outline dense no-caps")
                    button.props["aria-label"] = f"Label sample {card.id} as {name}"
        else:
            field = ui.input("What does the image show?", autocomplete=[*card.form.classes, NOTHING]).props(
                "dense outlined"
            )
            field.on("keydown.enter", lambda: self._label(card.id, str(field.value or "")))

    def _number_fields(self, card: SampleCard) -> None:
        """Show a field for each value of a regression, with its usual range as a hint, and a button to save them."""
        fields = []
        for name, usual in zip_longest(card.form.values, card.form.usual):
            field = ui.input(name).props("dense outlined type=number step=any")
            field.props["aria-label"] = f"{name} of sample {card.id}"
            if usual is not None:
                field.props["hint"] = f"in training {usual[0]:.4g} ± {usual[1]:.2g}"
            fields.append(field)

        async def save() -> None:
            await self._label(card.id, " ".join(str(field.value or "?") for field in fields))

        for field in fields:
            field.on("keydown.enter", save)
        ui.button("Save", on_click=save).props("outline dense no-caps").props["aria-label"] = f"Label sample {card.id}"

    async def _label(self, sample: int, name: str) -> None:
        if self.moves.just_moved(sample, time.monotonic()):
            with self.visit.client:
                ui.notify("This image has only just come here: look at it, and click again", type="warning")
            return
        services = self.visit.services
        now_ms = services.fleet.clock()
        by = self.visit.by(self.name()) if self.name() else ""  # which is refused: a label has a name
        await self.visit.do(partial(services.retraining.samples.label, sample, name, by, now_ms), Need.LABEL)


def _waiting(services: Services) -> Waiting:
    now_ms = services.fleet.clock()
    found = services.retraining.samples.latest(unlabelled=True, limit=_COUNTED)
    shown = found[:_SHOWN]
    forms = {one: form_of(services.versions, *one) for one in {(one.artifact_sha256, one.model) for one in shown}}
    audits = services.retraining.audit.audits()
    return Waiting(
        cards=tuple(sample_card(one, forms[one.artifact_sha256, one.model]) for one in shown),
        count=len(found),
        expired=services.retraining.samples.expired(now_ms - _DAYS * _DAY_MS),
        asked=tuple(asked_text(audit) for audit in audits),
        audits=tuple(row for audit in audits for row in audit_rows(audit)),
        settings=services.retraining.audit.idle_settings(),
        labelled=tuple(labelled_row(one) for one in services.retraining.samples.labelled_last(_LABELLED)),
    )


def form_of(versions: Versions, artifact_sha256: str, model: str) -> LabelForm:
    """Return the labels that fit a model's samples of an artifact; any does if its bundle is missing or damaged."""
    try:
        return versions.label_form(artifact_sha256, model)
    except (ServerError, WireError):
        return LabelForm()
