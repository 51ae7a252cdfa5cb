"""Is what should run here present, whole and chosen? If not, what brings it back. Pure: facts in, actions out.

Level-triggered: it looks at the state, never at what happened, so the same call is right after a power cut, a flipped
bit, a repair and a fallback, and calling it once too often does nothing. ``repair`` collects the facts and acts.

The release that should run is the one that was committed last; where no update ended so, the one that is current.

| what is found                                | what is done                                              |
|----------------------------------------------|-----------------------------------------------------------|
| the committed release is in no slot          | it is noted again from the update's record                |
| its bundle is whole, ``current`` names it    | nothing                                                   |
| its bundle is whole, ``current`` doesn't     | it is made current, unless it failed too many starts      |
| its bundle is damaged or missing             | fetched again, by the digest that was verified before     |
| … and it is not served from memory           | the other slot is current meanwhile, if it may run; else  |
|                                              | nothing is started                                        |
| another slot's bundle is damaged or missing  | fetched again, after the first                            |
| no slot says anything that can be read       | ``release_lost``: only the server can help                |

A fallback never goes below the security floor, nor anywhere while the floor is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.updater.storage.integrity import Condition
from edge_agent.updater.storage.slots import NAMES, SlotRelease, other


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFacts:
    """One slot. ``tired``: its release failed too many starts in a row. ``noted``: its record says all of it."""

    release: SlotRelease | None = None
    noted: bool = True
    record: Condition = Condition.ABSENT
    bundle: Condition = Condition.ABSENT
    tired: bool = False

    @property
    def able(self) -> bool:
        """Whether it could serve now."""
        return self.release is not None and self.bundle is Condition.WHOLE and not self.tired


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found. ``committed``: the release that the update's record says was committed last, if one was.

    ``committed_bundle``: how its bundle is, wherever it belongs. ``served``: the digest of what the child serves,
    "" for nothing; that goes on from memory, whatever becomes of the file. ``floor`` None: lost.
    """

    current: str = ""
    pointer: Condition = Condition.ABSENT
    slots: Mapping[str, SlotFacts] = field(default_factory=dict)
    committed: SlotRelease | None = None
    committed_bundle: Condition = Condition.ABSENT
    served: str = ""
    floor: int | None = 0


@dataclass(frozen=True, slots=True)
class Note:
    """Write into ``slot`` that it points at ``release``."""

    slot: str
    release: SlotRelease


@dataclass(frozen=True, slots=True)
class Choose:
    """Make ``slot`` current and serve it."""

    slot: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the bundle of ``release`` back."""

    release: SlotRelease


Action = Note | Choose | Fetch


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order. ``code`` says why the device is degraded meanwhile; "" while it is not.

    ``rest``: what is current can't be served, so nothing is started until it can.
    """

    actions: tuple[Action, ...] = ()
    code: str = ""
    text: str = ""
    rest: bool = False


def reconcile(facts: Facts) -> Plan:
    """Return what brings the device from what it is to what it should be."""
    slots = {name: facts.slots.get(name, SlotFacts()) for name in NAMES}
    wanted = _wanted(facts, slots)
    if facts.committed is not None and not wanted:
        wanted = _room(facts, slots)
        slots[wanted] = SlotFacts(
            release=facts.committed, noted=False, record=Condition.WHOLE, bundle=facts.committed_bundle
        )
    if not wanted:
        if Condition.DAMAGED in {facts.pointer, *(one.record for one in slots.values())}:
            return Plan((), "release_lost", "Expected slots that say what is installed, got damaged ones: assign it")
        return Plan()
    first, second = slots[wanted], slots[other(wanted)]
    serving = first.release is not None and facts.served == first.release.sha256 and not first.tired
    stand_in = second.able and _allowed(second.release, facts.floor)
    chosen = wanted if first.able or serving or not stand_in else other(wanted)
    if first.tired and not stand_in:
        chosen = facts.current or wanted  # neither will do: that is for whoever counts the starts
    notes = [Note(name, one.release) for name, one in slots.items() if one.release is not None and not one.noted]
    choice = [Choose(chosen)] if chosen != facts.current else []
    fetches = [
        Fetch(one.release)
        for one in (first, second)
        if one.release is not None and one.bundle is not Condition.WHOLE and one.release.length_bytes
    ]
    rest = chosen == wanted and not serving and first.bundle is not Condition.WHOLE
    return Plan((*notes, *choice, *fetches), *_trouble(first), rest)


def _wanted(facts: Facts, slots: Mapping[str, SlotFacts]) -> str:
    """Return the slot of the release that should run, "" where it is in none."""
    held = {one.release.sha256: name for name, one in slots.items() if one.release is not None}
    if facts.committed is not None:
        return held.get(facts.committed.sha256, "")
    if slots.get(facts.current, SlotFacts()).release is not None:
        return facts.current
    if facts.pointer is Condition.WHOLE:
        return ""  # it says that none is current
    # ``current`` is lost: what may run anywhere comes before what may not, then the first
    ranked = sorted(held.values(), key=lambda name: (not slots[name].able, -_floor(slots[name].release), name))
    return ranked[0] if ranked else ""


def _room(facts: Facts, slots: Mapping[str, SlotFacts]) -> str:
    """Return the slot for a release that is in none: one that says nothing, else the one that is not current."""
    vacant = [name for name in NAMES if slots[name].release is None]
    return vacant[0] if vacant else other(facts.current)


def _floor(release: SlotRelease | None) -> int:
    return release.security_floor if release is not None else 0


def _allowed(release: SlotRelease | None, floor: int | None) -> bool:
    return release is not None and floor is not None and release.security_floor >= floor


def _trouble(first: SlotFacts) -> tuple[str, str]:
    name = first.release.release if first.release is not None else ""
    if first.bundle is Condition.DAMAGED:
        return "bundle_damaged", f"the bundle of {name} is not what was installed: it is fetched again"
    if first.bundle is Condition.ABSENT:
        return "bundle_lost", f"the bundle of {name} is gone: it is fetched again"
    if first.tired:
        return "slot_failed", f"{name} failed too many starts: assign it again or another one"
    return "", ""
