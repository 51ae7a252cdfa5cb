"""A disk that fills during a download: the update is refused with a code, the old release serves on."""

from __future__ import annotations

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
