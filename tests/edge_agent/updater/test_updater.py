"""Sequences of phases as data, and which messages the updater trusts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import UpdateConfig
from edge_agent.device.disk import RealDisk
from edge_agent.device.last_end import LastEnd
from edge_agent.updater.ports import ProbeResult, Refusal, part_of
from wire.messages import UpdatePhase

GOOD = ["offered", "downloading", "verifying", "staged", "probation", "committed"]


class Small(RealDisk):
    """A disk with so much room."""

    def __init__(self, free: int) -> None:
        """Have ``free`` bytes."""
        self.free = free

    def free_bytes(self, _folder: object) -> int:
        """Return them."""
        return self.free


def test_a_good_release_is_committed(device: object, release: Callable) -> None:
    """All phases, in order, end with the release current and served."""
    device.install(release(1))
    assert device.phases == GOOD
    assert (device.current(), device.served[-1].release) == ("m-1", "m-1")


def test_the_second_release_keeps_the_first_as_previous(device: object, release: Callable) -> None:
    """Current and previous stay on disk, older bundles go."""
    for version in [1, 2, 3]:
        device.install(release(version))
    assert (device.current(), device.slots.previous().release) == ("m-3", "m-2")
    assert len(list((device.state / "blobs" / "sha256").iterdir())) == 2


@pytest.mark.parametrize(
    ("hurt", "chain"),
    [
        (lambda device, _: device.targets.clear(), ["offered", "unknown_target"]),
        (lambda device, _: device.blobs.clear(), ["offered", "downloading", "http_404"]),
        (
            lambda device, new: device.blobs.update({new.target.sha256: new.data[:-1] + b"?"}),
            ["offered", *["downloading", "verifying", "digest_mismatch"] * 3],
        ),
        (
            lambda device, _: device.fail_probe("golden_mismatch"),
            ["offered", "downloading", "verifying", "golden_mismatch"],
        ),
        (
            lambda device, new: device.targets.update(
                {new.desired.target: replace(new.target, custom=replace(new.target.custom, hardware=("armv7l",)))}
            ),
            ["offered", "hardware_mismatch"],
        ),
        (
            lambda device, new: device.targets.update(
                {new.desired.target: replace(new.target, custom=replace(new.target.custom, runtime="litert"))}
            ),
            ["offered", "runtime_missing"],
        ),
        (
            lambda device, new: device.targets.update({new.desired.target: replace(new.target, length_bytes=1 << 40)}),
            ["offered", "too_large"],
        ),
        (
            lambda device, new: device.targets.update({new.desired.target: replace(new.target, sha256="0" * 64)}),
            ["offered", "target_mismatch"],
        ),
        (
            lambda device, new: device.targets.update({new.desired.target: Refusal("signature_invalid")}),
            ["offered", "signature_invalid"],
        ),
    ],
)
def test_refuses_with_a_code_and_keeps_the_old_release(
    device: object, release: Callable, hurt: Callable, chain: list[str]
) -> None:
    """Whatever is wrong, the old release stays current and the reason has a code."""
    device.install(release(1))
    device.phases.clear()
    new = device.publish(release(2))
    hurt(device, new)
    device.offer(new.desired)
    device.work_out()
    assert device.phases == chain
    assert (device.current(), device.updater.record.phase) == ("m-1", UpdatePhase.REFUSED)


def test_refuses_a_release_older_than_the_security_floor(device: object, release: Callable) -> None:
    """A release below the highest committed floor never runs again."""
    device.install(release(2, floor=5))
    device.publish(release(1, floor=4))
    device.offer(release(1, floor=4, gen=3).desired)
    device.work()
    assert device.phases[-1] == "below_security_floor"


def test_goes_back_to_an_older_version_above_the_floor(device: object, release: Callable) -> None:
    """A legitimate rollback stays possible: version and floor are apart."""
    device.install(release(2, floor=5))
    device.install(release(1, floor=5, gen=3))
    assert device.current() == "m-1"


@pytest.mark.parametrize("room", [1, 0])
def test_waits_for_room_on_the_disk(device: object, release: Callable, room: int) -> None:
    """The free space is checked before the download; the update continues by itself when there is enough."""
    new = device.publish(release(1))
    device.disk = device.updater.disk = Small(len(new.data) - 1)
    device.offer(new.desired)
    device.work_out(5)
    assert (device.phases, device.updater.record.phase) == (["offered", "no_space"], UpdatePhase.DEFERRED)
    device.disk.free += room
    device.work_out(5)
    assert (device.updater.record.phase is UpdatePhase.PROBATION) == bool(room)
    assert device.updater.record.code == ("" if room else "no_space")


def test_ignores_an_older_or_equal_generation(device: object, release: Callable) -> None:
    """The retained message comes again with every connection."""
    device.install(release(2))
    device.phases.clear()
    assert not device.offer(release(2).desired)
    assert not device.offer(release(1).desired)
    assert device.phases == []


def test_commits_at_once_what_is_current_already(device: object, release: Callable) -> None:
    """A new generation of the same release needs nothing."""
    device.install(release(1))
    device.phases.clear()
    device.offer(release(1, gen=7).desired)
    assert device.phases == ["offered", "committed"]
    assert device.updater.status.gen == 7
    record = device.updater.record
    assert (record.slot, record.length_bytes) == ("a", len(release(1).data))
    assert device.served[-1] == device.slots.read("a")


def test_an_attempt_counts_what_it_fetched_over_kills_and_tries(device: object, release: Callable) -> None:
    """What came before a kill is what is more of the part; the next attempt begins at 0, and finds the bundle here."""
    new = device.publish(release(1))
    part = part_of(device.slots.bundle(new.desired.sha256))
    part.parent.mkdir(parents=True)
    part.write_bytes(new.data[:10])  # of an attempt before
    device.offer(new.desired)
    _finish_one_job(device)
    assert (device.updater.record.phase, device.updater.status.fetched_bytes) == (UpdatePhase.DOWNLOADING, 0)
    for here in (30, 50):
        part.write_bytes(new.data[:here])
        device.restart()
    device.work()
    assert device.updater.status.fetched_bytes == 40 + len(new.data)
    device.restart()
    found = device.updater.status
    assert (found.phase, found.done_bytes) == (UpdatePhase.PROBATION, len(new.data))
    assert found.fetched_bytes == 40 + len(new.data)
    device.offer(device.publish(release(2)).desired)
    assert device.updater.status.fetched_bytes == 0


def test_an_attempt_that_an_older_agent_began_says_no_bytes(device: object, release: Callable) -> None:
    """Its record has none; 0 would be a claim."""
    device.install(release(1))
    device.updater._records.write(replace(device.updater.record, fetched_bytes=None))
    device.restart()
    assert device.updater.status.fetched_bytes is None


def test_a_newer_generation_ends_the_one_in_flight(device: object, release: Callable) -> None:
    """The result of the ended attempt is dropped."""
    first, second = device.publish(release(1)), device.publish(release(2))
    device.offer(first.desired)
    device.offer(second.desired)
    device.work()
    assert device.updater.record.desired.release == "m-2"
    assert device.phases == ["offered", *GOOD[:-1]]


def test_a_download_that_nobody_wants_any_more_is_cancelled_and_its_end_ignored(
    device: object, release: Callable
) -> None:
    """Also when the newer generation has to wait for its window, so that no job follows at once."""
    device.offer(device.publish(release(1)).desired)
    _finish_one_job(device)
    progress = device.updater._progress
    device.offer(replace(device.publish(release(2)).desired, not_before_ms=device.now_ms + 5000))
    assert progress.cancelled.is_set()
    device.blobs.clear()
    device.work()
    assert device.phases == ["offered", "downloading", "offered", "deferred"]


def test_a_job_ends_once(device: object, release: Callable) -> None:
    """A second result of the same job changes nothing."""
    device.offer(release(1).desired)
    token = device.updater._token
    for code in ("metadata_unreachable", "no_space"):
        device.updater.finished(token, Refusal(code, ""), device.now_ms, device.now_s)
    assert device.phases == ["offered", "metadata_unreachable"]


def test_a_newer_generation_ends_a_probation_by_rolling_back(device: object, release: Callable) -> None:
    """The trial is undone before the next one begins."""
    device.install(release(1))
    device.phases.clear()
    device.offer(device.publish(release(2)).desired)
    device.work()
    device.offer(device.publish(release(3)).desired)
    assert device.current() == "m-1"
    assert device.phases[-2:] == ["superseded", "offered"]


def test_a_commit_says_how_many_inputs_the_release_had_answered(device: object, release: Callable) -> None:
    """None before, and the answers of a committed release are not counted on once there were any."""
    assert device.updater.status.answered is None
    device.install(release(1))
    known = device.updater.status.answered
    assert known
    device.beat(n=10)
    assert (device.updater.answered(), device.updater.status.answered) == (False, known)


def test_waits_for_the_maintenance_window(device: object, release: Callable) -> None:
    """Outside the window the update is deferred, inside it continues."""
    new = device.publish(release(1))
    device.offer(replace(new.desired, not_before_ms=device.now_ms + 5000))
    device.pass_time(4)
    assert device.phases == ["offered", "deferred"]
    device.pass_time(2)
    device.work()
    assert device.phases[2:] == ["offered", *GOOD[1:-1]]


def test_a_passed_deadline_is_an_end(device: object, release: Callable) -> None:
    """Stuck is an outcome."""
    device.offer(replace(release(1).desired, deadline_ms=device.now_ms + 5000))
    device.pass_time(6)
    assert device.phases == ["offered", "deadline_passed"]


def test_a_verification_without_end_is_an_end(device: object, release: Callable) -> None:
    """A job that never answers is begun again twice, then refused as stuck."""
    device.offer(release(1).desired)
    for _ in range(2 * 3):
        device.pass_time(device.config.verify_deadline_s + 1)
    assert device.phases == ["offered", "stuck", "stuck"]
    assert device.updater.record.phase is UpdatePhase.REFUSED


def _finish_one_job(device: object) -> None:
    device.worker.work()
    job = device.done.get()
    device.updater.finished(job.token, job.result, device.now_ms, device.now_s)


@pytest.mark.parametrize(
    ("jobs", "phase", "limit_s"), [(0, UpdatePhase.OFFERED, 100.0), (2, UpdatePhase.VERIFYING, 200.0)]
)
def test_verification_and_probe_end_at_their_own_deadline(
    device_on: Callable, release: Callable, tmp_path: Path, jobs: int, phase: UpdatePhase, limit_s: float
) -> None:
    """A second before, the job may still answer; at its deadline the attempt is put off as stuck."""
    config = UpdateConfig(reserve_bytes=0, verify_deadline_s=100.0, probe_deadline_s=200.0)
    device = device_on(tmp_path, RealDisk(), config=config)
    device.pass_time(1000.0)
    device.offer(device.publish(release(1)).desired)
    for _ in range(jobs):
        _finish_one_job(device)
    device.pass_time(limit_s - 1)
    assert (device.updater.record.phase, device.updater.record.code) == (phase, "")
    device.pass_time(1)
    assert (device.updater.record.phase, device.updater.record.code) == (UpdatePhase.DEFERRED, "stuck")


def test_a_bundle_with_another_digest_is_removed_before_the_next_try(device: object, release: Callable) -> None:
    """Wrong bytes use no space while the device waits, and are never mistaken for a finished download."""
    new = device.publish(release(1))
    device.blobs[new.target.sha256] = new.data[:-1] + b"?"
    device.offer(new.desired)
    device.work()
    assert (device.updater.record.phase, device.updater.record.code) == (UpdatePhase.DEFERRED, "digest_mismatch")
    assert not device.slots.bundle(new.target.sha256).exists()


def test_a_whole_bundle_that_can_not_be_probed_now_stays(device: object, release: Callable) -> None:
    """The next try need not fetch it again."""
    new = device.publish(release(1))
    device.fail_probe("out_of_memory")
    device.offer(new.desired)
    device.work()
    assert (device.updater.record.phase, device.updater.record.code) == (UpdatePhase.DEFERRED, "out_of_memory")
    assert device.slots.bundle(new.target.sha256).read_bytes() == new.data


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (lambda health: health.crashed(), "child_crashed"),
        (lambda health: health.hung(), "child_hung"),
        (lambda health: health.beat(n=10, errors=30, p95_ms=1.0), "error_rate"),
    ],
)
def test_an_unhealthy_release_is_rolled_back(device: object, release: Callable, health: Callable, code: str) -> None:
    """The old release is current and served again, the reason has a code."""
    device.install(release(1))
    device.offer(device.publish(release(2)).desired)
    device.work()
    device.updater.health = health(device.updater.health)
    device.pass_time(1)
    assert (device.phases[-1], device.current(), device.served[-1].release) == (code, "m-1", "m-1")
    assert device.slots.previous() is None


@pytest.mark.parametrize(("allowed", "code"), [(0.4, "committed"), (0.39, "error_rate")])
def test_the_configuration_says_how_many_inferences_may_fail(
    device_on: Callable, release: Callable, tmp_path: Path, allowed: float, code: str
) -> None:
    """Both sides of the bound: 40 of 100 failed."""
    device = device_on(tmp_path, RealDisk(), config=UpdateConfig(reserve_bytes=0, max_error_ratio=allowed))
    new = device.publish(release(1)).desired
    device.offer(new)
    device.work()
    device.beat(n=60, errors=40)
    device.pass_time(new.probation_s)
    assert device.phases[-1] == code


def test_a_bad_first_release_leaves_none(device: object, release: Callable) -> None:
    """There is nothing to go back to: nothing is current, nothing is served."""
    device.offer(device.publish(release(1)).desired)
    device.work()
    device.updater.health = device.updater.health.crashed()
    device.pass_time(1)
    assert (device.current(), device.served[-1]) == ("", None)


def test_a_probe_that_fails_says_why(device: object, release: Callable) -> None:
    """The event has the probe's own code."""
    device.probe = ProbeResult(code="latency_over_budget", text="too slow")
    device.boot()
    device.offer(device.publish(release(1)).desired)
    device.work()
    assert device.updater.status.code == "latency_over_budget"


