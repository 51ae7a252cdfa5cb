"""``/label``: what there is to label; ``/label?model=…`` and ``/label?trigger=…``: one image at a time, by keys.

The model's answer is hidden until the person has answered, or asks for it: people follow an answer that they see, and
the error rate of the model by such labels is too low. Whether it was in view is stored with the label.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from fastapi import Request, Response
from nicegui import ui

from server.access.roles import Need
from server.dashboard.pages.label import review
from server.dashboard.pages.label.one import KEYS, OneAtATime
from server.dashboard.services import Services
from server.dashboard.theme import empty, heading
from server.dashboard.visit import Pages, Visit
from server.retraining.labels.queue import LabelQueue, LabelScope


def add_page(pages: Pages) -> None:
    """Add the pages."""
    review.add_page(pages)

    @ui.page("/label")
    def page(request: Request, model: str = "", trigger: int = 0) -> Response | None:
        title = f"Label {model[:63]}" if model else "Label"
        return pages.show(request, "/samples", title, partial(_build, model[:127], trigger))


def queue_of(services: Services) -> LabelQueue:
    """Return the queue of the server."""
    retraining = services.retraining
    return LabelQueue(database=services.database, samples=retraining.samples, triggers=retraining.triggers)


def _build(model: str, trigger: int, visit: Visit) -> None:
    queue = queue_of(visit.services)
    scope = queue.of_trigger(trigger) if trigger else LabelScope(model=model)
    if scope is None:
        heading("Label", 1)
        visit.client.status_code = 404
        empty("No such retraining", "It is over, or there never was one of this number.")
        return
    heading(" ".join(("Label", scope.model, f"for retraining {trigger}" if trigger else "")).strip(), 1)
    if scope.model and not visit.may(Need.LABEL):
        empty("You may look, not label", "An admin gives the role labeller.")
        return
    ui.add_body_html(KEYS)  # with the page: a script that comes later does not run
    if scope.model:
        _review_link(scope.model)
    column = ui.element("div").classes("tf-column")
    build = OneAtATime(visit, queue, scope).build if scope.model else partial(_choice, queue, visit)

    async def fill() -> None:
        """Read apart from the page, so that other visitors do not wait for the database."""
        with column:
            await build()

    ui.timer(0, fill, once=True)


async def _choice(queue: LabelQueue, visit: Visit) -> None:
    """Show what there is to label, each with a link."""
    found = await visit.ask(queue.scopes) or ()
    if not found:
        empty("Nothing to label", "Devices that may send samples do: for the audit, at a new place, and on drift.")
        return
    for scope, left in found:
        with ui.element("section").classes("tf-card tf-row"):
            where = f"trigger={scope.trigger}" if scope.trigger else f"model={quote(scope.model, safe='')}"
            what = f"{scope.model}, for retraining {scope.trigger}" if scope.trigger else scope.model
            ui.link(what, f"/label?{where}").classes("tf-link")
            ui.label(f"{left} image{'s' if left != 1 else ''} without a label").classes("tf-muted")
            if not scope.trigger:
                _review_link(scope.model)


def _review_link(model: str) -> None:
    link = ui.link("To look at again", f"/label/review?model={quote(model, safe='')}").classes("tf-link")
    link.props["aria-label"] = f"Labels of {model} to look at again"
