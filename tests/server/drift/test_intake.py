"""Invented references, artifacts, shapes and attributes are a fault of the device and affect no other."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.drift.health import Usual, faults
from server.drift.rows import attributes_left_out, attributes_of
from server.drift.verdicts import DeviceView, VerdictKind, conclude
from server.store.monitoring.windows import WINDOWS
from wire.histogram import BINS, Counters, Shape

if TYPE_CHECKING:
    from tests.server.drift.conftest import FleetWorld

KNOWN = ("a1" * 16, "b1" * 16)


@pytest.mark.parametrize(
    ("key", "code"),
    [(("00" * 16, "b1" * 16), "unknown_reference"), (("a1" * 16, "00" * 16), "reference_invalid")],
)
def test_a_window_of_no_published_release_is_a_fault(world: FleetWorld, key: tuple[str, str], code: str) -> None:
    """Neither an unknown reference nor a foreign artifact under a known one opens a bank."""
    world.live(1)
    world.keys = {"d1": key}
    world.live(1)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.kind, verdict.devices, verdict.detail) == ("device_fault", ("d1",), code)
    assert set(world.service._moment.state.banks) == {KNOWN}


def test_the_first_window_does_not_decide_how_many_streams_a_reference_has(world: FleetWorld) -> None:
    """A wrong shape is the fault of its sender, first or not; the others are judged, and their evidence stored."""
    wrong = Counters(Shape(2, 1, 1), 60, (60, *[0] * 15) * 2 + (0, 0, 60))
    world.arrive("d0", replace(world.report("d0", world.slot), counters=wrong), world.slot * 10_000)
    world.absent = {"d0"}
    world.live(1)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.devices, verdict.detail) == (("d0",), "shape_mismatch")
    assert sorted(world.service._moment.state.banks[KNOWN].rows) == ["d1", "d2", "d3", "d4", "d5"]
    world.arrive("d1", replace(world.report("d1", world.slot), counters=wrong), world.slot * 10_000)
    world.absent = {"d0", "d1"}
    world.live(1)
    assert world.service._written_slot == world.slot - 1


def test_a_window_that_cannot_be_read_stops_no_other(world: FleetWorld) -> None:
    """Damaged counters in the store are a fault of one device, not the end of every turn."""
    world.live(1)
    world.arrive("d0", world.report("d0", world.slot), world.slot * 10_000)
    with world.database.begin() as connection:
        damaged = WINDOWS.c.start_ms == world.slot * 10_000
        connection.execute(WINDOWS.update().where(damaged).values({"values": b"\0" * 8}))
    world.absent = {"d0"}
    world.live(1)
    (verdict,) = world.service.verdicts.open()
    assert (verdict.devices, verdict.detail) == (("d0",), "unreadable")


def test_a_thousand_attributes_of_a_device_cost_nothing() -> None:
    """Values that too few flagged devices share are not combined with each other."""
    invented = [{f"k{j}": f"{i}" for j in range(1000)} for i in range(6)]
    devices = [DeviceView(device=f"d{i}", attributes={**invented[i], "site": "a"}, flagged=i < 3) for i in range(6)]
    start_s = time.perf_counter()
    (verdict,) = conclude(devices, {})
    assert verdict.kind is VerdictKind.SITE
    assert time.perf_counter() - start_s < 2.0


@pytest.mark.parametrize(("embedding", "found"), [([30, 0], ["stuck"]), ([29, 1], [])])
def test_inputs_whose_embedding_varies_are_not_frozen(embedding: list[int], found: list[str]) -> None:
    """Two features stand still in narrow bins; only if the embedding does too, the input repeats itself."""
    counts = np.zeros((3, BINS), np.int64)
    counts[:2, 5], counts[2, 3:5] = 30, embedding
    even = np.full((3, BINS), 1 / BINS)
    normal = Usual(
        names=("a", "b", "e"), kinds=("input", "input", "embedding"), proportions=even, edges=np.zeros((3, BINS - 1))
    )
    assert [fault.code for fault in faults(counts, np.zeros(3, np.int64), 30, normal)] == found


def test_reported_attributes_are_few_and_short() -> None:
    """The operator's come first; the device's fill the rest, in order of their names."""
    reported = {f"k{i:04d}": "v" for i in range(1000)} | {"a": "x" * 1000, "lens": "b"}
    found = attributes_of("west", {"lens": "a"}, reported)
    assert len(found) == 33
    assert (found["lens"], found["site"], "a" in found) == ("a", "west", False)
    assert attributes_left_out(found, {"lens": "a"}, reported) == 970
    assert attributes_left_out(attributes_of("west", {"lens": "a"}, {"a": "b"}), {"lens": "a"}, {"a": "b"}) == 0
