"""A crash after every durable operation of an update, then a restart: exactly one of {old, new} is current."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.device.last_end import LastEnd
from wire.canonical import sha256_file
from wire.messages import UpdatePhase


class Crash(BaseException):
    """A power cut; no ``except Exception`` may hide it."""


@dataclass
class CrashingDisk:
    """A real disk that loses power around its n-th durable operation."""

    crash_at: int
    before: bool
    count: int = 0
    real: RealDisk = field(default_factory=RealDisk)

    def _step(self, act: Callable) -> None:
        self.count += 1
        if self.count == self.crash_at and self.before:
            raise Crash
        act()
        if self.count == self.crash_at:
            raise Crash

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file, or crash."""
        self._step(lambda: self.real.write(path, data))

    def move(self, source: Path, target: Path) -> None:
        """Rename a file, or crash."""
        self._step(lambda: self.real.move(source, target))

    def remove(self, path: Path) -> None:
        """Remove a file, or crash."""
        self._step(lambda: self.real.remove(path))

    def free_bytes(self, folder: Path) -> int:
        """Return the real disk's."""
        return self.real.free_bytes(folder)


def check_one_is_current(device: object) -> None:
    """Old or new, complete: its slot is readable and its bundle has its digest."""
    current = device.slots.current()
    assert current.release in {"m-1", "m-2"}
    assert sha256_file(device.slots.bundle(current.sha256)) == current.sha256


def update(device: object, release: Callable, *, good: bool) -> None:
    """Take the second release to its end."""
    device.publish(release(2))
    device.offer(release(2).desired)
    finish(device, good=good)


def finish(device: object, *, good: bool) -> None:
    """Work, then judge probation if there is one."""
    device.work()
    if device.updater.record.phase is UpdatePhase.PROBATION:
        device.beat()
        if not good:
            device.updater.health = device.updater.health.crashed()
        device.pass_time(20)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("end", ["commit", "roll_back"])
def test_survives_a_crash_at_every_durable_operation(
    tmp_path: Path, device_on: Callable, release: Callable, end: str, moment: str
) -> None:
    """After a restart the update continues from the persisted phase and ends as without the crash."""
    good = end == "commit"
    for crash_at in range(1, 100):
        state = tmp_path / str(crash_at)
        state.mkdir()
        device = device_on(state, RealDisk())
        device.install(release(1))
        device.updater.disk = device.disk = disk = CrashingDisk(crash_at, moment == "before")
        try:
            update(device, release, good=good)
        except Crash:
            device.disk = RealDisk()
            check_one_is_current(device)
            device.restart()
            check_one_is_current(device)
            device.offer(release(2).desired)
            finish(device, good=good)
        assert device.current() == ("m-2" if good else "m-1")
        assert device.updater.record.phase is (UpdatePhase.COMMITTED if good else UpdatePhase.ROLLED_BACK)
        if disk.count < crash_at:
            assert crash_at > 8
            return
    pytest.fail("the update never ended")


def test_a_failed_update_keeps_the_release_before_over_any_crash(
    tmp_path: Path, device_on: Callable, release: Callable
) -> None:
    """The slot that it took has its release again, with a whole bundle, whenever the power goes."""
    ready = device_on(tmp_path / "ready", RealDisk())
    ready.install(release(3))
    ready.install(release(1, gen=4))
    for crash_at in range(1, 100):
        state = shutil.copytree(ready.state, tmp_path / str(crash_at))
        disk = CrashingDisk(crash_at, before=False)
        device = device_on(state, disk)
        device.publish(release(2))
        try:
            device.restart(LastEnd.IN_ORDER)
            device.offer(release(2, gen=5).desired)
            finish(device, good=False)
        except Crash:
            device.disk = RealDisk()
            device.restart()
            device.offer(release(2, gen=5).desired)
            finish(device, good=False)
        before = device.slots.previous()
        assert (device.current(), before.release if before else "") == ("m-1", "m-3"), crash_at
        assert sha256_file(device.slots.bundle(before.sha256)) == before.sha256
        if disk.count < crash_at:
            assert crash_at > 12
            return
    pytest.fail("the update never ended")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_person_s_rollback_survives_a_crash_at_every_durable_operation(
    tmp_path: Path, device_on: Callable, release: Callable, moment: str
) -> None:
    """After the restart either is current, whole; once the decision is on the disk, it is carried out."""
    for crash_at in range(1, 60):
        (tmp_path / str(crash_at)).mkdir()
        device = device_on(tmp_path / str(crash_at), RealDisk())
        device.install(release(1))
        device.install(release(2))
        device.updater.disk = disk = CrashingDisk(crash_at, moment == "before")
        try:
            device.updater.recall("", device.now_ms)
        except Crash:
            device.restart()
        back = device.updater.record.phase is UpdatePhase.ROLLED_BACK
        assert device.current() == ("m-1" if back else "m-2")
        if disk.count < crash_at:
            assert crash_at > 4
            return
    pytest.fail("the rollback never ended")
