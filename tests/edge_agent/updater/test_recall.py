"""A person on site goes back to the release before: allowed or refused, and what stays afterwards."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from edge_agent.device.last_end import LastEnd
from edge_agent.errors import RequestRefusedError
from edge_agent.updater.storage.reconcile import InstalledFacts
from edge_agent.updater.storage.repair import Inspected, Repair
from wire.messages import UpdatePhase


def facts(device: object) -> InstalledFacts:
    """Return what the repair of this device finds."""
    repair = Repair(
        updater=device.updater, period_s=1.0, report=lambda *_: None, served=lambda: "", request_desired=lambda: None
    )
    repair.turn(0.0)
    device.worker.work()
    found = device.done.get().result
    assert isinstance(found, Inspected)
    return found.facts


def refusal(device: object, leaving: str = "") -> str:
    """Return the code with which the device refuses to go back."""
    with pytest.raises(RequestRefusedError) as refused:
        device.updater.recall(leaving, device.now_ms)
    return refused.value.refused


def test_goes_back_and_stays_there(device: object, release: Callable) -> None:
    """The release before is served, the other is given up, and neither the repair nor the same desired returns it."""
    device.install(release(1))
    device.install(release(2))
    found = device.updater.recall(device.slots.current().sha256, device.now_ms)
    assert (found.left.release, found.current.release, device.served[-1].release) == ("m-2", "m-1", "m-1")
    assert (device.updater.record.phase, device.phases[-1]) == (UpdatePhase.ROLLED_BACK, "rolled_back_on_site")
    device.restart()
    assert (device.offer(release(2).desired), facts(device).committed) == (False, None)
    assert (device.current(), device.slots.previous()) == ("m-1", None)


def test_the_next_assignment_installs_it_again(device: object, release: Callable) -> None:
    """A person on the server decides after the person on site."""
    device.install(release(1))
    device.install(release(2))
    device.updater.recall("", device.now_ms)
    device.install(release(2, gen=3))
    assert device.current() == "m-2"


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda _device, _release: None, "no_release"),
        (lambda device, release: device.install(release(1)), "no_previous"),
        (lambda device, release: [device.install(release(n, floor=n)) for n in (1, 2)], "below_security_floor"),
        (
            lambda device, release: [
                device.install(release(1)), device.install(release(2)),
                device.slots.bundle(release(1).target.sha256).write_bytes(b"half"),
            ],
            "bundle_damaged",
        ),
    ],
)  # fmt: skip
def test_refuses_what_would_not_be_right(device: object, release: Callable, prepare: Callable, code: str) -> None:
    """With the code of the reason; nothing changes."""
    prepare(device, release)
    before, phases = device.current(), len(device.phases)
    assert refusal(device) == code
    assert (device.current(), len(device.phases)) == (before, phases)


def test_refuses_when_another_release_is_current_than_was_seen(device: object, release: Callable) -> None:
    """A request that waited must not leave a release that its author has never seen."""
    for version in (1, 2, 3):
        device.install(release(version))
    assert refusal(device, release(2).target.sha256) == "changed"
    assert device.current() == "m-3"


def test_ends_a_probation(device: object, release: Callable) -> None:
    """The release on trial is rolled back as by its own fault; the first one of a device has no way back."""
    device.publish(release(1))
    device.offer(release(1).desired)
    device.work()
    assert refusal(device) == "no_previous"
    device.beat()
    device.pass_time(10.0)
    device.publish(release(2))
    device.offer(release(2).desired)
    device.work()
    assert device.updater.recall("", device.now_ms).current.release == "m-1"
    assert (device.updater.record.phase, device.current()) == (UpdatePhase.ROLLED_BACK, "m-1")


def _fails(device: object, _release: Callable) -> None:
    device.updater.health = device.updater.health.crashed()
    device.pass_time(10.0)


def _is_cut_off(device: object, release: Callable) -> None:
    device.restart(LastEnd.MACHINE)
    _fails(device, release)


def _is_aborted(device: object, release: Callable) -> None:
    device.offer(replace(release(2).desired, gen=4))


def _is_replaced(device: object, release: Callable) -> None:
    device.publish(release(4))
    device.offer(release(4).desired)
    device.work()
    _fails(device, release)


def _is_ended_by_a_person(device: object, _release: Callable) -> None:
    device.updater.recall("", device.now_ms)


@pytest.mark.parametrize("end", [_fails, _is_cut_off, _is_aborted, _is_replaced, _is_ended_by_a_person])
def test_a_failed_try_leaves_the_way_back(device: object, release: Callable, end: Callable) -> None:
    """Whatever ended the probation: the release before stays, whole, and the device can go back to it."""
    device.install(release(1))
    device.install(release(2))
    device.publish(release(3))
    device.offer(release(3).desired)
    device.work()
    assert (device.updater.record.phase, device.current()) == (UpdatePhase.PROBATION, "m-3")
    end(device, release)
    assert (device.current(), device.slots.previous().release, device.slots.aside()) == ("m-2", "m-1", None)
    assert device.slots.boots("a") == 0
    held = {path.name for path in (device.state / "blobs" / "sha256").iterdir()}
    assert held == {release(number).target.sha256 for number in (1, 2)}
    assert device.updater.recall("", device.now_ms).current.release == "m-1"
    assert (device.current(), device.slots.previous()) == ("m-1", None)


def test_a_committed_release_leaves_one_way_back(device: object, release: Callable) -> None:
    """The one that was set aside goes, with its bundle, also if a power cut kept the commit from it."""
    for version in (1, 2, 3):
        device.install(release(version))
    assert device.slots.aside() is None
    assert not device.slots.bundle(release(1).target.sha256).exists()
    held = device.slots.previous()
    device.slots.set_aside(replace(held, release="m-1"))
    assert device.updater.recall("", device.now_ms).current.release == "m-2"
    assert (device.current(), device.slots.previous(), device.slots.aside()) == ("m-2", None, None)


def test_a_refusal_before_the_switch_leaves_the_way_back(device: object, release: Callable) -> None:
    """Also one after the slot was filled, which a full disk can keep from being current."""
    device.install(release(1))
    device.install(release(2))
    device.fail_probe("bundle_invalid")
    device.publish(release(3))
    device.offer(release(3).desired)
    device.work()
    assert (device.updater.record.phase, device.slots.previous().release) == (UpdatePhase.REFUSED, "m-1")
    device.slots.set_aside(device.slots.previous())
    device.slots.fill("a", replace(device.slots.read("b"), release="m-3", sha256=release(3).target.sha256))
    device.updater.record = replace(device.updater.record, phase=UpdatePhase.STAGED, slot="a", previous_slot="b")
    device.offer(replace(release(2).desired, gen=5))
    assert (device.current(), device.slots.previous().release) == ("m-2", "m-1")


def test_an_attempt_in_flight_goes_on(device: object, release: Callable) -> None:
    """The person leaves the release that serves, not the one that the server sends."""
    device.install(release(1))
    device.install(release(2))
    device.publish(release(3))
    device.offer(replace(release(3).desired, not_before_ms=device.now_ms + 5_000))
    device.updater.usual = device.updater.usual.add((9, 1), 10)
    assert device.updater.recall("", device.now_ms).current.release == "m-1"
    assert (device.updater.record.phase, device.current()) == (UpdatePhase.DEFERRED, "m-1")
    assert device.updater.usual.classes == ()
    device.pass_time(10.0)
    device.work()
    assert device.current() == "m-3"


def test_gives_up_a_committed_release_that_another_one_stands_in_for(device: object, release: Callable) -> None:
    """After a fallback the older one serves already; now it stays."""
    device.install(release(1))
    device.install(release(2))
    device.slots.switch("a")
    found = device.updater.recall(release(1).target.sha256, device.now_ms)
    assert (found.left.release, device.current(), device.slots.previous()) == ("m-2", "m-1", None)
