"""Slots, the floor and the files that are stored twice: what is read, removed and repaired."""

import json
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.device.record_file import Condition, Twin, copy_of
from edge_agent.telemetry.byte_meter import AirBytes
from edge_agent.updater.storage.slots import SlotRelease, Slots
from edge_agent.updater.verification import TargetVerdict

A, B = "a" * 64, "b" * 64


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    """Slot a has a release and is current."""
    found = Slots(tmp_path, RealDisk())
    found.fill("a", SlotRelease(release="m-1", sha256=A, security_floor=1, latency_budget_ms=20.0, length_bytes=9))
    found.switch("a")
    return found


def test_a_pointer_to_an_empty_slot_names_none(slots: Slots) -> None:
    """No release is installed there, whatever the pointer names."""
    assert slots.current_name() == "a"
    slots.switch("b")
    assert (slots.current_name(), slots.current()) == ("", None)


@pytest.mark.parametrize("name", ["", "c", "../update"])
def test_there_are_two_slots(slots: Slots, name: str) -> None:
    """A record that names another one names none, whatever file is there."""
    slots.fill(name, SlotRelease(release="m-9", sha256=B))
    assert slots.look(name) == (None, Condition.ABSENT)


def test_parts_of_what_is_kept_stay(slots: Slots) -> None:
    """A resumed download starts at its offset; unreferenced files are deleted, complete or partial."""
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
    """A power cut between the two writes, or an old file put back, lowers nothing."""
    slots.raise_floor(3)
    path = tmp_path / "floor.json"
    place = path if older == "file" else copy_of(path)
    before = place.read_bytes()
    slots.raise_floor(5)
    place.write_bytes(before)
    assert slots.floor() == 5


@pytest.mark.parametrize(("unproved", "floor"), [("", 4), ("b", 2), ("a", 4)])
def test_a_lost_floor_follows_from_the_committed_slots(slots: Slots, unproved: str, floor: int) -> None:
    """The highest of them; a release that is not committed yet proves nothing."""
    slots.fill("a", SlotRelease(release="m-1", sha256=A, security_floor=2))
    slots.fill("b", SlotRelease(release="m-2", sha256=B, security_floor=4))
    assert slots.floor(unproved) == floor


def test_nothing_is_guessed_where_a_release_has_been(slots: Slots) -> None:
    """On a device without any release the floor is 0; once its slots are lost, the floor is lost."""
    slots.empty("a")
    assert slots.floor() is None
    fresh = Slots(slots.state / "fresh", RealDisk())
    assert fresh.floor() == 0
    fresh.count_start("a")
    assert fresh.floor() == 0
    fresh.switch("a")
    assert fresh.floor() is None


@pytest.mark.parametrize("value", ["true", "-1", '"3"', "1.5", "null"])
def test_a_floor_that_is_no_whole_number_is_none(slots: Slots, value: str) -> None:
    """The slots are read instead, and the next floor overwrites it."""
    for path in (slots.state / "floor.json", slots.state / "floor.copy.json"):
        path.write_text(f'{{"security_floor": {value}}}')
    assert slots.floor() == 1
    slots.raise_floor(0)
    assert slots.floor() == 0


def test_nothing_is_removed_while_a_slot_is_lost(slots: Slots) -> None:
    """Its bundle is all that is left of it."""
    slots.bundle(B).parent.mkdir(parents=True)
    slots.bundle(B).write_bytes(b"x")
    for path in (slots.state / "slots" / "b.json", slots.state / "slots" / "b.copy.json"):
        path.write_bytes(b"damaged")
    assert slots.reclaim(frozenset()) == 0
    slots.empty("b")
    assert slots.reclaim(frozenset()) == 1


def test_starts_are_counted_by_slot_and_cause_and_forgotten_together(slots: Slots) -> None:
    """Ends of the machine are apart; a slot of no name is not written down."""
    assert [slots.count_start("a"), slots.count_start("a"), slots.count_start("b")] == [1, 2, 1]
    assert [slots.count_start("a", machine=True), slots.count_start("a", machine=True)] == [1, 2]
    assert (slots.count_start(""), slots.count_start("")) == (1, 1)
    assert (slots.boots("a"), slots.boots("b")) == (2, 1)
    slots.clear_starts("a")
    assert (slots.boots("a"), slots.boots("b"), slots.count_start("a", machine=True)) == (0, 1, 1)


def test_each_damaged_half_is_named_and_mended(slots: Slots) -> None:
    """A slot, the pointer and the floor; an older agent's pointer without a copy is not damage."""
    slots.raise_floor(3)
    folder = slots.state / "slots"
    assert slots.restore() == ()
    for path in (folder / "a.json", folder / "current", slots.state / "floor.copy.json"):
        path.write_bytes(b"damaged")
    assert slots.restore() == ("a", "current", "floor")
    copy_of(folder / "current").unlink()
    assert (slots.restore(), copy_of(folder / "current").exists()) == (("floor",), True)
    (folder / "current").unlink()
    assert (slots.restore(), slots.current_name()) == (("current", "floor"), "a")


@pytest.mark.parametrize(
    ("text", "copy", "name", "condition"),
    [
        (None, None, "", Condition.ABSENT), ("a", None, "a", Condition.WHOLE), (None, "b", "b", Condition.WHOLE),
        ("c", "b", "b", Condition.WHOLE), ("c", None, "", Condition.DAMAGED), ("none", "a", "", Condition.WHOLE),
        ("b\n", "a", "b", Condition.WHOLE),
    ],
)  # fmt: skip
def test_the_pointer_is_read_from_whichever_half_is_whole(
    tmp_path: Path, text: str | None, copy: str | None, name: str, condition: Condition
) -> None:
    """The file is preferred to its copy; "none" is a pointer too."""
    (tmp_path / "slots").mkdir()
    path = tmp_path / "slots" / "current"
    for place, content in ((path, text), (copy_of(path), copy)):
        if content is not None:
            place.write_text(content)
    assert Slots(tmp_path, RealDisk()).pointer() == (name, condition)


def test_a_record_without_its_file_is_hurt_and_one_without_its_copy_is_an_older_agents(tmp_path: Path) -> None:
    """The first agents wrote no copy, so a missing one is not damage."""
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
    assert not twin.restore()
    assert (twin.path.stat().st_mtime_ns, twin.path.stat().st_ino) == before
    copy_of(twin.path).unlink()
    assert twin.restore()
    assert not twin.restore()
    assert copy_of(twin.path).read_bytes() == twin.path.read_bytes()


def test_nothing_is_mended_where_nothing_is_whole(tmp_path: Path) -> None:
    """Two damaged files are not made one empty record."""
    twin = Twin(tmp_path / "one.json", RealDisk())
    for path in (twin.path, copy_of(twin.path)):
        path.write_bytes(b"no record")
    assert not twin.restore()
    assert twin.path.read_bytes() == b"no record"


def test_a_verdict_is_one_line_that_says_ok_or_why_not() -> None:
    """The parent accepts only ``ok: true``."""
    good = json.loads(TargetVerdict(ok=True, sha256=A, length_bytes=9).line())
    moved = AirBytes(sent=3, received=4)
    bad = json.loads(TargetVerdict(code="too_large", text="so", server_ms=5, moved=moved).line())
    assert (good["ok"], good["sha256"], good["length_bytes"]) == (True, A, 9)
    assert (bad.pop("sent_bytes"), bad.pop("received_bytes")) == (3, 4)
    assert bad == {"ok": False, "code": "too_large", "text": "so", "server_ms": 5}
