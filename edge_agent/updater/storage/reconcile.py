"""Plans how to restore the release that should run: present, intact and current. Pure: facts in, actions out.

Level-triggered: it looks at the state, never at events, so the same call is right after a power cut, a flipped bit, a
repair and a fallback, and an extra call does nothing. ``repair`` collects the facts and acts.

The release that should run is the one committed last; if no update was committed, the current one.

| found                                        | action                                                    |
|----------------------------------------------|-----------------------------------------------------------|
| the committed release is in no slot          | it is written again from the update's record              |
| its bundle is whole, ``current`` names it    | nothing                                                   |
| its bundle is whole, ``current`` doesn't     | it is made current, unless it failed too many starts      |
| its bundle is damaged or missing             | fetched again, by the digest that was verified before     |
| … and it is not served from memory           | the other slot is current meanwhile, if it may run; else  |
|                                              | nothing is started                                        |
| another slot's bundle is damaged or missing  | fetched again, after the first                            |
| no slot can be read                          | ``release_lost``: only the server can help                |

A fallback never goes below the security floor; while the floor is lost there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.device.record_file import Condition
from edge_agent.updater.storage.slots import NAMES, SlotRelease, other


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFacts:
    """One slot. ``tired``: its release failed too many starts in a row. ``noted``: its record is complete."""

    release: SlotRelease | None = None
    noted: bool = True
    record: Condition = Condition.ABSENT
    bundle: Condition = Condition.ABSENT
    tired: bool = False

    @property
    def able(self) -> bool:
        """Whether it can serve now."""
        return self.release is not None and self.bundle is Condition.WHOLE and not self.tired


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledFacts:
    """The facts found. ``committed``: the release committed last by the update's record, if any.

    ``committed_bundle``: the condition of its bundle. ``served``: the digest of the bundle that the child serves, ""
    for none; it is served from memory, whatever happens to the file. ``floor`` None: lost.
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
    """Point ``slot`` at ``release``."""

    slot: str
    release: SlotRelease


@dataclass(frozen=True, slots=True)
class Choose:
    """Make ``slot`` current and serve it."""

    slot: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download the bundle of ``release`` again."""

    release: SlotRelease


Action = Note | Choose | Fetch


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """The actions, in order. ``code``: why the device is degraded meanwhile, "" if it is not.

    ``rest``: the current release can't be served, so nothing is started until it can.
    """

    actions: tuple[Action, ...] = ()
    code: str = ""
    text: str = ""
    rest: bool = False


def reconcile(facts: InstalledFacts) -> RepairPlan:
    """Return the plan that restores the release that should run."""
    slots = {name: facts.slots.get(name, SlotFacts()) for name in NAMES}
    wanted = _wanted(facts, slots)
    if facts.committed is not None and not wanted:
        vacant = [name for name in NAMES if slots[name].release is None]  # unreadable or empty
        wanted = vacant[0] if vacant else other(facts.current)
        slots[wanted] = SlotFacts(
            release=facts.committed, noted=False, record=Condition.WHOLE, bundle=facts.committed_bundle
        )
    if not wanted:
        if Condition.DAMAGED in {facts.pointer, *(one.record for one in slots.values())}:
            return RepairPlan(
                actions=(),
                code="release_lost",
                text="Expected slots that record what is installed, got damaged ones: assign a release",
            )
        return RepairPlan()
    first, second = slots[wanted], slots[other(wanted)]
    serving = first.release is not None and facts.served == first.release.sha256 and not first.tired
    stand_in = second.able and facts.floor is not None and _floor(second.release) >= facts.floor
    chosen = wanted if first.able or serving or not stand_in else other(wanted)
    if first.tired and not stand_in:
        chosen = facts.current or wanted  # neither can run: left to the code that counts the starts
    notes = [Note(name, one.release) for name, one in slots.items() if one.release is not None and not one.noted]
    choice = [Choose(chosen)] if chosen != facts.current else []
    fetches = [
        Fetch(one.release)
        for one in (first, second)
        if one.release is not None and one.bundle is not Condition.WHOLE and one.release.length_bytes
    ]
    rest = chosen == wanted and not serving and first.bundle is not Condition.WHOLE
    code, text = _trouble(first)
    return RepairPlan(actions=(*notes, *choice, *fetches), code=code, text=text, rest=rest)


def _wanted(facts: InstalledFacts, slots: Mapping[str, SlotFacts]) -> str:
    """Return the slot of the release that should run, "" if it is in none."""
    held = {one.release.sha256: name for name, one in slots.items() if one.release is not None}
    if facts.committed is not None:
        return held.get(facts.committed.sha256, "")
    if slots.get(facts.current, SlotFacts()).release is not None:
        return facts.current
    if facts.pointer is Condition.WHOLE:
        return ""  # ``current`` names no slot
    # ``current`` is lost: slots that can serve come first, then the higher security floor, then by name
    ranked = sorted(held.values(), key=lambda name: (not slots[name].able, -_floor(slots[name].release), name))
    return ranked[0] if ranked else ""


def _floor(release: SlotRelease | None) -> int:
    return release.security_floor if release is not None else 0


def _trouble(first: SlotFacts) -> tuple[str, str]:
    name = first.release.release if first.release is not None else ""
    if first.bundle is Condition.DAMAGED:
        return "bundle_damaged", f"the bundle of {name} is not what was installed: it is fetched again"
    if first.bundle is Condition.ABSENT:
        return "bundle_lost", f"the bundle of {name} is gone: it is fetched again"
    if first.tired:
        return "slot_failed", f"{name} failed too many starts: assign it again or another one"
    return "", ""
