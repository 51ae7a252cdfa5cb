"""Slots A and B: small files that point at bundles; ``current`` holds the name of one and is replaced by one rename.

Decides how the choice of a release is stored, each file twice, and what can be recovered from damaged files; and how
the update's record is stored. Does not decide which release to choose. To empty a slot, an empty record is written: a
missing file means that it was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import (
    Condition,
    Twin,
    copy_of,
    read_record,
    sealed,
    unsealed,
    write_record,
    write_twice,
)
from edge_agent.updater.states import UpdateRecord
from wire.codec import Json, from_document, to_document
from wire.errors import MessageError, WireError
from wire.messages import MAX_GEN, Desired

NAMES = ("a", "b")
_ASIDE = "aside"  # beside the slots: what the slot of a release on probation held before
_MACHINE = "_machine_ends"  # after a slot's name in ``boots.json``
_NONE = "none"  # the content of ``current`` when no slot is current


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRelease:
    """The release that a slot points at. ``length_bytes`` of 0: written by an older agent without it."""

    release: str = ""
    sha256: str = ""
    security_floor: int = 0
    latency_budget_ms: float = 0.0
    length_bytes: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots, the security floor and the start counters, below the state directory."""

    state: Path
    disk: Disk

    def current_name(self) -> str:
        """Return ``a``, ``b``, or nothing when no release is installed."""
        name = self.pointer()[0]
        return name if self.read(name) is not None else ""

    def pointer(self) -> tuple[str, Condition]:
        """Return the slot that ``current`` names, "" for none, and the condition of the file and its copy."""
        path = self.state / "slots" / "current"
        found = [_name(path), _name(copy_of(path))]
        for name, condition in found:
            if condition is Condition.WHOLE:
                return name, condition
        lost = any(condition is Condition.DAMAGED for _, condition in found)
        return "", Condition.DAMAGED if lost else Condition.ABSENT

    def current(self) -> SlotRelease | None:
        """Return the current release."""
        return self.read(self.current_name())

    def previous(self) -> SlotRelease | None:
        """Return the release that is not current."""
        return self.read(other(self.current_name()))

    def read(self, name: str) -> SlotRelease | None:
        """Return the release of a slot, or None if it is empty or damaged."""
        return self.look(name)[0]

    def look(self, name: str) -> tuple[SlotRelease | None, Condition]:
        """Return the release of a slot, None for none, and the condition of its record."""
        if name not in {*NAMES, _ASIDE}:
            return None, Condition.ABSENT
        found = self._slot(name).read()
        if found.condition is not Condition.WHOLE:
            return None, found.condition
        try:
            release = from_document(SlotRelease, found.document)
        except MessageError:
            return None, Condition.DAMAGED
        return release if release.sha256 else None, Condition.WHOLE

    def fill(self, name: str, release: SlotRelease) -> None:
        """Point a slot at a release.

        Raises:
            OSError: If it can't be written.
        """
        self._slot(name).write(to_document(release))

    def empty(self, name: str) -> None:
        """Point a slot at nothing.

        Raises:
            OSError: If it can't be written.
        """
        if name in NAMES:
            self.fill(name, SlotRelease())

    def aside(self) -> SlotRelease | None:
        """Return the release that was set aside, None for none."""
        return self.read(_ASIDE)

    def set_aside(self, release: SlotRelease | None) -> None:
        """Keep ``release`` and its bundle beside the slots, in place of the one before; None: keep none.

        Raises:
            OSError: If it can't be written.
        """
        held, found = self.look(_ASIDE)
        if held != release or found is Condition.DAMAGED:
            self._slot(_ASIDE).write(to_document(release or SlotRelease()))

    def switch(self, name: str) -> None:
        """Make a slot current; "" for none.

        Raises:
            OSError: If it can't be written; the other one stays current then.
        """
        write_twice(self.disk, self.state / "slots" / "current", (name or _NONE).encode())

    def bundle(self, sha256: str) -> Path:
        """Return the path of a bundle, which may not exist."""
        return self.state / "blobs" / "sha256" / sha256

    def floor(self, unproved: str = "") -> int | None:
        """Return the highest security floor that was committed, or None if it is lost.

        If both of its files are lost, it follows from the slots: nothing below the floor was ever committed, so the
        committed release's own floor is the highest. ``unproved``: a slot that is not committed yet. On a device that
        never started an update it is 0; otherwise nothing is guessed.
        """
        files = self._floor()
        kept = [number for document in files.both() if (number := _whole(document.get("security_floor"))) is not None]
        if kept:
            return max(kept)
        committed = [found.security_floor for name in NAMES if name != unproved and (found := self.read(name))]
        if committed:
            return max(committed)
        # files that show that this device has had a release; the first agents wrote no floor of 0
        traces = [path for path in (self.state / "slots").glob("*") if path.name != "boots.json"]
        return 0 if files.read().condition is Condition.ABSENT and not traces else None

    def raise_floor(self, floor: int) -> None:
        """Store ``floor`` if it is higher than the stored one, or the first.

        Raises:
            OSError: If it can't be written.
        """
        files = self._floor()
        kept = [number for document in files.both() if (number := _whole(document.get("security_floor"))) is not None]
        if not kept or floor > max(kept) or files.read().hurt:
            files.write({"security_floor": max([floor, *kept])})

    def restore(self) -> tuple[str, ...]:
        """Restore records of which one of two files is damaged; return their names.

        Raises:
            OSError: If it can't be written.
        """
        hurt = [name for name in NAMES if self._slot(name).restore()]
        path = self.state / "slots" / "current"
        found = [_name(path), _name(copy_of(path))]
        if found[0] != found[1] and self.pointer()[1] is Condition.WHOLE:
            if not (found[0][1] is Condition.WHOLE and found[1][1] is Condition.ABSENT):  # else an older agent's
                hurt.append("current")
            self.switch(self.pointer()[0])
        files = self._floor()
        if files.read().hurt:
            hurt.append("floor")
        return tuple(hurt)

    def boots(self, name: str) -> int:
        """Return how often a slot was started without becoming healthy, except for crashes of the machine."""
        return self._boots().get(name, 0)

    def count_start(self, name: str, *, machine: bool = False) -> int:
        """Count a start of a slot that is not healthy yet; return how many there were.

        ``machine``: it follows a crash of the machine, not of the agent alone; these are counted separately.

        Raises:
            OSError: If it can't be written.
        """
        counts, key = self._boots(), name + _MACHINE if machine else name
        count = counts.get(key, 0) + 1
        if name in NAMES:
            write_record(self.disk, self.state / "slots" / "boots.json", {**counts, key: count})
        return count

    def clear_starts(self, name: str) -> None:
        """Forget all starts of a slot: it is healthy, or may try again.

        Raises:
            OSError: If it can't be written.
        """
        counts = self._boots()
        kept = {key: count for key, count in counts.items() if key not in {name, name + _MACHINE}}
        if kept != counts:
            write_record(self.disk, self.state / "slots" / "boots.json", kept)

    def reclaim(self, keep: frozenset[str]) -> int:
        """Remove each bundle and part except those of the slots, set aside, and of ``keep`` (digests); return how many.

        Nothing is removed while a slot's record is lost: its bundle is all that remains of it.

        Raises:
            OSError: If one can't be removed.
        """
        looks = [self.look(name) for name in (*NAMES, _ASIDE)]
        if any(condition is Condition.DAMAGED for _, condition in looks):
            return 0
        held = {found.sha256 for found, _ in looks if found is not None} | keep
        folder = self.state / "blobs" / "sha256"
        files = [path for path in folder.glob("*") if not path.is_dir()]
        gone = [path for path in files if path.name.removesuffix(".part") not in held]
        for path in gone:
            self.disk.remove(path)
        return len(gone)

    def _slot(self, name: str) -> Twin:
        return Twin(self.state / "slots" / f"{name}.json", self.disk)

    def _floor(self) -> Twin:
        return Twin(self.state / "floor.json", self.disk)

    def _boots(self) -> dict[str, int]:
        try:
            document = read_record(self.state / "slots" / "boots.json")
        except (OSError, MessageError):
            return {}
        return {key: value for key, value in document.items() if isinstance(value, int)}


