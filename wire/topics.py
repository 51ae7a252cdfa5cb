"""Topics: one subtree ``tf/1/<site>/<device>/…`` per device, so that one ACL pattern suffices.

Decides which topics exist and which names they may contain. Does not decide who may use them (the broker's ACL does,
see ``docs/reference/wire.md``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from wire.errors import NameRefusedError, TopicError

PREFIX = "tf/1"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PARTS_WITHOUT_LEAF = 5
_PARTS_WITH_LEAF = 6
_TOPICS_REMEMBERED = 8_192  # topics of a device repeat


class Kind(StrEnum):
    """The fifth level of a topic."""

    STATE = "state"
    REPORTED = "reported"
    DESIRED = "desired"
    TELE = "tele"
    EVENT = "event"
    CMD = "cmd"
    RES = "res"
    GET = "get"
    BLOB = "blob"


CHUNK_REQUEST, CHUNK_DATA = "req", "data"
"""The leaves of ``blob``."""
WITH_LEAF = frozenset({Kind.TELE, Kind.CMD, Kind.BLOB})


def is_name(text: str) -> bool:
    """Return whether ``text`` may be a level of a topic (1 to 63 of ``a-z 0-9 _ -``)."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it may be a level of a topic (1 to 63 of ``a-z 0-9 _ -``).

    Raises:
        NameRefusedError: If it may not; ``what`` names the subject.
    """
    if not is_name(name):
        message = f"Expected {what} of 1 to 63 characters a-z 0-9 _ -, starting with a letter or digit, got {name!r}"
        raise NameRefusedError(message)
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic of one device."""

    site: str
    device: str
    kind: Kind
    leaf: str = ""

    def __str__(self) -> str:
        """Return the topic as an MQTT topic name."""
        levels = [PREFIX, self.site, self.device, self.kind.value]
        return "/".join([*levels, self.leaf] if self.leaf else levels)


@lru_cache(maxsize=_TOPICS_REMEMBERED)
def parse_topic(text: str) -> Topic:
    """Return the topic in ``text``.

    Raises:
        TopicError: If it is outside our subtree, has a leaf that its kind does not allow, or lacks one.
    """
    parts = text.split("/")
    if len(parts) not in {_PARTS_WITHOUT_LEAF, _PARTS_WITH_LEAF} or "/".join(parts[:2]) != PREFIX:
        message = f"Expected a topic {PREFIX}/<site>/<device>/<kind>, got {text[:200]!r}"
        raise TopicError(message)
    try:
        kind = Kind(parts[4])
        names = [check_name(name, "a topic level") for name in [parts[2], parts[3], *parts[5:]]]
    except (ValueError, NameRefusedError) as error:
        message = f"Expected a known kind and names of a-z 0-9 _ -, got {text[:200]!r}"
        raise TopicError(message) from error
    if (kind in WITH_LEAF) != (len(parts) == _PARTS_WITH_LEAF):
        message = f"Expected {kind} {'with' if kind in WITH_LEAF else 'without'} a last level, got {text[:200]!r}"
        raise TopicError(message)
    return Topic(site=names[0], device=names[1], kind=kind, leaf="".join(names[2:]))


def subscription_qos(topic: str) -> int:
    """Return 0 for chunks of blobs, which are asked for again and must not wait for a device that is away; else 1."""
    return 0 if topic.endswith(f"/{Kind.BLOB}/{CHUNK_DATA}") else 1


def fleet_filter(kind: Kind) -> str:
    """Return the MQTT filter that matches ``kind`` of every device."""
    return f"{PREFIX}/+/+/{kind.value}" + ("/#" if kind in WITH_LEAF else "")


def device_filter(site: str, device: str, kind: Kind) -> str:
    """Return the MQTT filter that matches ``kind`` of one device."""
    return f"{PREFIX}/{site}/{device}/{kind.value}" + ("/#" if kind in WITH_LEAF else "")
