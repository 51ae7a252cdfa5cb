"""Sources of inputs: the folder is the registry, one source per file; others by ``my_package.my_module:open_source``.

A source's module has ``Settings``, a frozen dataclass of its keys of ``[source]``, with ranges and reasons, and
``open_source(settings, clock, surroundings) -> Source``; optionally ``check_place(settings, state)`` if a path may be
invalid. The control process imports the files of this folder to check their settings: before ``open_source`` they may
import only the standard library. External sources may import anything: their settings are checked in a separate
process.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.outside import Kinds, checked_apart
from edge_agent.plugin_tables import SOURCE_UNREAD, SourceConfig
from wire.codec import Json
from wire.errors import SettingsError
from wire.messages import UnreadInputs
from wire.settings import default_of, fields_from, given_of, names_of, plain_table

__all__ = [
    "IMAGE_SUFFIXES", "INBOX", "SOURCE_UNREAD", "Capture", "InStream", "Source", "SourceConfig", "Surroundings",
    "close", "left_alone", "load", "names", "placed",
]  # fmt: skip

_LOG = logging.getLogger(__name__)
_KINDS = Kinds(__name__, "source", SourceError)
INBOX = "inbox"
"""The folder in the state directory that is the default path of a source."""
_ONCE_OF_ALL = frozenset({"path", "suffixes", "settle_s", "interval_s", "repeat", "keep", "backlog"})
"""Keys that every kind accepted up to 0.2.0: an old ``agent.toml`` still works, and unused ones are ignored."""

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Suffixes of the files that ``preprocess.decode_image`` reads. A front end declares the suffixes of its sensor."""


def _silent(_code: str, _text: str) -> None:
    """Report to nobody."""


def _awake() -> None:
    """Do nothing: nobody waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a source may use of the process around it.

    ``state``: the agent's state directory; without one nothing is moved or remembered across restarts. ``suffixes``:
    returns the suffixes (lower case, with dot) that the served release reads now; a source must not touch other files.
    ``options``: returns the options of its front end, all of them; {} for images. ``columns``: returns the names of the
    columns that the served release reads, in its order; () if its training data had none. ``tell``: reports a code and
    a text to the operator. ``interval_ms``: returns the time between neighbouring inputs for which the served release
    was judged, if it is for windows cut of a stream; 0: not stated. ``wake``: called from any thread, makes an idle
    loop call ``take`` at once, not only after 30 ms.
    """

    state: Path | None = None
    suffixes: Callable[[], frozenset[str]] = lambda: IMAGE_SUFFIXES
    options: Callable[[], Mapping[str, float]] = dict
    columns: Callable[[], tuple[str, ...]] = tuple
    interval_ms: Callable[[], int] = int
    tell: Callable[[str, str], None] = _silent
    wake: Callable[[], None] = _awake


_ALONE = Surroundings()


def readable(name: str) -> str:
    r"""Return the name of a file as text that JSON can carry: bytes that are no UTF-8 as ``\xff``."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class InStream:
    """Where an input stands in a stream of inputs that follow each other.

    ``name``: of the stream, "" for the only one of a source: inputs of two streams have nothing to do with each other.
    ``at_ms``: when its last sample was taken, UTC, if the source knows; None: when it was read. ``last``: the stream
    ends with this input.
    """

    name: str = ""
    at_ms: int | None = None
    last: bool = False

    def __post_init__(self) -> None:
        """Make the name one that a record can carry: a file's may be no UTF-8."""
        object.__setattr__(self, "name", readable(self.name))

    def taken_ms(self, read_ms: int) -> int:
        """Return when the input was taken, UTC; ``read_ms``: when it was read, if the source knows no more."""
        return read_ms if self.at_ms is None else self.at_ms


@dataclass(frozen=True, slots=True)
class Capture:
    """One encoded image, unchanged; ``name`` is for people.

    ``id``: names the input if the source returns it again after a crash, and no other input; empty: none is returned
    twice. ``prepare``: makes the input of ``data``, such as a part of a picture; called while the input is marked as in
    flight, because a decoder may crash; raises ``ImageError`` if there is none. ``place``: in its stream.
    """

    name: str
    data: bytes
    id: str = field(default="", compare=False)
    prepare: Callable[[bytes], bytes] | None = field(default=None, compare=False, kw_only=True)
    place: InStream = field(default_factory=InStream, compare=False, kw_only=True)


class Source(Protocol):
    """A bounded stream of images: what can't be kept is dropped and counted.

    A source that starts threads or programs also has ``close()``, which ends them; it is called at an orderly end. One
    that calls ``Surroundings.wake`` for every input also has ``wakes = True``, and is looked at less often. One that
    finds what is no input of the release has ``left_alone``, ``UnreadInputs`` that lie there now.
    """

    def take(self) -> Capture | None:
        """Return the next image, or None if there is none. Never waits."""

    def done(self, capture: Capture) -> None:
        """Record that ``capture`` was served and must not be returned again."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Set ``capture`` aside because it could not be served, for the reason ``code``; it is not returned again.

        Returns False if it may be incomplete: then it is returned again. ``final``: it is set aside in any case.
        """

    def take_dropped(self) -> int:
        """Return how many images were dropped since the last call."""


def checked_table(value: object, where: str, folder: Path | None) -> tuple[str, dict[str, Json]]:
    """Return kind and keys of the table ``value``; relative paths are relative to ``folder``.

    Raises:
        SettingsError: If the source is unknown, or its settings reject a key or value.
    """
    table = dict(plain_table(value, where))
    kind = _KINDS.check(table.pop("kind", SourceConfig().kind), where)
    if ":" in kind:
        return kind, checked_apart(__name__, kind, table, where, folder)
    unused = sorted(_ONCE_OF_ALL & table.keys() - names_of(settings_of(kind)))
    if unused:
        _LOG.warning("Left out keys that this kind of source does not take. kind=%s keys=%s", kind, unused)
    given = {key: item for key, item in table.items() if key not in unused}
    return kind, checked(kind, given, where, folder)


