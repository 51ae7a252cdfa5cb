"""``/about``: version, licence and store of this server; what the budget of alerts promises, and what it does not."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from nicegui import ui

from server.alerts.notices import PROMISE
from server.dashboard.services import Services
from server.dashboard.theme import heading, live_apart
from server.dashboard.visit import Pages, Visit
from server.drift.config import DriftConfig
from server.store.revisions import standing_of
from server.wording import in_bytes
from wire import __version__

LICENCE = "Apache-2.0"
_NOT_PROMISED = (
    (
        "An alert says that more changed than this fleet ordinarily moves. It does not say that answers got worse: "
        "only labels show that."
    ),
    (
        "Provisional verdicts, after three days, can be false more often than promised where scenes stay for days, or "
        "a few devices move more than the others. The promise holds once the baselines of fourteen days are complete."
    ),
    (
        "A fault smaller than the fleet's ordinary movement is not found in a single device, and what moves more "
        "slowly than 0.03 standard deviations a day is followed and never an alarm."
    ),
    "What happens while baselines are collected becomes part of them; a season that begins later is drift.",
    "Fewer than eight devices have nothing taken off that they share.",
    "The same inputs with other right answers (concept drift) show in no counter: the steady audit asks for labels.",
    "The bound is proved under these conditions, with estimates and simulations; it is not valid under any dependence.",
)
"""``docs/explanation/drift.md``, "What is promised" and "Where it stops", in short."""
_DOCS = (
    ("docs/how-to/own-server.md", "run, back up and upgrade a server"), ("docs/how-to/people.md", "users and tokens"),
    ("docs/how-to/get-alerts.md", "who is told, and how"), ("docs/explanation/drift.md", "what is found and promised"),
    ("docs/explanation/updates.md", "how updates are kept safe"), ("docs/reference/server-toml.md", "every setting"),
    ("docs/reference/rest.md", "the REST interface"), ("docs/explanation/glossary.md", "the words"),
)  # fmt: skip
"""Pages of the documentation that comes with the source, and what each is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AboutFacts:
    """What the page says of the program and its store."""

    program: str
    store: str
    schema: str
    counts: str


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/about", "About", _build)


def about_facts(services: Services) -> AboutFacts:
    """Return what the program and its store are now."""
    database = services.database
    standing, size = standing_of(database.engine), database.size_bytes()
    kind = "PostgreSQL" if database.is_shared else "SQLite"
    devices = services.situation.listing.counts()[None]
    return AboutFacts(
        program=f"tinyfleet {__version__}, Python {platform.python_version()}, licence {LICENCE}",
        store=f"{kind}{f', {in_bytes(size)}' if size else ''}",
        schema=f"revision {standing.revision}"
        + ("" if standing.revision == standing.head else f"; the newest is {standing.head}"),
        counts=f"{devices:,} devices",
    )  # fmt: skip


def promise_text(config: DriftConfig) -> str:
    """Return what the budget of alerts promises, with the budget of this server."""
    return (
        f"At most {config.budget_per_day:g} false alerts a day over the whole fleet (one in "
        f"{1 / config.budget_per_day:,.3g} days), as long as each stream, after what its fleet shares is taken off, "
        "moves no further from its commissioned level than 3.5 times what this fleet moved while it was commissioned, "
        "ages by less than 0.03 standard deviations a day, and its samples depend on each other no longer than was "
        "seen up to 6 hours."
    )


def _build(visit: Visit) -> None:
    services = visit.services
    live_apart(lambda _: about_facts(services), _show_facts)
    with ui.element("section").classes("tf-card"):
        heading("What the budget of alerts promises")
        ui.label(promise_text(services.config.drift))
        heading("What it does not promise")
        with ui.element("ul").classes("tf-list"):
            for line in _NOT_PROMISED:
                with ui.element("li"):
                    ui.label(line)
        ui.label(PROMISE).classes("tf-muted tf-small")
        ui.label(
            "100 % of evidence is the threshold of that budget: at it, a device or a group is flagged; the share is "
            "one of logarithms, so it grows evenly while a change lasts."
        ).classes("tf-muted tf-small")
    with ui.element("section").classes("tf-card"):
        heading("Documentation")
        ui.link("All calls of the REST interface, on this server", "/api/docs").classes("tf-link tf-small")
        for name, what in _DOCS:
            with ui.element("div").classes("tf-row tf-small"):
                ui.label(name).classes("tf-mono")
                ui.label(what).classes("tf-muted")


def _show_facts(facts: AboutFacts) -> None:
    with ui.element("section").classes("tf-card"):
        heading("This server")
        for text in (facts.program, f"Store: {facts.store}; {facts.schema}", facts.counts):
            ui.label(text)
