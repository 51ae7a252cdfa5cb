"""A device that runs its release and reads none of its inputs: what the person at the device and the operator see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
EXIT_DEGRADED = 8


def _status(device: Device) -> tuple[int, str]:
    command = [str(Path(sys.executable).parent / "edge-agent"), "status", "--state", str(device.state)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    return ended.returncode, ended.stdout


def _concern(fleet: Fleet) -> str:
    concerns = fleet.get("/api/overall")["concerns"]
    return next((one["text"] for one in concerns if one["signal"] == "answers_nothing"), "")


def test_a_device_that_ignores_every_file_is_no_device_that_serves(
    fleet: Fleet, wait: Wait, images: list[bytes]
) -> None:
    """The rollout succeeds on golden vectors alone; both sides say so until the first answer."""
    device = fleet.add("dev")
    device.inbox.mkdir(exist_ok=True)
    for name in ("one.csv", "two.csv"):
        (device.inbox / name).write_text("1,2,3\n")
    fleet.roll_out(fleet.release(1))
    update = device.reaches("committed", "tiny-1")
    assert "2 files ignored" in update["text"]
    wait(lambda: "answers nothing" in _status(device)[1], "a state of its own")  # it starts before: code 8 as well
    code, text = _status(device)
    assert code == EXIT_DEGRADED
    assert "one.csv" in text
    wait(lambda: "dev (serves tiny-1, has answered nothing, ignores 2 files" in _concern(fleet), "a lasting concern")
    device.program.stop()
    device.program.start()
    wait(lambda: "answers nothing" in _status(device)[1], "the same after a restart")
    device.see(images[:1])
    wait(lambda: not _concern(fleet), "no concern after an answer")
    wait(lambda: _status(device)[0] == 0, "a device that serves")
