"""A device that was revoked or removed is no longer judged: in no pool, no denominator, no verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.fleet.fleet import Outbox
from server.fleet.revocation import Revocations
from server.store.fleet import DEVICES
from server.store.monitoring.evidence import latest_evidence, latest_pools
from wire.memory_broker import MemoryBroker, MemoryTransport

if TYPE_CHECKING:
    from conftest import FleetWorld


def leave(world: FleetWorld, device: str) -> None:
    """Revoke a device, whose windows may still be on their way."""
    outbox = Outbox(MemoryTransport(broker=MemoryBroker(), client_id="server"))
    Revocations(fleet=world.service.fleet, outbox=outbox, clock=lambda: 1).revoke(device)


def test_it_leaves_the_pools_and_the_rows_of_the_newest_window(world: FleetWorld) -> None:
    """Pools state how many devices they contain; their earlier evidence stays."""
    world.live(20)
    leave(world, "d0")
    world.live(2)
    with world.database.begin() as connection:
        members = {(row["attribute"], row["value"]): row["members"] for row in latest_pools(connection)}
        assert "d0" not in {row["device"] for row in latest_evidence(connection)}
    assert max(members.values()) == 5
    assert "d0" not in world.service._moment.state.current


def test_a_verdict_about_it_ends(world: FleetWorld) -> None:
    """A device that left while drifted does not keep a verdict for ever."""
    world.live(20)
    world.shifts = {"d0": {"luma_mean": -2.0}}
    world.live(12)
    assert world.kinds() == {"device_local"}
    leave(world, "d0")
    world.live(2 + world.service.config.quiet_windows)
    assert world.kinds() == set()


def test_who_comes_back_goes_on_with_its_baseline(world: FleetWorld) -> None:
    """The bank keeps its row; the first window puts it into the fleet again."""
    world.live(20)
    leave(world, "d0")
    world.live(2)
    with world.database.begin() as connection:
        connection.execute(DEVICES.update().values(ended=""))
    world.live(2)
    with world.database.begin() as connection:
        row = next(row for row in latest_evidence(connection) if row["device"] == "d0")
    assert row["phase"] == "judged"
