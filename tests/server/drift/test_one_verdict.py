"""One drift of one model is one verdict, however the windows group it; another drift has its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import pytest

from server.drift.ledger import Finding, StoredVerdict, Verdicts
from server.drift.service import DriftService
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.registry.events import EventLog
from server.store.database import open_database
from tests.server.drift.conftest import NEW, Shelf
from wire.messages import Severity

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

FLEET, SITE, COHORT, LOCAL = VerdictKind.FLEET, VerdictKind.SITE, VerdictKind.COHORT, VerdictKind.DEVICE_LOCAL
OSLO, ROME = ("d0", "d1", "d2"), ("d3", "d4", "d5")
_WHERE = {OSLO: (("site", "oslo"),), OSLO[:2]: (("site", "oslo"),), ROME: (("site", "rome"),)}


@dataclass(slots=True)
class Book:
    """A ledger of verdicts, and the window that comes next."""

    verdicts: Verdicts
    window: int = 0

    def note(self, *windows: list[Finding]) -> list[tuple[int, str, int]]:
        """Note one window after the other; return id, kind and windows of what is open after them."""
        for findings in windows:
            now_ms = self.window * 10
            self.verdicts.note(findings, now_ms, now_ms, quiet_ms=20, judged=True)
            self.window += 1
        return [(one.id, one.kind.value, one.windows) for one in self.verdicts.open()]

    def texts(self, count: int) -> list[str]:
        """Return the texts of the newest events."""
        return [one.text for one in EventLog(self.verdicts.database).latest(count)]


@pytest.fixture
def ledger(store_url: str) -> Book:
    """No verdicts yet."""
    database = open_database(store_url)
    return Book(Verdicts(database, EventLog(database)))


def found(kind: VerdictKind, devices: tuple[str, ...], *streams: str, model: str = "tags") -> Finding:
    """Return a finding with its evidence in ``streams`` ("noise" if none is named)."""
    where = _WHERE.get(devices, (("lens", "b"),)) if kind in {SITE, COHORT} else ()
    return Finding(
        verdict=DriftVerdict(kind=kind, devices=devices, attributes=where, model=model), cause=" ".join(streams) or "x",
        release=f"{model}-1", model=model, streams=streams or ("noise",),
    )  # fmt: skip


@pytest.mark.parametrize(("before", "after", "severity"), [
    ((FLEET, OSLO + ROME), (SITE, OSLO), Severity.INFO),
    ((SITE, OSLO), (FLEET, OSLO + ROME), Severity.WARNING),
    ((SITE, OSLO), (COHORT, ("d0", "d1", "d4")), Severity.WARNING),
])  # fmt: skip
def test_what_is_grouped_otherwise_goes_on(
    ledger: Book, before: tuple[VerdictKind, tuple[str, ...]], after: tuple[VerdictKind, tuple[str, ...]],
    severity: Severity,
) -> None:  # fmt: skip
    """Under its id, since its first window, of the devices of now; an event tells it, a warning if devices join."""
    assert ledger.note([found(*before)], [found(*after)], [found(*after)]) == [(1, after[0].value, 3)]
    (verdict,) = ledger.verdicts.latest()
    assert (verdict.devices, verdict.first_window_ms, verdict.key) == (after[1], 0, found(*after).verdict.key)
    event = EventLog(ledger.verdicts.database).latest(1)[0]
    assert f", {before[0].value}" in event.text
    assert "so far: " in event.text
    assert (event.severity, event.data) == (severity, {"verdict": 1})
    assert ledger.note([], [], []) == []


@pytest.mark.parametrize("other", [
    found(SITE, OSLO, "luma_mean"), found(SITE, OSLO, model="other"), found(COHORT, ("d2", "d6", "d7")),
    found(VerdictKind.NEW_PLACE, OSLO[:1]), found(VerdictKind.DEVICE_FAULT, OSLO[:1]),
    replace(found(SITE, OSLO), streams=()),
])  # fmt: skip
def test_another_drift_is_its_own_verdict(ledger: Book, other: Finding) -> None:
    """In other streams, of another model, of mostly other devices, of another kind, or in no known stream."""
    first = found(SITE, (*OSLO, "d8")) if other.verdict.kind is COHORT else found(FLEET, OSLO + ROME)
    assert len(ledger.note([first], [other])) == 2


def test_two_verdicts_that_are_found_at_once_stay_two(ledger: Book) -> None:
    """What one window shows apart is apart."""
    both = [found(SITE, OSLO), found(LOCAL, ("d0",))]
    assert ledger.note(both, both) == [(1, "site", 2), (2, "device_local", 2)]


def test_a_fleet_that_falls_into_two_sites_goes_on_as_the_larger(ledger: Book) -> None:
    """The other one opens; a fleet again takes one over, and the other is part of it."""
    assert ledger.note([found(FLEET, OSLO + ROME)], [found(SITE, OSLO[:2]), found(SITE, ROME)]) == [
        (1, "site", 2), (2, "site", 1),
    ]  # fmt: skip
    assert ledger.verdicts.open()[0].devices == ROME
    assert ledger.note([found(FLEET, OSLO + ROME)]) == [(1, "fleet", 3)]
    second = cast("StoredVerdict", ledger.verdicts.verdict(2))
    assert (second.part_of, second.closed_ms) == (1, 20)
    assert any(text.startswith("Part of verdict 1 after 1 window: site oslo: d0") for text in ledger.texts(3))


def test_single_devices_become_part_of_their_site(ledger: Book) -> None:
    """Which is a verdict of its own: windows with one device alone don't count as windows of several."""
    assert ledger.note(*[[found(LOCAL, ("d0",))]] * 5, [found(SITE, OSLO[:2])]) == [(2, "site", 1)]
    assert [one.part_of for one in ledger.verdicts.latest()] == [0, 2]


