"""A device may fetch its assigned, current and previous bundles; the digests of others are of no use to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from server.rollout.create import RolloutOptions
from wire.canonical import sha256_hex
from wire.messages import DeviceState, InstalledRelease, Reported, State, UpdatePhase, UpdateStatus
from wire.tuf_target import Delta, TargetCustom, target_path

if TYPE_CHECKING:
    from conftest import FakeDevice, MemoryFleet


@dataclass
class Shelf:
    """A server with three releases, a device that was assigned the second, and one without assignment."""

    fleet: MemoryFleet
    told: FakeDevice
    other: FakeDevice

    def roll_out(self, version: int) -> None:
        """Roll a release out, so far to the device alone, and end the rollout before."""
        rollouts = self.fleet.app.parts.rollouts
        for rollout in rollouts.ledger.open():
            rollouts.abort(rollout.id)
        for _ in range(3):
            self.fleet.turn()
        rollouts.create(RolloutOptions(release=f"m-{version}", canary=["cam-1"], approved=True))
        for _ in range(3):
            self.fleet.turn()

    def commit(self, device: FakeDevice, version: int, before: int) -> None:
        """Let a device report that it runs one release and ran another."""
        gen = self.fleet.app.parts.fleet.device(device.identity.device).desired_gen
        name = f"m-{version}"
        current, previous = (InstalledRelease(f"m-{number}", digest(number)) for number in (version, before))
        update = UpdateStatus(phase=UpdatePhase.COMMITTED, gen=gen, release=name)
        device.say(
            "reported", Reported(gen=gen, at_ms=1, boot="ab" * 8, current=current, previous=previous, update=update)
        )
        self.fleet.turn()

    def fetch(self, device: FakeDevice) -> list[int]:
        """Return the HTTP status that a device gets for each of the three bundles."""
        client, login = self.fleet.client(None), (device.identity.device, device.identity.password)
        return [client.get(f"/blobs/{digest(version)}", auth=login).status_code for version in (1, 2, 3)]


def digest(version: int) -> str:
    """Return the digest of a release's bundle."""
    return sha256_hex(f"bundle {version}".encode())


@pytest.fixture
def shelf(fleet: MemoryFleet) -> Shelf:
    """Three releases, two devices."""
    versions = fleet.app.parts.versions
    for version in (1, 2, 3):
        data = f"bundle {version}".encode()
        versions.blobs.put(digest(version), [data])
        custom, path = TargetCustom(model="m", version=version, target="gateway"), target_path("m", version, "gateway")
        versions.register(path, custom, sha256=digest(version), length_bytes=len(data), now_ms=version)
    devices = [fleet.enrol(name) for name in ("cam-1", "cam-2")]
    for device in devices:  # who was never heard is told nothing
        device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock()))
    fleet.turn()
    return Shelf(fleet, *devices)


def test_a_device_fetches_what_it_is_to_run_alone(shelf: Shelf) -> None:
    """Before a rollout nothing, then its release, and another device still nothing."""
    assert shelf.fetch(shelf.told) == [403, 403, 403]
    shelf.roll_out(2)
    assert shelf.fetch(shelf.told) == [403, 200, 403]
    assert shelf.fetch(shelf.other) == [403, 403, 403]


def test_what_it_runs_and_ran_before_is_there_for_a_repair(shelf: Shelf) -> None:
    """Also when something else is desired; the release before the previous one is not."""
    for version, before in ((1, 0), (2, 1)):
        shelf.roll_out(version)
        shelf.commit(shelf.told, version, before)
    shelf.roll_out(3)
    assert shelf.fetch(shelf.told) == [200, 200, 200]
    shelf.commit(shelf.told, 3, 2)
    assert shelf.fetch(shelf.told) == [403, 200, 200]


def test_a_report_alone_opens_nothing(shelf: Shelf) -> None:
    """A device can't get a release by reporting that it runs it."""
    shelf.commit(shelf.other, 3, 2)
    assert shelf.fetch(shelf.other) == [403, 403, 403]


def test_people_and_build_hosts_fetch_everything(shelf: Shelf) -> None:
    """The operator's and the builder's token open every bundle, also by HEAD; a device's HEAD is judged alike."""
    for role in ("operator", "builder"):
        assert shelf.fleet.client(role).head(f"/blobs/{digest(3)}").status_code == 200
    login = ("cam-1", shelf.told.identity.password)
    assert shelf.fleet.client(None).head(f"/blobs/{digest(3)}", auth=login).status_code == 403


def test_a_patch_goes_to_those_who_are_to_run_its_release(shelf: Shelf) -> None:
    """Before the rollout nobody gets it, then the device alone; the list of releases says how long it is."""
    patch, versions = b"patch", shelf.fleet.app.parts.versions
    versions.blobs.put(sha256_hex(patch), [patch])
    delta = Delta(base_sha256=digest(1), sha256=sha256_hex(patch), length_bytes=len(patch))
    custom = TargetCustom(model="m", version=2, target="gateway", deltas=(delta,))
    versions.register(target_path("m", 2, "gateway"), custom, sha256=digest(2), length_bytes=8, now_ms=2)

    def fetch(device: FakeDevice) -> int:
        login = (device.identity.device, device.identity.password)
        return shelf.fleet.client(None).get(f"/blobs/{sha256_hex(patch)}", auth=login).status_code

    assert fetch(shelf.told) == 403
    shelf.roll_out(2)
    assert [fetch(shelf.told), fetch(shelf.other)] == [200, 403]
    said = shelf.fleet.client("operator").get("/api/releases").json()["releases"][1]["patches"]
    assert said == [{"base_sha256": digest(1), "sha256": sha256_hex(patch), "length_bytes": 5}]
