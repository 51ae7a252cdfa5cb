"""From a TOML table to a frozen dataclass, strictly: unknown keys and wrong types are errors.

Decides how a mistake is said. Does not decide which keys exist (``model`` does).
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from compressor.errors import RecipeError

T = TypeVar("T")


def nearest(name: str, known: Collection[str]) -> str:
    """Return ``": did you mean 'x'?"`` for the known name nearest to ``name``, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean {matches[0]!r}?" if matches else ""


def plain_table(value: object, where: str) -> Mapping[str, object]:
    """Return ``value`` if it is a table.

    Raises:
        RecipeError: If it is not.
    """
    if not isinstance(value, Mapping):
        message = f"Expected {where} to be a table, got {type(value).__name__} {value!r}"
        raise RecipeError(message)
    return value


def fields_from(cls: type[T], value: object, where: str, *, given: Mapping[str, str] | None = None) -> T:
    """Return ``cls`` filled from the table ``value``; ``given`` are fields that the table may not set.

    Raises:
        RecipeError: If a key is unknown or missing, or a value has the wrong type.
    """
    table, given = plain_table(value, where), given or {}
    hints = get_type_hints(cls)
    known = [name for name in hints if name not in given]
    arguments: dict[str, object] = dict(given)
    for key, item in table.items():
        if key not in known:
            message = f"Expected in {where} one of {', '.join(known)}, got {key!r}{nearest(key, known)}"
            raise RecipeError(message)
        arguments[key] = _typed(item, hints[key], f"{where} {key}")
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in arguments:
            message = f"Expected in {where} the key {field.name!r}, got {', '.join(table) or 'nothing'}"
            raise RecipeError(message)
    return cls(**arguments)


def default_of(table: object, key: str) -> object:
    """Return what ``key`` of ``table``, a dataclass of a recipe, is unless a recipe says otherwise."""
    found = {field.name: field for field in dataclasses.fields(table)}[key]  # type: ignore[arg-type]
    return found.default if found.default_factory is dataclasses.MISSING else found.default_factory()


def is_given(table: object, key: str) -> bool:
    """Return whether ``key`` of ``table`` is other than its default: nothing tells one that says the default."""
    return bool(getattr(table, key) != default_of(table, key))


def _typed(value: object, hint: object, where: str) -> object:
    converted = _convert(value, hint)
    if converted is None:
        message = f"Expected {where} to be {said(hint)}, got {type(value).__name__} {value!r}"
        raise RecipeError(message)
    return converted


def _convert(value: object, hint: object) -> object:
    """Return ``value`` as ``hint`` wants it, or None where it does not fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        options = (_convert(value, option) for option in arguments if option is not type(None))
        return next((option for option in options if option is not None), None)
    if origin is tuple:
        items = [_convert(item, arguments[0]) for item in value] if isinstance(value, list) else [None]
        return None if None in items else tuple(items)
    if origin is Mapping:
        return _convert_mapping(value, arguments[1])
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is hint else None


def _convert_mapping(value: object, hint: object) -> object:
    if not isinstance(value, dict):
        return None
    items = {str(key): _convert(item, hint) for key, item in value.items()}
    return None if None in items.values() else items


def said(hint: object) -> str:
    """Return a type as error messages and the guide name it."""
    if get_origin(hint) in {Union, types.UnionType}:
        return " or ".join(said(option) for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is tuple:
        return f"a list of {said(get_args(hint)[0])}"
    if get_origin(hint) is Mapping:
        return f"a table of {said(get_args(hint)[1])}"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(hint, str(hint))  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, slots=True)
class Checked:
    """A value and what it must be: between ``low`` and ``high``, or ``one_of`` some names."""

    where: str
    value: float | str
    low: float = 0
    high: float = 0
    one_of: tuple[str, ...] = ()

    def require(self) -> None:
        """Do nothing if the value is as it must be.

        Raises:
            RecipeError: If it is not.
        """
        if isinstance(self.value, str):
            if self.value not in self.one_of:
                message = f"Expected {self.where} to be {' or '.join(self.one_of)}, got {self.value!r}"
                raise RecipeError(f"{message}{nearest(self.value, self.one_of)}")
        elif not self.low <= self.value <= self.high:  # so that NaN is refused too
            message = f"Expected {self.where} between {self.low:g} and {self.high:g}, got {self.value:g}"
            raise RecipeError(message)