def test_half_of_a_site_holds_its_verdict_and_less_does_not(ledger: Book) -> None:
    """One of two flagged devices: still the site, and no window of it. One of six: by itself once the fleet is over."""
    local = [found(LOCAL, ("d0",))]
    assert ledger.note([found(SITE, OSLO[:2])], *[local] * 6) == [(1, "site", 1)]
    assert ledger.note([], []) == []
    assert ledger.note([found(FLEET, OSLO + ROME)], local) == [(2, "fleet", 1)]
    assert ledger.note(local) == [(3, "device_local", 1)]


def test_another_fault_of_a_device_of_a_site_opens_at_once(ledger: Book) -> None:
    """In other streams than the site's: nothing is hidden by an open verdict."""
    assert ledger.note([found(SITE, OSLO)], [found(LOCAL, ("d0",), "luma_mean")])[-1] == (2, "device_local", 1)


def test_silent_devices_keep_their_verdict(ledger: Book) -> None:
    """A verdict that is still found, but not fresh, is neither taken over nor part of another."""
    stale = replace(found(SITE, OSLO), fresh=False)
    assert ledger.note([found(SITE, OSLO)], [stale, found(FLEET, OSLO + ROME)]) == [(1, "site", 1), (2, "fleet", 1)]


@pytest.fixture
def beside_another(world: FleetWorld) -> FleetWorld:
    """Two devices at one site run one model beside four of another; all have their baselines."""
    cast("Shelf", world.service.references).model = "biopsies"
    world.keys = dict.fromkeys(("d0", "d1"), NEW)
    world.live(15)
    return world


@pytest.mark.parametrize("shift", [0.5, 0.6, 0.8])
def test_a_model_at_one_site_has_one_verdict(
    beside_another: FleetWorld, restarted: Callable[[FleetWorld], DriftService], shift: float
) -> None:
    """Whether its pool alarms first, one device or both: one at a time, over a restart, too."""
    beside_another.shifts = {one: {"noise": shift} for one in ("d0", "d1")}
    for window in range(25):
        beside_another.live(1)
        assert len(beside_another.service.verdicts.open()) <= 1
        if window == 4:
            beside_another.service = restarted(beside_another)
            cast("Shelf", beside_another.service.references).model = "biopsies"
    verdict, *others = beside_another.service.verdicts.latest()
    assert (verdict.kind, verdict.devices, verdict.cause) == (SITE, ("d0", "d1"), "noisier")
    assert (verdict.model, verdict.closed_ms, verdict.streams) == ("biopsies", 0, ("noise",))
    assert all((one.kind, one.part_of) == (LOCAL, verdict.id) for one in others)


def test_a_pool_of_a_whole_site_names_its_cause(beside_another: FleetWorld) -> None:
    """There is no pool of the site itself, as it has all devices of the model."""
    beside_another.shifts = {one: {"noise": 0.4} for one in ("d0", "d1")}
    while not beside_another.service.verdicts.open():
        beside_another.live(1)
    assert not beside_another.service._outcome.flagged
    (verdict,) = beside_another.service.verdicts.open()
    assert (verdict.kind, verdict.cause) == (SITE, "noisier")


def test_a_device_alone_has_one_verdict(world: FleetWorld) -> None:
    """It has no pool and no site; its verdict stays one."""
    world.absent = set(world.devices) - {"d4"}
    world.live(15)
    world.shifts = {"d4": {"noise": 0.6}}
    world.live(25)
    assert [(one.kind, one.devices) for one in world.service.verdicts.latest() if one.kind is LOCAL] == [
        (LOCAL, ("d4",))
    ]
