"""From a TOML table to a frozen dataclass; an unknown key is an error that names the nearest valid one."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path

from server.errors import ConfigError
from wire.codec import Json, from_document
from wire.errors import MessageError

T = typing.TypeVar("T")


def read_toml(cls: type[T], path: Path) -> T:
    """Return the ``cls`` in the TOML file at ``path``.

    Raises:
        ConfigError: If the file can't be read, is not TOML, or has a key or value that ``cls`` does not take.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"Expected readable TOML in {path}, got: {error}"
        raise ConfigError(message) from error
    return read_table(cls, table, path.name)


def read_table(cls: type[T], table: Mapping[str, Json], where: str) -> T:
    """Return the ``cls`` in ``table``; nested dataclasses are sub-tables.

    Raises:
        ConfigError: If a key is unknown or a value has the wrong type.
    """
    _check_keys(cls, table, where)
    try:
        return from_document(cls, table)
    except MessageError as error:
        message = f"{error}: correct it in {where}"
        raise ConfigError(message) from error


def _check_keys(cls: type, table: Mapping[str, Json], where: str) -> None:
    hints = typing.get_type_hints(cls)
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)
            message = f"Expected a known key in {where}, got {key!r}; the nearest is {near[0]!r}"
            raise ConfigError(message)
        hint = hints[key]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
            _check_keys(hint, value, f"{where} [{key}]")
