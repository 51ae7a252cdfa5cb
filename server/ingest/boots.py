"""Orders the boots of a device: their ids are random, and a device's clock can't be trusted.

A running device sends ``state`` and ``reported`` before anything else, so a boot first mentioned in one of them is
newer than all known boots. Messages kept from earlier boots follow, oldest first: a boot first mentioned in an event,
while another boot is known, is placed right before the newest.

Pure. A place never changes once assigned, so events carry it, and their order holds when the boots are deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SPAN = 2**20  # room between two boots for others that are mentioned late


@dataclass(frozen=True, slots=True)
class Mention:
    """A message that names ``boot``; ``runs``: the message shows that this boot is the running one."""

    boot: str
    runs: bool


def places(known: Mapping[str, int], mentions: Iterable[Mention]) -> dict[str, int]:
    """Return the places of the boots in ``mentions`` that are not in ``known``; a higher place is a later boot."""
    everyone, fresh = dict(known), {}
    for mention in mentions:
        if mention.boot in everyone:
            continue
        newest = max(everyone.values(), default=0)
        if mention.runs or not everyone:
            place = newest + _SPAN
        else:
            below = max((place for place in everyone.values() if place < newest), default=0)
            place = max(below, newest - _SPAN) + 1
        everyone[mention.boot] = fresh[mention.boot] = place
    return fresh
