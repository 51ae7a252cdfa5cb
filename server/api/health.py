"""``GET /api/health``: is the server there, and which version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter
from pydantic import BaseModel


class Health(BaseModel):
    """The answer; ``ok`` is always true when there is an answer."""

    ok: bool
    version: str


def router() -> APIRouter:
    """Return the routes for anyone."""
    routes = APIRouter(tags=["health"])
    release = package_version()

    @routes.get("/api/health")
    def health() -> Health:
        """Say that the server is there."""
        return Health(ok=True, version=release)

    return routes


def package_version() -> str:
    """Return the installed version of tinyfleet."""
    try:
        return version("tinyfleet")
    except PackageNotFoundError:
        return "0"
