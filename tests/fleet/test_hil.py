"""Hardware in the loop with a whole fleet: a device by its agent over the server, and the same one by its shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_agent.device.lock import holder

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def check(fleet: Fleet, inventory: str, *arguments: str) -> dict[str, dict]:
    """Run the standard checks; return hil.json's tests by device and name."""
    (fleet.root / "lab.toml").write_text(inventory)
    command = [str(ROOT / "scripts/hil/run"), str(fleet.root / "lab.toml"), "--out", str(fleet.root / "hil")]
    environment = {**os.environ, "TINYFLEET_VENV": str(Path(sys.executable).parents[1])}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment)
    document = json.loads((fleet.root / "hil" / "hil.json").read_bytes())
    tests = {
        f"{row['device']} {row['test'].rpartition('::')[2].partition('[')[0]}": {**row, "code": done.returncode}
        for row in document["tests"]
    }
    assert tests, done.stdout + done.stderr
    return tests


def over_the_server(fleet: Fleet) -> str:
    """Return the inventory's table of cam-1 by its agent."""
    return (
        f'[devices.cam-1]\nkind = "server"\nserver = "{fleet.client.base_url}"\nkeys = "{fleet.keys}"\nwindow_s = 1\n'
        f'token_file = "{fleet.state}/builder.token"\noperator_token_file = "{fleet.state}/operator.token"\n'
    )


def by_its_shell(device: Device, netns: str = "") -> str:
    """Return the inventory's table of the same device as a process of this host."""
    return (
        f'[devices.bench]\nkind = "local"\npython = "{sys.executable}"\nfolder = "{device.state.parent}/device"\n'
        f'state = "{device.state}"\nconfig = "{device.state}/agent.toml"\nback_s = 60\n{netns}'
    )


@pytest.fixture
def served(fleet: Fleet) -> Iterator[Device]:
    """A device that serves a release; whatever agent runs on it at the end is killed."""
    device = fleet.add("cam-1")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    yield device
    pid = holder(device.state)
    if pid:
        os.kill(pid, signal.SIGKILL)


def test_a_new_healthy_device_passes_every_check_over_its_server(fleet: Fleet, served: Device) -> None:
    """Measured by a signed order; online, on its release, self-test passed, and no drift window is overdue."""
    tests = check(fleet, over_the_server(fleet), str(fleet.root / "tiny-1.tfb"))
    assert served.current() == "tiny-1"
    failed = {name: row["text"] for name, row in tests.items() if row["outcome"] == "failed"}
    assert failed == {}
    passed = {name for name, row in tests.items() if row["outcome"] == "passed"}
    assert passed >= {"cam-1 test_its_standing_is_good", "cam-1 test_golden_vectors_are_reproduced"}


def test_a_device_serves_again_after_a_power_cut(fleet: Fleet, served: Device, wait: Wait) -> None:
    """``kill -9`` of the agent and its child, another agent on the same state, the same release."""
    before = holder(served.state)
    tests = check(fleet, by_its_shell(served), "-k", "power")
    assert tests["bench test_it_serves_again_after_a_power_cut"]["outcome"] == "passed", tests
    assert served.program.process.wait(10) == -signal.SIGKILL
    assert holder(served.state) not in {0, before}
    wait(lambda: served.document()["state"] == "ready", "a device that is ready")
