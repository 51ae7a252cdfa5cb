"""Adds the pages to the REST application."""

from __future__ import annotations

import secrets

from fastapi import FastAPI

from server.dashboard.services import Services
from server.dashboard.session import Sessions, add_login


def mount(app: FastAPI, services: Services) -> None:
    """Add the login and the pages to ``app``; call it last, because the pages match every remaining path.

    NiceGUI has one application per process: a later call replaces the pages of an earlier one.
    """
    from nicegui import core, ui  # noqa: PLC0415 - takes a second; only who serves pages pays

    from server.dashboard.pages import (  # noqa: PLC0415 - likewise
        account,
        alerts,
        device,
        drift,
        events,
        jobs,
        label,
        overview,
        release,
        retraining,
        rollouts,
        sample,
        samples,
        search,
        software,
    )
    from server.dashboard.pages.installation import about, settings  # noqa: PLC0415 - likewise
    from server.dashboard.pages.people import acts, tokens, users  # noqa: PLC0415 - likewise
    from server.dashboard.visit import Pages  # noqa: PLC0415 - likewise

    sessions = Sessions(services.logins)
    add_login(app, sessions)
    samples.add_images(app, services, sessions)
    acts.add_export(app, services, sessions)
    search.add_suggestions(app, services, sessions)
    software.add_document(app, services, sessions)
    pages = Pages(services, sessions)
    for page in (
        account, overview, alerts, drift, device, rollouts, release, events, samples, sample, label, retraining, users,
        tokens, acts, search, settings, about, jobs, software,
    ):  # fmt: skip
        page.add_page(pages)
    core.app.user_middleware.clear()
    core.app.middleware_stack = None  # so that it can be put on another application of this process
    ui.run_with(
        app, title="tinyfleet", language="en-US", favicon="data:,", dark=None, tailwind=False,
        show_welcome_message=False, storage_secret=secrets.token_hex(32),
    )  # fmt: skip