def other(name: str) -> str:
    """Return the other slot; without a name, the first."""
    return "b" if name == "a" else "a"


def _name(path: Path) -> tuple[str, Condition]:
    try:
        text = path.read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        return "", Condition.ABSENT
    except OSError:
        return "", Condition.DAMAGED
    if text == _NONE:
        return "", Condition.WHOLE
    return (text, Condition.WHOLE) if text in NAMES else ("", Condition.DAMAGED)


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@dataclass(frozen=True, slots=True)
class Records:
    """The update's record: ``update.json``, and the generation again in ``gen.json``.

    If the record is damaged, the generation remains, so that no older ``desired`` is accepted afterwards. The last one
    is attempted again (the stored generation minus one is used), because its outcome is no longer known.
    """

    state: Path
    disk: Disk

    def read(self) -> tuple[UpdateRecord, str]:
        """Return the record, and a description of its damage, "" for none."""
        path, damage = self.state / "update.json", ""
        try:
            return from_document(UpdateRecord, unsealed(read_record(path))), ""
        except FileNotFoundError:  # none yet, or a power cut between the two writes
            pass
        except (OSError, WireError) as error:
            damage = f"Expected an update record in {path}, got: {error}: the last desired state is taken again"
        try:
            gen = read_record(self.state / "gen.json").get("gen")
        except (OSError, WireError):
            gen = 0
        known = gen if isinstance(gen, int) and 0 <= gen <= MAX_GEN else 0
        return UpdateRecord(desired=Desired(gen=max(0, known - 1))), damage

    def write(self, record: UpdateRecord) -> None:
        """Store the record.

        Raises:
            OSError: If it can't be written; the previous one is kept then.
        """
        write_record(self.disk, self.state / "update.json", sealed(to_document(record)))

    def write_gen(self, gen: int) -> None:
        """Store the generation of an attempt that begins.

        Raises:
            OSError: If it can't be written.
        """
        write_record(self.disk, self.state / "gen.json", {"gen": gen})
