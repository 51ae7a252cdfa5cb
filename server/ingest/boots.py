"""The order of a device's boots among themselves: their names are random, and no clock of a device can be trusted.

A device that runs says so (``state``, ``reported``) before it sends anything else, so a boot that is first heard of
in that way is newer than all before. What the device kept from earlier boots comes after that, oldest first: a boot
that is first heard of in an event, while another is known, goes right before the newest.

Pure. A place once given is never changed, so events carry it, and its order holds when the boots are forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SPAN = 2**20  # room for boots that are heard of late between two that were heard of in time


@dataclass(frozen=True, slots=True)
class Mention:
    """A message of ``boot``; ``runs``: it says that this boot runs now."""

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
