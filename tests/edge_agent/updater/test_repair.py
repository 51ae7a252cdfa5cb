"""The installation is checked, repaired and downloaded again; failures wait longer each time."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.device.record_file import copy_of
from edge_agent.updater.ports import Refusal
from edge_agent.updater.storage.repair import TOKEN, Repair
from wire.messages import UpdatePhase

PERIOD_S = 600.0


class Always(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, a: float, b: float) -> float:
        """Return ``b``."""
        return max(a, b)


@dataclass
class Scene:
    """A device with ``m-1`` below ``m-2``, and its repair."""

    device: Any
    told: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0
    served: str = ""

    def __post_init__(self) -> None:
        """Install nothing yet."""
        self.repair = Repair(
            updater=self.device.updater, period_s=PERIOD_S, report=lambda code, _, text: self.told.append((code, text)),
            served=lambda: self.served, request_desired=self.request_desired, chance=Always(),
        )  # fmt: skip

    def request_desired(self) -> None:
        """Count."""
        self.asked += 1

    def turn(self, now_s: float) -> int:
        """Turn, and work until nothing is left; return how many jobs there were."""
        self.repair.turn(now_s)
        jobs = 0
        while done := self.device.worker.work():
            jobs += done
            while not self.device.done.empty():
                job = self.device.done.get()
                assert job.token == TOKEN
                self.repair.finished(job.result, now_s)
        return jobs

    def bundle(self, name: str) -> Path:
        """Return the file of the bundle in slot ``name``."""
        slots = self.device.slots
        return slots.bundle(slots.read(name).sha256)


@pytest.fixture
def scene(device: Any, release: Callable) -> Scene:  # noqa: ANN401 - the conftest's class can't be imported
    """Slot a contains ``m-1``, slot b ``m-2``, which is current and committed."""
    for version in (1, 2):
        device.install(release(version))
    device.served.clear()
    return Scene(device)


def test_looks_once_a_period_and_when_it_is_told_to(scene: Scene) -> None:
    """Both sides of the period; intact files stay unchanged."""
    assert [scene.turn(now_s) for now_s in (0.0, 599.9, 600.0)] == [1, 0, 1]
    scene.repair.soon()
    assert scene.turn(600.1) == 1
    assert (scene.told, scene.device.served, scene.repair.code) == ([], [], "")


@pytest.mark.parametrize(("phase", "damaged"), [("committed", False), ("committed", True), ("downloading", False)])
def test_a_bundle_that_no_slot_needs_is_removed(scene: Scene, phase: str, damaged: bool) -> None:  # noqa: FBT001 - pytest's
    """If a power cut kept an update from it; not while what is installed is damaged, nor what an update works on."""
    left = scene.bundle("b").with_name("0" * 64)
    left.write_bytes(b"older, or a patch")
    if damaged:
        scene.bundle("b").write_bytes(b"damaged")
    updater = scene.device.updater
    updater.record = replace(updater.record, phase=UpdatePhase(phase))
    scene.repair.turn(0.0)
    scene.device.worker.work()
    scene.repair.finished(scene.device.done.get().result, 0.0)
    assert left.exists() == (damaged or phase == "downloading")


def test_one_look_at_a_time(scene: Scene) -> None:
    """The worker is not filled with looks that last."""
    scene.repair.turn(0.0)
    scene.repair.turn(PERIOD_S)
    assert scene.device.worker.work() == 1


@pytest.mark.parametrize("phase", [UpdatePhase.STAGED, UpdatePhase.PROBATION])
def test_stands_back_between_two_releases(scene: Scene, phase: UpdatePhase) -> None:
    """Neither slot is the right one then."""
    record = scene.device.updater.record
    scene.device.updater.record = replace(record, phase=phase)
    assert scene.turn(0.0) == 0
    scene.device.updater.record = record
    assert scene.turn(0.0) == 1


def test_a_damaged_bundle_is_fetched_and_the_other_slot_runs_meanwhile(scene: Scene) -> None:
    """Both are reported, and so is the end; then the committed release runs again."""
    scene.bundle("b").write_bytes(b"damaged")
    scene.device.slots.count_start("b")
    scene.device.slots.count_start("a")
    assert [scene.turn(0.0), scene.turn(0.1)] == [2, 1]
    assert [code for code, _ in scene.told] == ["bundle_damaged", "slot_chosen", "repaired", "slot_chosen"]
    assert scene.told[2][1].endswith("complete again after bundle_damaged")
    assert [found.release for found in scene.device.served] == ["m-1", "m-2"]
    assert (scene.device.current(), scene.repair.code, scene.repair.text) == ("m-2", "", "")
    assert (scene.device.slots.boots("b"), scene.device.slots.boots("a")) == (0, 1)
    assert scene.bundle("b").read_bytes() == scene.device.blobs[scene.device.slots.read("b").sha256]


def test_a_bundle_that_is_served_from_memory_keeps_serving(scene: Scene) -> None:
    """Nothing is switched, and the serving child is started again from the complete file."""
    scene.served = scene.device.slots.read("b").sha256
    scene.bundle("b").unlink()
    assert [scene.turn(0.0), scene.turn(0.1)] == [2, 1]
    assert [code for code, _ in scene.told] == ["bundle_lost", "repaired"]
    assert [found.release for found in scene.device.served] == ["m-2"]


def test_the_other_slots_bundle_is_fetched_quietly(scene: Scene) -> None:
    """No release runs it, so nothing is started for it."""
    scene.bundle("a").unlink()
    scene.turn(0.0)
    assert (scene.told, scene.device.served, scene.bundle("a").exists()) == ([], [], True)


def test_without_another_release_nothing_runs_until_it_is_fetched(device: Any, release: Callable) -> None:  # noqa: ANN401
    """A damaged model must not be started again and again."""
    device.install(release(1))
    device.served.clear()
    scene, kept = Scene(device), dict(device.blobs)
    scene.bundle("a").write_bytes(b"damaged")
    device.blobs.clear()
    scene.turn(0.0)
    assert (device.served, scene.repair.code) == ([None], "bundle_damaged")
    device.blobs |= kept
    scene.turn(PERIOD_S)
    assert [found and found.release for found in device.served] == [None, None, "m-1"]
    scene.turn(2 * PERIOD_S)
    assert len(device.served) == 3


def test_a_download_that_fails_is_told_once_and_waits_longer_each_time(scene: Scene) -> None:
    """Twice as long, from a second to a period; after a success it starts again from a second."""
    sha256 = scene.device.slots.read("b").sha256
    kept, scene.device.blobs[sha256] = scene.device.blobs[sha256], Refusal("http_503", "busy")
    scene.bundle("b").unlink()
    now_s, waits = 0.0, []
    for _ in range(12):
        scene.turn(now_s)
        waits.append(scene.repair._due_s - now_s)
        now_s = scene.repair._due_s
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0, 600.0]
    assert [text for code, text in scene.told if code == "repair_failed"] == ["[http_503] busy"]
    scene.device.blobs[sha256] = kept
    scene.turn(now_s)
    scene.device.blobs[sha256] = Refusal("http_404", "gone")
    scene.bundle("b").unlink()
    scene.turn(now_s + PERIOD_S)
    assert scene.repair._due_s == now_s + PERIOD_S + 2.0
    assert scene.told[-1] == ("repair_failed", "[http_404] gone")


def test_a_record_with_a_damaged_half_is_mended_and_told(scene: Scene) -> None:
    """By its name, once."""
    copy_of(scene.device.state / "slots" / "a.json").write_bytes(b"damaged")
    scene.turn(0.0)
    scene.turn(PERIOD_S)
    assert scene.told == [("record_mended", "slots: one of the two files of a was damaged or gone")]


def test_when_no_slot_can_be_read_the_server_is_asked_each_time_and_told_once(scene: Scene) -> None:
    """Only the server knows which release should run here."""
    scene.device.updater.record = replace(scene.device.updater.record, phase=UpdatePhase.IDLE)
    for name in ("a", "b"):
        for path in (scene.device.state / "slots" / f"{name}.json", scene.device.state / "slots" / f"{name}.copy.json"):
            path.write_bytes(b"damaged")
    scene.turn(0.0)
    scene.turn(PERIOD_S)
    assert (scene.asked, [code for code, _ in scene.told]) == (2, ["release_lost"])


def test_what_changed_since_the_look_is_looked_at_again(scene: Scene) -> None:
    """A plan for another record or another slot is not acted on."""
    scene.bundle("b").write_bytes(b"damaged")
    scene.repair.turn(0.0)
    scene.device.worker.work()
    result, record = scene.device.done.get().result, scene.device.updater.record
    scene.device.updater.record = replace(record, text="other")
    scene.repair.finished(result, 0.0)
    scene.device.updater.record = record
    scene.device.slots.switch("a")
    scene.repair.finished(result, 0.0)
    assert (scene.told, scene.device.served) == ([], [])
    scene.turn(0.1)
    assert scene.told[0][0] == "bundle_damaged"


def test_a_look_that_fails_is_taken_again_in_ten_seconds(scene: Scene) -> None:
    """For example, a disk that can't be read at the moment."""
    scene.repair.turn(0.0)
    scene.device.worker.work()
    scene.device.done.get()
    scene.repair.finished(OSError(5, "Input/output error"), 1.0)
    assert [scene.turn(now_s) for now_s in (10.9, 11.0)] == [0, 1]


