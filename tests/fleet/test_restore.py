"""A lost server that is restored from its backup as documented is the one that devices know."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def test_devices_find_a_restored_server_and_take_releases_from_it(fleet: Fleet, wait: Wait, tmp_path: Path) -> None:
    """Ports, keys, tokens, passwords and bundles are the same; no device enrols again or is touched."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    fleet.settled()
    program, copy = str(Path(sys.executable).with_name("fleet-server")), str(tmp_path / "copy")
    made = subprocess.run(
        [program, "backup", str(fleet.state), copy], check=True, capture_output=True, text=True, timeout=60
    )
    assert made.stderr == ""
    fleet.roll_out(fleet.release(2))  # after the copy: the device has seen metadata that a restored server never had
    device.reaches("committed", "tiny-2")
    fleet.settled()
    told, token = (fleet.state / "ports.json").read_bytes(), (fleet.state / "operator.token").read_bytes()
    fleet.server.stop()
    shutil.rmtree(fleet.state)
    wait(lambda: not device.status().get("connected"), "the loss")
    subprocess.run([program, "restore", str(fleet.state), copy], check=True, capture_output=True, timeout=60)
    fleet.start()
    assert ((fleet.state / "ports.json").read_bytes(), (fleet.state / "operator.token").read_bytes()) == (told, token)
    wait(lambda: device.status().get("connected"), "dev connected again")
    assert device.document()["release"] == "tiny-2"
    fleet.roll_out(fleet.release(3))
    device.reaches("committed", "tiny-3")
