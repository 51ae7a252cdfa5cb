"""Two agents of one identity: the second is refused, or one of the two ends; never both for ever."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
EXIT_IN_USE = 4


def test_a_second_agent_on_the_same_state_is_refused(fleet: Fleet) -> None:
    """It says who holds the directory and ends with its own exit code; the first one runs on."""
    first = fleet.add("dev")
    second = fleet.agent("dev-again", first.state)
    second.start()
    assert second.ended() == EXIT_IN_USE
    assert f"error [identity_in_use]: Expected {first.state}" in second.tail()
    assert f"pid {first.program.process.pid}" in second.tail()
    assert "Traceback" not in second.tail()
    assert first.program.process.poll() is None


def test_of_two_copies_of_an_identity_one_ends(fleet: Fleet, wait: Wait) -> None:
    """A cloned disk: one agent ends with a coded error, the other stays connected and is ready."""
    first = fleet.add("dev")
    clone = fleet.root / "clone"
    clone.mkdir(mode=0o700)
    for name in ("identity.json", "root.json", "agent.toml"):
        shutil.copy(first.state / name, clone / name)
    second = fleet.agent("clone", clone)
    second.start()
    wait(lambda: ended(first.program, second), "the end of one")
    loser, winner = (second, first.program) if second.process.poll() is not None else (first.program, second)
    assert loser.process.poll() == EXIT_IN_USE
    assert "error [identity_in_use]" in loser.tail()
    assert winner.process.poll() is None
    wait(lambda: fleet.get("/api/devices/dev")["state"] == "ready", "ready")
    winner.stop()


def ended(*programs: object) -> bool:
    """Say whether one of the programs has ended."""
    return any(program.process.poll() is not None for program in programs)
