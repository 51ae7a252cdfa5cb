"""Runs blocking jobs (verification, download, probe) beside the loop; results return through its queue."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class JobDone:
    """A job has ended; ``result`` is what it returned, or the exception it raised."""

    token: int
    result: object


@dataclass(frozen=True, slots=True)
class ThreadWorker:
    """One thread per job; ``put`` enqueues the result."""

    put: Callable[[JobDone], None]

    def run(self, token: int, job: Callable[[], object]) -> None:
        """Run ``job`` in the background."""
        try:
            threading.Thread(target=self._work, args=(token, job), name=f"job-{token}", daemon=True).start()
        except RuntimeError as error:  # no thread could be started: reported as a temporary failure
            self.put(JobDone(token, OSError(errno.EAGAIN, str(error))))

    def _work(self, token: int, job: Callable[[], object]) -> None:
        self.put(JobDone(token, outcome(job)))


@dataclass(slots=True)
class InlineWorker:
    """Keeps jobs until ``work`` runs them, in the caller's thread: for tests."""

    put: Callable[[JobDone], None]
    _jobs: list[tuple[int, Callable[[], object]]] = field(default_factory=list)

    def run(self, token: int, job: Callable[[], object]) -> None:
        """Keep ``job``."""
        self._jobs.append((token, job))

    def work(self) -> int:
        """Run the kept jobs; return how many."""
        jobs, self._jobs = self._jobs, []
        for token, job in jobs:
            self.put(JobDone(token, outcome(job)))
        return len(jobs)


def outcome(job: Callable[[], object]) -> object:
    """Return the result of ``job``, or the exception that it raises."""
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - a thread's outermost frame; the loop logs it with its stack
        return error
