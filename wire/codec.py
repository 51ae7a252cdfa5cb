"""Converts between frozen dataclasses and JSON documents, so that device and server may age apart.

Every field of a message has a default; a key that this version does not know is kept in ``extra``
and written back; an enum member that this version does not know becomes ``None``. A field that came later is not
written while it has its default (``OMIT_DEFAULT``), so that older documents keep their bytes. A value of the
wrong JSON type is an error: guessing would hide a fault.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from functools import cache

from wire.canonical import canonical_bytes
from wire.errors import MessageError

Json: typing.TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
T = typing.TypeVar("T")

MAX_JSON_BYTES = 256 * 1024
MAX_DEPTH = 32
_INT_LIMIT = 1 << 63
_SCALARS = frozenset({bool, int, float, str, type(None)})
_ALWAYS = object()  # equals no value: the field is always written

OMIT_DEFAULT: Mapping[str, bool] = types.MappingProxyType({"omit_default": True})
"""Metadata of a dataclass field that is not written while it has its default."""


def parse_json(data: bytes, *, limit_bytes: int = MAX_JSON_BYTES) -> dict[str, Json]:
    """Return the JSON object in ``data``.

    Raises:
        MessageError: If it is too long, not UTF-8 JSON, nested too deeply or not an object.
    """
    if len(data) > limit_bytes:
        message = f"Expected at most {limit_bytes} bytes of JSON, got {len(data)}"
        raise MessageError(message)
    try:
        document = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        message = f"Expected UTF-8 JSON, got {data[:60]!r}"
        raise MessageError(message) from error
    if not isinstance(document, dict):
        message = f"Expected a JSON object, got {type(document).__name__}"
        raise MessageError(message)
    _check(document, 0)
    return document


def _refuse_constant(name: str) -> float:
    message = f"Expected finite numbers, got {name}"
    raise MessageError(message)


def _check(value: Json, depth: int) -> None:
    if depth > MAX_DEPTH:
        message = f"Expected JSON nested at most {MAX_DEPTH} deep, got deeper"
        raise MessageError(message)
    if isinstance(value, dict):
        for key, item in value.items():
            _check_scalar(key)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    else:
        _check_scalar(value)


def _check_scalar(value: bool | float | str | None) -> None:  # noqa: FBT001 - one value of JSON, whatever it is
    """Reject what JSON can express but other readers can't: 1e999, integers over 64 bits, a lone surrogate."""
    if isinstance(value, str):
        good = value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    elif isinstance(value, float):
        good = math.isfinite(value)
    else:
        good = value is None or -_INT_LIMIT <= value < _INT_LIMIT
    if not good:
        message = f"Expected finite numbers, integers of 64 bits and whole characters, got {value!r:.60}"
        raise MessageError(message)


def to_document(message: object) -> dict[str, Json]:
    """Return ``message`` (a dataclass) as a JSON object; ``extra`` is written back at its level.

    Raises:
        MessageError: If a field holds something JSON can't represent.
    """
    document: dict[str, Json] = {}
    for name, omitted in _names(type(message)):  # type: ignore[arg-type]  # every class is hashable; mypy doubts it
        value = getattr(message, name)
        if value == omitted:
            continue
        if type(value) in _SCALARS:
            document[name] = value
        elif name == "extra":
            document = {**{str(key): _plain(item) for key, item in value.items()}, **document}
        else:
            document[name] = _plain(value)
    return document


@cache
def _names(cls: type) -> tuple[tuple[str, object], ...]:
    """Return each field's name, and the value with which it is not written."""
    omitted: dict[str, object] = {}
    for field in dataclasses.fields(cls):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        omitted[field.name] = default if field.metadata.get("omit_default") else _ALWAYS
    return tuple(omitted.items())


def _plain(value: object) -> Json:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if dataclasses.is_dataclass(value):
        return to_document(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    message = f"Expected a value that JSON can carry, got {type(value).__name__}"
    raise MessageError(message)


def encode(message: object) -> bytes:
    """Return ``message`` (a dataclass) as canonical JSON bytes.

    Raises:
        MessageError: If a field holds something JSON can't carry.
    """
    return canonical_bytes(to_document(message))


def decode(cls: type[T], data: bytes, *, limit_bytes: int = MAX_JSON_BYTES) -> T:
    """Return the ``cls`` in ``data``.

    Raises:
        MessageError: If ``data`` is not JSON, or a field has the wrong type.
    """
    return from_document(cls, parse_json(data, limit_bytes=limit_bytes))


def from_document(cls: type[T], document: Mapping[str, Json]) -> T:
    """Return a ``cls`` from a JSON object; unknown keys go to ``extra`` where ``cls`` has one.

    Raises:
        MessageError: If a value has the wrong type.
    """
    hints = _hints(cls)  # type: ignore[arg-type]  # every class is hashable; mypy doubts it
    known: dict[str, object] = {}
    extra: dict[str, Json] = {}
    for key, value in document.items():
        if key in hints and key != "extra":
            known[key] = _typed(value, hints[key], f"{cls.__name__}.{key}")
        else:
            extra[key] = value
    if extra and "extra" in hints:
        known["extra"] = extra
    try:
        return cls(**known)
    except TypeError as error:
        message = f"Expected all fields of {cls.__name__}, got {sorted(document)}"
        raise MessageError(message) from error


@cache
def _hints(cls: type) -> dict[str, object]:
    return typing.get_type_hints(cls)


def _typed(value: Json, hint: object, where: str) -> object:  # noqa: PLR0911 - one return a kind of type
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        kinds = [argument for argument in arguments if argument is not type(None)]
        if value is None or len(kinds) > 1:  # several: ``Json`` itself, which is already what it should be
            return value
        if isinstance(kinds[0], type) and issubclass(kinds[0], StrEnum):
            text = _expect(value, str, where)
            return kinds[0](text) if text in set(kinds[0]) else None  # a value of a later version
        return _typed(value, kinds[0], where)
    if origin is tuple:
        return tuple(_typed(item, arguments[0], where) for item in _expect(value, list, where))
    if origin is not None:  # Mapping[str, X]
        return {key: _typed(item, arguments[1], where) for key, item in _expect(value, dict, where).items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_document(hint, _expect(value, dict, where))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and hint in {bool, int, float, str}:
        return _expect(value, hint, where)
    return value


def _expect(value: Json, kind: type[T], where: str) -> T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        message = f"Expected {where} as {kind.__name__}, got {type(value).__name__}"
        raise MessageError(message)
    return value
