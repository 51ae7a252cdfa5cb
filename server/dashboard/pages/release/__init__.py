"""``/releases``: the list of releases; ``/release/{name}``: one of them."""

from __future__ import annotations

from server.dashboard.pages.release import all_releases, one
from server.dashboard.visit import Pages


def add_page(pages: Pages) -> None:
    """Add both pages."""
    all_releases.add_page(pages)
    one.add_page(pages)
