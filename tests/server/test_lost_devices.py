"""A device that was lost during an outage of the broker does not stay ready for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.fleet.liveness import BACK_MS, LostDevices
from wire.codec import encode
from wire.memory_broker import MemoryTransport
from wire.messages import DeviceState, Get, State

if TYPE_CHECKING:
    from conftest import FakeDevice, MemoryFleet


def say(fleet: MemoryFleet, device: FakeDevice, state: DeviceState) -> None:
    """Let a device send its state."""
    device.say("state", State(state=state, at_ms=fleet.clock()), retain=True)
    fleet.turn()


def states(fleet: MemoryFleet) -> dict[str, str]:
    """Return every device's state."""
    return {device.device: device.state.value for device in fleet.app.parts.fleet.devices()}


def test_who_does_not_come_back_after_the_broker_is_lost(fleet: MemoryFleet) -> None:
    """Both sides of the time limit; devices that report, left in order, or never reported keep their state."""
    parts, devices = fleet.app.parts, [fleet.enrol(f"cam-{number}") for number in range(4)]
    for device, state in zip(devices, (DeviceState.READY, DeviceState.READY, DeviceState.DISCONNECTED), strict=False):
        say(fleet, device, state)
    fleet.clock.now_ms += 60_000
    started_ms = fleet.clock()
    lost = LostDevices(fleet=parts.fleet, events=parts.events, started_ms=lambda: started_ms)
    devices[1].say("get", Get(at_ms=started_ms))
    fleet.turn()
    lost.turn(started_ms + BACK_MS - 1)
    assert states(fleet) == {"cam-0": "ready", "cam-1": "ready", "cam-2": "disconnected", "cam-3": "init"}
    lost.turn(started_ms + BACK_MS)
    lost.turn(started_ms + BACK_MS + 1)
    assert states(fleet) == {"cam-0": "lost", "cam-1": "ready", "cam-2": "disconnected", "cam-3": "init"}
    assert fleet.codes() == ["not_back"]


def test_what_the_broker_retained_says_so_too_and_the_device_may_come_back(fleet: MemoryFleet) -> None:
    """Otherwise the server would accept the old state again at its next start."""
    device, parts = fleet.enrol(), fleet.app.parts
    say(fleet, device, DeviceState.READY)
    LostDevices(fleet=parts.fleet, events=parts.events, started_ms=lambda: fleet.clock() + 1).turn(
        fleet.clock() + 1 + BACK_MS
    )
    fleet.restart()
    fleet.turn()
    assert states(fleet) == {"cam-1": "lost"}
    say(fleet, device, DeviceState.READY)
    assert states(fleet) == {"cam-1": "ready"}


def test_a_will_is_no_sign_of_life(fleet: MemoryFleet) -> None:
    """The broker speaks, not the device: it was last seen before."""
    device = fleet.enrol()
    say(fleet, device, DeviceState.READY)
    seen_ms = fleet.clock()
    fleet.clock.now_ms += 60_000
    MemoryTransport(broker=fleet.broker, client_id="broker").start(lambda _: None, subscriptions=())
    topic = f"tf/1/berlin/{device.identity.device}/state"
    fleet.broker.publish("broker", topic, encode(State(state=DeviceState.LOST)), retain=True, handle=None)
    fleet.turn()
    known = fleet.app.parts.fleet.device("cam-1")
    assert (known.state, known.last_seen_ms) == (DeviceState.LOST, seen_ms)
