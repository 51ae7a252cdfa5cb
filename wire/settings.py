"""Strict settings for the three programs: from a TOML file to a frozen dataclass.

Decides how mistakes are reported: the error for an unknown key names the nearest; for a wrong type or a number out of
range it names the key, the expectation, the value and the file. A file is not read beyond its limit. The dataclass
defines keys, types, defaults and ranges: ``port: Annotated[int, Bound(0, 65_535)] = 0``. Other modules are loaded only
for a mistake or a TOML file.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from wire.errors import PathError, SettingsError
from wire.paths import without_tilde

T = TypeVar("T")
MAX_TOML_BYTES = 256 * 1024
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path as text"}


@dataclass(frozen=True, slots=True)
class Bound:
    """A number from ``low`` to ``high``; with ``above``, ``low`` itself is excluded."""

    low: float
    high: float
    above: bool = False

    @property
    def text(self) -> str:
        """The bound as text."""
        low, high = _number(self.low), _number(self.high)
        return f"above {low} and at most {high}" if self.above else f"between {low} and {high}"

    def check(self, where: str, value: float) -> None:
        """Check the value of ``where``.

        Raises:
            SettingsError: If it is out of range; NaN always is.
        """
        above_low = self.low < value or (self.low == value and not self.above)
        if not (above_low and value <= self.high):
            message = f"Expected {where} {self.text}, got {_number(value)}"
            raise SettingsError(message)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several names."""

    names: tuple[str, ...]

    def check(self, where: str, value: str) -> None:
        """Check the value of ``where``.

        Raises:
            SettingsError: If it is none of the names.
        """
        if value not in self.names:
            wanted = " or ".join(name or "nothing" for name in self.names)
            message = f"Expected {where} to be {wanted}, got {value!r}{nearest(value, self.names)}"
            raise SettingsError(message)


Rule = Bound | OneOf


