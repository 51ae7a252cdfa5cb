"""Tracking for the command line: check first that the tracker is usable, log once the run is complete on disk.

Decides which failures stop a run before it starts (a missing package, a wrong address, a server that denies access) and
which only leave it unlogged (a server that does not answer, a disk that can't be read).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from compressor.errors import CompressorError, TrackingError, TrackingUnreachableError
from compressor.progress import Progress
from compressor.run.pipeline import Outcome
from compressor.tracking.mlflow_tracker import EXPERIMENT_VARIABLE, tracker_at
from compressor.tracking.record import record_of
from compressor.tracking.timing import Timed
from compressor.tracking.tracker import Tracker
from wire.errors import WireError


@dataclass(frozen=True, slots=True)
class Logbook:
    """Logbook of a run: pass its ``progress`` to ``run_recipe`` to time stages. Without ``tracker`` it logs nothing."""

    tracker: Tracker | None
    progress: Timed
    experiment: str = ""

    def check(self) -> None:
        """Check whether a run could be logged; that a server does not answer now is only reported.

        Raises:
            PluginError: If a package is missing.
            TrackingError: If logging can never succeed.
        """
        if self.tracker is None:
            return
        try:
            self.tracker.check()
        except TrackingUnreachableError as error:
            self.progress.say(f"not logged yet: {error}. The run goes on, and logging is tried again at its end")

    def keep(self, outcome: Outcome) -> CompressorError | None:
        """Log ``outcome`` and report where; return the error if it could not be logged, or None."""
        if self.tracker is None:
            return None
        try:
            where = self.tracker.log(record_of(outcome, self.progress.seconds, self.experiment))
        except CompressorError as error:
            return error
        except (OSError, WireError) as error:
            return TrackingError(f"Expected to read what the run wrote, got: {error}")
        self.progress.say(f"logged: {where}")
        return None


def logbook(asked: str | None, progress: Progress, environment: Mapping[str, str] = os.environ) -> Logbook:
    """Return the checked logbook of a run; ``asked`` is the address, empty for the environment's, None for no tracker.

    Raises:
        PluginError: If a package is missing.
        TrackingError: If that address can't be used.
    """
    tracker = None if asked is None else tracker_at(asked, environment)
    book = Logbook(tracker, Timed(progress), environment.get(EXPERIMENT_VARIABLE, ""))
    book.check()
    return book
