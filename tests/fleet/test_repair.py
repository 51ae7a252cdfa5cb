"""Bits that flip in a device's flash: the installation is repaired from the real server, and serves again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wire.canonical import sha256_file

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def bundle(device: Device) -> Path:
    """Return the bundle of the current slot."""
    name = (device.state / "slots" / "current").read_text()
    slot = json.loads((device.state / "slots" / f"{name}.json").read_bytes())
    return device.state / "blobs" / "sha256" / slot["sha256"]


def test_a_damaged_bundle_is_fetched_again_and_serves(fleet: Fleet, wait: Wait, damages: dict) -> None:
    """Neither safe mode nor a person: degraded with a reason, then complete, current and serving."""
    device, release = fleet.add("dev"), fleet.release(1)
    fleet.roll_out(release)
    device.reaches("committed", release)
    device.program.stop()
    blob = bundle(device)
    damages["flip"](blob)
    device.program.start()
    wait(lambda: sha256_file(blob) == blob.name, "a whole bundle")
    wait(lambda: device.document()["state"] == "ready", "a device that is ready")
    assert {"bundle_damaged", "repaired"} <= {event["code"] for event in fleet.events(device="dev")}
    assert not device.document()["reported"]["safe_mode"]
    assert device.document()["reported"]["current"]["release"] == release


def test_every_lasting_record_may_be_damaged(fleet: Fleet, wait: Wait, damages: dict) -> None:
    """One after the other, with the agent stopped: it starts ready with the same release, and updates still work."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    device.program.stop()
    kept = ("update.json", "gen.json", "floor.json", "slots/current", "slots/a.json", "slots/boots.json", "root.json",
            "tuf/timestamp.json", "tuf/time_floor.json", "spool.db")  # fmt: skip
    for name in kept:
        if (device.state / name).exists():
            damages["flip"](device.state / name)
    device.program.start()
    wait(lambda: device.document()["state"] == "ready", "a device that is ready")
    assert device.document()["reported"]["current"]["release"] == "tiny-1"
    fleet.roll_out(fleet.release(2))
    device.reaches("committed", "tiny-2")
