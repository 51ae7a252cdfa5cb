"""Interface between a run and its tracker. Implementations: MLflow (``mlflow_tracker``), memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The logged data of one run.

    ``experiment``: the group of runs that it belongs to; ``name``: the release. ``parameters``: the recipe, one value
    per key. ``metrics``: finite numbers by name. ``tags``: verdicts, digests, lineage. ``note``: Markdown for people.
    ``artifacts``: files by their path in the run, with ``/`` between folders.
    """

    experiment: str
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    artifacts: Mapping[str, bytes] = field(default_factory=dict)


class Tracker(Protocol):
    """Stores records of runs."""

    def check(self) -> None:
        """Check that a run could be logged now; writes nothing.

        Raises:
            PluginError: If a package is missing.
            TrackingError: If it never can: the address is wrong, or denies access.
            TrackingUnreachableError: If it can't now, but may later.
        """

    def log(self, record: Record) -> str:
        """Log ``record`` as one finished run and return its location for people.

        Raises:
            PluginError: If a package is missing.
            TrackingError: If it was not logged completely; a partial run is marked as failed.
        """


@dataclass(slots=True)
class Recorded:
    """Keeps records in memory: for tests and for programs that show runs themselves."""

    records: list[Record] = field(default_factory=list)

    def check(self) -> None:
        """Succeed: memory is always available."""

    def log(self, record: Record) -> str:
        """Store ``record`` and return its number."""
        self.records.append(record)
        return f"memory:{len(self.records) - 1}"
