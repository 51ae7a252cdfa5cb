"""The file of ``fleet-server apply``: users' roles, what people call devices, and which releases are to be rolled out.

Only what can be asked for again without harm is here. Passwords and tokens are secrets, attributes and sites are of the
claim, alert routes and policies stand in ``server.toml`` beside the server (ADR 82).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from server.access.roles import PEOPLES
from server.client import DeviceInfo, RolloutInfo
from server.fleet.naming import MAX_TITLE
from server.rollout.scope import Scope
from server.wording import listed
from wire.errors import SettingsError
from wire.settings import Bound, OneOf, fields_from, given_of, parse_toml

FORMAT = 1
MAX_BYTES = 4 * 1024 * 1024
MAX_USERS, MAX_DEVICES, MAX_ROLLOUTS = 1_000, 20_000, 200
_BARE = re.compile(r"[A-Za-z0-9_-]+")
Ratio = Annotated[float, Bound(0, 1)]
Seconds = Annotated[float, Bound(0, 366 * 86_400, above=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedUser:
    """A user who is there already: the role, and whether it may log in. None: as it is."""

    role: Annotated[str, OneOf(tuple(role.value for role in PEOPLES))] | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedDevice:
    """A device that has enrolled: its name, its tags, and whether it is muted until further notice. None: as it is."""

    title: str | None = None
    tags: tuple[str, ...] | None = None
    muted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedWindow:
    """A maintenance window."""

    start: str
    end: str
    days: tuple[str, ...] = ()
    time_zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedShadow:
    """For how long devices compare the release with the one that serves, before they switch."""

    seconds: Seconds
    max_ratio: Ratio = 1.0
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRollout:
    """The release that the devices of a scope are to run, and how it gets there. None: the setting of [rollout]."""

    release: str
    scope: Scope = field(default_factory=Scope)
    newcomers: bool = False
    canary: Annotated[int, Bound(1, 20_000)] | None = None
    first: tuple[str, ...] = ()
    window: WantedWindow | None = None
    shadow: WantedShadow | None = None
    deadline_s: Seconds | None = None
    probation_s: Seconds | None = None
    success_ratio: Ratio | None = None
    error_ratio: Ratio | None = None
    max_bytes_per_s: Annotated[int, Bound(0, 2**31 - 1)] = 0
    approved: bool = False

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            SettingsError: If both ways to choose the first group are given.
        """
        if self.first and self.canary is not None:
            raise SettingsError("Expected canary or first, got both: name the devices, or say how many")

    @property
    def body(self) -> dict[str, Any]:
        """The request for it."""
        left = {name: value for name, value in given_of(self).items() if name not in {"first", "canary"}}
        for name in ("scope", "window", "shadow"):
            if name in left:
                left[name] = given_of(getattr(self, name))
        return {**left, "release": self.release, "canary": list(self.first) or self.canary}


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFleet:
    """The whole file."""

    format: Annotated[int, Bound(FORMAT, FORMAT)]
    users: Mapping[str, WantedUser] = field(default_factory=dict)
    devices: Mapping[str, WantedDevice] = field(default_factory=dict)
    rollouts: tuple[WantedRollout, ...] = ()


def read_wanted(data: bytes, where: str) -> WantedFleet:
    """Return the wanted state in a file of TOML; ``where`` is its name.

    Raises:
        SettingsError: If it is no TOML (with the line), a key is unknown, a value has the wrong type or range, it is
            too large, or two rollouts have one scope for one release.
    """
    found = fields_from(WantedFleet, parse_toml(data, where, limit_bytes=MAX_BYTES), where)
    for name, count, most in (
        ("users", len(found.users), MAX_USERS), ("devices", len(found.devices), MAX_DEVICES),
        ("rollouts", len(found.rollouts), MAX_ROLLOUTS),
    ):  # fmt: skip
        if count > most:
            raise SettingsError(f"Expected at most {most} {name} in {where}, got {count}: part the file")
    _expect_printable(asdict(found), where)
    for name, device in found.devices.items():
        if len(device.title or "") > MAX_TITLE:
            message = f"Expected devices.{name}.title of at most {MAX_TITLE} characters in {where}"
            raise SettingsError(f"{message}, got {len(device.title or '')}: shorten it")
    for place, one in enumerate(found.rollouts, start=1):
        for other in found.rollouts[place:]:
            if (one.release, scope_key(given_of(one.scope))) == (other.release, scope_key(given_of(other.scope))):
                raise SettingsError(f"Expected {one.release} once for a scope in {where}, got it twice: remove one")
    return found


def _expect_printable(value: object, where: str, name: str = "") -> None:
    """Check that no text has a character that a terminal would obey instead of showing it."""
    parts: Iterable[tuple[str, object]] = ()
    if isinstance(value, Mapping):
        _expect_printable(list(value), where, name or "the names")
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = (("", one) for one in value)
    elif isinstance(value, str) and not value.isprintable():
        message = f"Expected printable characters in {name} of {where}, got {value[:60]!r}"
        raise SettingsError(message)
    for key, one in parts:
        _expect_printable(one, where, ".".join(part for part in (name, key) if part))


def scope_key(scope: Mapping[str, Any]) -> str:
    """Return the same text for scopes that choose the same devices, whatever the order of their values."""
    filters = {
        name: sorted(value) if isinstance(value, list | tuple) else value for name, value in scope.items() if value
    }
    return json.dumps(filters, sort_keys=True)


def written(
    users: Mapping[str, WantedUser] | None, devices: Mapping[str, DeviceInfo], rollouts: tuple[RolloutInfo, ...]
) -> Iterator[str]:
    """Yield the lines of a file that asks for what there is; ``users`` None: the token may not see them."""
    yield f"format = {FORMAT}"
    if users is None:
        yield "# users are not here: only an admin's token sees them"
    for name, user in (users or {}).items():
        yield f"\n[users.{_key(name)}]"
        yield from _pairs(given_of(user))
    for name, device in devices.items():
        said: dict[str, Any] = {"title": device.title, "tags": list(device.tags), "muted": device.muted_ms > 0}
        if any(said.values()):
            yield f"\n[devices.{_key(name)}]"
            yield from _pairs({key: value for key, value in said.items() if value})
    for rollout in rollouts:
        yield "\n[[rollouts]]"
        scope = {name: value for name, value in rollout.scope.items() if value}
        window = {name: value for name, value in (rollout.window or {}).items() if value}
        wanted = {
            "release": rollout.release, "newcomers": rollout.newcomers, "max_bytes_per_s": rollout.max_bytes_per_s,
            "scope": scope, "window": window, "shadow": dict(rollout.shadow or {}),
        }  # fmt: skip
        yield from _pairs({key: value for key, value in wanted.items() if value})


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{_key(name)} = {_value(value)}" for name, value in table.items())


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: object) -> str:
    """Return a value of TOML. Source: TOML 1.0, "String": as in JSON, but for DEL, which is escaped too."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pairs(value))} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def words(values: object) -> str:
    """Return a value in a line of a plan."""
    return listed([str(one) for one in values], 20) if isinstance(values, list | tuple) else str(values)