def read_toml(path: Path, *, limit_bytes: int = MAX_TOML_BYTES) -> dict[str, Any]:
    """Return the document in the TOML file at ``path``; reads at most ``limit_bytes``.

    Raises:
        SettingsError: If the file can't be read, is too long or is not TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        message = f"Expected a file that can be read at {path}, got: {error.strerror}"
        raise SettingsError(message) from error
    return parse_toml(data, str(path), limit_bytes=limit_bytes)


def parse_toml(data: bytes, where: str, *, limit_bytes: int = MAX_TOML_BYTES) -> dict[str, Any]:
    """Return the document in ``data``; ``where`` is the file's name, for messages.

    Raises:
        SettingsError: If it is too long or not TOML.
    """
    if len(data) > limit_bytes:
        message = f"Expected at most {limit_bytes} bytes in {where}, got more: is it the right file?"
        raise SettingsError(message)
    import tomllib  # noqa: PLC0415 - a program without a file does not need it

    try:
        return tomllib.loads(data.decode("utf-8-sig"))  # editors of Windows begin a file with a mark of its encoding
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"Expected TOML in {where}, got: {error}: correct it"
        raise SettingsError(message) from error
    except RecursionError as error:
        message = f"Expected TOML in {where}, got tables or lists nested too deeply"
        raise SettingsError(message) from error


def nearest(name: str, known: Collection[str]) -> str:
    """Return ``": did you mean 'x'?"`` for the known name nearest to ``name``, or nothing."""
    import difflib  # noqa: PLC0415 - needed only for a mistake; keeps the device's control process small

    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean {matches[0]!r}?" if matches else ""


def plain_table(value: object, where: str) -> Mapping[str, Any]:
    """Return ``value`` if it is a table.

    Raises:
        SettingsError: If it is not.
    """
    if not isinstance(value, Mapping):
        message = f"Expected {where} to be a table, got {type(value).__name__} {value!r}"
        raise SettingsError(message)
    return value


def fields_from(
    cls: type[T], value: object, where: str, *, given: Mapping[str, object] | None = None, folder: Path | None = None
) -> T:
    """Return ``cls`` filled from the table ``value``; a dataclass field is a nested table.

    Args:
        cls: A dataclass.
        value: A table of TOML, or the same as JSON.
        where: Name of the table, for messages: ``agent.toml [source]``.
        given: Fields that the table may not set, with their values.
        folder: Base of relative paths in fields of type ``Path``; without it they stay relative.

    Raises:
        SettingsError: If a key is unknown or missing, or a value has the wrong type or is out of its range.
    """
    table, given = plain_table(value, where), given or {}
    hints = _hints(cls)  # type: ignore[arg-type]  # every class is hashable; mypy doubts it
    known = [name for name in hints if name not in given]
    arguments: dict[str, object] = dict(given)
    for key, item in table.items():
        if key not in known:
            message = f"Expected in {where} one of {', '.join(known)}, got {key!r}{nearest(key, known)}"
            raise SettingsError(message)
        inner = f"{where} [{key}]" if _is_table(hints[key]) else f"{where} {key}"
        arguments[key] = _made(item, hints[key], inner, folder)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # a dataclass, by the caller
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in arguments:
            message = f"Expected in {where} the key {field.name!r}, got {', '.join(table) or 'nothing'}"
            raise SettingsError(message)
    try:
        return cls(**arguments)
    except SettingsError as error:  # raised by a class that checks its fields together
        message = f"{where}: {error}"
        raise SettingsError(message) from error


def numbers_from(
    cls: type[T], options: Mapping[str, float], where: str, *, given: Mapping[str, object] | None = None
) -> T:
    """Return ``cls``, whose fields are numbers, filled from ``options`` as in a recipe or a manifest.

    A manifest holds all numbers as floats: 32.0 is a whole number, of a field with ``OneOf`` the place among its names,
    and ``anchors_0``, ``anchors_1`` and so on are the values of a list. A recipe has the name, and the list.
    ``where`` and ``given``: as of ``fields_from``.

    Raises:
        SettingsError: If an option is unknown, not a number, not a whole one if required, or out of its range.
    """
    known, ranges = names_of(cls), rules(cls)
    table: dict[str, object] = {}
    lists: dict[str, dict[int, float]] = {}
    for key, value in options.items():
        head, _, place = key.rpartition("_")
        whole = key in known and isinstance(default_of(cls, key), int)
        if key not in known and head in known and place.isdecimal() and isinstance(default_of(cls, head), tuple):
            lists.setdefault(head, {})[int(place)] = value
        elif isinstance(rule := ranges.get(key), OneOf) and isinstance(value, int | float):
            known_place = not isinstance(value, bool) and value in range(len(rule.names))
            table[key] = rule.names[int(value)] if known_place else str(value)
        else:
            table[key] = int(value) if whole and isinstance(value, float) and value.is_integer() else value
    for head, values in lists.items():
        if sorted(values) != list(range(len(values))):
            message = f"Expected {where} {head}_0 to {head}_{len(values) - 1}, got {head}_{max(values)}"
            raise SettingsError(message)
        table[head] = [values[place] for place in sorted(values)]
    return fields_from(cls, table, where, given=given)


def numbers_of(settings: object) -> dict[str, float]:
    """Return the fields of a dataclass of numbers as a manifest holds them, sorted by name: see ``numbers_from``."""
    found: dict[str, float] = {}
    ranges = rules(type(settings))
    for key in sorted(names_of(settings)):
        value, rule = getattr(settings, key), ranges.get(key)
        if isinstance(rule, OneOf):
            found[key] = float(rule.names.index(value))
        elif isinstance(value, tuple):
            found |= {f"{key}_{place}": float(item) for place, item in enumerate(value)}
        else:
            found[key] = float(value)
    return found


def check(settings: object, where: str) -> None:
    """Check every value of a dataclass, and of nested ones, against its range: for values that no table set.

    Raises:
        SettingsError: If one is out of range.
    """
    for name, hint in _hints(type(settings)).items():  # type: ignore[arg-type]  # likewise
        value = getattr(settings, name)
        if _is_table(hint):
            check(value, f"{where} [{name}]")
        rule = rule_of(hint)
        for item in value if isinstance(value, tuple) else (value,):
            if rule is not None and item is not None:
                rule.check(f"{where} {name}", item)
            elif isinstance(value, tuple) and _is_table(type(item)):
                check(item, f"{where} [[{name}]]")


def names_of(settings: object) -> frozenset[str]:
    """Return the names of the fields of a dataclass, or of a value of one."""
    return frozenset(field.name for field in dataclasses.fields(settings))  # type: ignore[arg-type]  # by the caller


def rules(cls: type) -> dict[str, Rule]:
    """Return the range of each field of ``cls`` that has one."""
    found = ((name, rule_of(hint)) for name, hint in _hints(cls).items())
    return {name: rule for name, rule in found if rule is not None}


def rule_of(hint: object) -> Rule | None:
    """Return the range in a type: its own, or that of the type inside an optional."""
    if get_origin(hint) is Annotated:
        return next((rule for rule in get_args(hint)[1:] if isinstance(rule, Bound | OneOf)), None)
    if get_origin(hint) in {Union, types.UnionType}:
        return next((rule for option in get_args(hint) if (rule := rule_of(option)) is not None), None)
    return None


def default_of(table: object, key: str) -> object:
    """Return the default of ``key`` in ``table``, a dataclass."""
    found = {field.name: field for field in dataclasses.fields(table)}[key]  # type: ignore[arg-type]  # likewise
    return found.default if found.default_factory is dataclasses.MISSING else found.default_factory()


def is_given(table: object, key: str) -> bool:
    """Return whether ``key`` of ``table`` differs from its default; setting the default explicitly does not count."""
    return bool(getattr(table, key) != default_of(table, key))


def given_of(settings: object) -> dict[str, Any]:
    """Return the fields of ``settings`` that are not at their defaults, as JSON."""
    found: dict[str, Any] = {}
    for name in sorted(names_of(settings)):
        if is_given(settings, name):
            value = getattr(settings, name)
            found[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    return found


def type_name(hint: object) -> str:
    """Return the name of a type in error messages and in the guide."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in {Union, types.UnionType}:
        return " or ".join(type_name(option) for option in arguments if option is not type(None))
    if origin is tuple:
        return f"a list of {type_name(arguments[0])}"
    if origin is Mapping:
        return f"a table of {type_name(arguments[1])}"
    return "a table" if _is_table(hint) else _NAMES.get(hint, str(hint))  # type: ignore[call-overload]


