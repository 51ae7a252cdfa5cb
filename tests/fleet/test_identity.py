"""Two agents of one identity: on one state directory the second is refused; of two copies neither ends."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
EXIT_IN_USE = 4


def test_a_second_agent_on_the_same_state_is_refused(fleet: Fleet) -> None:
    """It names the process that uses the directory and ends with its own exit code; the first one continues."""
    first = fleet.add("dev")
    second = fleet.agent("dev-again", first.state)
    second.start()
    assert second.ended() == EXIT_IN_USE
    assert f"error [identity_in_use]: Expected {first.state}" in second.tail()
    assert f"pid {first.program.process.pid}" in second.tail()
    assert "Traceback" not in second.tail()
    assert first.program.process.poll() is None


def test_a_copy_of_an_identity_does_not_end_the_device(fleet: Fleet, wait: Wait) -> None:
    """A cloned disk: both keep trying, an event reports it, and the device is back when the copy has gone."""
    first = fleet.add("dev")
    clone = fleet.root / "clone"
    clone.mkdir(mode=0o700)
    for name in ("identity.json", "root.json", "agent.toml"):
        shutil.copy(first.state / name, clone / name)
    second = fleet.agent("clone", clone)
    second.start()
    wait(lambda: "identity_in_use_twice" in codes(fleet), "the event")
    assert (first.program.process.poll(), second.process.poll()) == (None, None)
    second.stop()
    boot = first.status()["boot"]
    wait(lambda: first.status()["connected"], "connected again")
    wait(lambda: (fleet.get("/api/devices/dev")["reported"] or {}).get("boot") == boot, "its own report")
    assert first.program.process.poll() is None


def codes(fleet: Fleet) -> set[str]:
    """Return the codes of the device's events."""
    return {event["code"] for event in fleet.events(device="dev")}