def checked(kind: str, table: Mapping[str, object], where: str, folder: Path | None) -> dict[str, Json]:
    """Return the keys of ``table`` that are not at their defaults, as the source ``kind`` accepts them.

    Raises:
        SettingsError: If it rejects one.
        SourceError: If it is external and can't be imported.
    """
    return given_of(fields_from(settings_of(kind), table, where, folder=folder))


def names() -> tuple[str, ...]:
    """Return the names of the sources in this folder."""
    return _KINDS.names()


def load(
    document: Mapping[str, Json],
    clock: Clock,
    surroundings: Surroundings = _ALONE,
    outside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Source:
    """Return the source that ``document`` names by ``kind``; the other keys are its own.

    ``outside`` is entered while code of an external source runs, from its import on.

    Raises:
        SourceError: If the kind is unknown, or the source can't be opened as described.
    """
    kind, given = _KINDS.split(document)
    external = ":" in kind
    with outside() if external else nullcontext():
        settings, open_source = _KINDS.declared(kind)
        try:
            own = fields_from(settings, given, "[source]")
        except SettingsError as error:
            raise SourceError(str(error)) from error
        if not external:
            opened: Source = open_source(own, clock, surroundings)
            return opened
        return _OutsideSource(kind, _called(kind, "open", lambda: open_source(own, clock, surroundings)), outside)


@dataclass(slots=True)
class _OutsideSource:
    """An external source, whose faults become ``SourceError``: they are no fault of the release that is served."""

    _kind: str
    _source: Any
    _outside: Callable[[], AbstractContextManager[None]]

    def take(self) -> Capture | None:
        """Return the next image, or None if there is none."""
        found = self._call("return the next input", lambda: self._source.take())  # noqa: PLW0108 - it may lack the method
        if found is not None and not isinstance(found, Capture):
            message = f"Expected take of the source {self._kind!r} to return a Capture or None, got {found!r:.100}"
            raise SourceError(f"{message}: correct it")
        return found

    def done(self, capture: Capture) -> None:
        """Record that ``capture`` was served."""
        self._call("record a served input", lambda: self._source.done(capture))

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Set ``capture`` aside."""
        return bool(self._call("set an input aside", lambda: self._source.refuse(capture, code, final=final)))

    def take_dropped(self) -> int:
        """Return how many images were dropped since the last call."""
        dropped = self._call("count dropped inputs", lambda: self._source.take_dropped())  # noqa: PLW0108 - the same
        if not isinstance(dropped, int) or dropped < 0:
            message = f"Expected take_dropped of the source {self._kind!r} to return a number, got {dropped!r:.100}"
            raise SourceError(f"{message}: correct it")
        return dropped

    @property
    def wakes(self) -> bool:
        """Whether it says that it wakes the loop for every input."""
        return getattr(self._source, "wakes", False) is True

    @property
    def left_alone(self) -> UnreadInputs:
        """What it says that lies unread now, if it does."""
        found = self._call("say what lies unread", lambda: getattr(self._source, "left_alone", None))
        return found if isinstance(found, UnreadInputs) else UnreadInputs()

    def close(self) -> None:
        """End what the source started, if it says how."""
        if hasattr(self._source, "close"):
            self._call("end", lambda: self._source.close())  # noqa: PLW0108 - as above

    def _call(self, wanted: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what a person's own code returns
        with self._outside():
            return _called(self._kind, wanted, call)


def _called(kind: str, wanted: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what a person's own code returns
    """Return what ``call`` of an external source returns.

    Raises:
        SourceError: If it raises anything.
    """
    try:
        return call()
    except SourceError:
        raise
    except (Exception, SystemExit) as error:  # a person's own code may raise anything
        _LOG.exception("source raised kind=%s", kind)
        message = f"Expected the source {kind!r} to {wanted}, got {type(error).__name__}: {str(error)[:200]}"
        raise SourceError(f"{message}: correct it, or what it reads from") from error


def left_alone(source: Source) -> UnreadInputs:
    """Return what lies unread in ``source`` now; nothing of a source that has no ``left_alone``."""
    found = getattr(source, "left_alone", None)
    return found if isinstance(found, UnreadInputs) else UnreadInputs()


def close(source: Source) -> None:
    """End the threads and programs that ``source`` started, if it has ``close()``; an external one may fail at it."""
    end = getattr(source, "close", None)
    if end is not None:
        with suppress(SourceError):  # logged
            end()


def placed(source: SourceConfig, state: Path) -> SourceConfig:
    """Return ``source``, checked, with the default path ``inbox`` in ``state`` if it needs a path and has none.

    Raises:
        SourceError: If it would consume files of the agent or of a person.
    """
    if ":" in source.kind:
        return source
    declared = settings_of(source.kind)
    keys = dict(source.keys)
    if "path" in names_of(declared) and default_of(declared, "path") is None:
        keys.setdefault("path", str((state / INBOX).absolute()))
    check = getattr(importlib.import_module(f"{__name__}.{source.kind}"), "check_place", None)
    if check is not None:
        check(fields_from(declared, keys, "[source]"), state)
    return SourceConfig(source.kind, keys)


def settings_of(kind: str) -> type[Any]:
    """Return the settings class of a kind, from this folder or external.

    Raises:
        SourceError: If an external one can't be imported.
    """
    return _KINDS.declared(kind)[0]
