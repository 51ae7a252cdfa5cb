"""What the command line asks of tracking: look first whether it can be had, log when the run is complete on the disk.

Decides which failures end a run before it starts (a missing package, a wrong address, a server that refuses us) and
which only leave it unlogged (a server that is away, a disk that can't be read).
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
    """One run's: hand ``progress`` to the run, so that its seconds are heard. Without a ``tracker`` nothing is kept."""

    tracker: Tracker | None
    progress: Timed
    experiment: str = ""

    def check(self) -> None:
        """Look whether a run could be logged; a server that does not answer now is only said.

        Raises:
            PluginError: If a package is missing.
            TrackingError: If a run never could be.
        """
        if self.tracker is None:
            return
        try:
            self.tracker.check()
        except TrackingUnreachableError as error:
            self.progress.say(f"not logged yet: {error}. The run goes on, and logging is tried again at its end")

    def keep(self, outcome: Outcome) -> CompressorError | None:
        """Log ``outcome`` and say where it is; return why it could not be logged, or None."""
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
    """Return the logbook of a run, looked at; ``asked`` is the address, empty for the environment's, None for none.

    Raises:
        PluginError: If a package is missing.
        TrackingError: If nothing could be logged there.
    """
    tracker = None if asked is None else tracker_at(asked, environment)
    book = Logbook(tracker, Timed(progress), environment.get(EXPERIMENT_VARIABLE, ""))
    book.check()
    return book
