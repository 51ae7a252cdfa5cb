"""``/label/review``: images on which people differ, labels that are likely wrong, marked images, and agreement."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from fastapi import Request, Response
from nicegui import ui

from server.dashboard.theme import empty, heading
from server.dashboard.views import clock_time
from server.dashboard.visit import Pages, Visit
from server.retraining.labels.agreement import RaterAgreement
from server.retraining.labels.review import DoubtedSample, LabelReview, ModelReview
from server.retraining.samples import MARKS


def add_page(pages: Pages) -> None:
    """Add the page."""

    @ui.page("/label/review")
    def page(request: Request, model: str = "") -> Response | None:
        return pages.show(request, "/samples", f"Review {model[:63]}", partial(_build, model[:127]))


def _build(model: str, visit: Visit) -> None:
    heading(f"Labels of {model} to look at again" if model else "Labels to look at again", 1)
    if not model:
        empty("Choose a model", "Each model on the page Label has a link to its review.")
        return
    ui.link("Label one at a time", f"/label?model={quote(model, safe='')}").classes("tf-link")
    column = ui.element("div").classes("tf-column")
    samples = visit.services.retraining.samples

    async def fill() -> None:
        """Read apart from the page, so that other visitors do not wait for the database."""
        found = await visit.ask(partial(LabelReview(database=samples.database, samples=samples).of, model))
        if found is not None:
            with column:
                _show(found)

    ui.timer(0, fill, once=True)


def _show(found: ModelReview) -> None:
    _list(
        "People differ",
        "None of them has a label until two people have given the same one: a third one labels it, or one of these "
        "opens it and says otherwise.",
        [(one.sample, "; ".join(f"{who}: {label}" for who, label in one.answers)) for one in found.disputed],
    )
    _list(
        "Label likely wrong",
        found.not_doubted or "By what the model said of it. The model may be wrong instead: look at the picture.",
        [(one.sample, doubt_text(one)) for one in found.doubted],
        found.not_doubted,
    )
    _list(
        "Can't be labelled",
        "Nobody is asked for these. A label takes the mark off.",
        [
            (one.sample, f"{MARKS.get(one.mark, one.mark)}, by {one.person}, {clock_time(one.at_ms)} UTC")
            for one in found.marked
        ],
    )
    with ui.element("section").classes("tf-card"):
        heading("How far people agree")
        share = f"Two people label {found.share:.0%} of the images; {found.one_answer} wait for the second one."
        ui.label(share if found.share else "No image is labelled by two people ([retraining] second_person).")
        for pair in found.agreement:
            ui.label(agreement_text(pair)).classes("tf-small")


def doubt_text(one: DoubtedSample) -> str:
    """Return why a label is doubted, in words."""
    said = f"the model said {one.predicted}, {one.confidence:.0%} sure"
    return f"{one.label}, by {one.label_by}; {said}: wrong with probability {one.doubt:.2f}"


def agreement_text(pair: RaterAgreement) -> str:
    """Return how far two people agree, in words."""
    text = (
        f"{' and '.join(pair.people)}: the same label for {pair.agreed:.0%} of {pair.images} images "
        f"({pair.low:.0%} to {pair.high:.0%})"
    )
    if pair.kappa is None or pair.kappa_low is None or pair.kappa_high is None:
        return f"{text}; no kappa: {pair.why_not}"
    return f"{text}; Cohen's kappa {pair.kappa:.2f} ({pair.kappa_low:.2f} to {pair.kappa_high:.2f})"


def _list(title: str, text: str, rows: list[tuple[int, str]], why: str = "") -> None:
    """Show a list of samples; ``why`` there can be none, "" if there could be."""
    with ui.element("section").classes("tf-card"):
        heading(f"{title}: {len(rows)}" if rows else title)
        ui.label(text if rows or why else "None.").classes("tf-muted tf-small")
        for sample, line in rows:
            with ui.element("div").classes("tf-row tf-small"):
                ui.link(f"Sample {sample}", f"/samples/{sample}").classes("tf-link")
                ui.label(line)
