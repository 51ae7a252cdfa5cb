"""Where images come from: the folder is the registry, one source a file.

A source's module has ``open_source(settings, clock) -> Source``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from edge_agent.clock import Clock
from edge_agent.errors import SourceError
from wire.codec import Json

__all__ = ["Capture", "Source", "load", "names", "setting"]

T = TypeVar("T", bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Capture:
    """One encoded image as it came; ``name`` is for people."""

    name: str
    data: bytes


class Source(Protocol):
    """A stream of images, bounded: what can't be kept is dropped and counted."""

    def take(self) -> Capture | None:
        """Return the next image, or None when none is there now. Never waits."""

    def done(self, capture: Capture) -> None:
        """Say that ``capture`` was dealt with and need not come again."""

    def take_dropped(self) -> int:
        """Return how many images were dropped since the last call."""


class SourceModule(Protocol):
    """What a file in this folder offers."""

    def open_source(self, settings: Mapping[str, Json], clock: Clock) -> Source:
        """Return the source that ``settings`` describe."""


def names() -> tuple[str, ...]:
    """Return the names of the sources in this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(settings: Mapping[str, Json], clock: Clock) -> Source:
    """Return the source that ``settings`` name by ``kind``; the other keys are its own.

    Raises:
        SourceError: If the kind is unknown, or the source can't be opened as described.
    """
    kind = settings.get("kind")
    if kind not in names():
        message = f"Expected a source of {', '.join(names())}, got {kind!r}"
        raise SourceError(message)
    module = cast("SourceModule", importlib.import_module(f"{__name__}.{kind}"))
    return module.open_source(settings, clock)


def setting(settings: Mapping[str, Json], key: str, default: T) -> T:
    """Return one setting, of the type of its default.

    Raises:
        SourceError: If it has another type or is negative.
    """
    value = settings.get(key, default)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default) or (isinstance(value, int | float) and value < 0):
        message = f"Expected the source's {key} as {type(default).__name__}, got {value!r}"
        raise SourceError(message)
    return value
