"""Stores the update's record: ``update.json``, and the generation again in ``gen.json``.

If the record is damaged, the generation remains, so that no older ``desired`` is accepted afterwards. The last one
is attempted again (the stored generation minus one is used), because its outcome is no longer known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, sealed, unsealed, write_record
from edge_agent.updater.states import UpdateRecord
from wire.codec import from_document, to_document
from wire.errors import WireError
from wire.messages import MAX_GEN, Desired


@dataclass(frozen=True, slots=True)
class Records:
    """The two files below the state directory."""

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
        return UpdateRecord(desired=Desired(gen=max(0, self._gen() - 1))), damage

    def _gen(self) -> int:
        try:
            gen = read_record(self.state / "gen.json").get("gen")
        except (OSError, WireError):
            return 0
        return gen if isinstance(gen, int) and 0 <= gen <= MAX_GEN else 0

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
