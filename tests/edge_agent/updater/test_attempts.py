"""Which attempts a newer ``desired`` starts, ends or keeps, and the state after a damaged record."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from wire.messages import Desired, UpdatePhase


def refuse(device: object, release: Callable) -> Desired:
    """Let release 2 be refused as attempt 2; return its desired state."""
    device.install(release(1))
    desired = replace(device.publish(release(2)).desired, attempt=2)
    device.blobs.clear()
    device.offer(desired)
    device.work()
    assert device.updater.record.phase is UpdatePhase.REFUSED
    device.publish(release(2))
    device.phases.clear()
    return desired


def test_a_change_of_settings_does_not_try_a_refused_release_again(device: object, release: Callable) -> None:
    """Same attempt, newer generation: accepted, echoed, nothing tried, also after a restart."""
    desired = refuse(device, release)
    device.offer(replace(desired, gen=3, config={"sample_bytes_per_day": 7}))
    device.restart()
    device.work()
    assert (device.phases, device.updater.record.phase) == ([], UpdatePhase.REFUSED)
    assert (device.updater.status.gen, device.updater.status.code) == (3, "http_404")
    assert device.updater.record.desired.config == {"sample_bytes_per_day": 7}


def test_an_assignment_tries_a_refused_release_again(device: object, release: Callable) -> None:
    """Another attempt number is an order."""
    desired = refuse(device, release)
    device.offer(replace(desired, gen=3, attempt=3))
    device.work()
    assert device.phases == ["offered", "downloading", "verifying", "staged", "probation"]


def test_without_an_attempt_every_generation_is_an_order(device: object, release: Callable) -> None:
    """An older server doesn't number its assignments."""
    desired = refuse(device, release)
    device.offer(replace(desired, gen=3, attempt=0))
    assert device.phases == ["offered"]


def test_a_change_of_settings_disturbs_no_probation(device: object, release: Callable) -> None:
    """The probation continues and counts from its own start."""
    desired = replace(device.publish(release(1)).desired, attempt=1)
    device.offer(desired)
    device.work()
    device.beat()
    device.pass_time(6)
    device.offer(replace(desired, gen=2, config={"x": 1}))
    device.pass_time(5)
    assert device.phases[-2:] == ["probation", "committed"]


@pytest.mark.parametrize("working", [False, True])
def test_a_desired_without_a_release_ends_the_attempt(device: object, release: Callable, *, working: bool) -> None:
    """Before the switch or in probation: the current release stays, and nothing half-done is left."""
    device.install(release(1))
    device.offer(device.publish(release(2)).desired)
    if working:
        device.work()
    device.offer(Desired(gen=3))
    device.work()
    assert (device.updater.record.phase, device.updater.status.gen) == (UpdatePhase.IDLE, 3)
    assert (device.current(), device.served[-1].release) == ("m-1", "m-1")


def test_an_aborted_first_install_leaves_nothing(device: object, release: Callable) -> None:
    """There was nothing before: nothing is current, and an older generation stays ignored."""
    device.offer(device.publish(release(1)).desired)
    device.offer(Desired(gen=2))
    device.work()
    device.offer(release(1).desired)
    assert (device.phases, device.current()) == (["offered", "idle"], "")


def test_settings_without_a_release_are_taken_over_quietly(device: object) -> None:
    """A device that was never assigned anything obeys its settings."""
    device.offer(Desired(gen=1, config={"sample_bytes_per_day": 7}))
    assert (device.phases, device.updater.record.desired.config) == ([], {"sample_bytes_per_day": 7})
    assert device.updater.status.gen == 1


@pytest.mark.parametrize(
    "damaged", [lambda data: b"\x00" * len(data), lambda data: data.replace(b'"sha256":"', b'"sha256":"0', 1)]
)
def test_a_damaged_record_keeps_the_generation(device: object, release: Callable, damaged: Callable) -> None:
    """No older one is accepted, the last desired state is applied and reported again; also if it is still readable."""
    device.install(release(3))
    (device.state / "update.json").write_bytes(damaged((device.state / "update.json").read_bytes()))
    device.phases.clear()
    device.restart()
    assert "update.json" in device.updater.damage
    assert not device.offer(device.publish(release(2)).desired)
    assert device.offer(release(3).desired)
    assert device.phases == ["offered", "committed"]


def test_a_full_disk_is_told_even_when_it_can_not_be_written(device: object, release: Callable) -> None:
    """A full disk is the reason and must not hide itself; it is written when there is room."""
    device.offer(device.publish(release(1)).desired)
    full = device.updater.disk
    device.updater.disk = Full()
    with pytest.raises(OSError, match="full"):
        device.work()
    assert (device.phases[-1], device.updater.record.phase) == ("no_space", UpdatePhase.DEFERRED)
    device.updater.disk = full
    device.updater.postpone(device.now_s)
    device.pass_time(0.5)
    device.restart()
    assert device.updater.record.code == "no_space"


class Full:
    """A disk on which files can be removed, and nothing else."""

    def write(self, *_arguments: object) -> None:
        """Fail as the kernel does."""
        raise OSError(28, "full")

    def remove(self, path: object) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)

    def free_bytes(self, _folder: object) -> int:
        """Return that no space is free."""
        return 0


class FullAfterSwitch(RealDisk):
    """A disk on which the record of probation can't be written."""

    full = False

    def write(self, path: Path, data: bytes) -> None:
        """Write, or fail as a full disk does."""
        if self.full and path.name == "update.json" and b'"probation"' in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(path, data)


@pytest.mark.parametrize("ends", ["refused", "cleared"])
def test_a_switch_without_probation_is_taken_back(
    device_on: Callable, release: Callable, tmp_path: Path, ends: str
) -> None:
    """The slot was switched but its phase could not be written: the end of the attempt switches back."""
    disk = FullAfterSwitch()
    device = device_on(tmp_path, disk)
    device.install(release(1))
    disk.full = True
    device.offer(replace(device.publish(release(2)).desired, deadline_ms=device.now_ms + 60_000))
    with pytest.raises(OSError, match="No space"):
        device.work()
    assert (device.current(), device.updater.record.phase) == ("m-2", UpdatePhase.STAGED)
    disk.full = False
    if ends == "refused":
        device.pass_time(61)
    else:
        device.offer(Desired(gen=3))
    assert (device.current(), device.served[-1].release) == ("m-1", "m-1")
