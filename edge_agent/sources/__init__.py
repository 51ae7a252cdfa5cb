"""Where images come from: the folder is the registry, one source a file.

A source's module has ``open_source(settings, clock, surroundings) -> Source``. Standard library only: the control
process checks a source's settings before it starts a child.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from wire.codec import Json

__all__ = [
    "IMAGE_SUFFIXES", "SOURCE_UNREAD", "Capture", "Source", "Surroundings", "load", "names", "setting", "suffixes_in",
]  # fmt: skip

T = TypeVar("T", bool, int, float, str)

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Suffixes of the files that ``preprocess.decode_image`` reads. What a sensor's are, its front end says."""

SOURCE_UNREAD = "source_unread"
"""Told when inputs of a kind that was served before are left alone by the release that is served now."""


def _silent(_code: str, _text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a source may use of the process around it.

    ``state``: the agent's state directory; without one nothing is moved or remembered over a restart.
    ``suffixes``: returns the suffixes (lower case, with their dot) that the served release reads now; files of other
    names are not a source's to touch. ``tell``: takes a code and a text for the operator.
    """

    state: Path | None = None
    suffixes: Callable[[], frozenset[str]] = lambda: IMAGE_SUFFIXES
    tell: Callable[[str, str], None] = _silent


_ALONE = Surroundings()


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
        """Take note that ``capture`` was served and need not come again."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Set ``capture`` aside because it could not be served, for the reason ``code``; it does not come again.

        Returns False where it may not be whole yet: then it comes again. ``final``: it is set aside in any case.
        """

    def take_dropped(self) -> int:
        """Return how many images were dropped since the last call."""


class SourceModule(Protocol):
    """What a file in this folder offers."""

    def open_source(self, settings: Mapping[str, Json], clock: Clock, surroundings: Surroundings) -> Source:
        """Return the source that ``settings`` describe."""


def names() -> tuple[str, ...]:
    """Return the names of the sources in this folder."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load(settings: Mapping[str, Json], clock: Clock, surroundings: Surroundings = _ALONE) -> Source:
    """Return the source that ``settings`` name by ``kind``; the other keys are its own.

    Raises:
        SourceError: If the kind is unknown, or the source can't be opened as described.
    """
    kind = settings.get("kind")
    if kind not in names():
        message = f"Expected a source of {', '.join(names())}, got {kind!r}"
        raise SourceError(message)
    module = cast("SourceModule", importlib.import_module(f"{__name__}.{kind}"))
    return module.open_source(settings, clock, surroundings)


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


def suffixes_in(text: str) -> frozenset[str]:
    """Return the suffixes that ``text`` lists, in lower case, as ``".dat .raw"`` does.

    Raises:
        SourceError: If one has no dot or is no suffix.
    """
    found = frozenset(part.lower() for part in text.replace(",", " ").split())
    wrong = sorted(part for part in found if not part.startswith(".") or "/" in part or len(part) == 1)
    if wrong:
        message = f'Expected [source] suffixes as ".dat .raw", each with its dot, got {wrong[0]!r}'
        raise SourceError(message)
    return found
