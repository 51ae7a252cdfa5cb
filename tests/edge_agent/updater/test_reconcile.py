"""From the actual to the desired state of a device: the table, as data."""

import itertools
from dataclasses import replace

import pytest

from edge_agent.device.record_file import Condition
from edge_agent.updater.storage.reconcile import Choose, Fetch, InstalledFacts, Note, SlotFacts, reconcile
from edge_agent.updater.storage.slots import SlotRelease

OLD, NEW = (
    SlotRelease(release="m-1", sha256="11", security_floor=1, latency_budget_ms=0.0, length_bytes=10),
    SlotRelease(release="m-2", sha256="22", security_floor=1, latency_budget_ms=0.0, length_bytes=20),
)
WHOLE, ABSENT, DAMAGED = Condition
A = SlotFacts(release=OLD, record=WHOLE, bundle=WHOLE)
B = SlotFacts(release=NEW, record=WHOLE, bundle=WHOLE)
BROKEN = SlotFacts(record=DAMAGED)
GOOD = InstalledFacts(
    current="b", pointer=WHOLE, slots={"a": A, "b": B}, committed=NEW, committed_bundle=WHOLE, floor=1
)


def given(a: SlotFacts = A, b: SlotFacts = B, **changes: object) -> InstalledFacts:
    """Return the good facts with changes."""
    return replace(GOOD, slots={"a": a, "b": b}, **changes)


def with_bundle(slot: SlotFacts, bundle: Condition) -> SlotFacts:
    """Return a slot whose bundle is so."""
    return replace(slot, bundle=bundle)


@pytest.mark.parametrize(
    ("facts", "actions", "code"),
    [
        (GOOD, (), ""),
        (InstalledFacts(), (), ""),  # nothing was ever installed
        (given(current="a"), (Choose("b"),), ""),
        (given(current="", pointer=DAMAGED), (Choose("b"),), ""),
        (given(b=with_bundle(B, DAMAGED)), (Choose("a"), Fetch(NEW)), "bundle_damaged"),
        (given(b=with_bundle(B, ABSENT)), (Choose("a"), Fetch(NEW)), "bundle_lost"),
        (given(b=with_bundle(B, DAMAGED), current="a"), (Fetch(NEW),), "bundle_damaged"),
        (given(b=with_bundle(B, DAMAGED), served="22"), (Fetch(NEW),), "bundle_damaged"),
        (given(b=with_bundle(B, DAMAGED), floor=2), (Fetch(NEW),), "bundle_damaged"),  # the other is below the floor
        (given(b=with_bundle(B, DAMAGED), floor=None), (Fetch(NEW),), "bundle_damaged"),
        (given(a=with_bundle(A, DAMAGED)), (Fetch(OLD),), ""),  # what serves is whole: nothing to worry anybody with
        (
            given(with_bundle(A, DAMAGED), with_bundle(B, DAMAGED)),
            (Fetch(NEW), Fetch(OLD)),
            "bundle_damaged",
        ),
        (given(b=BROKEN), (Note("b", NEW),), ""),
        (given(b=BROKEN, committed_bundle=ABSENT), (Note("b", NEW), Choose("a"), Fetch(NEW)), "bundle_lost"),
        (given(a=BROKEN, b=BROKEN, current=""), (Note("a", NEW), Choose("a")), ""),
        (given(a=BROKEN, b=BROKEN, current="", committed=None), (), "release_lost"),
        (given(a=BROKEN, committed=None), (), ""),
        (given(committed=None, current="a"), (), ""),  # rolled back, or refused: what is current stays
        (given(committed=None, current="", pointer=DAMAGED), (Choose("a"),), ""),
        (given(a=SlotFacts(), b=SlotFacts(), current="", committed=None, pointer=WHOLE), (), ""),
        (given(b=replace(B, tired=True), current="a"), (), "slot_failed"),
        (given(replace(A, tired=True), replace(B, tired=True), current="a"), (), "slot_failed"),
        (given(b=replace(B, release=replace(NEW, length_bytes=0), bundle=DAMAGED)), (Choose("a"),), "bundle_damaged"),
        (given(b=replace(B, noted=False)), (Note("b", NEW),), ""),
    ],
)
def test_each_row_of_the_table(facts: InstalledFacts, actions: tuple, code: str) -> None:
    """The state that is found, the action, and why the device is degraded meanwhile."""
    plan = reconcile(facts)
    assert (plan.actions, plan.code) == (actions, code)


def every() -> list[InstalledFacts]:
    """Return the product of everything that may be found."""
    slots = [
        SlotFacts(release=release, record=record, bundle=bundle, tired=tired)
        for release, record in [(OLD, WHOLE), (NEW, WHOLE), (None, WHOLE), (None, DAMAGED), (None, ABSENT)]
        for bundle, tired in [(WHOLE, False), (DAMAGED, False), (ABSENT, False), (WHOLE, True)]
    ]
    return [
        InstalledFacts(
            current=current, pointer=pointer, slots={"a": a, "b": b}, committed=committed, floor=floor, served=served
        )
        for a, b in itertools.product(slots, slots)
        for current, pointer in [("a", WHOLE), ("b", WHOLE), ("", WHOLE), ("", DAMAGED)]
        for committed, floor, served in itertools.product([NEW, None], [1, 2, None], ["", "22"])
        if not current or {"a": a, "b": b}[current].release is not None
    ]


def after(facts: InstalledFacts, actions: tuple) -> InstalledFacts:
    """Return the facts after all actions; every fetch succeeds, and a repaired release has no failed starts."""
    slots, current = dict(facts.slots), facts.current
    fetched = {action.release.sha256 for action in actions if isinstance(action, Fetch)}
    for action in actions:
        if isinstance(action, Note):
            slots[action.slot] = SlotFacts(release=action.release, record=WHOLE, bundle=facts.committed_bundle)
        elif isinstance(action, Choose):
            current = action.slot
    for name, slot in slots.items():
        if slot.release is not None and slot.release.sha256 in fetched:
            slots[name] = replace(slot, bundle=WHOLE, tired=False)
    return replace(facts, slots=slots, current=current, pointer=WHOLE if current else facts.pointer)


def test_from_every_state_it_comes_to_rest_and_never_below_the_floor() -> None:
    """After a few steps there is nothing left to do; no step makes a release below the floor current."""
    for start in every():
        facts = start
        for _ in range(4):
            plan = reconcile(facts)
            for action in plan.actions:
                if isinstance(action, Choose) and facts.committed is not None:
                    chosen = after(facts, plan.actions).slots[action.slot].release
                    assert chosen == facts.committed or (facts.floor is not None and facts.floor <= 1)
            facts = after(facts, plan.actions)
        plan = reconcile(facts)
        assert plan.actions == (), start
        if facts.committed is not None and plan.code == "":
            assert facts.slots[facts.current].release == facts.committed
