"""Where inputs come from: the folder is the registry, one source a file; else ``my_package.my_module:open_source``.

A source's module has ``Settings``, a frozen dataclass of the keys of ``[source]`` that it takes, with ranges and
reasons, and ``open_source(settings, clock, surroundings) -> Source``; further ``check_place(settings, state)`` where a
place may be wrong. The control process imports the files of this folder to check their settings: before
``open_source`` they load the standard library only. What lies elsewhere may load what it likes: its settings are
checked in a process of its own.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from wire.codec import Json
from wire.errors import SettingsError
from wire.settings import fields_from, nearest, plain_table

__all__ = [
    "IMAGE_SUFFIXES", "INBOX", "SOURCE_UNREAD", "Capture", "Source", "SourceConfig", "Surroundings", "load", "names",
    "placed",
]  # fmt: skip

_LOG = logging.getLogger(__name__)
INBOX = "inbox"
"""The folder below the state directory that a source with a path takes where none is given."""
_ONCE_OF_ALL = frozenset({"path", "suffixes", "settle_s", "interval_s", "repeat", "keep", "backlog"})
"""Keys that every kind took up to 0.2.0: an ``agent.toml`` that worked still does, without those of no use."""

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

    Settings: type[Any]

    def open_source(self, settings: Any, clock: Clock, surroundings: Surroundings) -> Source:  # noqa: ANN401 - its own
        """Return the source that ``settings`` describe."""


@dataclass(frozen=True, slots=True)
class NoSettings:
    """The settings of a source that declares none."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """``[source]``, checked: which source, and the keys that were given, as JSON; paths in them are absolute."""

    kind: str = "directory"
    keys: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def from_table(cls, value: object, where: str, folder: Path | None) -> SourceConfig:
        """Return what the table says; relative paths start at ``folder``.

        Raises:
            SettingsError: If there is no such source, or its settings don't take what is given.
        """
        table = dict(plain_table(value, where))
        kind = table.pop("kind", cls().kind)
        if isinstance(kind, str) and ":" in kind:
            from edge_agent.sources._outside import checked  # noqa: PLC0415 - few devices have one

            return cls(kind, checked(kind, table, where, folder))
        if kind not in names():
            message = f"Expected {where} kind as one of {', '.join(names())} or 'package.module:function', got {kind!r}"
            raise SettingsError(message + nearest(str(kind), names()))
        settings = _declared(kind)[0]
        unused = sorted(_ONCE_OF_ALL & table.keys() - {one.name for one in dataclasses.fields(settings)})
        if unused:
            _LOG.warning("Left out keys that this kind of source does not take. kind=%s keys=%s", kind, unused)
        given = {key: item for key, item in table.items() if key not in unused}
        return cls(kind, as_json(fields_from(settings, given, where, folder=folder)))

    @property
    def document(self) -> dict[str, Json]:
        """The same as the child gets it."""
        return {"kind": self.kind, **self.keys}


def names() -> tuple[str, ...]:
    """Return the names of the sources in this folder."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load(document: Mapping[str, Json], clock: Clock, surroundings: Surroundings = _ALONE) -> Source:
    """Return the source that ``document`` names by ``kind``; the other keys are its own.

    Raises:
        SourceError: If the kind is unknown, or the source can't be opened as described.
    """
    kind = document.get("kind")
    if not isinstance(kind, str) or (":" not in kind and kind not in names()):
        message = f"Expected a source of {', '.join(names())}, got {kind!r}"
        raise SourceError(message)
    settings, open_source = _declared(kind)
    given = {key: value for key, value in document.items() if key != "kind"}
    try:
        return open_source(fields_from(settings, given, "[source]"), clock, surroundings)
    except SettingsError as error:
        raise SourceError(str(error)) from error


def placed(source: SourceConfig, state: Path) -> SourceConfig:
    """Return ``source`` with the folder ``inbox`` of ``state`` where it takes a path and has none, and checked.

    Raises:
        SourceError: If files would be consumed where the agent or a person keeps others.
    """
    if ":" in source.kind:
        return source
    declared = _declared(source.kind)[0]
    keys = dict(source.keys)
    if "path" in {one.name for one in dataclasses.fields(declared)}:
        keys.setdefault("path", str((state / INBOX).absolute()))
    check = getattr(importlib.import_module(f"{__name__}.{source.kind}"), "check_place", None)
    if check is not None:
        check(fields_from(declared, keys, "[source]"), state)
    return SourceConfig(source.kind, keys)


def as_json(settings: object) -> dict[str, Json]:
    """Return the fields of ``settings`` that are not at their defaults."""
    found: dict[str, Json] = {}
    for one in dataclasses.fields(settings):  # type: ignore[arg-type]  # a dataclass, by the caller
        value = getattr(settings, one.name)
        default = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
        if value != default:
            found[one.name] = (
                str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            )
    return found


def settings_of(kind: str) -> type[Any]:
    """Return the class of the settings of a kind, from this folder or elsewhere.

    Raises:
        SourceError: If it lies elsewhere and can't be found.
    """
    return _declared(kind)[0]


def _declared(kind: str) -> tuple[type[Any], Callable[..., Source]]:
    """Return settings and opener of a kind.

    Raises:
        SourceError: If it lies elsewhere and can't be found.
    """
    if ":" not in kind:
        module: Any = importlib.import_module(f"{__name__}.{kind}")
        return module.Settings, module.open_source
    name, _, function = kind.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # it is a person's own code, which raises what it likes
        message = f"Expected the source {kind!r} to import, got {type(error).__name__}: {str(error)[:200]}"
        raise SourceError(f"{message}: install its package beside the agent, or mend it") from error
    open_source = getattr(module, function, None)
    if not callable(open_source):
        message = f"Expected a function {function!r} in {name}, got {type(open_source).__name__}"
        raise SourceError(f"{message}: name it in [source] kind")
    return getattr(module, "Settings", NoSettings), open_source
