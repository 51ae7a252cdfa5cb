"""Refusals by a device, which the operator sees in ``reported.update`` and as an event, each with its code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compressor.release.keys import init_keys
from compressor.release.signing import sign_bundles
from server.clock import system_now_ms
from server.trust.repository import TrustRepository

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def blob_of(fleet: Fleet, release: str) -> Path:
    """Return the bundle of a release in the server's store."""
    found = fleet.get("/api/releases")["releases"]
    sha256 = next(item["sha256"] for item in found if item["name"] == release)
    return fleet.state / "blobs" / "sha256" / sha256


@pytest.fixture
def refused(fleet: Fleet, wait: Wait) -> object:
    """Roll a release out and check that it is refused with a code, in both places, and leaves nothing behind."""

    def check(device: Device, release: str, code: str) -> None:
        rollout = fleet.roll_out(release)
        assert device.reaches("refused", release)["code"] == code
        wait(lambda: code in device.codes(), f"an event {code}")
        wait(lambda: fleet.get(f"/api/rollouts/{rollout}")["phase"] == "paused", "a pause")
        assert {item["code"] for item in fleet.get(f"/api/rollouts/{rollout}")["members"]} == {code}
        assert not list((device.state / "blobs").rglob("*.part"))

    return check


def test_a_bundle_with_one_byte_changed_is_refused(fleet: Fleet, refused: object) -> None:
    """A byte that rots in the server's store never runs."""
    device, release = fleet.add("dev"), fleet.release(1)
    blob = blob_of(fleet, release)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    refused(device, release, "digest_mismatch")
    assert device.document()["reported"]["current"] is None


def test_a_bundle_larger_than_signed_is_refused(fleet: Fleet, refused: object) -> None:
    """A server that sends more than was signed is not read to its end."""
    device, release = fleet.add("dev"), fleet.release(1)
    with blob_of(fleet, release).open("ab") as blob:
        blob.write(b"more")
    refused(device, release, "too_large")


def test_a_release_signed_by_another_key_is_refused(fleet: Fleet, refused: object) -> None:
    """A compromised server that signs with its own keys can't install its own release on a device."""
    device, release = fleet.add("dev"), fleet.release(1)
    foreign = fleet.root / "foreign"
    init_keys(foreign, fleet.state / "online.pub.json")
    data = sign_bundles([fleet.build(1)], foreign).read_bytes()
    repository = TrustRepository(fleet.state)
    repository._write("2.targets.json", data)
    repository._sign_snapshot(2, data, system_now_ms())
    refused(device, release, "signature_invalid")


def test_a_release_below_the_security_floor_is_refused(fleet: Fleet, refused: object, wait: Wait) -> None:
    """After a release with a higher floor has committed, one below it is refused; the current one still serves."""
    device = fleet.add("dev")
    fleet.roll_out(fleet.release(1, floor=2))
    device.reaches("committed", "tiny-1")
    refused(device, fleet.release(2, floor=1), "below_security_floor")
    assert device.document()["reported"]["current"]["release"] == device.current() == "tiny-1"
    wait(lambda: device.status()["serving"], f"a device that serves\n{device.program.tail()}")
    assert "child_" not in str(fleet.events(device="dev")), device.program.tail()
