"""Sinks of answers: the folder is the registry, one sink per file; others by ``my_package.my_module:open_sink``.

A sink's module has ``Settings``, a frozen dataclass of its own keys of ``[sinks.NAME]``, with ranges and reasons, and
``open_sink(settings, around) -> Sink``. The control process imports the files of this folder to check their settings:
before ``open_sink`` they may import only the standard library. External sinks may import anything: their settings are
checked in a separate process. The keys that every sink takes (filters, length of the queue) are in ``_filters``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge_agent.errors import SinkError
from edge_agent.outside import Kinds, checked_apart
from edge_agent.plugin_tables import MAX_SINKS, SinkConfig
from edge_agent.sinks._filters import SinkSettings
from wire.answers import AnswerRecord
from wire.codec import Json
from wire.errors import SettingsError
from wire.settings import fields_from, given_of, names_of, nearest, plain_table

__all__ = ["FOLDER", "MAX_SINKS", "Sink", "SinkConfig", "SinkSurroundings", "checked", "load", "names", "settings_of"]

_KINDS = Kinds(__name__, "sink", SinkError)
FOLDER = "answers"
"""The folder in the state directory: the accounts, and what sinks write there by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSurroundings:
    """What a sink may use of the process around it.

    ``name``: of the sink in ``agent.toml``. ``state``: the agent's state directory, if there is one. ``device``: the
    device's name, ``site``: its site; empty without an enrolment. ``tell``: reports a code and a text to the operator.
    ``to_agent``: hands answers to the control process, which sends them to the fleet's server.
    """

    name: str = ""
    state: Path | None = None
    device: str = ""
    site: str = ""
    tell: Callable[[str, str], None] = lambda _code, _text: None
    to_agent: Callable[[Sequence[AnswerRecord]], None] = lambda _records: None


class Sink(Protocol):
    """Where answers go. Both methods are called from the sink's own thread and may wait."""

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Deliver answers in order; return how many reached a receiver: the rest is dropped.

        Raises:
            SinkError: If not all can be delivered now; those after the first ``delivered`` are offered again.
        """

    def close(self) -> None:
        """Release everything."""


def checked_table(value: object, where: str, folder: Path | None) -> tuple[str, dict[str, Json]]:
    """Return kind and keys of the table ``value``; relative paths are relative to ``folder``.

    Raises:
        SettingsError: If the sink is unknown, or its settings reject a key or value.
    """
    file, found, name = where.rpartition(" sinks ")
    where = f"{file} [sinks.{name}]" if found else where
    table = dict(plain_table(value, where))
    kind = _KINDS.check(table.pop("kind", None), where)
    if ":" in kind:
        return kind, checked_apart(__name__, kind, table, where, folder)
    return kind, checked(kind, table, where, folder)


def names() -> tuple[str, ...]:
    """Return the names of the sinks in this folder."""
    return _KINDS.names()


def settings_of(kind: str) -> type[Any]:
    """Return the settings class of a kind, from this folder or external.

    Raises:
        SinkError: If an external one can't be imported.
    """
    return _KINDS.declared(kind)[0]


def checked(kind: str, table: Mapping[str, object], where: str, folder: Path | None) -> dict[str, Json]:
    """Return the keys of ``table`` that are not at their defaults, as the sink ``kind`` accepts them.

    Raises:
        SettingsError: If it rejects one.
        SinkError: If it is external and can't be imported.
    """
    own, common = _settings(settings_of(kind), table, where, folder)
    return given_of(own) | given_of(common)


def load(document: Mapping[str, Json], around: SinkSurroundings) -> tuple[Sink, Any]:
    """Return the sink that ``document`` names by ``kind``, and its ``SinkSettings``.

    Raises:
        SinkError: If the kind is unknown, or the sink can't be opened as described.
    """
    kind, given = _KINDS.split(document)
    settings, open_sink = _KINDS.declared(kind)
    try:
        own, common = _settings(settings, given, f"[sinks.{around.name}]", None)
        return open_sink(own, around), common
    except SinkError:
        raise
    except SettingsError as error:
        raise SinkError(str(error)) from error
    except Exception as error:  # a person's own code may raise anything, and must not end inference
        message = f"Expected the sink {kind!r} to open, got {type(error).__name__}: {str(error)[:200]}: correct it"
        raise SinkError(message) from error


def _settings(own_settings: type[Any], table: Mapping[str, object], where: str, folder: Path | None) -> tuple[Any, Any]:
    """Return the sink's own settings and the common ones.

    Raises:
        SettingsError: If a key is unknown or a value is out of its range.
    """
    shared = names_of(SinkSettings)
    unknown = sorted(table.keys() - shared - names_of(own_settings))
    if unknown:
        known = sorted(shared | names_of(own_settings))
        message = f"Expected in {where} one of {', '.join(known)}, got {unknown[0]!r}{nearest(unknown[0], known)}"
        raise SettingsError(message)
    own = {key: item for key, item in table.items() if key not in shared}
    common = {key: item for key, item in table.items() if key in shared}
    return fields_from(own_settings, own, where, folder=folder), fields_from(SinkSettings, common, where)
