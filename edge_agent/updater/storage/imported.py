"""Where a release that a person brought lies, ``import`` below the state directory, and how it gets among the bundles.

In it: ``tuf`` (the signed metadata that the agent verifies it by) and ``bundle``. ``stick`` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import Condition, condition, make_way
from edge_agent.updater.ports import FetchOrder, FetchProgress, Refusal, disk_refusal

FOLDER, BUNDLE = "import", "bundle"


@dataclass(frozen=True, slots=True)
class StagedFetcher:
    """Moves the staged bundle to where bundles are; ``folder`` is ``blobs/sha256``."""

    state: Path
    folder: Path
    disk: Disk

    def fetch(self, order: FetchOrder, progress: FetchProgress) -> Refusal | None:
        """Check the staged bundle's digest and move it into the blob folder; return None, or why it failed."""
        staged, target = self.state / FOLDER / BUNDLE, self.folder / order.sha256
        try:
            if condition(target, order.sha256) is not Condition.WHOLE:
                if condition(staged, order.sha256) is not Condition.WHOLE:
                    text = f"Expected the imported bundle {order.sha256[:12]}… in {staged}, got other bytes or none"
                    return Refusal("import_lost", f"{text}: import it again")
                make_way(target)
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.disk.move(staged, target)
        except OSError as error:
            return disk_refusal(error, f"Expected to write {target}, got: {error}")
        progress.done_bytes = order.length_bytes
        return None
