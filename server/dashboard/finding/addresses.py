"""The address of the page of each thing: one place, so that lists, acts and the search lead to the same pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

_PAGES: Mapping[str, Callable[[str], str]] = {
    "alert": lambda name: f"/alerts?{urlencode({'id': name})}",
    "device": lambda name: f"/device/{_part(name)}",
    "job": lambda name: f"/jobs/{_part(name)}",
    "policy": lambda _: "/settings",
    "release": lambda name: f"/release/{_part(name)}",
    "retraining": lambda _: "/retraining",
    "rollout": lambda name: f"/rollouts/{_part(name)}",
    "sample": lambda name: f"/samples/{_part(name)}",
    "token": lambda name: f"/tokens/{_part(name)}",
    "user": lambda name: f"/users/{_part(name)}",
    "verdict": lambda _: "/",
}


def page_of(kind: str, name: str) -> str:
    """Return the address of the page of a thing, "" for a kind that has none."""
    return _PAGES[kind](name) if kind in _PAGES else ""


def _part(name: str) -> str:
    """Return ``name`` as one part of a path, whatever letters it has."""
    return quote(name, safe="")
