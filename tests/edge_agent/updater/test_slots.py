"""Slots, the floor and the files that are kept twice: what is read, what is removed, what is mended."""

import json
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.updater.storage.slots import SlotRelease, Slots
from edge_agent.updater.storage.twin import Twin, copy_of
from edge_agent.updater.verification import TargetVerdict

A, B = "a" * 64, "b" * 64


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    """Slot a holds a release and is current."""
    found = Slots(tmp_path, RealDisk())
    found.fill("a", SlotRelease(release="m-1", sha256=A, security_floor=1, latency_budget_ms=20.0, length_bytes=9))
    found.switch("a")
    return found


def test_a_pointer_to_an_empty_slot_names_none(slots: Slots) -> None:
    """Nothing is installed there, whatever the pointer says."""
    assert slots.current_name() == "a"
    slots.switch("b")
    assert (slots.current_name(), slots.current()) == ("", None)


def test_parts_of_what_is_kept_stay(slots: Slots) -> None:
    """A download that goes on begins where it was; what nobody holds goes, whole or in part."""
    for name in (A, f"{B}.part", "c" * 64, f"{'d' * 64}.part"):
        slots.bundle(name).parent.mkdir(parents=True, exist_ok=True)
        slots.bundle(name).write_bytes(b"x")
    assert slots.reclaim(frozenset({B})) == 2
    assert sorted(path.name for path in slots.bundle(A).parent.iterdir()) == [A, f"{B}.part"]


@pytest.mark.parametrize(("floor", "kept"), [(2, 3), (3, 3), (4, 4)])
def test_the_floor_only_rises(slots: Slots, floor: int, kept: int) -> None:
    """A lower one changes nothing."""
    slots.raise_floor(3)
    slots.raise_floor(floor)
    assert slots.floor() == kept


@pytest.mark.parametrize("older", ["file", "copy"])
def test_of_two_floors_the_higher_one_holds(slots: Slots, tmp_path: Path, older: str) -> None:
    """A power cut between the two writes, or somebody who puts an old file back, lowers nothing."""
    slots.raise_floor(3)
    path = tmp_path / "floor.json"
    place = path if older == "file" else copy_of(path)
    before = place.read_bytes()
    slots.raise_floor(5)
    place.write_bytes(before)
    assert slots.floor() == 5


def test_a_record_without_its_file_is_hurt_and_one_without_its_copy_is_an_older_agents(tmp_path: Path) -> None:
    """The first agents kept no copy: that one is missing is no damage."""
    twin = Twin(tmp_path / "one.json", RealDisk())
    twin.path.write_text('{"n": 1}')  # without a digest, as they wrote it
    assert not twin.read().hurt
    twin.write({"n": 1})
    twin.path.unlink()
    assert twin.read().hurt


def test_a_record_that_is_whole_twice_is_not_written_again(tmp_path: Path) -> None:
    """Flash wears; one of two that is lost is written again, once."""
    twin = Twin(tmp_path / "one.json", RealDisk())
    twin.write({"n": 1})
    before = twin.path.stat().st_mtime_ns, twin.path.stat().st_ino
    assert not twin.mend()
    assert (twin.path.stat().st_mtime_ns, twin.path.stat().st_ino) == before
    copy_of(twin.path).unlink()
    assert twin.mend()
    assert not twin.mend()
    assert copy_of(twin.path).read_bytes() == twin.path.read_bytes()


def test_nothing_is_mended_where_nothing_is_whole(tmp_path: Path) -> None:
    """Two damaged files are not made one empty record."""
    twin = Twin(tmp_path / "one.json", RealDisk())
    for path in (twin.path, copy_of(twin.path)):
        path.write_bytes(b"no record")
    assert not twin.mend()
    assert twin.path.read_bytes() == b"no record"


def test_a_verdict_is_one_line_that_says_ok_or_why_not() -> None:
    """The parent believes nothing but ``ok: true``."""
    good = json.loads(TargetVerdict(ok=True, sha256=A, length_bytes=9).line())
    bad = json.loads(TargetVerdict(code="too_large", text="so", server_ms=5).line())
    assert (good["ok"], good["sha256"], good["length_bytes"]) == (True, A, 9)
    assert bad == {"ok": False, "code": "too_large", "text": "so", "server_ms": 5}