@cache
def _hints(cls: type) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: hint for name, hint in get_type_hints(cls, include_extras=True).items() if name in names}


def _is_table(hint: object) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _made(value: object, hint: object, where: str, folder: Path | None) -> object:
    """Return ``value`` converted to the type ``hint``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Mapping and isinstance(value, dict):
        return {str(key): _made(item, arguments[1], f"{where} {key}", folder) for key, item in value.items()}
    if _is_table(hint):
        own = getattr(hint, "from_table", None)  # a table whose keys depend on one of them
        return fields_from(hint, value, where, folder=folder) if own is None else own(value, where, folder)  # type: ignore[arg-type]
    if not _fits(value, hint):
        message = f"Expected {where} to be {type_name(hint)}, got {type(value).__name__} {value!r}"
        raise SettingsError(message)
    if origin in {Union, types.UnionType}:
        absent = value == "" and Path in arguments and type(None) in arguments
        return None if absent else _made(value, next(_options(value, arguments)), where, folder)
    if origin is tuple and isinstance(value, list):
        tables = _is_table(arguments[0])  # counted in messages: they may lack the name
        return tuple(
            _made(item, arguments[0], f"{where} {place}" if tables else where, folder)
            for place, item in enumerate(value, start=1)
        )
    plain = arguments[0] if origin is Annotated else hint
    try:
        made = float(value) if plain is float and isinstance(value, int | float) else value
    except OverflowError as error:  # a float ends at 1.8e308, an integer of TOML does not
        message = f"Expected {where} to be a number, got one beyond the range of a float: {str(value)[:40]}…"
        raise SettingsError(message) from error
    rule = rule_of(hint)
    if rule is not None:
        rule.check(where, made)  # type: ignore[arg-type]  # its type is that of the field
    elif isinstance(made, float) and not math.isfinite(made):
        message = f"Expected {where} to be a finite number, got {made}"
        raise SettingsError(message)
    return _path(str(value), where, folder) if plain is Path else made


def _options(value: object, hints: tuple[object, ...]) -> Iterator[object]:
    return (hint for hint in hints if hint is not type(None) and _fits(value, hint))


def _fits(value: object, hint: object) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0])
    if origin in {Union, types.UnionType}:
        return any(_options(value, arguments))
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        return type(value) in {int, float}
    if _is_table(hint):
        return isinstance(value, Mapping)
    return type(value) is (str if hint is Path else hint)


def _path(value: str, where: str, folder: Path | None) -> Path:
    try:
        path = Path(without_tilde(value))
    except PathError as error:
        message = f"{where}: {error}"
        raise SettingsError(message) from error
    return path if folder is None else (folder / path).resolve()


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.15g}"
