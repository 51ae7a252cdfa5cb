"""``/samples/{id}``: one sample, who labelled it as what and when, and a form that changes the label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import ui
from pydantic import TypeAdapter, ValidationError

from server.access.roles import Need
from server.api.values import StoredNumber
from server.dashboard.learning import SampleCard, claim_lines, label_lines, sample_card
from server.dashboard.pages.samples import form_of
from server.dashboard.services import Services
from server.dashboard.theme import ask_name, empty, heading, live
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownSampleError
from server.retraining.labelling import NOTHING

_NUMBER: TypeAdapter[int] = TypeAdapter(StoredNumber)
_DETAIL = "What it was stays on this page, with who had said so. Your name is recorded."


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """The sample, its label, every label that it has had, and what users had claimed, the newest first."""

    card: SampleCard
    label: str
    lines: tuple[str, ...]
    claims: tuple[str, ...]


def add_page(pages: Pages) -> None:
    """Add the page."""

    @ui.page("/samples/{sample}")
    def page(request: Request, sample: str) -> Response | None:
        return pages.show(request, "/samples", f"Sample {sample[:40]}", partial(_build, sample))


def _build(text: str, visit: Visit) -> None:
    heading(f"Sample {text[:40]}", 1)
    try:
        sample = _number(text)
        view = _view(visit.services, sample)
    except UnknownSampleError:
        visit.client.status_code = 404
        empty("No such sample", "Samples that nobody labels expire, the oldest first.")
        return
    with ui.element("section").classes("tf-card tf-sample"):
        ui.html(f'<img src="/samples/{sample}/image" alt="Sample {sample}">', sanitize=False)
        ui.label(f"Model: {view.card.guess}")
        with ui.element("div").classes("tf-row tf-small"):
            ui.link(view.card.device, f"/device/{view.card.device}").classes("tf-link")
            ui.label(f"{view.card.model}; {view.card.taken}; {view.card.lane}").classes("tf-muted")
    visit.look = live(lambda: _view(visit.services, sample), _show)
    Correction(visit, sample, view.card).build()


def _number(text: str) -> int:
    """Return the number in an address; a page says what is wrong with it, where the API answers in JSON."""
    try:
        return _NUMBER.validate_python(text)
    except ValidationError as error:
        message = f"Expected the number of a sample, got {text[:40]!r}"
        raise UnknownSampleError(message) from error


def _show(view: SampleView) -> None:
    with ui.element("section").classes("tf-card"):
        heading("Label")
        if not view.lines:
            ui.label("Nobody has labelled it yet.").classes("tf-muted")
        for number, line in enumerate(view.lines):
            ui.label(line).classes("tf-small" + (" tf-muted" if number else ""))
        for line in view.claims:
            ui.label(line).classes("tf-small tf-muted")


@dataclass(frozen=True, slots=True)
class Correction:
    """The form that gives the sample a label, or another one."""

    visit: Visit
    sample: int
    card: SampleCard

    def build(self) -> None:
        """Show the form."""
        form = self.card.form
        if not self.visit.may(Need.LABEL):
            return
        with ui.element("section").classes("tf-card"):
            heading("Label it, or change its label")
            if form.refusal:
                ui.label(f"Not labelled here: {form.refusal}.").classes("tf-small")
                return
            names = list(dict.fromkeys((*form.classes, NOTHING))) if form.classes else []
            field = ui.input(", ".join(form.values) or "What does it show?", autocomplete=names)
            field.props("dense outlined")

            async def save() -> None:
                await self._save(" ".join(str(field.value or "").split()))

            field.on("keydown.enter", save)
            ui.button("Save label", on_click=save).props("no-caps outline dense")

    async def _save(self, label: str) -> None:
        samples = self.visit.services.retraining.samples
        known = await self.visit.ask(partial(samples.sample, self.sample))
        if known is None:
            return
        if not label or label == known.label:
            said = f"It is labelled {label!r} already" if label else "Expected what the image shows, got nothing"
            with self.visit.client:
                ui.notify(said, type="warning")
            return
        question = f"Change {known.label!r} to {label!r}?" if known.label else f"Label it {label!r}?"
        name = await ask_name(self.visit.client, question, _DETAIL, "Change label" if known.label else "Label")
        if name is not None:
            now_ms = self.visit.services.fleet.clock()
            by = self.visit.by(name)
            save = partial(samples.label, self.sample, label, by, now_ms, replaces=known.label or None)
            await self.visit.do(save, Need.LABEL)


def _view(services: Services, sample: int) -> SampleView:
    samples = services.retraining.samples
    known = samples.sample(sample)
    card = sample_card(known, form_of(services.versions, known.artifact_sha256, known.model))
    return SampleView(
        card=card,
        label=known.label,
        lines=label_lines(known, samples.changes(sample)),
        claims=claim_lines(samples.claim_changes(sample)),
    )