def test_too_many_starts_in_probation_roll_back(device: object, release: Callable) -> None:
    """A release that crashes the agent does not stay for ever."""
    device.install(release(1))
    device.offer(device.publish(release(2)).desired)
    device.work()
    for _ in range(device.config.max_boots + 1):
        device.restart()
    assert (device.updater.record.code, device.current()) == ("child_crashed", "m-1")


@pytest.mark.parametrize(("ended", "starts", "current"), [
    (LastEnd.MACHINE, 20, "m-2"), (LastEnd.MACHINE, 21, "m-1"), (LastEnd.IN_ORDER, 50, "m-2"),
])  # fmt: skip
def test_power_cuts_and_orders_to_end_are_not_the_releases_fault(
    device: object, release: Callable, ended: LastEnd, starts: int, current: str
) -> None:
    """The release may be the cause when a machine goes down, so these ends count too, with a much higher limit."""
    device.install(release(1))
    device.offer(device.publish(release(2)).desired)
    device.work()
    for _ in range(starts):
        device.restart(ended)
    assert device.current() == current


def test_a_healthy_end_of_probation_forgets_the_power_cuts(device: object, release: Callable) -> None:
    """The next release in the same slot starts from none."""
    device.install(release(1))
    device.offer(device.publish(release(2)).desired)
    device.work()
    device.restart(LastEnd.MACHINE)
    slot = device.updater.record.slot
    device.beat()
    device.pass_time(release(2).desired.probation_s)
    assert device.updater.slots.count_start(slot, machine=True) == 1


def test_the_first_offer_writes_a_floor_and_a_lost_one_is_not_made_up(device: object, release: Callable) -> None:
    """From then on a floor that is missing was lost, and nothing is installed without one."""
    one = device.publish(release(1))
    device.offer(one.desired)
    assert [path.name for path in sorted(device.state.glob("floor*.json"))] == ["floor.copy.json", "floor.json"]
    for path in (*device.state.glob("floor*.json"), *(device.state / "slots").glob("*")):
        path.write_bytes(b"damaged")
    device.offer(release(2).desired)
    device.work()
    assert device.updater.floor() is None
    assert device.updater.record.phase is not UpdatePhase.COMMITTED
