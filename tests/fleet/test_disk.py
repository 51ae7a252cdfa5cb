"""A disk that fills during a download, or that the kernel makes read-only: the old release serves on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
DISK_BYTES, BUNDLE_BYTES = 8_000_000, 3_000_000


def fill(folder: Path, name: str) -> None:
    """Write until the disk is full."""
    with (folder / name).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def test_a_disk_that_fills_during_a_download_delays_the_update(fleet: Fleet, small_disk: Path, wait: Wait) -> None:
    """The reason is reported, nothing half-written stays, and once there is room the update continues by itself."""
    device = fleet.enrol("dev", small_disk / "dev", "max_bytes_per_s = 500000\ndefer_max_s = 1.0")
    device.program.start()
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    release = fleet.release(2, pad_bytes=BUNDLE_BYTES)
    fleet.roll_out(release)
    wait(lambda: device.held_bytes() > 200_000, "a part")
    fill(small_disk, "filler")
    assert device.reaches("deferred", release)["code"] == "no_space"
    assert device.current() == "tiny-1"
    wait(lambda: device.status()["serving"], "a device that serves")
    wait(lambda: "no_space" in device.codes(), "an event")
    (small_disk / "filler").unlink()
    device.reaches("committed", release)


@dataclass
class Flash:
    """A file system that becomes read-only when the kernel finds a fault in it, as on a device's flash card."""

    image: Path
    folder: Path

    def mount(self) -> None:
        """Mount it; pytest skips where that is not possible."""
        self.folder.mkdir(exist_ok=True)
        options = "loop,errors=remount-ro"
        command = ["mount", "-t", "ext4", "-o", options, str(self.image), str(self.folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting ext4 on a loop device needs root")

    def unmount(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.folder)], check=True)

    def find_fault(self) -> None:
        """Let the kernel find a fault: all that was written is on the disk, and nothing can be written any more."""
        subprocess.run(["sync", "-f", str(self.folder)], check=True)
        subprocess.run(["mount", "-o", "remount,abort", str(self.folder)], check=True)

    def check(self) -> None:
        """Check and repair it, as at a start of the machine."""
        done = subprocess.run(["e2fsck", "-f", "-p", str(self.image)], capture_output=True, check=False)
        assert done.returncode in {0, 1}, done.stdout


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    """A new file system of 32 MB."""
    made = Flash(tmp_path / "flash.img", tmp_path / "flash")
    with made.image.open("wb") as file:
        file.truncate(32_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(made.image)], check=True)
    made.mount()
    yield made
    subprocess.run(["umount", "--lazy", str(made.folder)], capture_output=True, check=False)


OFF_THE_DISK = """defer_max_s = 1.0
[sinks.screen]
kind = "unix"
path = "{place}/answers.sock"
"""


def _watching(screen: socket.socket, place: Path) -> Iterator[str]:
    """Yield the id of each answer that is shown from now on."""
    screen.connect(str(place / "answers.sock"))
    screen.settimeout(20)
    return (json.loads(line)["id"] for line in screen.makefile())


def test_a_disk_that_turns_read_only_ends_no_answers(
    fleet: Fleet, flash: Flash, tmp_path: Path, wait: Wait, images: list[bytes]
) -> None:
    """Answers go on, status, log and server name it, nothing is half-written, and after a repair all goes on."""
    device = fleet.enrol("dev", flash.folder / "dev", OFF_THE_DISK.format(place=tmp_path))
    device.inbox = tmp_path / "inbox"
    config = device.state / "agent.toml"
    config.write_text(config.read_text().replace('path = "inbox"', f'path = "{device.inbox}"'))
    device.inbox.mkdir()
    device.program.start()
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    with socket.socket(socket.AF_UNIX) as screen:
        answers = _watching(screen, tmp_path)
        device.see(images[:10])
        seen = {next(answers) for _ in range(10)}
        flash.find_fault()
        device.see(images[10:], "later")
        seen |= {next(answers) for _ in images[10:]}
    assert len(seen) == len(images)
    wait(lambda: device.document()["state"] == "degraded", "a degraded device")
    wait(lambda: device.document()["reported"].get("reason") == "disk_read_only", "its reason")
    assert f"the file system of {device.state} is read-only" in device.program.tail()
    second = fleet.release(2)
    fleet.roll_out(second)
    wait(lambda: "part=updater" in device.program.tail(), "an update that can't begin")
    device.program.process.terminate()
    assert (device.program.ended(), "Traceback" in device.program.tail()) == (0, False)
    flash.unmount()
    flash.check()
    flash.mount()
    device.program.start()
    device.reaches("committed", second)
