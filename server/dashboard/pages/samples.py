"""``/samples``: samples that devices sent; a person labels them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

from fastapi import FastAPI, Request, Response
from nicegui import ui

from server.api.values import StoredNumber
from server.dashboard.learning import SampleCard, sample_card
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import empty, live
from server.dashboard.visit import Pages, Visit
from server.errors import ServerError
from server.registry.versions import Versions
from wire.errors import WireError

_SHOWN = 24
_COUNTED = 1_000
_MAX_BUTTONS = 16
_BY = "dashboard"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The images shown, and the total number waiting for a label."""

    cards: tuple[SampleCard, ...]
    count: int


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
    visit.look = live(lambda: _waiting(visit.services), Labelling(visit).show)


@dataclass(frozen=True, slots=True)
class Labelling:
    """The images on one visitor's page, with the actions of their buttons."""

    visit: Visit

    def show(self, waiting: Waiting) -> None:
        """Show the images that wait for a label."""
        if not waiting.cards:
            empty("Nothing to label", "Devices send samples once drift is suspected and their upload budget allows it.")
            return
        more = f"at least {_COUNTED}" if waiting.count >= _COUNTED else str(waiting.count)
        ui.label(f"{more} images wait. Choose what the image shows, not what the model predicts.").classes("tf-muted")
        with ui.element("div").classes("tf-samples"):
            for card in waiting.cards:
                with ui.element("article").classes("tf-card tf-sample"):
                    self._card(card)

    def _card(self, card: SampleCard) -> None:
        ui.html(f'<img src="/samples/{card.id}/image" alt="Sample {card.id}" loading="lazy">', sanitize=False)
        with ui.element("div").classes("tf-small"):
            ui.label(f"Model predicts {card.guess}")
            ui.label(f"{card.device}, {card.taken}").classes("tf-muted")
            ui.label(card.lane).classes("tf-muted")
        if card.choices and len(card.choices) <= _MAX_BUTTONS:
            with ui.element("div").classes("tf-labels"):
                for name in card.choices:
                    button = ui.button(name, on_click=partial(self._label, card.id, name))
                    button.props("outline dense no-caps")
                    button.props["aria-label"] = f"Label sample {card.id} as {name}"
            return
        field = ui.input("What does the image show?", autocomplete=list(card.choices)).props("dense outlined")
        field.on("keydown.enter", lambda: self._label(card.id, str(field.value or "")))

    async def _label(self, sample: int, name: str) -> None:
        services = self.visit.services
        now_ms = services.fleet.clock()
        await self.visit.do(partial(services.retraining.samples.label, sample, name, _BY, now_ms))


def _waiting(services: Services) -> Waiting:
    now_ms = services.fleet.clock()
    found = services.retraining.samples.latest(unlabelled=True, limit=_COUNTED)
    names = _classes(services.versions, {sample.artifact_sha256 for sample in found[:_SHOWN]})
    cards = tuple(sample_card(sample, names.get(sample.artifact_sha256, ()), now_ms) for sample in found[:_SHOWN])
    return Waiting(cards, len(found))


def _classes(versions: Versions, artifacts: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the class names of those ``artifacts`` that belong to a published release."""
    bundles = {release.custom.artifact_sha256: release.sha256 for release in versions.releases()}
    return {artifact: _labels(versions, bundles[artifact]) for artifact in artifacts if artifact in bundles}


@lru_cache(maxsize=64)
def _labels(versions: Versions, bundle_sha256: str) -> tuple[str, ...]:
    try:
        return versions.bundle(bundle_sha256).manifest.labels
    except (ServerError, WireError):
        return ()
