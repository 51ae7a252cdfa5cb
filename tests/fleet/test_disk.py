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


def test_a_disk_that_fills_during_a_download_refuses_the_update(fleet: Fleet, small_disk: Path, wait: Wait) -> None:
    """The refusal is coded, nothing half-written stays, and once there is room the next attempt succeeds."""
    device = fleet.enrol("dev", small_disk / "dev", "max_bytes_per_s = 500000")
    device.program.start()
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    release = fleet.release(2, pad_bytes=BUNDLE_BYTES)
    rollout = fleet.roll_out(release)
    parts = device.state / "blobs" / "sha256"
    wait(lambda: any(path.stat().st_size > 200_000 for path in parts.glob("*.part")), "a part")
    fill(small_disk, "filler")
    assert device.reaches("refused", release)["code"] == "no_space"
    assert not list(parts.glob("*.part"))
    assert device.current() == "tiny-1"
    assert device.status()["serving"]
    wait(lambda: "no_space" in device.codes(), "an event")
    (small_disk / "filler").unlink()
    fleet.post(f"/api/rollouts/{rollout}/abort", {})
    wait(lambda: fleet.get(f"/api/rollouts/{rollout}")["phase"] == "aborted", "the end")
    fleet.roll_out(fleet.release(3))
    device.reaches("committed", "tiny-3")
