"""The seam between a run and where it is logged. Implementations: MLflow (``mlflow_tracker``), memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """All that is logged of one run.

    ``experiment``: the group of runs it is compared in; ``name``: the release. ``parameters``: the recipe, one value a
    key. ``metrics``: finite numbers by name. ``tags``: verdicts, digests, lineage. ``note``: Markdown for people.
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
    """Where runs are logged."""

    def check(self) -> None:
        """Do nothing if a run could be logged now; nothing is written.

        Raises:
            PluginError: If a package is missing.
            TrackingError: If it never can: a wrong address, or one that refuses us.
            TrackingUnreachableError: If it can't now, but may later.
        """

    def log(self, record: Record) -> str:
        """Log ``record`` as one finished run and return where a person finds it.

        Raises:
            PluginError: If a package is missing.
            TrackingError: If it was not logged as a whole; what arrived is marked as failed.
        """


@dataclass(slots=True)
class Recorded:
    """Keeps records in memory: for tests and for programs that show runs themselves."""

    records: list[Record] = field(default_factory=list)

    def check(self) -> None:
        """Do nothing: memory is always there."""

    def log(self, record: Record) -> str:
        """Keep ``record`` and return its number."""
        self.records.append(record)
        return f"memory:{len(self.records) - 1}"