def test_an_update_that_downloads_the_same_bundle_is_not_disturbed(scene: Scene, release: Callable) -> None:
    """Both would write one file: repair's download is cancelled, and none is begun."""
    scene.bundle("b").unlink()
    scene.repair.turn(0.0)
    scene.device.worker.work()
    scene.repair.finished(scene.device.done.get().result, 0.0)
    updater, same = scene.device.updater, release(2).desired
    updater.record = replace(updater.record, phase=UpdatePhase.DOWNLOADING, desired=release(3).desired)
    scene.repair.turn(0.0)
    assert not scene.repair._progress.cancelled.is_set()
    updater.record = replace(updater.record, desired=same)
    scene.repair.turn(0.0)
    assert scene.repair._progress.cancelled.is_set()
    scene.turn(0.0)
    scene.bundle("b").unlink()
    assert scene.turn(PERIOD_S) == 1


def test_an_older_agents_slot_gets_its_length(scene: Scene) -> None:
    """From the complete bundle, or from the record of the update; without a length it could not be fetched again."""
    slots = scene.device.slots
    for name in ("a", "b"):
        slots.fill(name, replace(slots.read(name), length_bytes=0))
    sizes = [scene.bundle(name).stat().st_size for name in ("a", "b")]
    scene.bundle("b").unlink()
    scene.turn(0.0)
    assert [slots.read(name).length_bytes for name in ("a", "b")] == sizes


def test_a_release_that_failed_all_its_starts_gives_way(scene: Scene) -> None:
    """Both sides of the number of starts."""
    limit = scene.device.config.max_boots
    for starts, chosen in ((limit, "m-2"), (limit + 1, "m-1")):
        while scene.device.slots.boots("b") < starts:
            scene.device.slots.count_start("b")
        scene.repair.soon()
        scene.turn(float(starts))
        assert scene.device.current() == chosen
    assert [code for code, _ in scene.told] == ["slot_failed", "slot_chosen"]
